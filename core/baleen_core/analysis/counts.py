"""What was counted for a comparison, by groups: 64 buckets of a second hash of the sticky key.

Counts of several gateways add up, and a rollout counts from its start: `merged` and `since`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import inf
from typing import Final, Self

GROUPS: Final = 64
"""An author is always in the same group, so that groups are independent of each other where decisions are not."""
MAX_BUCKETS: Final = 64
"""Of a histogram of latencies, the infinite one included."""

Column = tuple[int, ...]
"""One number for each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Fields that are columns and add up one by one.

    Raises:
        ValueError: a column has another length than `GROUPS`, or a number below 0.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_column(field.name, getattr(self, field.name))

    @classmethod
    def none(cls) -> Self:
        """Count nothing yet."""
        return cls(**{field.name: (0,) * GROUPS for field in fields(cls)})

    @classmethod
    def merged(cls, counts: Iterable[Self]) -> Self:
        """Add up what several gateways counted."""
        each = (cls.none(), *counts)
        return cls(**{field.name: _added(getattr(one, field.name) for one in each) for field in fields(cls)})

    def since(self, baseline: Self) -> Self:
        """Leave out what had been counted before.

        Raises:
            ValueError: a number is below the baseline's, so another process counted it.
        """
        names = [field.name for field in fields(self)]
        return type(self)(**{name: _taken(getattr(self, name), getattr(baseline, name)) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts(_Columns):
    """Decisions that both revisions judged; of them those with the event by each, and by one of the two alone.

    An event is what the metric is about: a block, a review. For flips `stable` is zeros, and `candidate` and
    `differing` are both the flips.

    Raises:
        ValueError: a column has another length than `GROUPS`, or its numbers cannot be true beside the others'.
    """

    decisions: Column
    stable: Column
    candidate: Column
    differing: Column

    def __post_init__(self) -> None:
        # Without arguments, super() would look for the class that `slots` replaced.
        _Columns.__post_init__(self)
        columns = zip(self.decisions, self.stable, self.candidate, self.differing, strict=True)
        for group, (decisions, stable, candidate, differing) in enumerate(columns):
            events = stable + candidate
            # Events of both are counted twice in `events`, those of one alone once.
            possible = abs(stable - candidate) <= differing <= events and events + differing <= 2 * decisions
            if not possible or (events - differing) % 2:
                raise ValueError(
                    f"group {group}: of {decisions} decisions, stable cannot have {stable} events and the candidate "
                    f"{candidate} with {differing} of one of them alone"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortCounts(_Columns):
    """Decisions by each cohort's own revision, and those of them with the event, while one weight was in force.

    A rollout has one of these for each weight: rates differ between day and night, and the candidate has more of the
    traffic later, so that sums over weights would compare different hours.

    Raises:
        ValueError: a column has another length than `GROUPS`, or there are more events than decisions.
    """

    stable_decisions: Column
    stable_events: Column
    candidate_decisions: Column
    candidate_events: Column

    def __post_init__(self) -> None:
        _Columns.__post_init__(self)
        for arm, decisions, events in (
            ("stable", self.stable_decisions, self.stable_events),
            ("the candidate", self.candidate_decisions, self.candidate_events),
        ):
            for group, (all_of_them, those) in enumerate(zip(decisions, events, strict=True)):
                if those > all_of_them:
                    raise ValueError(f"group {group}: {those} events of {all_of_them} decisions by {arm}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCounts:
    """Histograms of both cohorts' latencies, while one weight was in force; a rollout has one for each weight.

    `bounds` are the buckets' upper bounds in seconds, rising from above 0, the last one infinite, 2 to `MAX_BUCKETS`.
    `stable` and `candidate` have a column for each bucket, which counts what lies in that bucket alone.

    Raises:
        ValueError: the bounds are not such, or a column is missing or has another length than `GROUPS`.
    """

    bounds: tuple[float, ...]
    stable: tuple[Column, ...]
    candidate: tuple[Column, ...]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip((0.0, *self.bounds), self.bounds, strict=False))
        if not 2 <= len(self.bounds) <= MAX_BUCKETS or not rising or self.bounds[-1] != inf:
            raise ValueError(f"bounds must be 2 to {MAX_BUCKETS} (MAX_BUCKETS) rising numbers, the last one infinite")
        for name, columns in (("stable", self.stable), ("candidate", self.candidate)):
            if len(columns) != len(self.bounds):
                raise ValueError(f"{name} must have a column for each of the {len(self.bounds)} bounds")
            for column in columns:
                _check_column(name, column)

    @classmethod
    def none(cls, bounds: tuple[float, ...]) -> Self:
        """Count nothing yet."""
        columns = ((0,) * GROUPS,) * len(bounds)
        return cls(bounds=bounds, stable=columns, candidate=columns)

    @classmethod
    def merged(cls, counts: Iterable[Self]) -> Self:
        """Add up what several gateways counted.

        Raises:
            ValueError: there are none, or their bounds differ.
        """
        each = tuple(counts)
        if len({one.bounds for one in each}) != 1:
            raise ValueError("there must be histograms, and all of them with the same bounds")
        return cls(
            bounds=each[0].bounds,
            stable=tuple(map(_added, zip(*(one.stable for one in each), strict=True))),
            candidate=tuple(map(_added, zip(*(one.candidate for one in each), strict=True))),
        )

    def since(self, baseline: Self) -> Self:
        """Leave out what had been counted before.

        Raises:
            ValueError: the bounds differ, or a number is below the baseline's, so another process counted it.
        """
        if self.bounds != baseline.bounds:
            raise ValueError("a baseline must have the same bounds")
        return type(self)(
            bounds=self.bounds,
            stable=tuple(map(_taken, self.stable, baseline.stable)),
            candidate=tuple(map(_taken, self.candidate, baseline.candidate)),
        )


def _check_column(name: str, column: Column) -> None:
    if len(column) != GROUPS:
        raise ValueError(f"{name} must have a number for each of {GROUPS} groups (GROUPS), not {len(column)}")
    if min(column) < 0:
        raise ValueError(f"{name} must have no number below 0, as group {column.index(min(column))} has")


def _added(columns: Iterable[Column]) -> Column:
    return tuple(map(sum, zip(*columns, strict=True)))


def _taken(column: Column, baseline: Column) -> Column:
    """Subtract; a number below 0 is refused by whoever is made of it."""
    return tuple(now - before for now, before in zip(column, baseline, strict=True))
