"""The one thread that writes decisions: rows that wait together become durable together, by one commit."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError
from baleen_sidecar.adapters.store.decision_rows import Row, find_sql, insert_sql, is_same
from baleen_sidecar.adapters.store.durable_file import DurableFile

MAX_GROUP_ROWS: Final = 4095
"""SQLite takes 32,766 parameters in one statement."""


@dataclass(slots=True)
class Waiting:
    """A row on its way to the disk, and who waits for it; `error` is the row's own fault, not the disk's.

    `is_new` is False once the same record was found there.
    """

    row: Row
    future: asyncio.Future[None]
    error: IntegrityError | None = None
    is_new: bool = True


Group = Sequence[Waiting]


class GroupWriter:
    """Takes rows from any thread and calls `deliver`, on its own thread, once for each group that it wrote or lost.

    A group is committed when no row waits any more, or when it has `max_rows`, or after `max_wait_seconds`. While one
    group is on its way to the disk the next gathers by itself, so groups grow with the load and no row waits without.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str,
        max_rows: int,
        max_wait_seconds: float,
        deliver: Callable[[Group, Exception | None], None],
    ) -> None:
        if not 1 <= max_rows <= MAX_GROUP_ROWS:
            raise ValueError(f"max_rows is {max_rows}; it must be 1 to {MAX_GROUP_ROWS}")
        self._file = DurableFile(path, synchronous=synchronous)
        self._max_rows = max_rows
        self._max_wait_seconds = max_wait_seconds
        self._deliver = deliver
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="decision-log-writer", daemon=True)

    def start(self) -> None:
        """Open the file and begin.

        Raises:
            OSError: there is no such file.
            sqlite3.Error: it cannot be opened.
        """
        self._file.connection()
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
                self._deliver(group, self._write(group))
        self._file.drop()

    def _gather(self) -> list[Waiting]:
        """Wait for a row, and take with it what is there."""
        group: list[Waiting] = []
        waiting = self._queue.get()
        latest = monotonic() + self._max_wait_seconds
        while waiting is not None:
            group.append(waiting)
            if len(group) == self._max_rows or monotonic() > latest:
                return group
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                return group
        self._is_stopping = True
        return group

    def _write(self, group: Group) -> Exception | None:
        """Commit a group, or say why none of it is durable; the next one starts on a new connection then."""
        try:
            connection = self._file.connection()
            connection.execute("BEGIN IMMEDIATE")
            for part in _parts(group):
                _insert(connection, part)
            connection.execute("COMMIT")
            self._file.check_in_place()
        except Exception as exc:  # whatever it is: those who wait must hear of it, and the thread must live
            self._file.drop()
            return exc
        return None


def _parts(group: Group) -> Iterator[Group]:
    """Cut a group into powers of two, largest first: few statements to prepare, and few to run.

    Python's sqlite3 gives up the interpreter lock at each statement, and gets it back from a busy event loop only after
    5 ms: 200 rows by executemany took 684 ms beside a busy thread, in three statements 25 ms.
    """
    start = 0
    while rest := len(group) - start:
        size = 1 << (rest.bit_length() - 1)
        yield group[start : start + size]
        start += size


def _insert(connection: sqlite3.Connection, part: Group) -> None:
    try:
        connection.execute(insert_sql(len(part)), [value for waiting in part for value in waiting.row])
    except sqlite3.IntegrityError:
        # SQLite undid this statement alone; one by one, only the row at fault is refused.
        for waiting in part:
            _insert_one(connection, waiting)


def _insert_one(connection: sqlite3.Connection, waiting: Waiting) -> None:
    """Insert a row unless its id is taken: by the same record, that is well; by another, it is the row's error."""
    decision_id, record = waiting.row.id, waiting.row.record
    try:
        connection.execute(insert_sql(1), waiting.row)
    except sqlite3.IntegrityError:
        stored = connection.execute(find_sql(), (decision_id,)).fetchone()
        if stored is None:
            raise
        waiting.is_new = False
        if not is_same(stored[0], record):
            waiting.error = IntegrityError(
                f"decision {decision_id} is on record already", expected=digest_of(stored[0]), found=digest_of(record)
            )
