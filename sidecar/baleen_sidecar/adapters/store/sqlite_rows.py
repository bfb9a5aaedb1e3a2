"""Rows of decisions on their way into the SQLite file, a group at a time."""

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from baleen_core.decision_chain import Head, next_link
from baleen_sidecar.adapters.store.beside_rows import SQLITE, admit, put
from baleen_sidecar.adapters.store.chain_rows import Newest, continue_chain, read_newest
from baleen_sidecar.adapters.store.decision_rows import Row, StoredRecord, find_sql, insert_sql
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.group_writer import Group, Waiting

MAX_GROUP_ROWS: Final = 4095
"""SQLite takes 32,766 parameters in one statement, and the largest part of such a group has 2,048 rows of 13."""


class SqliteRows:
    """What a GroupWriter writes to: it alone adds rows to the file, numbers them without gaps, and links them.

    A row and its link are in one commit, so that no crash can leave them apart. It keeps to the file that it opened
    first.
    """

    def __init__(self, path: Path, *, synchronous: str) -> None:
        # Content that was kept for a second look is gone after it.
        self._file = DurableFile(path, synchronous=synchronous, overwrites=True)
        self._newest: Newest | None = None

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
            connection.execute("BEGIN IMMEDIATE")
            newest = self._newest or read_newest(connection)
            has_more = any(waiting.beside is not None for waiting in group)
            admitted = admit(connection, group, SQLITE) if has_more else group
            for part in _parts(admitted):
                newest = _insert(connection, part, newest)
            if has_more:
                put(connection, admitted, SQLITE)
            connection.execute("COMMIT")
            self._file.check_in_place()
        except BaseException:
            self._newest = None
            self._file.drop()
            raise
        self._newest = newest

    def close(self) -> None:
        """Close the file."""
        self._file.drop()


def _parts(group: Group) -> Iterator[Group]:
    """Cut a group into powers of two, largest first: few statements to prepare, and few to run.

    All rows of a part are to be linked, or none.

    Python's sqlite3 gives up the interpreter lock at each statement, and gets it back from a busy event loop only after
    5 ms: 200 rows by executemany took 684 ms beside a busy thread, in three statements 25 ms.
    """
    for _, found in groupby(group, key=_is_linked):
        rows = list(found)
        start = 0
        while rest := len(rows) - start:
            size = 1 << (rest.bit_length() - 1)
            yield rows[start : start + size]
            start += size


def _is_linked(waiting: Waiting) -> bool:
    return waiting.row.digest is not None


def _insert(connection: sqlite3.Connection, part: Group, newest: Newest) -> Newest:
    """Insert rows after the newest one, and return which is the newest then."""
    if _is_linked(part[0]):
        head = continue_chain(connection, newest)
        newest = Newest(head.sequence, head)
    values: list[object] = []
    after = newest
    for waiting in part:
        after = _place(waiting.row, after, values)
    try:
        connection.execute(insert_sql(len(part)), values)
    except sqlite3.IntegrityError:
        # SQLite undid this statement alone; one by one, only the row at fault is refused.
        for waiting in part:
            newest = _insert_one(connection, waiting, newest)
        return newest
    return after


def _place(row: Row, newest: Newest, values: list[object]) -> Newest:
    """Add a row's values, with its place and link, and return it as the newest."""
    sequence, head = newest.sequence + 1, newest.head
    link = None
    if row.digest is not None and head is not None:
        link = next_link(head.link, row.digest)
        head = Head(sequence=sequence, link=link)
    values.append(sequence)
    values += row[:-1]
    values.append(link)
    return Newest(sequence, head)


def _insert_one(connection: sqlite3.Connection, waiting: Waiting, newest: Newest) -> Newest:
    """Insert a row unless its id is taken: by the same record, that is well; by another, it is the row's error."""
    values: list[object] = []
    after = _place(waiting.row, newest, values)
    try:
        connection.execute(insert_sql(1), values)
    except sqlite3.IntegrityError:
        found = connection.execute(find_sql(), (waiting.row.id,)).fetchone()
        if found is None:
            raise
        waiting.find(StoredRecord(*found))
        return newest
    return after
