"""A decision record as a row of the `decisions` table, and back; the statements of the hot path as plain SQL."""

from functools import cache
from typing import Final, NamedTuple

from msgspec import structs
from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects import sqlite

from baleen_core.decision_chain import SALT_BYTES, personal_digest, row_digest
from baleen_core.errors import StateError
from baleen_core.records import (
    DecisionRecord,
    decode_personal,
    decode_record,
    encode,
    join_personal,
    split_personal,
)
from baleen_sidecar.adapters.store.schema import decisions


class Row(NamedTuple):
    """What is written of a decision: INSERTED without its ends.

    The chain goes on with `digest`, which is no column; None: the row is in no chain, and its record is whole.
    """

    id: str
    time: str
    content_digest: str
    decision: str
    author: str | None
    surface: str | None
    record: bytes
    origin: str | None
    personal: bytes | None = None
    salt: bytes | None = None
    keep_days: int | None = None
    digest: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """What its record takes."""
        return len(self.record) + len(self.personal or b"")


INSERTED: Final = ("sequence", *Row._fields[:-1], "link")
"""The columns that are written, in the order of the table, which is that of a statement's parameters."""

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


class StoredRecord(NamedTuple):
    """The columns that a record is read from."""

    record: bytes
    personal: bytes | None
    personal_digest: bytes | None


RECORD_COLUMNS: Final = tuple(decisions.c[name] for name in StoredRecord._fields)


def to_row(record: DecisionRecord, origin: str | None = None) -> Row:
    """Encode a record for a spool, which keeps it whole."""
    return Row(
        id=record.id,
        time=record.time,
        content_digest=record.evidence.content.digest,
        decision=record.decision.decision.value,
        author=author_of(record),
        surface=record.evidence.context.surface,
        record=encode(record),
        origin=origin,
        keep_days=record.keep_days,
    )


def to_chained_row(record: DecisionRecord, salt: bytes, origin: str | None = None) -> Row:
    """Encode a record, once on its way to the disk, as a row of the chain; `salt` is for this row alone.

    Raises:
        ValueError: `salt` is not SALT_BYTES long.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, this one has {len(salt)}")
    rest, part = split_personal(record)
    personal = encode(part)
    evidence = record.evidence
    digest, decision, surface = evidence.content.digest, record.decision.decision.value, evidence.context.surface
    author, written = author_of(record), encode(rest)
    hidden = personal_digest(salt, content_digest=digest, author=author, personal=personal)
    chained = row_digest(
        hidden,
        id=record.id,
        time=record.time,
        decision=decision,
        surface=surface,
        origin=origin,
        keep_days=record.keep_days,
        record=written,
    )
    return Row(
        record.id,
        record.time,
        digest,
        decision,
        author,
        surface,
        written,
        origin,
        personal,
        salt,
        record.keep_days,
        chained,
    )


def author_of(record: DecisionRecord) -> str | None:
    """Return by whom the content is, as its row says it."""
    author = record.evidence.context.author.get("id")
    return None if author is None else str(author)


def from_row(decision_id: str, stored: StoredRecord) -> DecisionRecord:
    """Decode what was stored; where the personal part was erased, the record says so.

    Raises:
        StateError: the bytes are not a record that this version can read.
    """
    try:
        record = decode_record(stored.record)
        if stored.personal_digest is not None:
            return structs.replace(record, erased=True)
        return record if stored.personal is None else join_personal(record, decode_personal(stored.personal))
    except ValueError as exc:
        raise StateError(f"decision {decision_id} cannot be read back: {exc}") from exc


def is_same(stored: StoredRecord, row: Row) -> bool:
    """Say whether a row has the record that is stored, though releases may write it differently.

    What was erased cannot differ: whoever sends such a record again must not be told that it is another one.
    """
    if (stored.record, stored.personal) == (row.record, row.personal):
        return True
    given = StoredRecord(row.record, row.personal, None)
    try:
        if stored.personal_digest is None:
            return from_row(row.id, stored) == from_row(row.id, given)
        return decode_record(stored.record) == split_personal(from_row(row.id, given))[0]
    except (ValueError, StateError):
        return False


@cache
def insert_sql(rows: int) -> str:
    """Write the INSERT of so many rows at once; its parameters are the rows' values, one row after the other."""
    if rows > 1:
        # SQLAlchemy takes 5 ms to write one of 32 rows, and the event loop stands still meanwhile.
        return insert_sql(1) + f", ({', '.join('?' * len(INSERTED))})" * (rows - 1)
    statement = insert(decisions).values(dict.fromkeys(INSERTED))
    return str(statement.compile(dialect=_DIALECT))


@cache
def find_sql() -> str:
    """Write the SELECT of what is stored under an id, as StoredRecord."""
    statement = select(*RECORD_COLUMNS).where(decisions.c.id == bindparam("id"))
    return str(statement.compile(dialect=_DIALECT))
