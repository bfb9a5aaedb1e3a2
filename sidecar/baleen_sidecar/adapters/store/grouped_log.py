"""A decision log in groups: an append returns when the commit that holds its row is durable."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from baleen_core.decision_chain import SALT_BYTES, Head
from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store.decision_reader import DecisionReader
from baleen_sidecar.adapters.store.decision_rows import Row, to_chained_row
from baleen_sidecar.adapters.store.group_writer import Group, GroupWriter, RowWriter, Waiting
from baleen_sidecar.ports import Beside, KnownKey, LoggedDecision

MIB: Final = 1024 * 1024


class GroupedLog:
    """For one event loop, between `open` and `close` (or `async with`); see its subclasses for where the rows go.

    `max_rows` and `max_wait_seconds` bound a group that is committed at once, `max_waiting_rows` and
    `max_waiting_bytes` what waits altogether.
    """

    def __init__(
        self,
        rows: RowWriter,
        open_reader: Callable[[], DecisionReader],
        *,
        max_rows: int,
        max_wait_seconds: float,
        max_waiting_rows: int,
        max_waiting_bytes: int,
    ) -> None:
        self._sink = rows
        self._make_reader = open_reader
        self._max_waiting_rows = max_waiting_rows
        self._max_waiting_bytes = max_waiting_bytes
        self._writer = GroupWriter(rows, max_rows=max_rows, max_wait_seconds=max_wait_seconds, deliver=self._deliver)
        self._salts = b""
        self._of_this_turn: list[Waiting] = []
        self._rows = 0
        self._bytes = 0
        self._reader: DecisionReader | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Start the two threads.

        Raises:
            NotFound: there is no such file.
            StateError: it is not a store of this version, or cannot be used now.
        """
        await asyncio.to_thread(self._start)
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Refuse new rows, write those that wait, and end the threads; closing again does nothing."""
        if self._loop is None:
            return
        self._loop = None
        self._hand_over()
        await asyncio.to_thread(self._writer.stop)
        self._open_reader().close()
        self._reader = None
        await asyncio.to_thread(self._end)

    def _start(self) -> None:
        reader = self._make_reader()
        try:
            self._begin()
        except BaseException:
            reader.close()
            raise
        self._reader = reader

    def _begin(self) -> None:
        """Start the threads; raises what `open` does."""
        raise NotImplementedError

    def _end(self) -> None:
        """End the second thread; the first one has ended."""
        raise NotImplementedError

    def _check_room(self, decision: Verdict) -> None:
        """Refuse what there is no room for.

        Raises:
            LogUnavailable: there is none.
        """

    def _why(self, cause: Exception) -> str:
        """Say in words for callers, without our paths, why nothing can be written."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Make the record durable; one that is on record already changes nothing, whoever sent it.

        Who stops waiting leaves the row behind: it is written all the same. False as for ports.DecisionLog.

        Raises:
            LogUnavailable: the disk or database failed, is full or nearly so, or too many rows wait.
            IntegrityError: another record has this id.
        """
        return await self.begin(record, beside)

    def begin(self, record: DecisionRecord, beside: Beside | None = None) -> asyncio.Future[bool]:
        """See ports.DecisionLog; what it returns ends as `append` does."""
        return self._queue(to_chained_row(record, self._take_salt()), beside).future

    async def take(self, record: DecisionRecord, *, origin: str) -> bool:
        """Append what somebody else decided; False when it was on record before. Raises as `append` does."""
        return (await self.write_row(to_chained_row(record, self._take_salt(), origin))).is_new

    async def write_row(self, row: Row, beside: Beside | None = None) -> Waiting:
        """Append what is a row already, of the chain or not, and return what became of it. Raises as `append` does."""
        waiting = self._queue(row, beside)
        await waiting.future
        return waiting

    def _queue(self, row: Row, beside: Beside | None) -> Waiting:
        loop = self._loop
        if loop is None:
            raise LogUnavailable("decision log: it is not open")
        self._check_room(Verdict(row.decision))
        waiting = Waiting(row, loop.create_future(), beside=beside)
        self._take_place(waiting.size_bytes)
        if not self._of_this_turn:
            # To wake the writer for each row would have it want the interpreter lock while the loop needs it.
            loop.call_soon(self._hand_over)
        self._of_this_turn.append(waiting)
        return waiting

    def _hand_over(self) -> None:
        """Give the writer what was appended in one turn of the event loop."""
        for waiting in self._of_this_turn:
            self._writer.put(waiting)
        self._of_this_turn.clear()

    async def sync(self) -> None:
        """Return once everything that was appended is on the disk, whatever the durability.

        Raises:
            LogUnavailable: the disk or the database failed.
        """
        raise NotImplementedError

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().get(decision_id)

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is on record under an idempotency key.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().find_key(key_id, now_seconds=now_seconds)

    async def recent(self, *, limit: int = 100, decision: Verdict | None = None) -> Sequence[DecisionRecord]:
        """Return the newest records, newest first; with `decision`, of that one alone.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().recent(limit=limit, decision=decision)

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Erase the personal part of every decision on record about an author, of a tenant or of any.

        Returns how many there were; those that are being made meanwhile may be left.

        Raises:
            StateError: the log cannot be read or written.
        """
        raise NotImplementedError

    def head(self) -> Head | None:
        """Return the chain's newest link that was committed; None before the first, and after a failure."""
        return self._sink.head

    async def newest(self, *, before: int | None = None, limit: int) -> Sequence[LoggedDecision]:
        """Return the newest decisions as they are written, newest first; with `before`, those in places below it.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().newest(before=before, limit=limit)

    async def log_id(self) -> str:
        """Return what all readers of this log say alike, and no other log does; empty: nobody shares it.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().log_id()

    async def count(self) -> int:
        """Say how many decisions are on record.

        Raises:
            StateError: the log cannot be read.
        """
        return await self._open_reader().count()

    def _take_salt(self) -> bytes:
        """Return bytes of chance that nobody else gets, from a block: to ask the system costs more than to hash."""
        if not self._salts:
            self._salts = os.urandom(256 * SALT_BYTES)
        salt, self._salts = self._salts[:SALT_BYTES], self._salts[SALT_BYTES:]
        return salt

    def _open_reader(self) -> DecisionReader:
        if self._reader is None:
            raise LogUnavailable("decision log: it is not open")
        return self._reader

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
            self._bytes -= waiting.size_bytes
            if waiting.future.done():
                continue  # cancelled: whoever appended has left
            if cause is not None:
                waiting.future.set_exception(self._unavailable(cause))
            elif waiting.error is not None:
                waiting.future.set_exception(waiting.error)
            else:
                waiting.future.set_result(not waiting.is_taken)

    def _unavailable(self, cause: Exception) -> LogUnavailable:
        """Make one error for each waiter: a shared one would collect the tracebacks of all of them."""
        error = LogUnavailable(f"decision log: it cannot be written: {self._why(cause)}")
        error.__cause__ = cause
        return error
