"""Token buckets: so much at once, so much a second from then on, for each of many callers.

The law is the generic cell rate algorithm in its form of a virtual schedule (ITU-T I.371, annex A): a bucket is one
number, the time at which it would be full again, and taking moves that on. Nothing has to be refilled, and a bucket
that is full is like one that was never used.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

MAX_KEYS: Final = 65_536
"""Buckets of a table, about 15 MB of them."""
_SLACK_SECONDS: Final = 1e-6
"""Sums of times differ by that much, and whoever waited as long as it was told to must be let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`per_second` in the long run, and up to `burst` at once; both above 0."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not (0 < self.per_second < math.inf and 0 < self.burst < math.inf):
            raise ValueError(f"a rate is above 0, and so is its burst: {self.per_second}, {self.burst}")


class Bucket:
    """What one caller may still take; full at first. Times are seconds of a clock that only goes forward."""

    __slots__ = ("_full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        """May change at any time; what was taken stays taken."""
        self._full_at = -math.inf

    def take(self, now: float, cost: float = 1.0) -> float:
        """Take `cost` (0 or more) and return 0.0, or take nothing and return in how many seconds it could be had.

        That is `math.inf` for what is more than the burst.
        """
        full_at = max(self._full_at, now) + cost / self.rate.per_second
        wait = full_at - now - self.rate.burst / self.rate.per_second
        if wait <= _SLACK_SECONDS:
            self._full_at = full_at
            return 0.0
        return wait if cost <= self.rate.burst else math.inf

    def left(self, now: float) -> float:
        """Return how much could be taken now."""
        owed = max(self._full_at - now, 0.0) * self.rate.per_second
        return max(self.rate.burst - owed, 0.0)


class Buckets:
    """A bucket for each key, never more than `limit` of them: of more, the one that was asked for longest ago goes.

    Whoever's bucket went has a full one again.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        if limit < 1:
            raise ValueError(f"a table has room for 1 or more: {limit}")
        self._limit = limit
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Take from the bucket of `key`, which has `rate` from now on; see `Bucket.take`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(rate)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            bucket.rate = rate
        return bucket.take(now, cost)
