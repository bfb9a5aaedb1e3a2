"""What a rollout's analysis is asked to compare, and within which limits."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final, Self

from baleen_core.analysis.query import names_candidate
from baleen_core.ratio import MILLION

MIN_SCALE: Final = 2_000
"""Millionths: changes smaller than this are not looked for first, however narrow a limit is."""
MAX_LOOKS: Final = 20
DEFAULT_LOOKS: Final = 3
"""One look at a number of which nobody knows how it varies says little."""


class MetricType(StrEnum):
    """What is compared: block, review and flip rates on all traffic, the others between the cohorts.

    PromQL compares nothing: it is a number that somebody else knows, from a query.
    """

    BLOCK_RATE = "BlockRate"
    REVIEW_RATE = "ReviewRate"
    FLIP_RATE = "FlipRate"
    ERROR_RATE = "ErrorRate"
    OVERTURN_RATE = "OverturnRate"
    LATENCY_P99 = "LatencyP99"
    PROMQL = "PromQL"


PAIRED: Final = frozenset({MetricType.BLOCK_RATE, MetricType.REVIEW_RATE, MetricType.FLIP_RATE})
"""Those whose counts are `PairedCounts`."""


MEASURED: Final = frozenset(MetricType) - {MetricType.OVERTURN_RATE}
"""Those whose counts, or numbers, come from somewhere."""


class Mode(StrEnum):
    """Whether a metric has a say in the verdict of the whole."""

    ENFORCE = "Enforce"
    REPORT = "Report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where a change lies: as a rate from -1 to 1, or in seconds; a side that is not known is infinite."""

    lower: float
    upper: float

    def within(self, earlier: Self) -> Self:
        """Keep what was known earlier, as intervals that hold at every look allow.

        Where both have nothing in common the later one stays alone: the traffic has changed meanwhile.
        """
        lower, upper = max(self.lower, earlier.lower), min(self.upper, earlier.upper)
        return type(self)(lower=lower, upper=upper) if lower <= upper else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What may change by how much: rates by millionths (0 to 1,000,000), the 99th percentile by milliseconds.

    A limit that is None does not bind. Flips have no decrease, since stable does not differ from itself. Of PromQL the
    number itself has limits: what its `query` gives may be from `minimum` to `maximum`, in millionths of its own unit,
    and as many `looks` in a row decide.

    Raises:
        ValueError: no limit fits the type, or one does not.
    """

    name: str
    type: MetricType
    mode: Mode = Mode.ENFORCE
    max_increase: int | None = None
    max_decrease: int | None = None
    max_increase_milliseconds: int | None = None
    query: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    looks: int | None = None

    def __post_init__(self) -> None:
        if self.type is MetricType.PROMQL:
            self._check_query()
            return
        if (self.query, self.minimum, self.maximum, self.looks) != (None, None, None, None):
            raise ValueError(f"{self.name}: query, min, max and looks belong to a metric of type PromQL")
        rates = (self.max_increase, self.max_decrease)
        if self.type is MetricType.LATENCY_P99:
            if self.max_increase_milliseconds is None or rates != (None, None):
                raise ValueError(f"{self.name}: LatencyP99 has maxIncreaseMilliseconds, and no other limit")
        elif self.max_increase_milliseconds is not None or rates == (None, None):
            raise ValueError(f"{self.name}: {self.type} has maxIncrease, maxDecrease or both, and no other limit")
        if self.type is MetricType.FLIP_RATE and self.max_decrease is not None:
            raise ValueError(f"{self.name}: FlipRate has maxIncrease only")
        if any(limit is not None and not 0 <= limit <= MILLION for limit in rates):
            raise ValueError(f"{self.name}: a limit of a rate must be from 0% to 100%")
        if self.max_increase_milliseconds is not None and self.max_increase_milliseconds < 0:
            raise ValueError(f"{self.name}: maxIncreaseMilliseconds must not be below 0")

    def _check_query(self) -> None:
        changes = (self.max_increase, self.max_decrease, self.max_increase_milliseconds)
        if self.query is None or (self.minimum, self.maximum) == (None, None) or changes != (None, None, None):
            raise ValueError(f"{self.name}: PromQL has a query with min, max or both, and no other limit")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{self.name}: min must not be above max")
        if self.looks is not None and not 1 <= self.looks <= MAX_LOOKS:
            raise ValueError(f"{self.name}: looks must be from 1 to {MAX_LOOKS} (MAX_LOOKS)")

    @property
    def needed_looks(self) -> int:
        """How many looks in a row decide, of a PromQL metric."""
        return DEFAULT_LOOKS if self.looks is None else self.looks

    @property
    def is_about_candidate(self) -> bool:
        """Say whether a PromQL metric asks by the candidate's digest, and so for what it alone did."""
        return self.query is not None and names_candidate(self.query)

    @property
    def bounds(self) -> Interval:
        """The changes that are allowed: as a rate, or in seconds."""
        if self.max_increase_milliseconds is not None:
            return Interval(lower=-inf, upper=self.max_increase_milliseconds / 1000)
        return Interval(
            lower=-inf if self.max_decrease is None else -self.max_decrease / MILLION,
            upper=inf if self.max_increase is None else self.max_increase / MILLION,
        )

    @property
    def scale(self) -> float:
        """The size of the changes to be found soonest, as a rate: twice the narrowest limit, MIN_SCALE at least.

        A change of two limits is beyond one by a limit; with a scale of half that it would take a third longer to find,
        with twice that a twentieth.
        """
        limits = [limit for limit in (self.max_increase, self.max_decrease) if limit is not None]
        return max(MIN_SCALE, 2 * min(limits, default=0)) / MILLION
