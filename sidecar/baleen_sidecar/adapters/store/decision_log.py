"""The decision log on SQLite."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict
from baleen_sidecar.adapters.store.decision_reader import SqliteDecisionReader
from baleen_sidecar.adapters.store.engine import state_errors
from baleen_sidecar.adapters.store.erasure import erase_subject
from baleen_sidecar.adapters.store.grouped_log import MIB, GroupedLog
from baleen_sidecar.adapters.store.sqlite_rows import MAX_GROUP_ROWS, SqliteRows
from baleen_sidecar.adapters.store.turns import Turns
from baleen_sidecar.adapters.store.upkeep import Upkeep
from baleen_sidecar.settings import Durability

_SYNCHRONOUS: Final = {Durability.FSYNC: "FULL", Durability.INTERVAL: "NORMAL"}


class SqliteDecisionLog(GroupedLog):
    """A GroupedLog in a file, which must have been migrated.

    With less than `floor_bytes` free on the disk, Allow is refused, so that Review and Block still find room. Each
    `checkpoint_seconds` there is a round of Upkeep, which copies what was committed into the file now and then, and
    cuts the write-ahead log when it is above `truncate_bytes`. Decisions that say nothing else are kept for
    `decisions_days`; 0: for ever.
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
        if not 1 <= max_rows <= MAX_GROUP_ROWS:
            raise ValueError(f"max_rows is {max_rows}; it must be 1 to {MAX_GROUP_ROWS}")
        turns = Turns()
        super().__init__(
            SqliteRows(path, synchronous=_SYNCHRONOUS[durability], turns=turns),
            lambda: SqliteDecisionReader(path),
            max_rows=max_rows,
            max_wait_seconds=max_wait_seconds,
            max_waiting_rows=max_waiting_rows,
            max_waiting_bytes=max_waiting_bytes,
        )
        self._path = path
        self._durability = durability
        self._floor_bytes = floor_bytes
        self._upkeep = Upkeep(
            path,
            interval_seconds=checkpoint_seconds,
            truncate_bytes=truncate_bytes,
            turns=turns,
            sync=durability is Durability.INTERVAL,
            decisions_days=decisions_days,
            head=self.head,
            wall_seconds=wall_seconds,
        )

    async def sync(self) -> None:
        """Sync the write-ahead log, where appending does not wait for that."""
        if self._durability is Durability.FSYNC:
            return
        try:
            await asyncio.to_thread(self._upkeep.sync_wal)
        except OSError as exc:
            raise self._unavailable(exc) from exc

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Look through the file; see `erase_subject`."""
        return await asyncio.to_thread(erase_subject, self._path, author, tenant=tenant)

    def _begin(self) -> None:
        with state_errors(self._path):
            self._writer.start()
            self._upkeep.start()

    def _end(self) -> None:
        self._upkeep.stop()

    def _check_room(self, decision: Verdict) -> None:
        free = self._upkeep.free_bytes
        if decision is Verdict.ALLOW and free < self._floor_bytes:
            raise LogUnavailable(
                f"decision log: {free / MIB:.1f} MiB are free on its disk, and the last "
                f"{self._floor_bytes / MIB:.1f} MiB are kept for Review and Block: Allow waits until there is room"
            )

    def _why(self, cause: Exception) -> str:
        # An OSError's own words would tell our paths.
        return str(cause.strerror if isinstance(cause, OSError) else getattr(cause, "orig", cause))
