"""Who waits for a model, who goes next and with whom, and who is refused: one bounded queue in front of each model.

Nobody waits while a worker is free: batches form of what has come while others are under way, and each leaves just
before a worker is free for it. Which batch is next is
decided by lane, then priority, then the tenants' fair shares, then deadline. How large it may be is bounded by time:
by a share of what its callers have, whatever the model's hardware is.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapreplace
from math import ceil, inf
from typing import Final, Generic, TypeVar

from baleen_core.priority import Priority
from baleen_sidecar.flow.batch_time import GROWTH, BatchTime
from baleen_sidecar.flow.fair_queue import FairQueue, Pick

T = TypeVar("T")

BATCH_SECONDS: Final = 0.05
"""How long a batch may take, so that whoever comes next does not wait for longer than that."""
DEADLINE_SHARE: Final = 0.25
"""How much of the time that the most pressed of a batch had when it came the batch may take.

Of the time that is left it would be less and less in an overload: batches, and with them capacity, would shrink.
"""
ADMITTED_SHARE: Final = 0.5
"""How much of its time an entry may be expected to need when it comes.

What is left then must do for its batch, for those that are under way, and for others whose turn is before its own: what
comes close to its deadline here makes batches small, and with them capacity.
"""
ANSWER_SECONDS: Final = 0.01
ANSWER_SHARE: Final = 0.05
"""What is left for an answer after its batch, the lesser of the seconds and a share of its time.

One that is late has taken time of the model for nothing.
"""
RIDING_ALONG: Final = 1.125
"""By what factor others may make a batch slower in any case: where one alone takes too long, the call is what costs."""
VIDEO_SHARE: Final = 0.25
"""The share of frames of films, while others wait too."""
PASSED_OVER: Final = 32
"""Entries that are passed over in search of some that fit into a batch: looking takes time, too."""
SENT_AHEAD_SECONDS: Final = 0.0015
"""How long before a worker is expected to be free a batch is sent to it: as long as a batch is on its way, or more.

One that is sent earlier waits there, and nobody who comes meanwhile can ride along.
"""
MAX_RETRY_SECONDS: Final = 30


class Reason(StrEnum):
    """Why work was not done."""

    QUEUE_FULL = "QueueFull"
    PREDICTED_LATE = "PredictedLate"
    DEADLINE_PASSED = "DeadlinePassed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait for one model in each lane, and what one batch of it may hold."""

    batch_rows: int
    queue_rows: int
    queue_bytes: int
    batches_in_flight: int
    """How many batches may be under way for each worker: one that it works at, and others on their way."""


@dataclass(slots=True, kw_only=True, eq=False)
class Entry(Generic[T]):
    """The rows of one call, which stay together; times are seconds of a clock that only goes forward.

    A row is `row_units` of work; made as long as the longest of its batch it costs as much as that. Only entries of one
    `kind` share a batch. `number` is of no other entry, and higher than those of entries that came before.
    """

    number: int
    rows: int
    row_units: int
    kind: Hashable
    size_bytes: int
    tenant: str
    priority: Priority
    deadline: float
    is_video: bool
    since: float
    content: T
    waits: bool = False
    """Whether it stands in the queue; the gate's to say."""

    @property
    def cost(self) -> int:
        """What it costs by itself, in units of work."""
        return self.rows * self.row_units

    @property
    def patience(self) -> float:
        """How long somebody waits for it, from when it came."""
        return self.deadline - self.since

    @property
    def needed_by(self) -> float:
        """By when its batch has to be done, for its answer to be in time."""
        return self.deadline - min(ANSWER_SECONDS, ANSWER_SHARE * self.patience)


@dataclass(slots=True, kw_only=True, eq=False)
class Batch(Generic[T]):
    """Entries that go together, the first of which had its turn.

    It was sent at `begun`, and a worker has worked at it since `worked_since`, None while all have older ones.
    """

    entries: list[Entry[T]]
    units: int
    begun: float
    expected_seconds: float
    is_video: bool
    worked_since: float | None = None

    @property
    def expected_end(self) -> float:
        """When a worker is expected to have done it, if one works at it; it may have passed."""
        return (self.begun if self.worked_since is None else self.worked_since) + self.expected_seconds

    def remaining_seconds(self, now: float) -> float:
        """Return how much longer it is expected to take; one that is overdue is expected to be so for as long again."""
        if self.worked_since is None:
            return self.expected_seconds
        return abs(self.worked_since + self.expected_seconds - now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Generic[T]):
    """An entry that left the queue undone."""

    entry: Entry[T]
    reason: Reason
    wait_seconds: float
    """After how long such work would be done, as far as is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Generic[T]):
    """The batch that begins now, if one does, and what is too late for any.

    Without a batch, the next one may begin from `due_at` on; None: first another one has to end, or somebody to come.
    """

    batch: Batch[T] | None = None
    dropped: tuple[Dropped[T], ...]
    due_at: float | None = None


class Refused(Exception):
    """An entry may not wait; `wait_seconds` is after how long it would be done."""

    def __init__(self, reason: Reason, wait_seconds: float) -> None:
        self.reason = reason
        self.wait_seconds = wait_seconds
        super().__init__(reason)


@dataclass(slots=True)
class _Lane(Generic[T]):
    """What waits in one lane, by priority, and the virtual time at which its next batch starts."""

    share: float
    queues: tuple[FairQueue[Entry[T]], ...] = field(default_factory=lambda: tuple(FairQueue() for _ in Priority))
    rows: int = 0
    bytes: int = 0
    start: float = 0.0

    @property
    def cost(self) -> int:
        return sum(queue.cost for queue in self.queues)


class Gate(Generic[T]):
    """The queue in front of one model. `workers`, which calls bring, is how many instances of it there are now."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes: tuple[_Lane[T], _Lane[T]] = (_Lane(1 - VIDEO_SHARE), _Lane(VIDEO_SHARE))
        self._virtual = 0.0
        self._under_way: list[Batch[T]] = []
        self.time = BatchTime()

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return sum(lane.rows for lane in self._lanes)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of tensors wait."""
        return sum(lane.bytes for lane in self._lanes)

    @property
    def under_way(self) -> int:
        """How many batches have begun and not ended."""
        return len(self._under_way)

    def waiting(self) -> Iterator[Entry[T]]:
        """Yield all that waits, in no order."""
        return (entry for lane in self._lanes for queue in lane.queues for entry in queue)

    def offer(self, entry: Entry[T], *, now: float, workers: int) -> tuple[Dropped[T], ...]:
        """Let an entry wait, and return what had to go for it.

        Raises:
            Refused: its deadline has passed, it cannot be done in time, or there is no room that it may have.
        """
        lane = self._lanes[entry.is_video]
        if entry.deadline <= now:
            raise Refused(Reason.DEADLINE_PASSED, 0.0)
        wait = self.wait_seconds(entry, now=now, workers=workers)
        if self._is_late(entry, wait, now):
            raise Refused(Reason.PREDICTED_LATE, wait)
        shed = self._make_room(entry, wait)
        if not lane.rows:
            lane.start = max(lane.start, self._virtual)
        self._put(entry)
        return tuple(Dropped(entry=each, reason=Reason.QUEUE_FULL, wait_seconds=wait) for each in shed)

    def leave(self, entry: Entry[T]) -> None:
        """Take out an entry that nobody waits for any more; nothing happens if it has left already."""
        if entry.waits:
            self._lanes[entry.is_video].queues[entry.priority].remove(entry)
            self._count_out(entry)

    def next_batch(self, *, now: float, workers: int) -> Turn[T]:
        """Begin the next batch, if there is work, one more may be under way, and it is due."""
        dropped: list[Dropped[T]] = []
        while (lane := self._choose_lane(workers)) is not None:
            due_at = self._goes_at(lane, workers)
            if now < due_at:
                return Turn(dropped=tuple(dropped), due_at=due_at)
            filling = self._fill(lane, now, workers)
            dropped += filling.dropped
            if filling.entries:
                return Turn(batch=self._begin(lane, filling, now, workers), dropped=tuple(dropped))
        return Turn(dropped=tuple(dropped))

    def end(self, batch: Batch[T], *, now: float, workers: int, answered: bool) -> None:
        """Take note that a batch has ended; one that was not answered says nothing about the next."""
        self._under_way.remove(batch)
        if answered and batch.worked_since is not None:
            self.time.observe(batch.units, now - batch.worked_since)
        self._work(now, workers)

    def wait_seconds(self, entry: Entry[T], *, now: float, workers: int) -> float:
        """Return after how long a worker would come to an entry that comes now, were nothing else to come."""
        if len(self._under_way) < workers and not self.waiting_rows:
            return 0.0
        lane = self._lanes[entry.is_video]
        ahead = lane.queues[entry.priority].ahead(entry) + sum(
            queue.cost for queue in lane.queues[entry.priority + 1 :]
        )
        seconds = ahead * self._pace(lane, entry)
        if self._lanes[not entry.is_video].rows:
            seconds /= lane.share
        return self._busy_seconds(now, workers) + seconds / workers

    def _busy_seconds(self, now: float, workers: int) -> float:
        """Return after how long a worker is expected to have done what is under way."""
        if len(self._under_way) < workers:
            return 0.0
        return sum(batch.remaining_seconds(now) for batch in self._under_way) / workers

    def _pace(self, lane: _Lane[T], entry: Entry[T]) -> float:
        """Return seconds for each unit of work, in batches as large as they may be."""
        mean = (lane.cost + entry.cost) / (lane.rows + entry.rows)
        units = max(1.0, min(self._limits.batch_rows * mean, max(mean, self.time.largest(BATCH_SECONDS))))
        return self.time.seconds(units) / units

    def _is_late(self, entry: Entry[T], wait: float, now: float) -> bool:
        if not wait or entry.deadline == inf:
            return False
        # What is critical has nobody before it, and is refused only if it would be late.
        share = 1.0 if entry.priority is Priority.CRITICAL else ADMITTED_SHARE
        return wait + self.time.seconds(entry.cost) > share * (entry.needed_by - now)

    def _make_room(self, entry: Entry[T], wait: float) -> list[Entry[T]]:
        """Take out what has to go for an entry: the least urgent, and of that what the longest backlog has last.

        Dropping from the longest queue (Suter, Lakshman, Stiliadis, Choudhury: INFOCOM 1998) keeps whoever floods from
        filling the room of all.
        """
        shed: list[Entry[T]] = []
        lane = self._lanes[entry.is_video]
        while not self._fits(entry, lane):
            victim = _find_victim(entry, lane)
            if victim is None:
                for each in shed:
                    self._put(each)
                raise Refused(Reason.QUEUE_FULL, wait)
            self.leave(victim)
            shed.append(victim)
        return shed

    def _fits(self, entry: Entry[T], lane: _Lane[T]) -> bool:
        if not lane.rows:
            return True
        rows, size_bytes = lane.rows + entry.rows, lane.bytes + entry.size_bytes
        return rows <= self._limits.queue_rows and size_bytes <= self._limits.queue_bytes

    def _put(self, entry: Entry[T]) -> None:
        lane = self._lanes[entry.is_video]
        entry.waits = True
        lane.queues[entry.priority].put(entry)
        lane.rows += entry.rows
        lane.bytes += entry.size_bytes

    def _may_begin(self, is_video: bool, workers: int) -> bool:
        """Say whether one more batch may be under way; films leave a place for whoever comes, where there are two."""
        bound = workers * self._limits.batches_in_flight
        if len(self._under_way) >= bound:
            return False
        return not is_video or sum(batch.is_video for batch in self._under_way) < max(1, bound - 1)

    def _choose_lane(self, workers: int) -> _Lane[T] | None:
        """Return the lane with work that is furthest behind its share."""
        able = [
            lane for is_video, lane in enumerate(self._lanes) if lane.rows and self._may_begin(bool(is_video), workers)
        ]
        return min(able, key=lambda lane: lane.start, default=None)

    def _goes_at(self, lane: _Lane[T], workers: int) -> float:
        """Return from when on a batch of the lane may begin: at once, or just before a worker is free for it.

        One that is as large as it may be gains nothing by waiting here.
        """
        if len(self._under_way) < workers or lane.cost >= self._largest(lane.cost / lane.rows):
            return -inf
        ends = sorted(batch.expected_end for batch in self._under_way[:workers])
        for batch in self._under_way[workers:]:
            heapreplace(ends, ends[0] + batch.expected_seconds)
        return ends[0] - SENT_AHEAD_SECONDS

    def _fill(self, lane: _Lane[T], now: float, workers: int) -> "_Filling[T]":
        """Choose what goes together, and take out what is too late."""
        begins = now + self._busy_seconds(now, workers)
        filling = _Filling(self, now=now, begins=begins, may_be_late=not self._under_way)
        for queue in reversed(lane.queues):
            if queue:
                queue.pull(filling.decide)
            if filling.is_full or (queue and filling.entries):
                # Whoever has to stay is not held up by somebody of a lower priority, who could ride along.
                break
        for each in filling.dropped:
            self._count_out(each.entry)
        return filling

    def _largest(self, row_units: float) -> float:
        """Return how much work a batch of such rows may be, whoever is in it; see _Filling."""
        limit = max(BATCH_SECONDS, RIDING_ALONG * self.time.seconds(row_units))
        return min(self._limits.batch_rows * row_units, GROWTH * self.time.known_units, self.time.largest(limit))

    def _begin(self, lane: _Lane[T], filling: "_Filling[T]", now: float, workers: int) -> Batch[T]:
        for entry in filling.entries:
            self._count_out(entry)
        self._virtual = max(self._virtual, lane.start)
        lane.start += filling.units / lane.share
        batch = Batch(
            entries=filling.entries,
            units=filling.units,
            begun=now,
            expected_seconds=self.time.seconds(filling.units),
            is_video=filling.entries[0].is_video,
        )
        self._under_way.append(batch)
        self._work(now, workers)
        return batch

    def _work(self, now: float, workers: int) -> None:
        """Take note of what workers come to: they take the oldest first, and what is behind it waits for that long."""
        for batch in self._under_way[:workers]:
            if batch.worked_since is None:
                batch.worked_since = now

    def _count_out(self, entry: Entry[T]) -> None:
        entry.waits = False
        lane = self._lanes[entry.is_video]
        lane.rows -= entry.rows
        lane.bytes -= entry.size_bytes


class _Filling(Generic[T]):
    """A batch while it is put together."""

    def __init__(self, gate: Gate[T], *, now: float, begins: float, may_be_late: bool) -> None:
        self._time = gate.time
        self._batch_rows = gate._limits.batch_rows
        self._now = now
        self._begins = begins
        self._may_be_late = may_be_late
        self.entries: list[Entry[T]] = []
        self.dropped: list[Dropped[T]] = []
        self.is_full = False
        self._passed_over = 0
        self._rows = 0
        self._row_units = 0
        self._needed_by = inf
        self._patience = inf

    @property
    def units(self) -> int:
        """The work that it is, every row as long as the longest."""
        return self._rows * self._row_units

    def decide(self, entry: Entry[T]) -> Pick:
        """Say what becomes of the entry whose turn it is."""
        if self.is_full:
            return Pick.STOP
        if (reason := self._too_late(entry)) is not None:
            self.dropped.append(Dropped(entry=entry, reason=reason, wait_seconds=self._time.seconds(entry.cost)))
            return Pick.DROP
        if not self.entries:
            return self._take(entry)
        if entry.kind == self.entries[0].kind and self._may_join(entry):
            return self._take(entry)
        self._passed_over += 1
        self.is_full = self._passed_over >= PASSED_OVER
        return Pick.LEAVE

    def _too_late(self, entry: Entry[T]) -> Reason | None:
        if entry.deadline <= self._now:
            return Reason.DEADLINE_PASSED
        if self._may_be_late and not self.entries:
            # Nothing would ever be learnt of a model that has become quick again, did nobody ask it.
            return None
        is_late = self._begins + self._time.seconds(entry.cost) > entry.needed_by
        return Reason.PREDICTED_LATE if is_late else None

    def _may_join(self, entry: Entry[T]) -> bool:
        rows = self._rows + entry.rows
        units = rows * max(self._row_units, entry.row_units)
        if rows > self._batch_rows or units > GROWTH * self._time.known_units:
            return False
        together = self._time.seconds(units)
        first = self._time.seconds(self.entries[0].cost)
        patience = min(self._patience, entry.patience)
        limit = max(min(BATCH_SECONDS, DEADLINE_SHARE * patience), RIDING_ALONG * first)
        left = min(self._needed_by, entry.needed_by) - self._begins
        if entry.row_units != self._row_units:
            # Where padding costs more than a call, two batches are better than one.
            limit = min(limit, self._time.seconds(self.units) + self._time.seconds(entry.cost))
        return together <= min(limit, left)

    def _take(self, entry: Entry[T]) -> Pick:
        self.entries.append(entry)
        self._rows += entry.rows
        self._row_units = max(self._row_units, entry.row_units)
        self._needed_by = min(self._needed_by, entry.needed_by)
        self._patience = min(self._patience, entry.patience)
        self.is_full = self._rows >= self._batch_rows
        return Pick.TAKE


def _find_victim(entry: Entry[T], lane: _Lane[T]) -> Entry[T] | None:
    for priority in range(entry.priority + 1):
        queue = lane.queues[priority]
        longest = queue.longest()
        if longest is None:
            continue
        tenant, waiting = longest
        # Of its own tenant nothing goes for it: the one that came first stays.
        is_fair = tenant != entry.tenant and waiting > queue.waiting(entry.tenant) + entry.cost
        return queue.last(tenant) if priority < entry.priority or is_fair else None
    return None


def retry_after_seconds(wait_seconds: float, chance: float) -> int:
    """Return for `Retry-After` whole seconds from 1 to 30, spread by `chance` (0 to 1) so that not all come at once."""
    spread = max(2.0, wait_seconds)
    return max(1, min(MAX_RETRY_SECONDS, ceil(wait_seconds + chance * spread)))
