"""The chain of decisions in the file: where it begins and ends, and its rows as they stand now."""

import heapq
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from baleen_core.decision_chain import (
    LINK_BYTES,
    ChainedRow,
    DroppedRow,
    Head,
    Verification,
    next_link,
    personal_digest,
    row_digest,
    verify,
)
from baleen_sidecar.adapters.store.engine import connect, open_current, state_errors


class Newest(NamedTuple):
    """The place of the newest row, and the link of the newest that has one; None where no chain was begun."""

    sequence: int
    link: bytes | None

    @property
    def head(self) -> Head | None:
        """The chain's head, if there is a chain."""
        return None if self.link is None else Head(sequence=self.sequence, link=self.link)


class HashedRow(NamedTuple):
    """The columns that a row's link is made from, and the link."""

    sequence: int
    id: str
    time: str
    content_digest: str
    decision: str
    author: str | None
    surface: str | None
    record: bytes
    origin: str | None
    personal: bytes | None
    salt: bytes | None
    personal_digest: bytes | None
    keep_days: int | None
    link: bytes | None

    def hash_personal(self) -> bytes | None:
        """Return what the personal part hashes to, or did; None where it is neither there nor properly erased."""
        if self.personal_digest is not None:
            # What was put in its place again is not what was hashed.
            is_there = self.salt is not None or self.personal is not None or self.author is not None
            return None if is_there or self.content_digest else self.personal_digest
        if self.salt is None or self.personal is None:
            return None
        return personal_digest(
            self.salt, content_digest=self.content_digest, author=self.author, personal=self.personal
        )

    def hash(self) -> bytes | None:
        """Return the row's digest; None where it has no form that can be hashed."""
        try:
            personal = self.hash_personal()
            if personal is None:
                return None
            return row_digest(
                personal,
                id=self.id,
                time=self.time,
                decision=self.decision,
                surface=self.surface,
                origin=self.origin,
                keep_days=self.keep_days,
                record=self.record,
            )
        except (TypeError, ValueError):
            # A column has another type than it should.
            return None

    def as_chained(self) -> ChainedRow:
        """Return what a verification looks at."""
        return ChainedRow(
            sequence=self.sequence,
            id=str(self.id),
            time=str(self.time),
            digest=self.hash(),
            link=None if self.link is None else _bytes(self.link),
            is_erased=self.personal_digest is not None,
        )


COLUMNS: Final = ", ".join(HashedRow._fields)
"""The columns of a HashedRow, for a SELECT."""

_START: Final = "SELECT sequence, link FROM chain"
_BEGIN: Final = "INSERT INTO chain (id, sequence, link) VALUES (1, ?, ?)"
_NEWEST_ROW: Final = "SELECT coalesce(max(sequence), 0) FROM decisions"
_NEWEST_LINKED: Final = (
    "SELECT sequence, link FROM decisions WHERE link IS NOT NULL AND sequence > ? ORDER BY sequence DESC LIMIT 1"
)
_ALL: Final = f"SELECT {COLUMNS} FROM decisions ORDER BY sequence"  # noqa: S608 - our own words
_DROPPED_AFTER: Final = "SELECT sequence, digest FROM dropped_decisions WHERE sequence > ? ORDER BY sequence"


def read_start(connection: sqlite3.Connection) -> Head | None:
    """Return where the chain begins, None where there is none."""
    found = connection.execute(_START).fetchone()
    return None if found is None else Head(sequence=found[0], link=_bytes(found[1]))


def read_newest(connection: sqlite3.Connection) -> Newest:
    """Find the newest row and its link; rows at the end that retention dropped count."""
    start = read_start(connection)
    (newest,) = connection.execute(_NEWEST_ROW).fetchone()
    if start is None:
        return Newest(newest, None)
    sequence, link = connection.execute(_NEWEST_LINKED, (start.sequence,)).fetchone() or (start.sequence, start.link)
    for dropped, digest in connection.execute(_DROPPED_AFTER, (sequence,)):
        sequence, link = dropped, next_link(link, digest)
    return Newest(max(sequence, newest), link)


def begin_chain(connection: sqlite3.Connection, sequence: int) -> Newest:
    """Let the chain begin after the row in that place, in the transaction that is under way."""
    # By chance: rows of another log must not fit.
    link = os.urandom(LINK_BYTES)
    connection.execute(_BEGIN, (sequence, link))
    return Newest(sequence, link)


def read_chain(connection: sqlite3.Connection) -> Iterator[ChainedRow | DroppedRow]:
    """Yield every row in the order of places, hashed as it stands now; one at a time is held."""
    rows = (HashedRow(*found).as_chained() for found in connection.execute(_ALL))
    digests = connection.execute(_DROPPED_AFTER, (-1,))
    dropped = (DroppedRow(sequence=found[0], digest=_bytes(found[1])) for found in digests)
    return heapq.merge(rows, dropped, key=attrgetter("sequence"))


def _bytes(value: object) -> bytes:
    """Return what a column has, if it is what it should have: SQLite takes any type in any column."""
    return value if isinstance(value, bytes) else b""


def verify_log(path: Path, noted: Sequence[Head] = ()) -> Verification:
    """Follow the chain of a log as it stands now; a sidecar may go on writing it meanwhile.

    All is read in one transaction, so that the write-ahead log cannot be cut as long.

    Raises:
        NotFound: there is no such file.
        StateError: it is not a store of this version, or cannot be read.
    """
    with state_errors(path), closing(_open(path)) as connection:
        return verify_rows(connection, noted)


def verify_rows(connection: sqlite3.Connection, noted: Sequence[Head] = ()) -> Verification:
    """Follow the chain on a connection that is only for this, in the transaction that is under way."""
    # Bytes that are no UTF-8 make an altered row, which is to be named, and not a file that cannot be read.
    connection.text_factory = partial(bytes.decode, errors="replace")
    # Where nothing was begun all rows stand outside, and none may have a link.
    start = read_start(connection) or Head(sequence=connection.execute(_NEWEST_ROW).fetchone()[0], link=b"")
    return verify(start, read_chain(connection), noted=noted)


def read_head(path: Path) -> Head | None:
    """Return the head of a log's chain without following it; None where no chain was begun.

    Raises:
        NotFound, StateError: as for `verify_log`.
    """
    with state_errors(path), closing(_open(path)) as connection:
        return read_newest(connection).head


def _open(path: Path) -> sqlite3.Connection:
    """Open a file of this version at one moment, which lasts until it is closed."""
    open_current(path, mode="ro").dispose()
    connection = connect(path, mode="ro")
    connection.execute("BEGIN")
    return connection
