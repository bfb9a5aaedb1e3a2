"""Which resource is worked on next: level-triggered, one at a time for a key, and fair."""

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACK_OFF_SECONDS: Final = 0.1
LONGEST_BACK_OFF_SECONDS: Final = 60.0
URGENT_IN_A_ROW: Final = 4


def back_off_seconds(failures: int, chance: float) -> float:
    """Return how long to wait after so many failures in a row (1 or more); `chance` is in [0, 1).

    It doubles up to a minute, and between half and all of it is waited, so that what failed together does not come
    back together.
    """
    longest = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2.0 ** min(failures - 1, 32))
    return longest * (0.5 + chance / 2)


def within_seconds(again_seconds: float | None, most: float) -> float:
    """Return after how long to look again at what wants it after `again_seconds` (None: never), and at most so long."""
    return most if again_seconds is None else min(again_seconds, most)


class Schedule(Generic[K]):
    """Keys that wait, keys that are worked on, and keys that come back at a time; all times are given by the caller.

    A key waits at most once. One that is added while it is worked on waits again as soon as that is done. What a
    person changed is `urgent` and overtakes what is only looked at again; every fifth turn goes to the latter.
    """

    def __init__(self) -> None:
        self._urgent: OrderedDict[K, float] = OrderedDict()
        self._routine: OrderedDict[K, float] = OrderedDict()
        self._running: dict[K, None] = {}
        self._again: dict[K, bool] = {}
        self._due: dict[K, tuple[float, bool]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._failures: dict[K, int] = {}
        self._sequence = 0
        self._urgent_in_a_row = 0

    @property
    def depth(self) -> int:
        """How many keys wait for their turn now."""
        return len(self._urgent) + len(self._routine) + len(self._again)

    @property
    def running(self) -> frozenset[K]:
        """The keys that are worked on."""
        return frozenset(self._running)

    def oldest_age_seconds(self, now: float) -> float:
        """Return how long the key that waits longest has waited."""
        firsts = [next(iter(lane.values())) for lane in (self._urgent, self._routine) if lane]
        return max(0.0, now - min(firsts)) if firsts else 0.0

    def add(self, key: K, now: float, *, urgent: bool = True) -> None:
        """Have a key worked on as soon as it can be."""
        self._due.pop(key, None)
        if key in self._running:
            self._again[key] = self._again.get(key, False) or urgent
        elif urgent and key not in self._urgent:
            # It keeps its age, though not its place: the lanes are in order of arrival.
            self._routine.pop(key, None)
            self._urgent[key] = now
        elif not urgent and key not in self._urgent and key not in self._routine:
            self._routine[key] = now

    def add_at(self, key: K, when: float, *, urgent: bool = False) -> None:
        """Have a key worked on at a time, unless it is before."""
        if key in self._urgent or key in self._routine or key in self._again:
            return
        if key in self._due and self._due[key][0] <= when:
            return
        self._due[key] = (when, urgent)
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))

    def next_at(self) -> float | None:
        """Return when the next key comes back, if one does."""
        while self._heap and self._due.get(self._heap[0][2], (None,))[0] != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> K | None:
        """Return the key whose turn it is, which counts as worked on from now; None when none waits."""
        while (when := self.next_at()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            self.add(key, when, urgent=self._due[key][1])
        lane = self._next_lane()
        if not lane:
            return None
        key, _ = lane.popitem(last=False)
        self._running[key] = None
        return key

    def done(self, key: K, now: float, *, again_seconds: float | None = None) -> None:
        """Say that the work on a key succeeded, and after how many seconds it wants to be looked at again."""
        self._failures.pop(key, None)
        self._finish(key, now, again_seconds, urgent=False)

    def failed(self, key: K, now: float, chance: float) -> float:
        """Say that the work on a key failed, and return after how many seconds it is tried again at the latest."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = back_off_seconds(failures, chance)
        self._finish(key, now, seconds, urgent=True)
        return seconds

    def _finish(self, key: K, now: float, again_seconds: float | None, *, urgent: bool) -> None:
        del self._running[key]
        added = self._again.pop(key, None)
        if added is not None:
            self.add(key, now, urgent=added)
        elif again_seconds is not None:
            self.add_at(key, now + again_seconds, urgent=urgent)

    def _next_lane(self) -> "OrderedDict[K, float]":
        is_urgent = bool(self._urgent) and (self._urgent_in_a_row < URGENT_IN_A_ROW or not self._routine)
        self._urgent_in_a_row = self._urgent_in_a_row + 1 if is_urgent else 0
        return self._urgent if is_urgent else self._routine
