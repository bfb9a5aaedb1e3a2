"""A discrete-event simulator of one model behind its gate: time is a number, and nothing waits."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from baleen_core.priority import Priority
from baleen_sidecar.flow.batching import Batch, Dropped, Entry, Gate, Limits, Reason, Refused

LIMITS = Limits(batch_rows=32, queue_rows=1024, queue_bytes=1 << 30, batches_in_flight=2)


def make_entry(
    number: int,
    *,
    now: float = 0.0,
    rows: int = 1,
    row_units: int = 1,
    kind: Hashable = "image",
    size_bytes: int = 0,
    tenant: str = "",
    priority: Priority = Priority.NORMAL,
    deadline: float = inf,
    is_video: bool = False,
) -> Entry[None]:
    return Entry(
        number=number,
        rows=rows,
        row_units=row_units,
        kind=kind,
        size_bytes=size_bytes,
        tenant=tenant,
        priority=priority,
        deadline=deadline,
        is_video=is_video,
        since=now,
        content=None,
    )


@dataclass
class Simulation:
    """`seconds_of` says how long a worker takes for a batch, by its units and how many there were before.

    After each event the laws that hold at every moment are checked; those that look at all that waits if `thorough`.
    """

    seconds_of: Callable[[int, int], float]
    limits: Limits = LIMITS
    workers: int = 1
    thorough: bool = False
    now: float = 0.0
    answered: dict[int, float] = field(default_factory=dict)
    """When each entry was answered."""
    begun: dict[int, float] = field(default_factory=dict)
    turned_away: dict[int, Reason] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    batches: list[Batch[None]] = field(default_factory=list)
    entries: dict[int, Entry[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate: Gate[None] = Gate(self.limits)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._due_at: float | None = None
        self._free_at = [0.0] * self.workers
        """When each worker has done all that was sent to it."""

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Let something happen then."""
        self._count += 1
        heappush(self._events, (seconds, self._count, do))

    def come(self, entry: Entry[None]) -> None:
        """Let an entry come at its time."""
        self.entries[entry.number] = entry
        self.at(entry.since, lambda: self._offer(entry))

    def cancel(self, number: int, at: float) -> None:
        """Let a caller give up."""

        def give_up() -> None:
            if self.entries[number].waits:
                self.cancelled.add(number)
            self.gate.leave(self.entries[number])

        self.at(at, give_up)

    def run(self, until: float = inf) -> None:
        """Let happen what is due."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heappop(self._events)
            do()
            # Whoever comes at the same moment comes together.
            if not self._events or self._events[0][0] > self.now:
                self._begin()
                self._check()

    def answered_by(self, key: Callable[[Entry[None]], Hashable], *, since: float = 0.0) -> Counter[Hashable]:
        """Count the rows answered from then on."""
        counts: Counter[Hashable] = Counter()
        for number, at in self.answered.items():
            if at >= since:
                counts[key(self.entries[number])] += self.entries[number].rows
        return counts

    def _offer(self, entry: Entry[None]) -> None:
        try:
            self._turn_away(self.gate.offer(entry, now=self.now, workers=self.workers))
        except Refused as exc:
            self.turned_away[entry.number] = exc.reason
            if exc.reason is Reason.QUEUE_FULL:
                self._check_nobody_goes_before(entry)

    def _turn_away(self, dropped: tuple[Dropped[None], ...]) -> None:
        for each in dropped:
            self.turned_away[each.entry.number] = each.reason
            if each.reason is Reason.QUEUE_FULL:
                self._check_nobody_goes_before(each.entry)

    def _check_nobody_goes_before(self, shed: Entry[None]) -> None:
        if not self.thorough:
            return
        lane = [each for each in self.gate.waiting() if each.is_video == shed.is_video]
        lower = [each for each in lane if each.priority < shed.priority]
        others = [each for each in lane if each.priority >= shed.priority]
        has_room = (
            sum(each.rows for each in others) + shed.rows <= self.limits.queue_rows
            and sum(each.size_bytes for each in others) + shed.size_bytes <= self.limits.queue_bytes
        )
        assert not lower or not has_room, "a lower priority waits where a higher one was shed"

    def _begin(self) -> None:
        while True:
            turn = self.gate.next_batch(now=self.now, workers=self.workers)
            self._turn_away(turn.dropped)
            batch, self._due_at = turn.batch, turn.due_at
            if batch is None:
                if self._due_at is not None:
                    self.at(self._due_at, lambda: None)
                return
            for entry in batch.entries:
                assert entry.deadline > self.now, "work ran whose deadline had passed"
                self.begun[entry.number] = self.now
            done = max(self.now, heappop(self._free_at)) + self.seconds_of(batch.units, len(self.batches))
            heappush(self._free_at, done)
            self.batches.append(batch)
            self.at(done, lambda batch=batch: self._end(batch))

    def _end(self, batch: Batch[None]) -> None:
        self.gate.end(batch, now=self.now, workers=self.workers, answered=True)
        self.answered |= {entry.number: self.now for entry in batch.entries}

    def _check(self) -> None:
        gate = self.gate
        bound = self.workers * self.limits.batches_in_flight
        assert gate.under_way <= bound, "more batches are under way than may be"
        assert gate.under_way or not gate.waiting_rows, "somebody waits while nothing is under way"
        if not self.thorough:
            return
        waiting = list(gate.waiting())
        assert gate.waiting_rows == sum(each.rows for each in waiting)
        assert gate.waiting_bytes == sum(each.size_bytes for each in waiting)
        assert all(each.waits for each in waiting)
        is_full = gate.under_way == bound or (self._due_at is not None and self._due_at > self.now)
        assert gate.under_way >= self.workers or not waiting or all(each.is_video for each in waiting), (
            "somebody waits while a worker is free"
        )
        assert is_full or all(each.is_video for each in waiting), "somebody waits while a batch may begin"
        for is_video in (False, True):
            lane = [each for each in waiting if each.is_video == is_video]
            is_bounded = sum(each.rows for each in lane) <= self.limits.queue_rows
            assert is_bounded or len(lane) == 1, "more rows wait than may"


def staircase(fixed: float, step: float, width: int) -> Callable[[int, int], float]:
    """Return how long a device takes that does `width` units at a time."""
    return lambda units, _: fixed + step * -(-units // width)
