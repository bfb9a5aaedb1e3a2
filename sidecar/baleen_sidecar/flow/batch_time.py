"""How long a batch takes, learnt from batches: nothing is assumed of a device but that more work never takes less time.

Real times are a staircase with noise, and the first ones are of a cold model. A line through all of them is too high
just before a stair, and would deny sizes that were seen to be quick. So what was seen goes before the line, as in
isotonic regression (Barlow, Bartholomew, Bremner, Brunk: "Statistical Inference under Order Restrictions", 1972):
sizes are gathered in classes, eight for each doubling, of each the lower median of a few counts, so that one slow batch
says nothing and a quick one is believed at once; nothing takes longer than what was larger and quicker. Between two
sizes that are known lies a straight line. Beyond the largest, the slope of the least squares leads on.

What has not been seen for long is forgotten, so that what was learnt wrongly is tried again; at once, where newer
batches of a smaller size took longer.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Final

LATEST: Final = 5
"""Batches of a class that count."""
FORGOTTEN_AFTER: Final = 64
"""Batches after which one that was not seen again is forgotten."""
GROWTH: Final = 2
"""How much larger than any that is known a batch may be: what lies beyond is a guess."""
_REFUTING: Final = 3
"""Batches of a class that it takes to say that an older, larger one was too quick."""
_CLASS_BITS: Final = 3
"""Binary digits after the first that sizes of one class have in common."""
_FADING: Final = 0.98
"""By how much a slope that no two sizes confirm counts less with each batch."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One batch, and the how many-th it was."""

    number: int
    units: int
    seconds: float


Point = tuple[int, float]
"""Units, and seconds that they take."""


@dataclass(slots=True)
class _Class:
    """The latest batches of one class of sizes, oldest first, and what they say."""

    seen: list[_Seen] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, batch: _Seen) -> None:
        """Take note of a batch, in the place of an older one of its kind."""
        self.seen = [each for each in self.seen if batch.number - each.number <= FORGOTTEN_AFTER]
        self.seen.append(batch)
        if len(self.seen) > LATEST:
            # Where a stair goes through the class, what stands above it is rare, and must not be forgotten for that.
            counts = [each.units for each in self.seen]
            self.seen.remove(max(self.seen, key=lambda each: counts.count(each.units)))
        self.points = list(self._points())

    def _points(self) -> Iterator[Point]:
        """Yield what each size takes: the lower median of its own batches or of all that are no smaller."""
        highest = 0.0
        for units in sorted({each.units for each in self.seen}):
            own = _lower_median(each.seconds for each in self.seen if each.units == units)
            larger = _lower_median(each.seconds for each in self.seen if each.units >= units)
            highest = max(highest, min(own, larger))
            yield units, highest


def _lower_median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


class BatchTime:
    """Learns from each batch that a model answered."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, int], _Class] = {}
        self._count = 0
        self._slope = 0.0
        self._units: list[int] = []
        self._seconds: list[float] = []
        self.known_units = 0
        """The largest batch that counts; 0 before the first."""

    def observe(self, units: int, seconds: float) -> None:
        """Learn that a batch of so many units (1 or more) took so long."""
        self._count += 1
        digits = units.bit_length()
        place = digits, units >> max(0, digits - 1 - _CLASS_BITS)
        found = self._classes.setdefault(place, _Class())
        found.add(_Seen(self._count, units, seconds))
        self._forget(place, found)
        classes = [self._classes[key] for key in sorted(self._classes)]
        self.known_units = max(each.units for each in classes[-1].seen)
        points = [point for each in classes for point in each.points]
        self._learn_slope(points)
        self._units = [units for units, _ in points]
        # Nothing takes longer than what is larger and was quicker.
        self._seconds = list(accumulate((seconds for _, seconds in reversed(points)), min))[::-1]

    def seconds(self, units: float) -> float:
        """Return how long a batch of so many units is expected to take; 0 while nothing is known."""
        place = bisect_right(self._units, units)
        if not place:
            return self._seconds[0] - self._first_slope() * (self._units[0] - units) if self._units else 0.0
        least, seconds = self._units[place - 1], self._seconds[place - 1]
        return seconds + self._slope_after(place) * (units - least)

    def largest(self, limit_seconds: float) -> float:
        """Return the units of the largest batch that is expected to take so long; 0 if there is none."""
        if not self._units:
            return inf
        place = bisect_right(self._seconds, limit_seconds)
        slope = self._slope_after(place) if place else self._first_slope()
        place = max(0, place - 1)
        more = limit_seconds - self._seconds[place]
        if slope:
            return max(0.0, self._units[place] + more / slope)
        return inf if more >= 0 else 0.0

    def _first_slope(self) -> float:
        """Return the slope before the first point: at least half of what takes time there is the work."""
        most = self._seconds[0] / self._units[0]
        return min(max(self._slope, most / 2), most)

    def _slope_after(self, place: int) -> float:
        """Return the slope behind so many of the points."""
        if place == len(self._units):
            return self._slope
        return (self._seconds[place] - self._seconds[place - 1]) / (self._units[place] - self._units[place - 1])

    def _forget(self, place: tuple[int, int], newest: _Class) -> None:
        """Forget what was not seen for long, and what was quicker when it was larger, if all that counts is newer."""
        since = self._count - FORGOTTEN_AFTER
        quick, least = 0, 0.0
        if len(newest.seen) >= _REFUTING:
            quick, least = newest.seen[-_REFUTING].number, newest.points[0][1]
        self._classes = {
            key: each
            for key, each in self._classes.items()
            if each.seen[-1].number >= since
            and not (key > place and each.seen[-1].number < quick and each.points[0][1] < least)
        }

    def _learn_slope(self, points: list[Point]) -> None:
        """Take the least squares' slope, or that through the origin if it starts below."""
        mean_units = sum(units for units, _ in points) / len(points)
        mean_seconds = sum(seconds for _, seconds in points) / len(points)
        if len(points) > 1:
            spread = sum((units - mean_units) ** 2 for units, _ in points)
            together = sum((units - mean_units) * (seconds - mean_seconds) for units, seconds in points)
            self._slope = max(0.0, together / spread)
        else:
            self._slope *= _FADING
        if self._slope * mean_units > mean_seconds:
            self._slope = sum(u * s for u, s in points) / sum(u * u for u, _ in points)
