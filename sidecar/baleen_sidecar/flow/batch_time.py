"""How long a batch takes, learnt from batches: t(u) = a + b·u seconds for u units of work, a and b never negative.

Real times are a staircase with noise, and the first ones are of a cold model. So sizes are gathered in classes, two for
each doubling; of each class the lower median of the latest few counts, so that one slow batch says nothing and a quick
one is believed at once; and a class that has not been seen for long is forgotten, so that what was learnt wrongly is
tried again. The line is the least squares of what is left.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Final

LATEST: Final = 5
"""Batches of a class that count."""
FORGOTTEN_AFTER: Final = 64
"""Batches of other classes after which one is forgotten."""
GROWTH: Final = 2
"""How much larger than any that is known a batch may be: what lies beyond is a guess."""
_FADING: Final = 0.98
"""By how much a slope that no two classes confirm counts less with each batch."""


@dataclass(slots=True)
class _Class:
    """The latest batches of one class of sizes, and when the last of them was."""

    seen: int = 0
    latest: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=LATEST))

    def median(self) -> tuple[int, float]:
        """Return units and seconds of the batch in the middle."""
        ordered = sorted(self.latest)
        seconds, units = ordered[(len(ordered) - 1) // 2]
        return units, seconds


class BatchTime:
    """Learns from each batch that a model answered."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, bool], _Class] = {}
        self._count = 0
        self._fixed = 0.0
        self._each = 0.0
        self.known_units = 0
        """The largest batch that counts; 0 before the first."""

    def observe(self, units: int, seconds: float) -> None:
        """Learn that a batch of so many units (1 or more) took so long."""
        self._count += 1
        doublings = units.bit_length()
        # The upper half of a doubling is a class of its own.
        place = (doublings, bool(units >> (doublings - 2) & 1) if doublings > 1 else False)
        found = self._classes.setdefault(place, _Class())
        found.seen = self._count
        found.latest.append((seconds, units))
        self._classes = {key: each for key, each in self._classes.items() if self._count - each.seen <= FORGOTTEN_AFTER}
        self.known_units = max(size for each in self._classes.values() for _, size in each.latest)
        self._fit([each.median() for each in self._classes.values()])

    def seconds(self, units: float) -> float:
        """Return how long a batch of so many units is expected to take; 0 while nothing is known."""
        return self._fixed + self._each * units

    def largest(self, limit_seconds: float) -> float:
        """Return the units of the largest batch that is expected to take so long; 0 if there is none."""
        if self._fixed > limit_seconds:
            return 0.0
        return (limit_seconds - self._fixed) / self._each if self._each else inf

    def _fit(self, points: Collection[tuple[int, float]]) -> None:
        mean_units = sum(units for units, _ in points) / len(points)
        mean_seconds = sum(seconds for _, seconds in points) / len(points)
        if len(points) > 1:
            spread = sum((units - mean_units) ** 2 for units, _ in points)
            together = sum((units - mean_units) * (seconds - mean_seconds) for units, seconds in points)
            self._each = max(0.0, together / spread)
        else:
            self._each *= _FADING
        self._fixed = mean_seconds - self._each * mean_units
        if self._fixed < 0:
            # The best line through the origin.
            self._fixed = 0.0
            self._each = sum(u * s for u, s in points) / sum(u * u for u, _ in points)
