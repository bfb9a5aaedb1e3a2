"""Simulated traffic of rollouts, in the groups by which decisions are counted: who decides how much, and who differs.

Authors' decisions come at random, each author's at its own rate, so those of a group are a Poisson process, too; only
how many came between two looks is drawn. An author differs from others in how the candidate judges it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baleen_core.analysis.counts import GROUPS

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
FLIPS: Final = 0.01
"""Of all decisions, those that only stable blocks; as many only the candidate, without an increase."""
_CHUNK: Final = 250
"""Rollouts at once: some 100 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Parts of the traffic by author, largest first; none where each decision is by an author of its own.

    `spread` is the standard deviation, over authors, of the change that the candidate makes to an author's block rate.
    """

    parts: tuple[float, ...]
    spread: float


def _zipf(authors: int, exponent: float) -> Floats:
    parts = np.arange(1, authors + 1) ** -exponent
    return np.asarray(parts / parts.sum())


def _crowd(top: float) -> tuple[float, ...]:
    """Return 3,000 authors, of whom one has the part `top`, the others by Zipf's law."""
    others = _zipf(3000, 0.8)[1:]
    return (top, *(others / others.sum() * (1 - top)))


STREAMS: Final[Mapping[str, Stream]] = MappingProxyType(
    {"independent": Stream(parts=(), spread=0.0)}
    | {
        f"{name}_{per_mille}": Stream(parts=parts, spread=per_mille / 1000)
        for name, parts in (
            ("zipf_5", _crowd(0.05)),
            ("zipf_50", _crowd(0.5)),
            ("tenants_40", tuple(_zipf(40, 0.5))),
        )
        for per_mille in (5, 20)
    }
)
"""By name; the number at its end is the spread in per mille."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """What was counted at each look since the start, shapes `(rollouts, looks, groups)`: decisions, gained and lost.

    `gained` are those that only the candidate blocks, `lost` those that only stable blocks.
    """

    decisions: Counts
    gained: Counts
    lost: Counts


def simulate(
    stream: Stream, *, rollouts: int, looks: int, decisions: int, increase: float, seed: int
) -> Iterator[Rollouts]:
    """Yield rollouts in chunks; `decisions` come between two looks, on average, and block rates rise by `increase`."""
    for chunk, first in enumerate(range(0, rollouts, _CHUNK)):
        chance = np.random.default_rng((seed, chunk))
        size = min(_CHUNK, rollouts - first)
        traffic, gains, losses = (decisions * rate for rate in _rates(stream, size, increase, chance))

        def counted(rate: Floats, size: int = size, chance: np.random.Generator = chance) -> Counts:
            return np.cumsum(chance.poisson(rate[:, None, :], (size, looks, GROUPS)), axis=1)

        gained, lost = counted(gains), counted(losses)
        yield Rollouts(decisions=counted(traffic - gains - losses) + gained + lost, gained=gained, lost=lost)


def _rates(
    stream: Stream, rollouts: int, increase: float, chance: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Draw who is in which group and how the candidate judges whom: parts of all decisions, `(rollouts, groups)`."""
    if not stream.parts:
        even = np.full((rollouts, GROUPS), 1 / GROUPS)
        return even, even * (FLIPS + increase), even * FLIPS
    parts = np.broadcast_to(np.array(stream.parts), (rollouts, len(stream.parts)))
    change = np.clip(increase + stream.spread * chance.standard_normal(parts.shape), -0.4, 0.4)
    place = chance.integers(0, GROUPS, parts.shape) + np.arange(rollouts)[:, None] * GROUPS

    def by_group(values: Floats) -> Floats:
        sums = np.bincount(place.ravel(), weights=values.ravel(), minlength=rollouts * GROUPS)
        return np.asarray(sums.reshape(rollouts, GROUPS), dtype=np.float64)

    gains, losses = FLIPS + np.maximum(change, 0), FLIPS + np.maximum(-change, 0)
    return by_group(parts), by_group(parts * gains), by_group(parts * losses)
