"""Answers of several gateways, some of which may have read the same log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, lgamma
from typing import Final, TypeVar

from baleen_core.decision.flips import FlipMatrix

T = TypeVar("T")

MAX_CHANCE: Final = 1e-6
"""How likely two looks at one log may be to differ so much: it grows between them, so they are not the same."""


def one_per_log(
    answers: Mapping[str, T], log_of: Callable[[T], str], size_of: Callable[[T], int | tuple[int, ...]] = lambda _: 0
) -> dict[str, T]:
    """Return the answers to add up: of each log that several read, the largest, or of these the first by the name.

    `answers` are by the readers' names. Where `log_of` is empty, nobody else reads that log. It is the largest so that
    whoever names a log that is not theirs does not stand for it with less than there is.
    """
    largest: dict[str, str] = {}
    for name in sorted(sorted(answers), key=lambda name: size_of(answers[name]), reverse=True):
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
    """Find two readers of one log of whom not both can be right; which of them is not, nobody can tell.

    They have to have looked equally far back: what is older may be of another kind.
    """
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
    """Say whether two shares are too far apart to be of the same decisions, or of ones that came soon after.

    It is Fisher's exact test: of all ways in which that many decisions of both could be distributed over the two, how
    many are so uneven. The sum of these is at most a geometric one, so that chance is never said to be less than it is.
    """
    if 0 in totals:
        return False
    (count, other), (total, other_total) = counts, totals
    if count * other_total < other * total:
        (count, other), (total, other_total) = (other, count), (other_total, total)
    falls_to = (total - count) * other / ((count + 1) * (other_total - other + 1))
    if falls_to >= 1:
        return False
    ways = _log_of_ways(total, count) + _log_of_ways(other_total, other)
    chance = exp(ways - _log_of_ways(total + other_total, count + other)) / (1 - falls_to)
    return 2 * chance < MAX_CHANCE


def _log_of_ways(total: int, count: int) -> float:
    return lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)
