"""The order of a whole run: what takes long comes first, and what mostly waits beside what takes the processors.

`tests/data/seconds.json` says how long the longest tests took; all others are taken to be short. It decides nothing but
the order, so it need not be right. `BALEEN_UPDATE_SECONDS=1 make test` writes it anew.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeVar

SECONDS_FILE: Final = Path(__file__).parents[1] / "data" / "seconds.json"
LONG_SECONDS: Final = 2.0
_SHORT_SECONDS: Final = {True: 0.5, False: 0.1}
"""What a test is taken for that is not in the file, by whether it waits."""

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of a test beforehand.

    `first` is for what takes as long as all else does beside it; `late` for what needs something that is being made;
    `waits` for what starts servers and waits for them, and leaves the processors to others meanwhile.
    """

    waits: bool
    late: bool = False
    first: bool = False


def ordered(
    kinds: Mapping[Name, Kind], seconds: Mapping[Name, float], groups: Mapping[Name, str] | None = None
) -> Sequence[Name]:
    """Return the tests in the order in which they should be begun; `seconds` has those that are known to be long.

    Tests of one group are run by one process, one after the other: such a test is as long as all of them.
    """
    groups = groups or {}
    totals: Counter[str] = Counter()
    for name, group in groups.items():
        totals[group] += seconds.get(name, 0.0)
    lengths = {**seconds, **{name: totals[group] for name, group in groups.items()}}
    parts = [
        [name for name, kind in kinds.items() if kind.first],
        *([name for name, kind in kinds.items() if not kind.first and kind.late is late] for late in (False, True)),
    ]
    return [name for part in parts for name in _mixed(part, kinds, seconds, lengths)]


def _mixed(
    names: Iterable[Name], kinds: Mapping[Name, Kind], seconds: Mapping[Name, float], lengths: Mapping[Name, float]
) -> Iterable[Name]:
    """Mix what waits and what does not, so that both are done at the same time; the longest of both come first."""
    every = list(names)
    share_before: dict[Name, float] = {}
    for waits in (True, False):
        same = [name for name in every if kinds[name].waits is waits]
        # A stable sort: what is short keeps its place, for tests of one file may share what was made for them.
        same.sort(key=lambda name: -lengths.get(name, 0.0))
        *begun, whole = accumulate((seconds.get(name, _SHORT_SECONDS[waits]) for name in same), initial=0.0)
        share_before |= {name: before / whole for name, before in zip(same, begun, strict=True)}
    return sorted(share_before, key=share_before.__getitem__)


def read_seconds(path: Path = SECONDS_FILE) -> Mapping[str, float]:
    """Return how long the longest tests took, by their ids."""
    known: Mapping[str, float] = json.loads(path.read_text())
    return known


def write_seconds(seconds: Mapping[str, float], path: Path = SECONDS_FILE) -> None:
    """Keep those that took long."""
    long = {name: round(each, 1) for name, each in sorted(seconds.items()) if each >= LONG_SECONDS}
    path.write_text(json.dumps(long, indent=1, ensure_ascii=False) + "\n")
