"""Drops decisions whose time is over, and keeps what the chain of the others needs."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from baleen_core.decision_chain import Head
from baleen_sidecar.adapters.store.beside_rows import SQLITE, drop_old, forget_debts, has_old
from baleen_sidecar.adapters.store.chain_rows import FILE, Chain, HashedRow, move_start, pass_over, read_start
from baleen_sidecar.adapters.store.connection import Connection
from baleen_sidecar.adapters.store.engine import begin_writing
from baleen_sidecar.ports import KEY_SECONDS

BATCH_ROWS: Final = 200
"""Rows of one transaction: decisions that are being made wait for it."""
CHANGES_DAYS: Final = 30
"""How long it is told which decisions a second look changed."""
PATIENCE_SECONDS: Final = 2.0
"""How long a batch waits for decisions that are being written."""

_OLDEST_TERM: Final = "SELECT min(keep_days) FROM decisions WHERE keep_days > ?"
# A row without a place was put there by hand: it stays, for a verification to name.
# Rows behind the beginning of a file's chain and without a link wait in a spool: a gateway is to get them first.
_EXPIRED: Final = (
    "SELECT sequence, writer, {columns} FROM decisions WHERE {term} AND time < ? "
    "AND {place} IS NOT NULL AND (link IS NOT NULL OR sequence <= ?) ORDER BY time LIMIT ?"
)
_DELETE: Final = "DELETE FROM decisions WHERE sequence = ?"
_KEEP_DIGEST: Final = "INSERT INTO dropped_decisions (sequence, digest, writer, number) VALUES (?, ?, ?, ?)"
# The same in PostgreSQL, of all rows at once.
_DELETE_ALL: Final = (
    "DELETE FROM decisions WHERE sequence IN "
    "(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(? AS json)) AS each(value))"
)
_KEEP_DIGESTS: Final = (
    "INSERT INTO dropped_decisions (sequence, digest, writer, number) "
    "SELECT sequence, decode(digest, 'base64'), writer, number FROM json_to_recordset(CAST(? AS json)) "
    "AS row(sequence bigint, digest text, writer integer, number bigint)"
)
_ENCODE: Final = msgspec.json.Encoder().encode


class ExpiredRow(NamedTuple):
    """A row whose time is over; `writer` is its chain's id, None in a file, and `row` has its place there."""

    sequence: int
    writer: int | None
    row: HashedRow


class KeptDigest(NamedTuple):
    """What stays of a row that is dropped behind the beginning of its chain."""

    sequence: int
    digest: bytes
    writer: int | None
    number: int | None


def drop_expired(
    connection: sqlite3.Connection, *, now_seconds: float, default_days: int, limit: int = BATCH_ROWS
) -> int:
    """Drop up to `limit` of a file's decisions that are older than they are to be kept, oldest first; return how many.

    A decision is kept for its own `keep_days`, or for `default_days` where it has none; 0: for ever. The connection is
    in autocommit; what is dropped is one transaction. The beginning of the chain moves on to the oldest that is kept,
    and of what is dropped behind that, the digests stay. Where no chain was begun, nothing is dropped.

    Raises:
        sqlite3.Error: the file cannot be read or written; nothing was dropped then.
    """
    start = read_start(connection)
    if start is None:
        return 0
    expired = find_expired(
        connection, FILE, outside_to=start.sequence, now_seconds=now_seconds, default_days=default_days, limit=limit
    )
    if expired:
        # Nobody else moves the beginning.
        begin_writing(connection, patience_seconds=PATIENCE_SECONDS)
        try:
            drop_rows(connection, FILE, start, expired)
            forget_debts(connection, [each.row.id for each in expired], SQLITE)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(expired)


class Ages(NamedTuple):
    """Up to when idempotency keys (Unix seconds), and before when changes (RFC 3339, UTC), are too old."""

    keys_to: int
    changes_before: str


def ages_at(now_seconds: float) -> Ages:
    """Return what is too old at a time."""
    return Ages(int(now_seconds) - KEY_SECONDS, _format(now_seconds - CHANGES_DAYS * 86_400))


def drop_old_of_file(connection: sqlite3.Connection, *, now_seconds: float, limit: int = BATCH_ROWS) -> int:
    """Drop up to `limit` idempotency keys of a file that are too old, and such changes; return how many keys.

    Raises:
        sqlite3.Error: as for `drop_expired`.
    """
    ages = ages_at(now_seconds)
    if not has_old(connection, keys_to=ages.keys_to, changes_before=ages.changes_before):
        return 0
    begin_writing(connection, patience_seconds=PATIENCE_SECONDS)
    try:
        dropped = drop_old(connection, keys_to=ages.keys_to, changes_before=ages.changes_before, limit=limit)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return dropped


def find_expired(
    connection: Connection,
    columns_of: Chain,
    *,
    outside_to: int = 0,
    now_seconds: float,
    default_days: int,
    limit: int = BATCH_ROWS,
) -> list[ExpiredRow]:
    """Find up to `limit` rows that are older than they are to be kept, in the order of their sequence.

    They are of any chain; `columns_of` is one whose rows have their places where all of them have.
    """
    expired: list[ExpiredRow] = []
    term: int | None = None
    days = default_days
    while True:
        if days:
            before = _format(now_seconds - days * 86_400)
            statement = _EXPIRED.format(
                columns=columns_of.columns,
                place=columns_of.place,
                term="keep_days IS NULL" if term is None else f"keep_days = {term:d}",
            )
            found = connection.execute(statement, (before, outside_to, limit - len(expired)))
            expired += [ExpiredRow(each[0], each[1], HashedRow(*each[2:])) for each in found.fetchall()]
        (term,) = connection.execute(_OLDEST_TERM, (term or 0,)).fetchone()
        if term is None or len(expired) == limit:
            break
        days = term
    return sorted(expired)


def _format(seconds: float) -> str:
    """Write a time as records have it, so that it compares as text."""
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(0.0, seconds))
    return now.isoformat(timespec="milliseconds")


def drop_rows(connection: Connection, chain: Chain, start: Head, rows: Sequence[ExpiredRow]) -> None:
    """Drop rows of a chain that begins at `start`; in the transaction that is under way."""
    start = pass_over(connection, start, chain, [each.row for each in rows])
    # Of a row that cannot be hashed nothing fits: the fault in the log stays one.
    behind = [
        KeptDigest(
            each.sequence, each.row.hash() or b"", each.writer, None if each.writer is None else each.row.sequence
        )
        for each in rows
        if each.row.link is not None and each.row.sequence > start.sequence
    ]
    if chain.writer:
        # Each statement goes there and back, while decisions wait.
        connection.execute(_DELETE_ALL, (_ENCODE([each.sequence for each in rows]).decode(),))
        if behind:
            connection.execute(_KEEP_DIGESTS, (_ENCODE([each._asdict() for each in behind]).decode(),))
    else:
        for each in rows:
            connection.execute(_DELETE, (each.sequence,))
        for kept in behind:
            connection.execute(_KEEP_DIGEST, kept)
    move_start(connection, start, chain)
