"""Which replica of a model is so much worse than the others that it is better left alone for a while.

After Envoy's outlier detection (success rate, failure percentage, ejection times that grow, a share that is never
ejected), with a test that works for two or three replicas, where a standard deviation says nothing: a replica is held
against all others together. That a slow one is to be found too, see Huang et al., "Gray Failure: The Achilles' Heel
of Cloud-Scale Systems" (HotOS 2017). A breaker opens for what fails; this is for what merely fails more than others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from baleen_sidecar.flow.recent import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierRules:
    """When a replica is left alone, and for how long."""

    window_seconds: float = 30.0
    calls: int = 20
    """Both the replica and the others must have answered so many within the window to be compared."""
    failure_percent: int = 10
    """Fewer failures than this are never a reason."""
    times_worse: float = 3.0
    """How many times as often it must fail, or as long it must take."""
    slow_seconds: float = 0.05
    """Being slower by less than this is never a reason."""
    first_seconds: float = 5.0
    """How long the first time lasts; each further one is longer by as much."""
    highest_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """The replica's place among the others, and what is worse with it, in words."""

    index: int
    why: str


def may_eject(replicas: int, away: int) -> bool:
    """Say whether one more may be left alone: at most half of them, one of two, and never the last."""
    return away + 1 <= replicas // 2


def find_outlier(tallies: Sequence[Tally], away: Sequence[bool], rules: OutlierRules) -> Outlier | None:
    """Return the worst replica that should be left alone from now on; `away` says which are not asked already."""
    if not may_eject(len(tallies), sum(away)):
        return None
    worst: tuple[float, Outlier] | None = None
    for index, tally in enumerate(tallies):
        if away[index]:
            continue
        others = reduce(
            Tally.__add__, (each for at, each in enumerate(tallies) if at != index and not away[at]), Tally()
        )
        found = _compare(index, tally, others, rules)
        if found is not None and (worst is None or found[0] > worst[0]):
            worst = found
    return worst and worst[1]


def eject_seconds(times: int, rules: OutlierRules) -> float:
    """Return how long a replica is left alone for the time number `times`, from 1 on."""
    return min(rules.highest_seconds, rules.first_seconds * times)


def _compare(index: int, tally: Tally, others: Tally, rules: OutlierRules) -> tuple[float, Outlier] | None:
    if tally.calls < rules.calls or others.calls < rules.calls:
        return None
    rate, usual = tally.failures / tally.calls, others.failures / others.calls
    if rate * 100 >= rules.failure_percent and rate >= rules.times_worse * usual:
        why = f"{tally.failures} of its {tally.calls} calls failed, and {others.failures} of {others.calls} elsewhere"
        return 1 + rate, Outlier(index=index, why=why)
    seconds, normal = tally.mean_seconds, others.mean_seconds
    if normal and seconds - normal >= rules.slow_seconds and seconds >= rules.times_worse * normal:
        why = f"its calls take {seconds:.3g} s, and {normal:.3g} s elsewhere"
        return 1 - normal / seconds, Outlier(index=index, why=why)
    return None
