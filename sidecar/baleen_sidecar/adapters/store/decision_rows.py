"""A decision record as a row of the `decisions` table, and back; the statements of the hot path as plain SQL."""

from functools import cache
from typing import Final

from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects import sqlite

from baleen_core.errors import StateError
from baleen_core.records import DecisionRecord, decode_record, encode
from baleen_sidecar.adapters.store.schema import decisions

COLUMNS: Final = ("id", "time", "content_digest", "decision", "author", "surface", "record")

Row = tuple[str, str, str, str, str | None, str | None, bytes]
"""The values of COLUMNS, in their order."""

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


def to_row(record: DecisionRecord) -> Row:
    """Encode a record, once on its way to the disk."""
    evidence = record.evidence
    author = evidence.context.author.get("id")
    return (
        record.id,
        record.time,
        evidence.content.digest,
        record.decision.decision.value,
        None if author is None else str(author),
        evidence.context.surface,
        encode(record),
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


@cache
def insert_sql(rows: int) -> str:
    """Write the INSERT of so many rows at once; its parameters are the rows' values, one row after the other."""
    statement = insert(decisions).values([dict.fromkeys(COLUMNS)] * rows)
    return str(statement.compile(dialect=_DIALECT))


@cache
def find_sql() -> str:
    """Write the SELECT of the `record` of an id."""
    statement = select(decisions.c.record).where(decisions.c.id == bindparam("id"))
    return str(statement.compile(dialect=_DIALECT))
