"""The decision log of a sidecar that follows, as a spool: what its gateway has, what waits, and how much may wait."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from baleen_core.decision_chain import Head
from baleen_core.errors import LogUnavailable
from baleen_core.policy_stream import MAX_RECORDS
from baleen_core.records import DecisionRecord, encode
from baleen_sidecar.adapters.store.beside_rows import SQLITE, forget_keys
from baleen_sidecar.adapters.store.chain_rows import move_start, pass_over
from baleen_sidecar.adapters.store.decision_rows import StoredRecord, from_row, to_row
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.engine import BUSY_SECONDS, begin_writing, state_errors
from baleen_sidecar.adapters.store.grouped_log import GroupedLog
from baleen_sidecar.flow.spool import SpoolRoom, take_while_fits
from baleen_sidecar.ports import Beside, KnownKey, SpooledDecision

T = TypeVar("T")

MARK_SECONDS: Final = 1.0
"""How often the mark is written: each time takes the file's lock, for which the next decision would wait."""
DROP_ROWS: Final = 2 * MAX_RECORDS
"""Rows that are dropped at once: more than are sent at once, and few enough to hold up nobody."""

_READ_MARK: Final = "SELECT coalesce(max(shipped), 0) FROM spool"
_WRITE_MARK: Final = (
    "INSERT INTO spool (id, shipped) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET shipped = excluded.shipped"
)
_MEASURE: Final = "SELECT coalesce(sum(length(record)), 0) FROM decisions WHERE sequence "
_WAITING: Final = (
    "SELECT sequence, id, time, record, personal, personal_digest FROM decisions "
    "WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
# The row of the mark stays, as the next row is numbered by the highest that is there when the file is opened.
_DROP: Final = (
    "DELETE FROM decisions WHERE sequence IN "
    "(SELECT sequence FROM decisions WHERE sequence < ? ORDER BY sequence LIMIT ?) "
    "RETURNING sequence, link, length(record), id"
)
_IS_WAITING: Final = "SELECT 1 FROM decisions WHERE id = ? AND sequence > ?"


class SqliteSpool:
    """Wraps an open log between `open` and `close` (or `async with`).

    All but `append`, `get`, `find_key` and `is_waiting` is for one task.

    The mark is in the file of the rows, and so is never ahead of them, whatever a crash leaves. It may be behind:
    then rows are sent again, which changes nothing.
    """

    def __init__(self, path: Path, log: GroupedLog, *, limit_bytes: int) -> None:
        self._path = path
        self._log = log
        self._limit_bytes = limit_bytes
        self._file = DurableFile(path, synchronous="NORMAL")
        self._room = SpoolRoom(limit_bytes)
        self._appending = 0
        self._mark = 0
        self._written = 0
        self._written_at = 0.0

    async def open(self) -> None:
        """Measure what is there.

        Raises:
            StateError: the file cannot be read.
        """
        self._mark, waiting, sent = await self._in_thread(self._measure)
        self._written = self._mark
        self._room = SpoolRoom(self._limit_bytes, waiting_bytes=waiting, sent_bytes=sent)

    async def close(self) -> None:
        """Write the mark a last time."""
        try:
            await self._in_thread(self._write_mark)
        finally:
            await asyncio.to_thread(self._file.drop)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of decisions wait to be sent."""
        return self._room.waiting_bytes

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Keep a decision until it was sent; returns once it is in the file. False as for ports.DecisionLog.

        Raises:
            LogUnavailable: there is no room, or as for the log.
        """
        row = to_row(record)
        size = len(row.record)
        self._room.take(size, record.decision.decision)
        self._appending += 1
        try:
            # Who stops waiting leaves the row behind, which takes its room.
            waiting = await self._log.write_row(row, beside)
        except LogUnavailable:
            self._room.give_back(size)
            raise
        finally:
            self._appending -= 1
        if waiting.is_taken:
            self._room.give_back(size)
        return not waiting.is_taken

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id, sent or not, unless it was dropped.

        Raises:
            StateError: the file cannot be read.
        """
        return await self._log.get(decision_id)

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is kept under an idempotency key, whether its decision was sent or not.

        Raises:
            StateError: the file cannot be read.
        """
        return await self._log.find_key(key_id, now_seconds=now_seconds)

    async def is_waiting(self, decision_id: str) -> bool:
        """Say whether a decision is here and was not sent yet.

        Raises:
            StateError: the file cannot be read.
        """
        found = await self._in_thread(
            lambda: self._file.connection().execute(_IS_WAITING, (decision_id, self._mark)).fetchone()
        )
        return found is not None

    async def forget_keys(self, decision_ids: Collection[str]) -> None:
        """Let go of the idempotency keys that were answered with these decisions.

        Raises:
            StateError: the file cannot be written.
        """

        def forget() -> None:
            connection = self._file.connection()
            begin_writing(connection, patience_seconds=BUSY_SECONDS)
            forget_keys(connection, decision_ids, SQLITE)
            connection.execute("COMMIT")

        await self._in_thread(forget)

    async def waiting(self, *, limit_rows: int, limit_bytes: int) -> Sequence[SpooledDecision]:
        """Return what waits, oldest first, as much as fits; one at least, if there is one.

        Raises:
            StateError: the file cannot be read, or the mark not be written.
        """
        is_quiet = not self._appending
        rows = await self._in_thread(lambda: self._read(limit_rows, limit_bytes))
        if not rows:
            if is_quiet and not self._appending:
                # Counted were also rows that nobody waited for, and that then could not be written.
                self._room.give_back(self._room.waiting_bytes)
            await self._in_thread(self._write_mark)
        return rows

    async def mark(self, sent: Sequence[SpooledDecision]) -> None:
        """Count these, the oldest that waited, as sent, and drop the oldest of all that were sent if need be.

        Raises:
            StateError: the file cannot be written; they count as sent all the same.
        """
        self._mark = sent[-1].sequence
        self._room.send(sum(len(each.record) for each in sent))
        if time.monotonic() - self._written_at >= MARK_SECONDS:
            await self._in_thread(self._write_mark)
        if self._room.is_over:
            self._room.drop(await self._in_thread(self._drop))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with state_errors(self._path):
                try:
                    return work()
                except Exception:
                    self._file.drop()
                    raise

        return await asyncio.to_thread(run)

    def _measure(self) -> tuple[int, int, int]:
        connection = self._file.connection()
        (mark,) = connection.execute(_READ_MARK).fetchone()
        (waiting,) = connection.execute(_MEASURE + "> ?", (mark,)).fetchone()
        (sent,) = connection.execute(_MEASURE + "<= ?", (mark,)).fetchone()
        return mark, waiting, sent

    def _read(self, limit_rows: int, limit_bytes: int) -> list[SpooledDecision]:
        cursor = self._file.connection().execute(_WAITING, (self._mark, limit_rows))
        found = (
            SpooledDecision(sequence=row[0], id=row[1], time=row[2], record=_whole(row[1], StoredRecord(*row[3:])))
            for row in cursor
        )
        rows = list(take_while_fits(found, lambda each: len(each.record), limit_bytes=limit_bytes))
        # An open cursor holds its snapshot, and keeps the write-ahead log from being cut.
        cursor.close()
        return rows

    def _write_mark(self) -> None:
        if self._written != self._mark:
            self._file.connection().execute(_WRITE_MARK, (self._mark,))
            self._written, self._written_at = self._mark, time.monotonic()

    def _drop(self) -> int:
        """Drop some of the oldest rows, and return their bytes; the mark on disk is never behind them."""
        self._write_mark()
        connection = self._file.connection()
        begin_writing(connection, patience_seconds=BUSY_SECONDS)
        rows = connection.execute(_DROP, (self._mark, DROP_ROWS)).fetchall()
        # Of a log that this folder was before, the chain must not begin with rows that are gone.
        if linked := [Head(sequence=sequence, link=link) for sequence, link, *_ in rows if link is not None]:
            move_start(connection, pass_over(connection, max(linked, key=lambda head: head.sequence)))
        # What is not here any more cannot be answered again.
        forget_keys(connection, [each for *_, each in rows], SQLITE)
        connection.execute("COMMIT")
        return sum(size for _, _, size, _ in rows)


def _whole(decision_id: str, stored: StoredRecord) -> bytes:
    """Return a record's JSON; only rows that were a log's before this folder was a spool's are in parts."""
    is_whole = stored.personal is None and stored.personal_digest is None
    return stored.record if is_whole else encode(from_row(decision_id, stored))
