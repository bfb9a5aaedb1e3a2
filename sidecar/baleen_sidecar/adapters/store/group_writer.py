"""The one thread that writes decisions: rows that wait together become durable together, by one commit."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Final, Protocol

from baleen_core.canonical import digest_of
from baleen_core.decision_chain import Head
from baleen_core.errors import IntegrityError
from baleen_sidecar.adapters.store.decision_rows import Row, StoredRecord, is_same
from baleen_sidecar.flow.pace import Pace
from baleen_sidecar.ports import Beside

GAP_SECONDS: Final = 0.001
"""How long after a group began the next one does, under load: a commit costs the processor as much as five rows."""
PATIENCE_SECONDS: Final = 1.0
"""Whoever waited longer for a write that failed waits for no second one."""


@dataclass(slots=True)
class Waiting:
    """A row on its way to the disk, and who waits for it: to hear whether it is on record, and not taken.

    `error` is the row's own fault, not the disk's.

    `is_new` is False once the same record was found there. It `is_taken` when something `beside` it keeps it from being
    written.
    """

    row: Row
    future: asyncio.Future[bool]
    error: IntegrityError | None = None
    is_new: bool = True
    beside: Beside | None = None
    is_taken: bool = False

    @property
    def size_bytes(self) -> int:
        """What it takes, with content that is to be kept beside the record."""
        debt = None if self.beside is None else self.beside.debt
        return self.row.size_bytes + (0 if debt is None else debt.content.size_bytes)

    def find(self, stored: StoredRecord) -> None:
        """Learn what is on record under the row's id: if that is another record, it is the row's error."""
        self.is_new = False
        if not is_same(stored, self.row):
            self.error = IntegrityError(
                f"decision {self.row.id} is on record already",
                expected=digest_of(stored.record),
                found=digest_of(self.row.record),
            )


Group = Sequence[Waiting]


class RowWriter(Protocol):
    """Where a GroupWriter's rows go; all but `head` is for its thread, once `open` has returned."""

    @property
    def head(self) -> Head | None:
        """The chain's head that was committed; None before the first link, and after a failure. For any thread."""

    def open(self) -> None:
        """Make ready, or raise whatever is the matter."""

    def write(self, group: Group) -> None:
        """Commit a group, or raise why none of it is known to be durable; then the next one makes ready anew."""

    def close(self) -> None:
        """Let go of everything."""


class GroupWriter:
    """Takes rows from any thread and calls `deliver`, on its own thread, once for each group that it wrote or lost.

    A group is committed when no row waits any more, or when it has `max_rows`, or after `max_wait_seconds`. While one
    group is on its way to the disk the next gathers by itself, so groups grow with the load and no row waits without;
    where commits are quick, a Pace has them begin GAP_SECONDS apart.
    What waits behind a group that failed after PATIENCE_SECONDS is lost with it: each group would wait as long in turn.
    """

    def __init__(
        self,
        rows: RowWriter,
        *,
        max_rows: int,
        max_wait_seconds: float,
        deliver: Callable[[Group, Exception | None], None],
        monotonic_seconds: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._rows = rows
        self._max_rows = max_rows
        self._max_wait_seconds = max_wait_seconds
        self._deliver = deliver
        self._now = monotonic_seconds
        self._pause = pause
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._is_stopping = False
        self._pace = Pace(GAP_SECONDS)
        self._thread = threading.Thread(target=self._run, name="decision-log-writer", daemon=True)

    def start(self) -> None:
        """Make ready and begin; raises what the rows' `open` does."""
        self._rows.open()
        self._thread.start()

    def put(self, waiting: Waiting) -> None:
        """Queue a row; `deliver` answers for it, unless `stop` was called before."""
        self._queue.put(waiting)

    def stop(self) -> None:
        """Write everything that was put before, then end; blocks until that is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            if group := self._gather():
                began = self._now()
                cause = self._write(group)
                self._deliver(group, cause)
                ended = self._now()
                if cause is not None and ended - began > PATIENCE_SECONDS and (queued := self._take_queued()):
                    self._deliver(queued, cause)
                elif seconds := self._pace.after(len(group), began=began, ended=ended):
                    self._pause(seconds)
        self._rows.close()

    def _take_queued(self) -> list[Waiting]:
        """Take what is queued at this moment; what is put meanwhile is the next one's."""
        queued: list[Waiting] = []
        for _ in range(self._queue.qsize()):
            waiting = self._queue.get_nowait()
            if waiting is None:
                self._is_stopping = True
            else:
                queued.append(waiting)
        return queued

    def _gather(self) -> list[Waiting]:
        """Wait for a row, and take with it what is there."""
        group: list[Waiting] = []
        waiting = self._queue.get()
        latest = self._now() + self._max_wait_seconds
        while waiting is not None:
            group.append(waiting)
            if len(group) == self._max_rows or self._now() > latest:
                return group
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                return group
        self._is_stopping = True
        return group

    def _write(self, group: Group) -> Exception | None:
        try:
            self._rows.write(group)
        except Exception as exc:  # whatever it is: those who wait must hear of it, and the thread must live
            return exc
        return None
