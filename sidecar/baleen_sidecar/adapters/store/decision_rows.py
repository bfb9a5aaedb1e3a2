"""A decision record as a row of the `decisions` table, and back; the statements of the hot path as plain SQL."""

from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects import sqlite

from baleen_core.errors import StateError
from baleen_core.records import DecisionRecord, decode_record, encode
from baleen_sidecar.adapters.store.schema import decisions


class Row(NamedTuple):
    """The columns that are written, in the order of the table, which is that of a statement's parameters."""

    id: str
    time: str
    content_digest: str
    decision: str
    author: str | None
    surface: str | None
    record: bytes
    origin: str | None


_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


def to_row(record: DecisionRecord, origin: str | None = None) -> Row:
    """Encode a record, once on its way to the disk."""
    evidence = record.evidence
    author = evidence.context.author.get("id")
    return Row(
        id=record.id,
        time=record.time,
        content_digest=evidence.content.digest,
        decision=record.decision.decision.value,
        author=None if author is None else str(author),
        surface=evidence.context.surface,
        record=encode(record),
        origin=origin,
    )


def from_row(decision_id: str, data: bytes) -> DecisionRecord:
    """Decode the `record` column.

    Raises:
        StateError: the bytes are not a record that this version can read.
    """
    try:
        return decode_record(data)
    except ValueError as exc:
        raise StateError(f"decision {decision_id} cannot be read back: {exc}") from exc


def is_same(data: bytes, other: bytes) -> bool:
    """Say whether two `record` columns are one record, though releases may write it differently."""
    if data == other:
        return True
    try:
        return decode_record(data) == decode_record(other)
    except ValueError:
        return False


@cache
def insert_sql(rows: int) -> str:
    """Write the INSERT of so many rows at once; its parameters are the rows' values, one row after the other."""
    statement = insert(decisions).values([dict.fromkeys(Row._fields)] * rows)
    return str(statement.compile(dialect=_DIALECT))


@cache
def find_sql() -> str:
    """Write the SELECT of the `record` of an id."""
    statement = select(decisions.c.record).where(decisions.c.id == bindparam("id"))
    return str(statement.compile(dialect=_DIALECT))
