"""The chains of decisions: where each begins and ends, and its rows as they stand now."""

import heapq
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from baleen_core.decision_chain import (
    LINK_BYTES,
    ChainedRow,
    DroppedRow,
    Gap,
    Head,
    Step,
    Verification,
    next_link,
    personal_digest,
    row_digest,
    verify,
)
from baleen_core.errors import InvalidError, Problem
from baleen_sidecar.adapters.store.connection import Connection
from baleen_sidecar.adapters.store.engine import connect, open_current, state_errors


class Newest(NamedTuple):
    """The place of the newest row, and the chain's head, which is before it in a spool; None where none was begun."""

    sequence: int
    head: Head | None


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


class Chain(NamedTuple):
    """Which of the rows are of one chain: all in a file; those of one writer in a database that several write."""

    id: int
    writer: str = ""
    """Empty in a file."""

    @property
    def columns(self) -> str:
        """The columns of a HashedRow, for a SELECT; the first is the place."""
        return ", ".join((self.place, *HashedRow._fields[1:]))

    @property
    def place(self) -> str:
        """The column that has a row's place in the chain."""
        return "number" if self.writer else "sequence"

    def of(self, statement: str) -> str:
        """Put the names of this chain into a statement."""
        mine = f"writer = {self.id:d}" if self.writer else "TRUE"
        return statement.format(place=self.place, columns=self.columns, mine=mine, id=f"{self.id:d}")


FILE: Final = Chain(1)
"""The one chain of a file."""

PAGE_ROWS: Final = 500
"""Rows that are read at once where all are: some megabytes."""
_FIRST: Final = -(1 << 62)
"""Before every place, also those that somebody made up."""
_PLACE: Final = attrgetter("sequence")
_START: Final = "SELECT sequence, link FROM chain WHERE id = {id}"
_DELETE_DIGESTS: Final = "DELETE FROM dropped_decisions WHERE {mine} AND {place} <= ?"
# Only a file can have been a spool: elsewhere there are no gaps.
_ADD_GAP: Final = "INSERT INTO gaps (sequence, last) VALUES (?, ?)"
_DELETE_GAPS: Final = "DELETE FROM gaps WHERE sequence < ?"
_GAPS_FROM: Final = "SELECT sequence, last FROM gaps WHERE sequence >= ? ORDER BY sequence"
_MOVE_START: Final = "UPDATE chain SET sequence = ?, link = ? WHERE id = {id}"
_BEGIN: Final = "INSERT INTO chain (id, sequence, link) VALUES ({id}, ?, ?)"
_NEWEST_ROW: Final = "SELECT coalesce(max({place}), 0) FROM decisions WHERE {mine}"
_NEWEST_LINKED: Final = (
    "SELECT {place}, link FROM decisions WHERE {mine} AND link IS NOT NULL AND {place} > ? "
    "ORDER BY {place} DESC LIMIT 1"
)
_PAGE: Final = "SELECT {columns} FROM decisions WHERE {mine} AND {place} > ? ORDER BY {place} LIMIT ?"
_DROPPED_PAGE: Final = (
    "SELECT {place}, digest FROM dropped_decisions WHERE {mine} AND {place} > ? ORDER BY {place} LIMIT ?"
)


def read_start(connection: Connection, chain: Chain = FILE) -> Head | None:
    """Return where a chain begins, None where there is none."""
    found = connection.execute(chain.of(_START)).fetchone()
    return None if found is None else Head(sequence=found[0], link=_bytes(found[1]))


def read_newest(connection: Connection, chain: Chain = FILE) -> Newest:
    """Find the newest row and the chain's head; rows at the end that retention dropped count."""
    start = read_start(connection, chain)
    (newest,) = connection.execute(chain.of(_NEWEST_ROW)).fetchone()
    if start is None:
        return Newest(newest, None)
    linked = connection.execute(chain.of(_NEWEST_LINKED), (start.sequence,)).fetchone()
    head = start if linked is None else Head(sequence=linked[0], link=_bytes(linked[1]))
    steps: Iterator[DroppedRow | Gap] = heapq.merge(
        _dropped(connection, chain, head.sequence), _gaps(connection, head.sequence), key=_PLACE
    )
    for step in steps:
        if isinstance(step, Gap):
            head = step.after(head.link)
        else:
            head = Head(sequence=step.sequence, link=next_link(head.link, step.digest))
    return Newest(max(head.sequence, newest), head)


def _pages(connection: Connection, statement: str, after: int) -> Iterator[Sequence[Any]]:
    """Yield rows by their first column, as not every database gives them one by one."""
    while rows := connection.execute(statement, (after, PAGE_ROWS)).fetchall():
        yield from rows
        after = rows[-1][0]


def _dropped(connection: Connection, chain: Chain, after: int) -> Iterator[DroppedRow]:
    found = _pages(connection, chain.of(_DROPPED_PAGE), after)
    return (DroppedRow(sequence=sequence, digest=_bytes(digest)) for sequence, digest in found)


def _gaps(connection: Connection, first: int) -> Iterator[Gap]:
    return (Gap(sequence=sequence, last=last) for sequence, last in connection.execute(_GAPS_FROM, (first,)))


def continue_chain(connection: Connection, newest: Newest) -> Head:
    """Return the head that a file's next row follows; in the transaction that is under way, which is to add that row.

    A chain that was not begun is begun, and passes over rows that came meanwhile and are in none.
    """
    head = newest.head
    if head is None:
        # By chance: rows of another log must not fit.
        head = Head(sequence=newest.sequence, link=os.urandom(LINK_BYTES))
        connection.execute(FILE.of(_BEGIN), (head.sequence, head.link))
    elif head.sequence < newest.sequence:
        gap = Gap(sequence=head.sequence, last=newest.sequence)
        connection.execute(_ADD_GAP, (gap.sequence, gap.last))
        head = gap.after(head.link)
    return head


def pass_over(connection: Connection, start: Head, chain: Chain = FILE, dropping: Sequence[HashedRow] = ()) -> Head:
    """Return where a chain that begins at `start` can begin as well: behind what comes next and is not there.

    Rows that are `dropping`, in the order of their places, count as gone.
    """
    going = (row for row in dropping if row.link is not None)
    steps: Iterator[HashedRow | DroppedRow | Gap] = heapq.merge(
        going, _dropped(connection, chain, start.sequence), _gaps(connection, start.sequence), key=_PLACE
    )
    for step in steps:
        if step.sequence < start.sequence:
            continue
        if isinstance(step, Gap):
            if step.sequence > start.sequence:
                break
            start = step.after(start.link)
        elif step.sequence > start.sequence + 1:
            break
        elif step.sequence == start.sequence + 1:
            link = next_link(start.link, step.digest) if isinstance(step, DroppedRow) else step.link
            start = Head(sequence=step.sequence, link=_bytes(link))
    return start


def move_start(connection: Connection, start: Head, chain: Chain = FILE) -> None:
    """Let a chain begin at `start`, and forget what is before it; in the transaction that is under way."""
    connection.execute(chain.of(_DELETE_DIGESTS), (start.sequence,))
    connection.execute(_DELETE_GAPS, (start.sequence,))
    connection.execute(chain.of(_MOVE_START), (start.sequence, start.link))


def read_chain(connection: Connection, chain: Chain = FILE) -> Iterator[Step]:
    """Yield every row in the order of places, hashed as it stands now; PAGE_ROWS at a time are held."""
    rows = (HashedRow(*found).as_chained() for found in _pages(connection, chain.of(_PAGE), _FIRST))
    return heapq.merge(rows, _dropped(connection, chain, -1), _gaps(connection, -1), key=_PLACE)


def verify_chain(connection: Connection, chain: Chain = FILE, noted: Sequence[Head] = ()) -> Verification:
    """Follow a chain in the transaction that is under way."""
    # Where nothing was begun all rows stand outside, and none may have a link.
    start = read_start(connection, chain) or Head(
        sequence=connection.execute(chain.of(_NEWEST_ROW)).fetchone()[0], link=b""
    )
    return verify(start, read_chain(connection, chain), noted=noted)


def _bytes(value: object) -> bytes:
    """Return what a column has, if it is what it should have: SQLite takes any type in any column."""
    return value if isinstance(value, bytes) else b""


def verify_log(path: Path, noted: Sequence[Head] = ()) -> Verification:
    """Follow the chain of a log as it stands now; a sidecar may go on writing it meanwhile.

    All is read in one transaction, so that the write-ahead log cannot be cut as long.

    Raises:
        InvalidError: a head that was noted is of a database.
        NotFound: there is no such file.
        StateError: it is not a store of this version, or cannot be read.
    """
    with state_errors(path), closing(_open(path)) as connection:
        return verify_rows(connection, noted)


def verify_rows(connection: sqlite3.Connection, noted: Sequence[Head] = ()) -> Verification:
    """Follow the chain on a connection that is only for this, in the transaction that is under way.

    Raises:
        InvalidError: a head that was noted is of a database.
    """
    if named := [head for head in noted if head.writer]:
        message = f"{named[0]} names a writer, as a head of a database does; of a file it is place:link"
        raise InvalidError([Problem(field="head", message=message)])
    # Bytes that are no UTF-8 make an altered row, which is to be named, and not a file that cannot be read.
    connection.text_factory = partial(bytes.decode, errors="replace")
    return verify_chain(connection, FILE, noted)


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
