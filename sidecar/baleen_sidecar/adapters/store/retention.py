"""Drops decisions whose time is over, and keeps what the chain of the others needs."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store.chain_rows import COLUMNS, HashedRow, move_start, pass_over, read_start
from baleen_sidecar.adapters.store.engine import begin_writing

BATCH_ROWS: Final = 200
"""Rows of one transaction: decisions that are being made wait for it."""
PATIENCE_SECONDS: Final = 2.0
"""How long a batch waits for decisions that are being written."""

_OLDEST_TERM: Final = "SELECT min(keep_days) FROM decisions WHERE keep_days > ?"
# Rows behind the beginning of the chain and without a link wait in a spool: a gateway is to get them first.
_EXPIRED: Final = (
    f"SELECT {COLUMNS} FROM decisions WHERE keep_days IS ? AND time < ? "  # noqa: S608 - our own words
    "AND (link IS NOT NULL OR sequence <= ?) ORDER BY time LIMIT ?"
)
_DELETE: Final = "DELETE FROM decisions WHERE sequence = ?"
_KEEP_DIGEST: Final = "INSERT INTO dropped_decisions (sequence, digest) VALUES (?, ?)"


def drop_expired(
    connection: sqlite3.Connection, *, now_seconds: float, default_days: int, limit: int = BATCH_ROWS
) -> int:
    """Drop up to `limit` decisions that are older than they are to be kept, oldest first; return how many.

    A decision is kept for its own `keep_days`, or for `default_days` where it has none; 0: for ever. The connection is
    in autocommit; what is dropped is one transaction. The beginning of the chain moves on to the oldest that is kept,
    and of what is dropped behind that, the digests stay. Where no chain was begun, nothing is dropped.

    Raises:
        sqlite3.Error: the file cannot be read or written; nothing was dropped then.
    """
    start = read_start(connection)
    if start is None:
        return 0
    expired: list[HashedRow] = []
    term: int | None = None
    days = default_days
    while True:
        if days:
            before = _format(now_seconds - days * 86_400)
            found = connection.execute(_EXPIRED, (term, before, start.sequence, limit - len(expired)))
            expired += map(HashedRow._make, found.fetchall())
        (term,) = connection.execute(_OLDEST_TERM, (term or 0,)).fetchone()
        if term is None or len(expired) == limit:
            break
        days = term
    if expired:
        _drop(connection, start, sorted(expired))
    return len(expired)


def _format(seconds: float) -> str:
    """Write a time as records have it, so that it compares as text."""
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(0.0, seconds))
    return now.isoformat(timespec="milliseconds")


def _drop(connection: sqlite3.Connection, start: Head, rows: Sequence[HashedRow]) -> None:
    # Nobody else moves the beginning.
    begin_writing(connection, patience_seconds=PATIENCE_SECONDS)
    try:
        start = pass_over(connection, start)
        for row in rows:
            connection.execute(_DELETE, (row.sequence,))
            if row.link is None:
                continue
            if row.sequence == start.sequence + 1:
                start = pass_over(connection, Head(sequence=row.sequence, link=row.link))
            else:
                # Of a row that cannot be hashed nothing fits: the fault in the log stays one.
                connection.execute(_KEEP_DIGEST, (row.sequence, row.hash() or b""))
        move_start(connection, start)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
