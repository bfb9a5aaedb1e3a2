"""Rows of decisions on their way into the SQLite file, a group at a time."""

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from baleen_core.decision_chain import Head, next_link
from baleen_sidecar.adapters.store.beside_rows import SQLITE, admit, put
from baleen_sidecar.adapters.store.chain_rows import Newest, continue_chain, read_newest
from baleen_sidecar.adapters.store.decision_rows import StoredRecord, find_sql, insert_sql
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.group_writer import Group, Waiting
from baleen_sidecar.adapters.store.turns import Turns

MAX_GROUP_ROWS: Final = 4095
AT_ONCE_ROWS: Final = 32
"""For each number of rows up to here there is a statement, which the connection keeps prepared once it was used."""
PART_ROWS: Final = 8 * AT_ONCE_ROWS
"""The most that one statement inserts; SQLite takes 32,766 parameters in one, and a row has 13."""


class SqliteRows:
    """What a GroupWriter writes to: it alone adds rows to the file, numbers them without gaps, and links them.

    A row and its link are in one commit, so that no crash can leave them apart. It keeps to the file that it opened
    first.
    """

    def __init__(self, path: Path, *, synchronous: str, turns: Turns) -> None:
        """Each group takes one of `turns`."""
        # Content that was kept for a second look is gone after it.
        self._file = DurableFile(path, synchronous=synchronous, overwrites=True)
        self._newest: Newest | None = None
        self._turns = turns

    @property
    def head(self) -> Head | None:
        """The chain's head; None before the first link, and after a failure. For any thread."""
        newest = self._newest
        return None if newest is None else newest.head

    def open(self) -> None:
        """Open the file.

        Raises:
            OSError: there is no such file.
            sqlite3.Error: it cannot be opened.
        """
        self._newest = read_newest(self._file.connection())

    def write(self, group: Group) -> None:
        """Commit a group; a row whose id is taken is none of it, and says so.

        Raises:
            OSError, sqlite3.Error: the disk failed. Whether the rows are there is seen only in the file.
        """
        try:
            connection = self._file.connection()
            with self._turns.work():
                newest = _insert_at_once(connection, group, self._newest) or self._transact(connection, group)
            self._file.check_in_place()
        except BaseException:
            self._newest = None
            self._file.drop()
            raise
        self._newest = newest

    def _transact(self, connection: sqlite3.Connection, group: Group) -> Newest:
        connection.execute("BEGIN IMMEDIATE")
        newest = self._newest or read_newest(connection)
        has_more = any(waiting.beside is not None for waiting in group)
        admitted = admit(connection, group, SQLITE) if has_more else group
        for part in _parts(admitted):
            newest = _insert(connection, part, newest)
        if has_more:
            put(connection, admitted, SQLITE)
        connection.execute("COMMIT")
        return newest

    def close(self) -> None:
        """Close the file."""
        self._file.drop()


def _insert_at_once(connection: sqlite3.Connection, group: Group, newest: Newest | None) -> Newest | None:
    """Insert and commit a group by one statement, as most can be; None: it takes more, and nothing was done.

    Python's sqlite3 gives up the interpreter lock at each statement, and a busy event loop keeps it for 5 ms: BEGIN and
    COMMIT would each cost as long as the rows.
    """
    if newest is None or len(group) > AT_ONCE_ROWS:
        return None
    head = newest.head
    can_link = head is not None and head.sequence == newest.sequence
    is_linked = _is_linked(group[0])
    if is_linked and not can_link:
        return None
    if any(waiting.beside is not None or _is_linked(waiting) != is_linked for waiting in group):
        return None
    try:
        return _insert_part(connection, group, newest)
    except sqlite3.IntegrityError:
        return None


def _parts(group: Group) -> Iterator[Group]:
    """Cut a group into multiples of AT_ONCE_ROWS, and what is left: few statements to prepare, and few to run.

    All rows of a part are to be linked, or none. By executemany 200 rows took 684 ms beside a busy thread, in three
    statements 25 ms.
    """
    for _, found in groupby(group, key=_is_linked):
        rows = list(found)
        start = 0
        while rest := len(rows) - start:
            size = min(rest - rest % AT_ONCE_ROWS or rest, PART_ROWS)
            yield rows[start : start + size]
            start += size


def _is_linked(waiting: Waiting) -> bool:
    return waiting.row.digest is not None


def _insert(connection: sqlite3.Connection, part: Group, newest: Newest) -> Newest:
    """Insert rows after the newest one, and return which is the newest then."""
    if _is_linked(part[0]):
        head = continue_chain(connection, newest)
        newest = Newest(head.sequence, head)
    try:
        return _insert_part(connection, part, newest)
    except sqlite3.IntegrityError:
        # SQLite undid this statement alone; one by one, only the row at fault is refused.
        for waiting in part:
            newest = _insert_one(connection, waiting, newest)
        return newest


def _insert_part(connection: sqlite3.Connection, part: Group, newest: Newest) -> Newest:
    """Insert rows by one statement, which does all of it or nothing, and return which is the newest then.

    All of them are to be linked, to the newest one, or none.
    """
    values: list[object] = []
    head = newest.head
    sequence, link = newest.sequence, b"" if head is None else head.link
    for waiting in part:
        row = waiting.row
        sequence += 1
        values.append(sequence)
        values += row[:-1]
        if row.digest is None:
            values.append(None)
        else:
            link = next_link(link, row.digest)
            values.append(link)
    connection.execute(insert_sql(len(part)), values)
    return Newest(sequence, Head(sequence=sequence, link=link) if _is_linked(part[0]) else head)


def _insert_one(connection: sqlite3.Connection, waiting: Waiting, newest: Newest) -> Newest:
    """Insert a row unless its id is taken: by the same record, that is well; by another, it is the row's error."""
    try:
        return _insert_part(connection, [waiting], newest)
    except sqlite3.IntegrityError:
        found = connection.execute(find_sql(), (waiting.row.id,)).fetchone()
        if found is None:
            raise
        waiting.find(StoredRecord(*found))
        return newest
