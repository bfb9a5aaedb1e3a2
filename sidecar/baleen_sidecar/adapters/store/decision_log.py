"""The decision log on SQLite: an append returns when the commit that holds its row is on the disk."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from baleen_core.decision_chain import SALT_BYTES, Head
from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store.decision_reader import SqliteDecisionReader
from baleen_sidecar.adapters.store.decision_rows import Row, to_chained_row
from baleen_sidecar.adapters.store.engine import state_errors
from baleen_sidecar.adapters.store.erasure import erase_subject
from baleen_sidecar.adapters.store.group_writer import Group, GroupWriter, Waiting
from baleen_sidecar.adapters.store.upkeep import Upkeep
from baleen_sidecar.settings import Durability

MIB: Final = 1024 * 1024

_SYNCHRONOUS: Final = {Durability.FSYNC: "FULL", Durability.INTERVAL: "NORMAL"}


class SqliteDecisionLog:
    """For one event loop, between `open` and `close` (or `async with`); the file must have been migrated.

    `max_rows` and `max_wait_seconds` bound a group that is committed at once, `max_waiting_rows` and
    `max_waiting_bytes` what waits altogether. With less than `floor_bytes` free on the disk, Allow is refused, so that
    Review and Block still find room. Every `checkpoint_seconds` the write-ahead log is checkpointed, and cut when it is
    above `truncate_bytes`. Decisions that say nothing else are kept for `decisions_days`; 0: for ever.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = Durability.FSYNC,
        max_rows: int = 200,
        max_wait_seconds: float = 0.002,
        max_waiting_rows: int = 10_000,
        max_waiting_bytes: int = 64 * MIB,
        floor_bytes: int = 64 * MIB,
        checkpoint_seconds: float = 0.5,
        truncate_bytes: int = 64 * MIB,
        decisions_days: int = 0,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._durability = durability
        self._max_waiting_rows = max_waiting_rows
        self._max_waiting_bytes = max_waiting_bytes
        self._floor_bytes = floor_bytes
        self._writer = GroupWriter(
            path,
            synchronous=_SYNCHRONOUS[durability],
            max_rows=max_rows,
            max_wait_seconds=max_wait_seconds,
            deliver=self._deliver,
        )
        self._upkeep = Upkeep(
            path,
            interval_seconds=checkpoint_seconds,
            truncate_bytes=truncate_bytes,
            sync=durability is Durability.INTERVAL,
            decisions_days=decisions_days,
            head=self.head,
            wall_seconds=wall_seconds,
        )
        self._salts = b""
        self._rows = 0
        self._bytes = 0
        self._reader: SqliteDecisionReader | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Start the two threads.

        Raises:
            NotFound: there is no such file.
            StateError: it is not a store of this version.
        """
        await asyncio.to_thread(self._start)
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Refuse new rows, write those that wait, and end the threads; closing again does nothing."""
        if self._loop is None:
            return
        self._loop = None
        await asyncio.to_thread(self._writer.stop)
        self._open_reader().close()
        self._reader = None
        await asyncio.to_thread(self._upkeep.stop)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def append(self, record: DecisionRecord) -> None:
        """Make the record durable; one that is on record already changes nothing, whoever sent it.

        Who stops waiting leaves the row behind: it is written all the same.

        Raises:
            LogUnavailable: the disk failed, is full or nearly so, or too many rows wait.
            IntegrityError: another record has this id.
        """
        await self.append_row(to_chained_row(record, self._take_salt()))

    async def take(self, record: DecisionRecord, *, origin: str) -> bool:
        """Append what somebody else decided; False when it was on record before. Raises as `append` does."""
        return await self.append_row(to_chained_row(record, self._take_salt(), origin))

    async def append_row(self, row: Row) -> bool:
        """Append what is a row already, of the chain or not; False when it was there before."""
        loop = self._loop
        if loop is None:
            raise LogUnavailable("decision log: it is not open")
        self._check_floor(Verdict(row.decision))
        waiting = Waiting(row, loop.create_future())
        self._take_place(row.size_bytes)
        self._writer.put(waiting)
        await waiting.future
        return waiting.is_new

    async def sync(self) -> None:
        """Return once everything that was appended is on the disk, whatever the durability.

        Raises:
            LogUnavailable: the disk failed.
        """
        if self._durability is Durability.FSYNC:
            return
        try:
            await asyncio.to_thread(self._upkeep.sync_wal)
        except OSError as exc:
            raise self._unavailable(exc) from exc

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id.

        Raises:
            StateError: the file cannot be read.
        """
        return await self._open_reader().get(decision_id)

    async def recent(self, *, limit: int = 100, decision: Verdict | None = None) -> Sequence[DecisionRecord]:
        """Return the newest records, newest first; with `decision`, of that one alone.

        Raises:
            StateError: the file cannot be read.
        """
        return await self._open_reader().recent(limit=limit, decision=decision)

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Erase the personal part of every decision on record about an author, of a tenant or of any.

        Returns how many there were; those that are being made meanwhile may be left.

        Raises:
            StateError: the file cannot be read or written.
        """
        return await asyncio.to_thread(erase_subject, self._path, author, tenant=tenant)

    def head(self) -> Head | None:
        """Return the chain's newest link that was committed; None before the first, and after a failure."""
        newest = self._writer.newest
        return None if newest is None else newest.head

    async def count(self) -> int:
        """Say how many decisions are on record.

        Raises:
            StateError: the file cannot be read.
        """
        return await self._open_reader().count()

    def _take_salt(self) -> bytes:
        """Return bytes of chance that nobody else gets, from a block: to ask the system costs more than to hash."""
        if not self._salts:
            self._salts = os.urandom(256 * SALT_BYTES)
        salt, self._salts = self._salts[:SALT_BYTES], self._salts[SALT_BYTES:]
        return salt

    def _start(self) -> None:
        self._reader = SqliteDecisionReader(self._path)
        with state_errors(self._path):
            self._writer.start()
            self._upkeep.start()

    def _open_reader(self) -> SqliteDecisionReader:
        if self._reader is None:
            raise LogUnavailable("decision log: it is not open")
        return self._reader

    def _check_floor(self, decision: Verdict) -> None:
        free = self._upkeep.free_bytes
        if decision is Verdict.ALLOW and free < self._floor_bytes:
            raise LogUnavailable(
                f"decision log: {free / MIB:.1f} MiB are free on its disk, and the last "
                f"{self._floor_bytes / MIB:.1f} MiB are kept for Review and Block: Allow waits until there is room"
            )

    def _take_place(self, size: int) -> None:
        if self._rows >= self._max_waiting_rows:
            raise LogUnavailable(f"decision log: {self._rows:,} rows are waiting, which is the limit")
        if self._bytes + size > self._max_waiting_bytes:
            raise LogUnavailable(
                f"decision log: {self._bytes:,} bytes are waiting, with this row's {size:,} they would be over "
                f"the limit of {self._max_waiting_bytes:,}"
            )
        self._rows += 1
        self._bytes += size

    def _deliver(self, group: Group, cause: Exception | None) -> None:
        """Cross back to the event loop, once a group; runs on the writer's thread."""
        loop = group[0].future.get_loop()
        # A loop that was closed before the log has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._settle, group, cause)

    def _settle(self, group: Group, cause: Exception | None) -> None:
        for waiting in group:
            self._rows -= 1
            self._bytes -= waiting.row.size_bytes
            if waiting.future.done():
                continue  # cancelled: whoever appended has left
            if cause is not None:
                waiting.future.set_exception(self._unavailable(cause))
            elif waiting.error is not None:
                waiting.future.set_exception(waiting.error)
            else:
                waiting.future.set_result(None)

    def _unavailable(self, cause: Exception) -> LogUnavailable:
        """Make one error for each waiter: a shared one would collect the tracebacks of all of them."""
        # Callers read this; an OSError's own words would tell them our paths.
        why = cause.strerror if isinstance(cause, OSError) else getattr(cause, "orig", cause)
        error = LogUnavailable(f"decision log: it cannot be written: {why}")
        error.__cause__ = cause
        return error
