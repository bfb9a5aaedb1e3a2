"""The decision log's second thread: checkpoints what was committed, drops what is too old, looks at the disk."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from baleen_core.decision_chain import Head
from baleen_core.errors import BaleenError
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.engine import CUTTING_MILLISECONDS, DatabaseFault
from baleen_sidecar.adapters.store.retention import BATCH_ROWS, drop_expired, drop_old_of_file

logger = logging.getLogger(__name__)

_DROP_SHARE = 0.5
"""Dropping old rows takes at most this share of a round, as decisions wait for each batch."""
_HEAD_SECONDS = 3600.0
"""How often the head of the chain goes to the process's own log, which as a rule is kept elsewhere."""


class UpkeepThread:
    """Does a round every `interval_seconds`, and a last one at the end.

    `head` says where the chain ends, which is logged soon after the start, at the end, and each hour between.
    """

    def __init__(self, where: str, *, interval_seconds: float, head: Callable[[], Head | None]) -> None:
        self._where = where
        self._interval_seconds = interval_seconds
        self._head = head
        self._told_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision-log-upkeep", daemon=True)
        self.failure = ""
        """What went wrong in the last round, for whoever runs the process; empty: nothing."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Do a last round and end; blocks until that is done."""
        self._stopping.set()
        self._thread.join()

    def _round(self) -> None:
        """Do what is to be done now and then."""
        raise NotImplementedError

    def _drop_connection(self) -> None:
        """Let go of what a round needs; the next one makes it anew."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            self._look_after()
        self._look_after()
        if (head := self._head()) is not None:
            self._tell(head)
        self._drop_connection()

    def _look_after(self) -> None:
        """Do one round; a fault is reported once, and the next round tries again."""
        # What is told must be on the disk, and this is only once a round was done.
        head = self._head()
        try:
            self._round()
            if head is not None and time.monotonic() - self._told_at >= _HEAD_SECONDS:
                self._tell(head)
        except Exception as exc:  # whatever it is: the thread must live
            self._drop_connection()
            said = _say(exc)
            if said != self.failure:
                logger.warning("decision log upkeep failed", extra={"path": self._where, "cause": said})
            self.failure = said
        else:
            self.failure = ""

    def _tell(self, head: Head) -> None:
        self._told_at = time.monotonic()
        logger.info("decision log head", extra={"head": str(head)})

    def _drop_while_there_is_time(self, drop: Callable[[], int]) -> None:
        give_up = time.monotonic() + self._interval_seconds * _DROP_SHARE
        dropped = BATCH_ROWS
        while dropped == BATCH_ROWS and time.monotonic() < give_up and not self._stopping.is_set():
            dropped = drop()


def _say(error: Exception) -> str:
    match error:
        case DatabaseFault():
            return error.said
        case OSError() | sqlite3.Error() | BaleenError():
            return str(error)
    return f"{type(error).__name__}: {error}"


class Upkeep(UpkeepThread):
    """Checkpoints every `interval_seconds`, and cuts the write-ahead log when it is above `truncate_bytes`.

    With `sync`, it also makes durable what was committed since: the promise of Durability.INTERVAL. Decisions without
    a term of their own are dropped after `decisions_days`; 0: never.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_seconds: float,
        truncate_bytes: int,
        sync: bool,
        decisions_days: int,
        head: Callable[[], Head | None],
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(str(path), interval_seconds=interval_seconds, head=head)
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._file = DurableFile(path, synchronous="NORMAL")
        self._truncate_bytes = truncate_bytes
        self._sync = sync
        self._decisions_days = decisions_days
        self._wall_seconds = wall_seconds
        self.free_bytes = 0
        """Room on the disk, as of the last look at it."""

    def start(self) -> None:
        """Open the file, look at the disk once, and begin.

        Raises:
            OSError: there is no such file.
            sqlite3.Error: it cannot be opened.
        """
        self._file.connection()
        self.free_bytes = self._measure_free_bytes()
        super().start()

    def _round(self) -> None:
        self.free_bytes = self._measure_free_bytes()
        self._checkpoint()
        self._drop_expired()

    def _drop_connection(self) -> None:
        self._file.drop()

    def _checkpoint(self) -> None:
        connection = self._file.connection()
        self._file.check_in_place()
        connection.execute(f"PRAGMA busy_timeout = {CUTTING_MILLISECONDS}")
        if self._sync:
            self.sync_wal()
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if self._wal.exists() and self._wal.stat().st_size > self._truncate_bytes:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _drop_expired(self) -> None:
        connection = self._file.connection()
        self._drop_while_there_is_time(
            lambda: drop_expired(connection, now_seconds=self._wall_seconds(), default_days=self._decisions_days)
        )
        self._drop_while_there_is_time(lambda: drop_old_of_file(connection, now_seconds=self._wall_seconds()))

    def sync_wal(self) -> None:
        """Sync the write-ahead log itself: a checkpoint syncs it only as far as it gets before a reader.

        For any thread.

        Raises:
            OSError: the disk failed.
        """
        if not self._wal.exists():
            return
        # SQLite's locks are on the other two files: closing one of those here would let go of them.
        descriptor = os.open(self._wal, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _measure_free_bytes(self) -> int:
        status = os.statvfs(self._path.parent)
        return status.f_bavail * status.f_frsize
