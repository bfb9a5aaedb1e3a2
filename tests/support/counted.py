"""Counts of rollouts for tests: strategies, and plain ones."""

from collections.abc import Iterable
from functools import cache
from math import inf
from random import Random

from hypothesis import strategies as st

from baleen_core.analysis.counts import GROUPS, CohortCounts, Column, LatencyCounts, PairedCounts

BOUNDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, inf)


def column(number: int, *, only: int | None = None) -> Column:
    """Return the number for every group, or for one alone."""
    return tuple(number if only in (None, group) else 0 for group in range(GROUPS))


@cache
def columns(most: int = 50) -> st.SearchStrategy[Column]:
    """Return columns of a few numbers anywhere: drawing 64 takes long, and says no more."""

    def make(few: list[int], seed: int) -> Column:
        return tuple(Random(seed).choices(few, k=GROUPS))

    return st.builds(make, st.lists(st.integers(0, most), min_size=1, max_size=6), st.integers(0, 10_000))


def make_paired(same: Column, both: Column, gained: Column, lost: Column) -> PairedCounts:
    """Count decisions without an event, with an event by both, by the candidate alone and by stable alone."""
    return PairedCounts(
        decisions=_add(same, both, gained, lost),
        stable=_add(both, lost),
        candidate=_add(both, gained),
        differing=_add(gained, lost),
    )


@cache
def paired_counts() -> st.SearchStrategy[PairedCounts]:
    """Return counts of decisions that both judged."""
    return st.builds(make_paired, columns(), columns(), columns(), columns())


@cache
def cohort_counts() -> st.SearchStrategy[CohortCounts]:
    """Return counts of two cohorts."""

    def make(stable: Column, stable_events: Column, candidate: Column, candidate_events: Column) -> CohortCounts:
        return CohortCounts(
            stable_decisions=_add(stable, stable_events),
            stable_events=stable_events,
            candidate_decisions=_add(candidate, candidate_events),
            candidate_events=candidate_events,
        )

    return st.builds(make, columns(), columns(), columns(), columns())


@cache
def latency_counts() -> st.SearchStrategy[LatencyCounts]:
    """Return histograms of two cohorts; the columns of most buckets are alike, which is quicker to draw."""

    def make(stable: Iterable[Column], candidate: Iterable[Column]) -> LatencyCounts:
        return LatencyCounts(bounds=BOUNDS, stable=_histogram(stable), candidate=_histogram(candidate))

    few = st.lists(columns(), min_size=3, max_size=3)
    return st.builds(make, few, few)


def _histogram(few: Iterable[Column]) -> tuple[Column, ...]:
    each = tuple(few)
    return tuple(each[bucket % len(each)] for bucket in range(len(BOUNDS)))


def _add(*each: Column) -> Column:
    return tuple(map(sum, zip(*each, strict=True)))
