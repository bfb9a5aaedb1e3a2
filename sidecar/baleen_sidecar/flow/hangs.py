"""Whether a server hangs, found out before the time budget of its calls is over.

A call that takes many times as long as such calls do makes one suspicious, as in accrual failure detectors
(Hayashibara, Defago, Yared, Katayama: "The phi accrual failure detector", SRDS 2004), where what is usual is learnt and
no fixed time is set. Suspicion alone opens no breaker: it has golden questions asked. Only if these have no answer
either, and nobody had any meanwhile, the server hangs; one that says of itself that it is there is given longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from baleen_core.percentiles import percentile_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HangRules:
    """When the silence of a server that has calls to answer is suspicious."""

    times: float = 8.0
    """How many times as long as is usual it must be."""
    percent: int = 95
    """Usual is what so many percent of the last calls did not exceed."""
    calls: int = 8
    """With fewer calls to compare with, none is."""
    least_seconds: float = 1.0
    """Shorter than this it never is."""
    living_times: float = 4.0
    """How many times as long as is suspicious a server may be silent that says that it has the model loaded."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered: its size (1 or more, of any unit), and after how many seconds."""

    size: int
    seconds: float


def suspicious_seconds(answered: Sequence[Answered], size: int, rules: HangRules) -> float | None:
    """Return for how long a server may be silent that has a call of this size to answer; None: for any time.

    Twice the work takes at most twice as long: a call that is larger than all before is given as much more time.
    """
    if len(answered) < rules.calls:
        return None
    usual = percentile_of((each.seconds * max(1.0, size / each.size) for each in answered), rules.percent)
    return max(rules.least_seconds, rules.times * usual)


def is_hung(silent_seconds: float, suspicious: float | None, *, is_living: bool, rules: HangRules) -> bool:
    """Say whether a server hangs that gave no golden answers either; `is_living`: it says that it has the model."""
    if suspicious is None:
        return False
    return silent_seconds >= suspicious * (rules.living_times if is_living else 1.0)
