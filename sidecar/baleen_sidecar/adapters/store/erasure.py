"""Takes the personal part out of the decisions about a subject; what was hashed of it stays, so the chain holds."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from baleen_core.records import DecisionRecord, encode, split_personal
from baleen_sidecar.adapters.store.beside_rows import SQLITE, forget
from baleen_sidecar.adapters.store.chain_rows import FILE, HashedRow
from baleen_sidecar.adapters.store.connection import Connection
from baleen_sidecar.adapters.store.decision_rows import StoredRecord, from_row
from baleen_sidecar.adapters.store.engine import (
    CUTTING_MILLISECONDS,
    begin_writing,
    connect,
    open_current,
    state_errors,
)

WINDOW_ROWS: Final = 20_000
"""Rows that are looked through by one statement: there is no index of authors, and no reader may stay for long."""
BATCH_ROWS: Final = 100
"""Rows of one transaction: decisions that are being made wait for it."""

PATIENCE_SECONDS: Final = 30.0
"""How long a batch waits for decisions that are being written."""
CUT_TRIES: Final = 20
"""Times that the write-ahead log is tried to be cut, CUT_PAUSE_SECONDS apart, before it is left as it is."""
CUT_PAUSE_SECONDS: Final = 0.25

_ENDS: Final = "SELECT coalesce(min(sequence), 1) - 1, coalesce(max(sequence), 0) FROM decisions"
# By sequence, whichever chain a row is in.
_FIND: Final = FILE.of("SELECT {columns} FROM decisions WHERE sequence > ? AND sequence <= ? AND author = ?")
_ERASE: Final = (
    "UPDATE decisions SET personal_digest = ?, personal = NULL, salt = NULL, author = NULL, content_digest = '', "
    "record = ? WHERE sequence = ? AND personal_digest IS NULL"
)


def erase_subject(path: Path, author: str, *, tenant: str | None = None) -> int:
    """Erase every decision that is on record about an author, of a tenant or of any, and say how many there were.

    The whole log is looked through once. What is erased is overwritten, also in the write-ahead log, unless somebody
    reads it for long just then; it stays in copies that were made before.

    Raises:
        NotFound: there is no such file.
        StateError: it is not a store of this version, or cannot be written; what was erased before that stays so.
    """
    open_current(path, mode="ro").dispose()
    with state_errors(path), closing(connect(path, mode="rw")) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        erased = sum(_erase(connection, rows) for rows in find_rows(connection, author, tenant))
        if erased:
            _cut_wal(connection)
        return erased


def find_rows(connection: Connection, author: str, tenant: str | None) -> Iterator[list[HashedRow]]:
    """Yield the rows about an author that have a personal part, BATCH_ROWS at most at once; `sequence` names them."""
    before, last = connection.execute(_ENDS).fetchone()
    for begin in range(before, last, WINDOW_ROWS):
        found = connection.execute(_FIND, (begin, begin + WINDOW_ROWS, author)).fetchall()
        rows = [row for row in map(HashedRow._make, found) if _is_of(row, tenant)]
        for first in range(0, len(rows), BATCH_ROWS):
            yield rows[first : first + BATCH_ROWS]


def _cut_wal(connection: sqlite3.Connection) -> None:
    """Cut the write-ahead log, which has pages as they were before, unless somebody reads it for seconds."""
    connection.execute(f"PRAGMA busy_timeout = {CUTTING_MILLISECONDS}")
    for _ in range(CUT_TRIES):
        is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:
            return
        time.sleep(CUT_PAUSE_SECONDS)


def _is_of(row: HashedRow, tenant: str | None) -> bool:
    return tenant is None or _read(row).evidence.context.tenant == tenant


def _read(row: HashedRow) -> DecisionRecord:
    return from_row(row.id, StoredRecord(row.record, row.personal, row.personal_digest))


def _erase(connection: sqlite3.Connection, rows: list[HashedRow]) -> int:
    begin_writing(connection, patience_seconds=PATIENCE_SECONDS)
    try:
        erased = sum(connection.execute(_ERASE, (*kept_of(row), row.sequence)).rowcount for row in rows)
        forget(connection, [row.id for row in rows], SQLITE)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return erased


def kept_of(row: HashedRow) -> tuple[bytes, bytes]:
    """Return the digest that is kept of a row's personal part, empty where no chain needs one, and its record."""
    if row.link is not None:
        # An altered row stays one: a digest of what is there now would not fit the chain either.
        return row.hash_personal() or b"", row.record
    return b"", encode(split_personal(_read(row))[0])
