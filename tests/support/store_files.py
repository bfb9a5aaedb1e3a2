"""A state folder's SQLite file for tests, and what can be done to it from outside."""

import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from baleen_sidecar.adapters.store import migrate


def make_database(folder: Path) -> Path:
    """Make a file with the newest schema."""
    path = folder / "baleen.db"
    migrate(path)
    return path


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Keep every other connection from writing."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def check_integrity(path: Path) -> str:
    """Return what SQLite thinks of its file: `ok`."""
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


class Disk(Protocol):
    """A place for files that can run out of room."""

    folder: Path

    def fill(self) -> None:
        """Leave no room for another byte."""

    def free(self) -> None:
        """Make room again."""


class TinyDisk:
    """A file system of 8 MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip("only root may mount a small file system")

    def fill(self) -> None:
        try:
            (self.folder / "filler").write_bytes(bytes(16 * 1024 * 1024))
        except OSError:
            return
        raise AssertionError("16 MiB fitted on a disk of 8 MiB")

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class SizeLimit:
    """A limit of this process on the size of its files, at the size that the write-ahead log has already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        size = (self.folder / "baleen.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    def close(self) -> None:
        self.free()
