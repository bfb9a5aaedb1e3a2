"""The decision log's second thread: checkpoints what was committed, drops what is too old, looks at the disk."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from baleen_core.decision_chain import Head
from baleen_core.errors import BaleenError
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.engine import CUTTING_MILLISECONDS, DatabaseFault
from baleen_sidecar.adapters.store.retention import BATCH_ROWS, drop_expired, drop_old_of_file
from baleen_sidecar.adapters.store.turns import Turns

logger = logging.getLogger(__name__)

_DROP_SHARE = 0.5
"""Dropping old rows takes at most this share of a round, as decisions wait for each batch."""
COPY_ROUNDS: Final = 4
"""Every so many rounds what was committed is copied into the file: commits wait longer for the disk meanwhile."""
RESTART_SHARE: Final = 0.25
"""The part of `truncate_bytes` above which the write-ahead log is begun anew."""
REST_PAGES: Final = 1024
"""The most that is copied while decisions wait: 4 MiB, some milliseconds."""
REST_SECONDS: Final = 0.1
"""Where what came just before took longer to copy, the disk is too slow for decisions to wait for the rest."""
PAGE_BYTES: Final = 4096 + 24
"""A page of SQLite's with its head in the write-ahead log."""
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


class _Copied(NamedTuple):
    """Pages that the write-ahead log had when a checkpoint began, and how many of them are in the file now."""

    pages: int
    copied: int

    @property
    def is_whole(self) -> bool:
        """Whether no reader was in the way."""
        return self.copied == self.pages


def _copy_back(connection: sqlite3.Connection) -> _Copied:
    """Copy what can be copied while others read and write."""
    _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return _Copied(pages, copied)


class Upkeep(UpkeepThread):
    """Checkpoints every COPY_ROUNDS rounds, and cuts the write-ahead log when it is above `truncate_bytes`.

    Where it is above RESTART_SHARE of that, it is begun anew; whoever writes is held up for that by `turns`.

    With `sync`, each round makes durable what was committed since: the promise of Durability.INTERVAL. Decisions
    without a term of their own are dropped after `decisions_days`; 0: never.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_seconds: float,
        truncate_bytes: int,
        turns: Turns,
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
        self._turns = turns
        self._sync = sync
        self._decisions_days = decisions_days
        self._wall_seconds = wall_seconds
        self._round_number = 0
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
        self._round_number += 1
        if self._round_number % COPY_ROUNDS == 0 or self._stopping.is_set():
            before = _copy_back(connection)
            if before.is_whole and before.pages * PAGE_BYTES > self._truncate_bytes * RESTART_SHARE:
                self._begin_anew(connection, before)
        is_over = self._wal.exists() and self._wal.stat().st_size > self._truncate_bytes
        # While a reader is in the way it would not be cut, and decisions would have waited for nothing.
        if is_over and _copy_back(connection).is_whole:
            with self._turns.between():
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _begin_anew(self, connection: sqlite3.Connection, before: _Copied) -> None:
        """Have the next row written at the beginning of the write-ahead log again.

        SQLite does that only where nothing is left to copy, which under load never comes about by itself; and a log
        that grows has the disk write down its size at each sync.
        """
        began = time.monotonic()
        found = _copy_back(connection)
        is_quick = time.monotonic() - began <= REST_SECONDS
        if is_quick and found.is_whole and found.pages - before.pages <= REST_PAGES:
            with self._turns.between():
                _copy_back(connection)

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
