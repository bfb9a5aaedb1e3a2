"""The one thread that writes decisions: rows that wait together become durable together, by one commit."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from baleen_core.canonical import digest_of
from baleen_core.decision_chain import Head, next_link
from baleen_core.errors import IntegrityError
from baleen_sidecar.adapters.store.chain_rows import Newest, continue_chain, read_newest
from baleen_sidecar.adapters.store.decision_rows import Row, StoredRecord, find_sql, insert_sql, is_same
from baleen_sidecar.adapters.store.durable_file import DurableFile

MAX_GROUP_ROWS: Final = 4095
"""SQLite takes 32,766 parameters in one statement, and the largest part of such a group has 2,048 rows of 13."""


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

    It alone adds rows, numbers them without gaps, and links those that have a digest to the one before (the chain of
    baleen_core.decision_chain); a row and its link are in one commit, so that no crash can leave them apart.
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
        self._newest: Newest | None = None
        self._thread = threading.Thread(target=self._run, name="decision-log-writer", daemon=True)

    @property
    def newest(self) -> Newest | None:
        """The newest row that was committed; None after a failure, until the next commit. For any thread."""
        return self._newest

    def start(self) -> None:
        """Open the file and begin.

        Raises:
            OSError: there is no such file.
            sqlite3.Error: it cannot be opened.
        """
        self._newest = read_newest(self._file.connection())
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
            newest = self._newest or read_newest(connection)
            for part in _parts(group):
                newest = _insert(connection, part, newest)
            connection.execute("COMMIT")
            self._file.check_in_place()
        except Exception as exc:  # whatever it is: those who wait must hear of it, and the thread must live
            # Whether a failed COMMIT left its rows behind is seen only in the file.
            self._newest = None
            self._file.drop()
            return exc
        self._newest = newest
        return None


def _parts(group: Group) -> Iterator[Group]:
    """Cut a group into powers of two, largest first: few statements to prepare, and few to run.

    All rows of a part are to be linked, or none.

    Python's sqlite3 gives up the interpreter lock at each statement, and gets it back from a busy event loop only after
    5 ms: 200 rows by executemany took 684 ms beside a busy thread, in three statements 25 ms.
    """
    for _, found in groupby(group, key=_is_linked):
        rows = list(found)
        start = 0
        while rest := len(rows) - start:
            size = 1 << (rest.bit_length() - 1)
            yield rows[start : start + size]
            start += size


def _is_linked(waiting: Waiting) -> bool:
    return waiting.row.digest is not None


def _insert(connection: sqlite3.Connection, part: Group, newest: Newest) -> Newest:
    """Insert rows after the newest one, and return which is the newest then."""
    if _is_linked(part[0]):
        head = continue_chain(connection, newest)
        newest = Newest(head.sequence, head)
    values: list[object] = []
    after = newest
    for waiting in part:
        after = _place(waiting.row, after, values)
    try:
        connection.execute(insert_sql(len(part)), values)
    except sqlite3.IntegrityError:
        # SQLite undid this statement alone; one by one, only the row at fault is refused.
        for waiting in part:
            newest = _insert_one(connection, waiting, newest)
        return newest
    return after


def _place(row: Row, newest: Newest, values: list[object]) -> Newest:
    """Add a row's values, with its place and link, and return it as the newest."""
    sequence, head = newest.sequence + 1, newest.head
    link = None
    if row.digest is not None and head is not None:
        link = next_link(head.link, row.digest)
        head = Head(sequence=sequence, link=link)
    values.append(sequence)
    values += row[:-1]
    values.append(link)
    return Newest(sequence, head)


def _insert_one(connection: sqlite3.Connection, waiting: Waiting, newest: Newest) -> Newest:
    """Insert a row unless its id is taken: by the same record, that is well; by another, it is the row's error."""
    values: list[object] = []
    after = _place(waiting.row, newest, values)
    try:
        connection.execute(insert_sql(1), values)
    except sqlite3.IntegrityError:
        found = connection.execute(find_sql(), (waiting.row.id,)).fetchone()
        if found is None:
            raise
        waiting.is_new = False
        stored = StoredRecord(*found)
        if not is_same(stored, waiting.row):
            waiting.error = IntegrityError(
                f"decision {waiting.row.id} is on record already",
                expected=digest_of(stored.record),
                found=digest_of(waiting.row.record),
            )
        return newest
    return after
