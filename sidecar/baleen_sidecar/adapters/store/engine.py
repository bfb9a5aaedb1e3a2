"""Connections to the SQLite file: what every one of them sets, and what its errors become."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import ColumnClause, Engine, Text, create_engine, event, inspect, select, table
from sqlalchemy import column as sql_column
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from baleen_core.errors import NotFound, StateError
from baleen_sidecar.adapters.store.schema import SCHEMA_VERSION

BUSY_SECONDS = 5.0
"""How long a connection waits for another one's transaction; ours take milliseconds."""
WRITE_PAUSE_SECONDS = 0.0005
"""How often `begin_writing` looks whether the file may be written."""
CUTTING_MILLISECONDS = 50
"""A truncating checkpoint holds up the writer while it waits for readers, so it must not wait long."""

_VERSION: ColumnClause[str] = sql_column("version_num", Text)
_VERSION_TABLE = table("alembic_version", _VERSION)


def connect(path: Path, *, mode: str, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a plain connection in autocommit; `mode` is SQLite's: `ro`, `rw` or `rwc`.

    Python's own transaction handling is off: it begins at the first write only, and commits on its own account.

    Raises:
        sqlite3.Error: the file cannot be opened, or is not a database.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    if mode != "ro":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def begin_writing(connection: sqlite3.Connection, *, patience_seconds: float) -> None:
    """Begin a transaction that writes, in between those of a decision log under load.

    SQLite itself looks ten times a second, and a log that is busy is hardly ever found free by that.

    Raises:
        sqlite3.OperationalError: the file could not be written for so long, or at all.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    give_up = time.monotonic() + patience_seconds
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(WRITE_PAUSE_SECONDS)
            else:
                return
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def open_engine(path: Path, *, mode: str) -> Engine:
    """Open the file for SQLAlchemy; connections are made when they are needed, and may move between threads."""
    engine = create_engine("sqlite+pysqlite://", creator=lambda: connect(path, mode=mode), poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def open_current(path: Path, *, mode: str) -> Engine:
    """Open a file that must be there already, with the schema of this version.

    Raises:
        NotFound: there is no such file.
        StateError: it is not ours, or of another version.
    """
    if not path.exists():
        raise NotFound(f"{path}: no decisions or policies were kept here yet")
    engine = open_engine(path, mode=mode)
    found = read_version(engine, path)
    if found != SCHEMA_VERSION:
        engine.dispose()
        refuse_newer(found, path)
        raise StateError(
            f"{path} has the schema {found or 'of no version'}, this version of Baleen needs {SCHEMA_VERSION}: "
            "start the sidecar once, it brings the file up to date"
        )
    return engine


def read_version(engine: Engine, where: Path | str) -> str | None:
    """Say which migration was last, None for a file or database without any.

    Raises:
        StateError: it cannot be read.
    """
    with state_errors(where), engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION_TABLE.name):
            return None
        return connection.scalar(select(_VERSION).select_from(_VERSION_TABLE))


def refuse_newer(found: str | None, path: Path | str) -> None:
    """Stop before a file or database that a newer version wrote is misread.

    Raises:
        StateError: it is newer.
    """
    if found is not None and found > SCHEMA_VERSION:
        raise StateError(
            f"{path} was written by a newer version of Baleen (schema {found}, this one knows up to {SCHEMA_VERSION}): "
            "upgrade Baleen, or restore a copy made before the upgrade"
        )


class DatabaseFault(Exception):
    """A database that is no file refused, with the SQLSTATE `code`, or did not answer: then `code` is empty.

    Its words are for whoever asks for a decision, and name no host, path or value; `said` is for whoever runs it.
    """

    def __init__(self, words: str, *, code: str = "", said: str = "") -> None:
        self.code, self.said = code, said or words
        super().__init__(words)

    @property
    def is_of_connection(self) -> bool:
        """Whether the connection broke, so that another one may do."""
        return not self.code or self.code.startswith(("08", "57P"))


_WORDS: Final = {
    "25006": "the database takes no writes now",
    "3D000": "there is no such database",
    "53100": "the database's disk is full",
    "53300": "the database has no connection to spare",
    "55P03": "another process has the lock",
    "57014": "the database took too long",
    "57P01": "the database is being shut down",
    "57P02": "the database is being restarted",
    "57P03": "the database is being started",
}
"""What SQLSTATEs mean for us; of class 28 are those of users and passwords."""


def fault_of(error: BaseException) -> DatabaseFault:
    """Say what an error of the driver means."""
    match error:
        case DatabaseFault():
            return error
        case Exception(args=({"C": str(code), "M": str(said)}, *_)):
            words = _WORDS.get(code) or (
                "the database refuses the user or the password"
                if code.startswith("28")
                else f"the database refused (SQLSTATE {code})"
            )
            return DatabaseFault(words, code=code, said=said)
    return DatabaseFault("the database does not answer", said=f"the database does not answer: {error}")


@contextmanager
def state_errors(where: Path | str, *, passing: type[SQLAlchemyError] | tuple[()] = ()) -> Iterator[None]:
    """Keep errors of the database, SQLAlchemy and the disk from leaking past the store, but for those `passing`."""
    try:
        yield
    except passing:
        raise
    except DBAPIError as exc:
        said = str(exc.orig) if isinstance(exc.orig, sqlite3.Error) else fault_of(exc.orig or exc).said
        raise StateError(f"{where}: {said}") from exc
    except DatabaseFault as exc:
        raise StateError(f"{where}: {exc.said}") from exc
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        raise StateError(f"{where}: {exc}") from exc
