"""What happened within the last seconds, in a few numbers however much happened: a window of slices that slide out."""

from dataclasses import dataclass
from typing import Final

_SLICES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many calls there were, how many of them failed or were slow, and the seconds of those that did not fail."""

    calls: int = 0
    failures: int = 0
    slow: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            calls=self.calls + other.calls,
            failures=self.failures + other.failures,
            slow=self.slow + other.slow,
            seconds=self.seconds + other.seconds,
        )

    @property
    def mean_seconds(self) -> float:
        """Return how long a call took that did not fail; 0 when all failed."""
        answered = self.calls - self.failures
        return self.seconds / answered if answered else 0.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Tallies by the number of their slice of time; only the last few are kept."""

    slices: tuple[tuple[int, Tally], ...] = ()

    def adding(self, tally: Tally, *, now: float, span_seconds: float) -> "Recent":
        """Count something that ended now, and forget what is older than the span."""
        number = _number(now, span_seconds)
        kept = tuple(each for each in self.slices if each[0] > number - _SLICES)
        if kept and kept[-1][0] == number:
            return Recent((*kept[:-1], (number, kept[-1][1] + tally)))
        return Recent((*kept, (number, tally)))

    def total(self, *, now: float, span_seconds: float) -> Tally:
        """Return all that was counted within the span before now."""
        oldest = _number(now, span_seconds) - _SLICES
        found = Tally()
        for number, tally in self.slices:
            if number > oldest:
                found += tally
        return found


def covered_seconds(*, now: float, span_seconds: float) -> float:
    """Return how long the time is that a total now is of: up to a slice shorter than the span."""
    return now - (_number(now, span_seconds) - _SLICES + 1) * span_seconds / _SLICES


def _number(now: float, span_seconds: float) -> int:
    return int(now * _SLICES / span_seconds)
