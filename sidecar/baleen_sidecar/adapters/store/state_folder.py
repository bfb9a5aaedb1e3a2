"""The folder of everything that a sidecar keeps; one process at a time."""

import fcntl
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from baleen_core.errors import StateError

DATABASE: Final = "baleen.db"
_LOCK: Final = "lock"
_WRITER: Final = "writer"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_WRITER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}-[0-9a-f]{16}")


class StateFolder:
    """While entered, no other process can enter the same folder; a killed one lets go of it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        """The SQLite file. Reading it does not need the folder's lock."""
        return self.path / DATABASE

    def writer(self, name: str) -> str:
        """Return who writes the decision log from this folder, wherever the log is; made from `name` at first.

        Call it while entered. It stays as long as the folder does, and nobody else has it.

        Raises:
            StateError: it cannot be read or written, or is not what was written.
        """
        path = self.path / _WRITER
        try:
            if not path.exists():
                beside = path.with_suffix(".new")
                beside.write_text(f"{_NOT_IN_NAMES.sub('-', name)[:200]}-{os.urandom(8).hex()}", encoding="ascii")
                # A name that went with a power cut would leave its chain to nobody.
                sync(beside)
                beside.replace(path)
                sync(self.path)
            found = path.read_text(encoding="ascii", errors="replace")
        except OSError as exc:
            raise StateError(f"{path} cannot be used: {exc.strerror}") from exc
        if not _WRITER_NAME.fullmatch(found):
            raise StateError(f"{path} names no writer of a decision log; delete it to write as a new one")
        return found

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


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
