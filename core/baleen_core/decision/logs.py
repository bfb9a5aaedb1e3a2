"""Answers of several gateways, some of which may have read the same log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Final, TypeVar

from baleen_core.decision.flips import FlipMatrix

T = TypeVar("T")

MAX_DEVIATIONS: Final = 5.0
"""Standard deviations by which two looks at one log may differ: it grows between them, so they are not the same."""


def one_per_log(
    answers: Mapping[str, T], log_of: Callable[[T], str], size_of: Callable[[T], int] = lambda _: 0
) -> dict[str, T]:
    """Return the answers to add up: of each log that several read, the largest, or of these the first by the name.

    `answers` are by the readers' names. Where `log_of` is empty, nobody else reads that log. It is the largest so that
    whoever names a log that is not theirs does not stand for it with less than there is.
    """
    largest: dict[str, str] = {}
    for name in sorted(answers, key=lambda name: (-size_of(answers[name]), name)):
        if log := log_of(answers[name]):
            largest.setdefault(log, name)
    return {name: each for name, each in answers.items() if largest.get(log_of(each), name) == name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two readers that say they read one log, and of how many decisions each says how many `what`."""

    readers: tuple[str, str]
    what: str
    counts: tuple[int, int]
    totals: tuple[int, int]

    def told(self, names: Mapping[str, str] | None = None) -> str:
        """Say so, with the readers' `names` for people where there are others."""
        one, other = ((names or {}).get(each, each) for each in self.readers)
        (count, other_count), (total, other_total) = self.counts, self.totals
        return (
            f"{one} and {other} say that they read one log, and contradict each other: {count:,} {self.what} of "
            f"{total:,} decisions, and {other_count:,} of {other_total:,}, which is more than chance. One of them "
            "reads another log, or does not say what is in it"
        )


def find_contradiction(
    answers: Mapping[str, T], log_of: Callable[[T], str], flips_of: Callable[[T], FlipMatrix]
) -> Contradiction | None:
    """Find two readers of one log of whom not both can be right; which of them is not, nobody can tell."""
    kept = one_per_log(answers, log_of, lambda each: flips_of(each).total)
    whose = {log: name for name, each in kept.items() if (log := log_of(each))}
    for name in sorted(answers):
        other = whose.get(log_of(answers[name]), name)
        one, two = flips_of(answers[other]), flips_of(answers[name])
        totals = one.total, two.total
        for what, counts in (("flips", (one.flips, two.flips)), ("new blocks", (one.new_blocks, two.new_blocks))):
            if _differ(counts, totals):
                return Contradiction(readers=(other, name), what=what, counts=counts, totals=totals)
    return None


def _differ(counts: tuple[int, int], totals: tuple[int, int]) -> bool:
    """Say whether two shares are too far apart to be of the same decisions, or of ones that came soon after."""
    if 0 in totals:
        return False
    share = sum(counts) / sum(totals)
    deviation = sqrt(share * (1 - share) * (1 / totals[0] + 1 / totals[1]))
    return abs(counts[0] / totals[0] - counts[1] / totals[1]) > MAX_DEVIATIONS * deviation
