"""The plain connection behind the decision log, which outlives faults of the disk."""

import sqlite3
from pathlib import Path

from baleen_sidecar.adapters.store.engine import connect


class DurableFile:
    """A connection that is made when it is needed and, once dropped after an error, made anew; one thread at a time.

    It keeps to the file that it opened first. SQLite finds the write-ahead log by the file's name: opening another file
    of that name would mix the two, or throw away what was committed.
    """

    def __init__(self, path: Path, *, synchronous: str, overwrites: bool = False) -> None:
        """With `overwrites`, what is deleted is overwritten in the file, too."""
        self._path = path
        self._overwrites = overwrites
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def connection(self) -> sqlite3.Connection:
        """Return the connection; it never creates the file.

        Raises:
            OSError: there is no such file, or it is not the one that was opened first.
            sqlite3.Error: it cannot be opened, or is not a database.
        """
        if self._connection is None:
            self.check_in_place()
            self._connection = connect(self._path, mode="rw", synchronous=self._synchronous)
            # A checkpoint inside a commit stalls it by 20 to 70 ms; a thread of its own does them (upkeep.py).
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            if self._overwrites:
                self._connection.execute("PRAGMA secure_delete = ON")
        return self._connection

    def check_in_place(self) -> None:
        """Notice that the path no longer names the file: what is written to it would be lost unseen.

        Raises:
            OSError: it was removed, moved away or replaced.
        """
        status = self._path.stat()
        found = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = found
        if self._identity != found:
            raise OSError("the file was replaced by another one; bring it back, or restart to use the other")

    def drop(self) -> None:
        """Close the connection; what was not committed is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
