"""The folder of everything that a sidecar keeps; one process at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from baleen_core.errors import StateError

DATABASE: Final = "baleen.db"
_LOCK: Final = "lock"


class StateFolder:
    """While entered, no other process can enter the same folder; a killed one lets go of it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        """The SQLite file. Reading it does not need the folder's lock."""
        return self.path / DATABASE

    def __enter__(self) -> Self:
        """Make the folder if need be and lock it.

        Raises:
            StateError: another process is in it, or it cannot be made or written.
        """
        try:
            # Decisions and lists are nobody else's business.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise StateError(f"state folder {self.path} cannot be used: {exc}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise StateError(
                f"state folder {self.path} is in use by process {owner}: stop it, or set another folder"
            ) from exc
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go. The lock file stays: removing it would let two processes lock two files of one name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
