"""What a number from somewhere else says at one look after another: of PromQL metrics nobody knows how they vary.

So there is no interval that holds at every look, and no part of the confidence is spent on them. Looks are counted: so
many in a row beyond a limit fail, so many in a row within all limits pass. A look without a number counts for neither,
and until the next one with a number nothing passes or fails.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite

from baleen_core.analysis.metrics import Metric
from baleen_core.analysis.words import number_limits_text, number_text
from baleen_core.ratio import MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a query gave at one look: a finite number, or the problem that there is none, in words."""

    value: float | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) is not bool(self.problem) or (self.value is not None and not isfinite(self.value)):
            raise ValueError("a reading has a finite number, or a problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """The looks of one step so far: when the last one was and what it gave, and how many in a row say the same.

    One of `within` and `beyond` is 0. With a `problem` the last look had no number, and both are of those before.
    `numbers` are all looks of the step that had one, in a row or not.
    """

    time: datetime
    value: float | None = None
    problem: str = ""
    within: int = 0
    beyond: int = 0
    numbers: int = 0


def next_streak(metric: Metric, before: Streak | None, reading: Reading, time: datetime) -> Streak:
    """Take in what one look gave; counts stay within the looks that the metric needs."""
    within, beyond = (before.within, before.beyond) if before else (0, 0)
    numbers = before.numbers if before else 0
    if reading.value is None:
        return Streak(time=time, problem=reading.problem, within=within, beyond=beyond, numbers=numbers)
    found = Streak(time=time, value=reading.value, numbers=min(metric.needed_looks, numbers + 1))
    if is_within(metric, reading.value):
        return replace(found, within=min(metric.needed_looks, within + 1))
    return replace(found, beyond=min(metric.needed_looks, beyond + 1))


def is_within(metric: Metric, value: float) -> bool:
    """Say whether a number is within the limits of a PromQL metric, which are themselves allowed."""
    low, high = metric.minimum, metric.maximum
    return (low is None or low / MILLION <= value) and (high is None or value <= high / MILLION)


def describe_looks(metric: Metric, streak: Streak | None, *, has_say: bool) -> str:
    """Say in a sentence what the looks of this step gave."""
    if streak is None:
        return f"{metric.name}: its query was not asked in this step yet."
    if streak.problem:
        return f"{metric.name}: its query gave no number: {streak.problem}."
    if streak.value is None:
        return f"{metric.name}: what its query gave is not known."
    told = f"{metric.name}: its query gave {number_text(streak.value)}; allowed is {number_limits_text(metric)}"
    if not has_say:
        return f"{told}; it asks by the candidate's digest, and the candidate judges nobody yet."
    count, what = (streak.beyond, "beyond that") if streak.beyond else (streak.within, "within that")
    return f"{told}: {count} of the {metric.needed_looks} looks in a row that decide are {what}."
