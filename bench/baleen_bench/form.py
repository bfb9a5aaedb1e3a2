"""The form of every benchmark: first the peer against itself, then both in turns, a verdict no firmer than the noise.

Noise is relative: the largest deviation from 1 of the peer's figure over the peer's own figure a moment later.
"""

import json
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from baleen_bench.children import BENCH
from baleen_bench.load import OVERLOAD, Load, Side
from baleen_bench.machine import Machine

S = TypeVar("S")
T = TypeVar("T")
Verdict = Literal["met", "missed", "undecided", "published"]
RESULTS: Final = BENCH / "results"
_NOT_MEASURED: Final = (":!bench/results", ":!docs", ":!README.md")
"""What results change themselves, and what cannot change them."""
_GOAL: Final = re.compile(r"(>=|<=|>|<) (\d+(?:\.\d+)?)")


class CannotMeasure(Exception):
    """This machine cannot run a script; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and how often is measured; `quick` only shows that a script runs, and its figures mean nothing."""

    seconds: float
    repetitions: int
    noise_pairs: int
    step_seconds: float
    calibration_seconds: float
    quick: bool = False


FULL: Final = Effort(seconds=2.5, repetitions=5, noise_pairs=3, step_seconds=1.0, calibration_seconds=20.0)
QUICK: Final = Effort(seconds=0.2, repetitions=1, noise_pairs=1, step_seconds=0.2, calibration_seconds=0.4, quick=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a figure is, in words, and what it should be, such as `>= 0.4`; None where it is only published."""

    what: str
    goal: str | None = None


Aims = Mapping[str, Aim]
"""The aims of a script, by the ids of its figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One published number: the median of the repetitions, with the least and the most of them as its spread.

    `noise` is None where there was nothing to compare; `stand_in` names the stand-in that the figure was measured with.
    """

    id: str
    value: float
    unit: str
    goal: str | None
    spread: tuple[float, float]
    noise: float | None
    verdict: Verdict
    stand_in: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        values: Sequence[float],
        unit: str,
        *,
        aims: Aims,
        noise: float | None = None,
        stand_in: str | None = None,
    ) -> Self:
        """Make a figure of its repetitions, and judge it by its aim."""
        goal = aims[name].goal
        value = significant(statistics.median(values))
        noise = None if noise is None else round(noise, 3)
        return cls(
            id=name,
            value=value,
            unit=unit,
            goal=goal,
            spread=(significant(min(values)), significant(max(values))),
            noise=noise,
            verdict=judge(value, goal, noise),
            stand_in=stand_in,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a script measured: its figures, and everything that they were made from.

    `orphans_cpu_seconds` is the processor time of processes that were its own and that nobody waited for.
    """

    figures: tuple[Figure, ...]
    raw: dict[str, Any]
    orphans_cpu_seconds: float = 0.0


def judge(value: float, goal: str | None, noise: float | None) -> Verdict:
    """Compare a value with its goal: within the noise of it, nothing is decided; without a goal, it is published.

    Raises:
        ValueError: the goal is not a comparison and a number, such as `>= 0.4`.
    """
    if goal is None:
        return "published"
    if (match := _GOAL.fullmatch(goal)) is None:
        raise ValueError(f"the goal {goal!r} must be one of >=, <=, > or <, a space and a number")
    limit = float(match[2])
    if noise is None or abs(value - limit) <= noise * value:
        return "undecided"
    return "met" if (value > limit) == (match[1] in (">=", ">")) else "missed"


def significant(value: float) -> float:
    """Keep three digits, and no more than that before the point either: the rest is noise."""
    return float(f"{value:.3g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Capacities of a subject and its peer, measured in turns: one number of each a repetition."""

    subject: tuple[float, ...]
    peer: tuple[float, ...]
    noise: float
    raw: dict[str, Any]

    @property
    def ratios(self) -> list[float]:
        """Subject over peer, for each repetition."""
        return [subject / peer for subject, peer in zip(self.subject, self.peer, strict=True)]


def compare(subject: Side, peer: Side, effort: Effort) -> Comparison:
    """Measure what each answers a second when more is offered: peer against peer, then subject and peer in turns."""
    return compare_all(subject, [peer], effort)[peer.name]


def compare_all(subject: Side, peers: Sequence[Side], effort: Effort) -> dict[str, Comparison]:
    """Compare the same subject with several peers, all of them in turns; by the peers' names."""
    rates: dict[str, float] = {}
    calibrations: dict[str, Any] = {}
    for side in (*peers, subject):
        found, how = side.calibrate(step_seconds=effort.step_seconds, max_seconds=effort.calibration_seconds)
        rates[side.name], calibrations[side.name] = max(1.0, found) * OVERLOAD, how

    def measure(side: Side, seed: int) -> Load:
        return side.offer(rate=rates[side.name], seconds=effort.seconds, seed=seed)

    pairs: dict[str, list[tuple[Load, Load]]] = {peer.name: [] for peer in peers}
    for seed in range(effort.noise_pairs):
        for peer in peers:
            pairs[peer.name].append((measure(peer, 2 * seed), measure(peer, 2 * seed + 1)))
    loads = in_turns({side.name: side for side in (*peers, subject)}, effort.repetitions, measure)
    return {
        peer.name: Comparison(
            subject=tuple(load.achieved_per_second for load in loads[subject.name]),
            peer=tuple(load.achieved_per_second for load in loads[peer.name]),
            noise=noise_of((one.achieved_per_second, other.achieved_per_second) for one, other in pairs[peer.name]),
            raw={
                "calibration": {side.name: calibrations[side.name] for side in (peer, subject)},
                "peer_against_itself": [[asdict(one), asdict(other)] for one, other in pairs[peer.name]],
                **{side.name: [asdict(load) for load in loads[side.name]] for side in (peer, subject)},
            },
        )
        for peer in peers
    }


def in_turns(sides: Mapping[str, S], repetitions: int, measure: Callable[[S, int], T]) -> dict[str, list[T]]:
    """Measure sides one after the other, so many times, with a seed for each time; by the sides' names."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for repetition in range(repetitions):
        # The order changes, so that whoever comes second has the advantage, or the harm, of it half of the time.
        for name in sides if repetition % 2 == 0 else reversed(tuple(sides)):
            found[name].append(measure(sides[name], 100 + repetition))
    return found


def half_load(side: Side, effort: Effort, *, times: int) -> Iterator[Load]:
    """Offer half of what a side was found to take, so many times; other things may be measured in between."""
    capacity, _ = side.calibrate(step_seconds=effort.step_seconds, max_seconds=effort.calibration_seconds)
    for seed in range(times):
        yield side.offer(rate=max(1.0, capacity / 2), seconds=effort.seconds, seed=100 + seed)


def noise_of(pairs: Iterable[tuple[float | None, float | None]]) -> float:
    """Return the largest relative deviation within pairs of the same measurement; 1 when one of them was nothing."""
    return max(abs(one / other - 1) if one and other else 1.0 for one, other in pairs)


def result(name: str, outcome: Outcome, machine: Machine) -> dict[str, Any]:
    """Put a result into the form in which it is kept and published."""
    figures = [asdict(figure) for figure in outcome.figures]
    for figure in figures:
        if figure["stand_in"] is None:
            del figure["stand_in"]
    return {
        "script": name,
        "commit": commit(),
        "machine": asdict(machine),
        "date": datetime.now(UTC).date().isoformat(),
        "figures": figures,
        "raw": outcome.raw,
    }


def write_result(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Keep a result, figures one a line and raw data compact."""
    path = folder / f"{result['script']}.json"
    figures = ",\n  ".join(json.dumps(figure) for figure in result["figures"])
    head = {key: value for key, value in result.items() if key not in ("figures", "raw")}
    text = json.dumps(head)[:-1] + f',\n "figures": [\n  {figures}\n ],\n "raw": {json.dumps(result["raw"])}}}\n'
    json.loads(text)
    folder.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def commit() -> str:
    """Return the commit that was measured; `+` says that files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD").strip()
        return head + ("+" if _git("status", "--porcelain", "--", ".", *_NOT_MEASURED).strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=BENCH.parent, check=True, capture_output=True, text=True).stdout
