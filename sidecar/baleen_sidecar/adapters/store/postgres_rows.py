"""Rows of decisions on their way into PostgreSQL, a group at a time."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from baleen_core.decision_chain import LINK_BYTES, Head, next_link
from baleen_sidecar.adapters.store.any_text import escape
from baleen_sidecar.adapters.store.beside_rows import POSTGRES, admit, put
from baleen_sidecar.adapters.store.chain_rows import Chain, read_newest
from baleen_sidecar.adapters.store.connection import Rows
from baleen_sidecar.adapters.store.decision_rows import Row, StoredRecord
from baleen_sidecar.adapters.store.engine import DatabaseFault
from baleen_sidecar.adapters.store.group_writer import PATIENCE_SECONDS, Group, Waiting
from baleen_sidecar.adapters.store.postgres import Database, PostgresConnection
from baleen_sidecar.settings import Durability

TRIES: Final = 5
"""Times that a group is written while other writers put the same decisions on record."""
NO_CHAIN: Final = "P0002"
UNIQUE_VIOLATION: Final = "23505"
DEADLOCK: Final = "40P01"

_REGISTER: Final = "INSERT INTO chain (writer, sequence, link) VALUES (?, 0, ?) ON CONFLICT (writer) DO NOTHING"
_FIND_CHAIN: Final = "SELECT id FROM chain WHERE writer = ?"
_COMMITTING: Final = "SHOW synchronous_commit"
_WAIT_FOR_DISK: Final = "SET synchronous_commit = on"
_DO_NOT_WAIT: Final = "SET synchronous_commit = off"
_TOUCH: Final = "UPDATE chain SET writer = writer WHERE id = ?"
_FIND: Final = (
    "SELECT id, record, personal, personal_digest FROM decisions "
    "WHERE id IN (SELECT json_array_elements_text(CAST(? AS json)))"
)
# One parameter for a whole group: a driver in Python takes 25 ms to write 200 rows of fourteen.
_INSERT: Final = (
    "INSERT INTO decisions (id, time, content_digest, decision, author, surface, record, origin, personal, salt, "
    "keep_days, link, writer, number) "
    "SELECT id, time, content_digest, decision, author, surface, decode(record, 'base64'), origin, "
    "decode(personal, 'base64'), decode(salt, 'base64'), keep_days, decode(link, 'base64'), writer, number "
    "FROM json_to_recordset(CAST(? AS json)) AS row(id text, time text, content_digest text, decision text, "
    "author text, surface text, record text, origin text, personal text, salt text, keep_days integer, link text, "
    "writer integer, number bigint) ORDER BY number"
)
_ENCODE: Final = msgspec.json.Encoder().encode


class PostgresRows:
    """What a GroupWriter writes to: it alone adds rows to the chain of its writer, without gaps.

    That it is alone is seen to by a lock of the connection on which it writes: without the connection there is no lock,
    and without the lock no row. Other writers have chains of their own in the same tables; a decision that one of them
    has put on record is not put there again.
    """

    def __init__(self, database: Database, writer: str, *, durability: Durability) -> None:
        self._database = database
        self._writer = writer
        self._durability = durability
        self._connection: PostgresConnection | None = None
        self._syncing: PostgresConnection | None = None
        self._chain = Chain(0, writer)
        self._head: Head | None = None
        self.failure = ""
        """What went wrong with the last group; empty: nothing."""

    @property
    def head(self) -> Head | None:
        """The chain's head; None after a failure. For any thread."""
        head = self._head
        return None if head is None else replace(head, writer=self._writer)

    def open(self) -> None:
        """Connect, find the chain of this writer or begin it, and lock it.

        Raises:
            DatabaseFault: the database does not answer or refuses, or another process has the lock.
        """
        connection = self._database.connect()
        try:
            self._set_durability(connection)
            connection.execute(_REGISTER, (self._writer, os.urandom(LINK_BYTES)))
            ((number,),) = connection.execute(_FIND_CHAIN, (self._writer,)).fetchall()
            self._chain = Chain(number, self._writer)
            self._lock(connection)
            with connection.one_moment():
                self._head = read_newest(connection, self._chain).head
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def write(self, group: Group) -> None:
        """Commit a group; a row whose id is taken is none of it, and says so.

        Raises:
            DatabaseFault: the database failed. Whether the rows are there is seen only in the database.
        """
        try:
            self._write(group)
        except Exception as exc:
            self._head = None
            self.close()
            self.failure = exc.said if isinstance(exc, DatabaseFault) else str(exc)
            raise
        self.failure = ""

    def _write(self, group: Group) -> None:
        began = time.monotonic()
        if self._connection is not None:
            try:
                self._put(group)
            except DatabaseFault as exc:
                if not exc.is_of_connection or time.monotonic() - began > PATIENCE_SECONDS:
                    raise
                # It may have been cut while nobody used it. What was committed all the same is found by its id.
                self.close()
            else:
                return
        self.open()
        self._put(group)

    def close(self) -> None:
        """Let go of the connection, and so of the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def sync(self) -> None:
        """Return once everything that was committed before is on the database's disk; for one thread at a time.

        Raises:
            DatabaseFault: the database failed.
        """
        for is_last in (self._syncing is None, True):
            try:
                if self._syncing is None:
                    self._syncing = self._database.connect()
                    self._syncing.execute(_WAIT_FOR_DISK)
                # A commit that is waited for flushes all that was written before; one that changes nothing would not.
                self._syncing.execute(_TOUCH, (self._chain.id,))
            except DatabaseFault as exc:
                self.end_sync()
                if is_last or not exc.is_of_connection:
                    raise
            else:
                return

    def end_sync(self) -> None:
        """Let go of the connection on which `sync` waits."""
        connection, self._syncing = self._syncing, None
        if connection is not None:
            connection.close()

    def _set_durability(self, connection: PostgresConnection) -> None:
        if self._durability is Durability.INTERVAL:
            connection.execute(_DO_NOT_WAIT)
            return
        ((setting,),) = connection.execute(_COMMITTING).fetchall()
        # More than `on` is the wish of whoever runs the database: its replicas have to have it, too.
        if setting in ("off", "local"):
            connection.execute(_WAIT_FOR_DISK)

    def _lock(self, connection: PostgresConnection) -> None:
        try:
            connection.lock(self._chain.id)
        except DatabaseFault as exc:
            if exc.code not in ("55P03", "57014"):
                raise
            said = f"another process writes as {self._writer}: stop it, or give this one a state folder of its own"
            raise DatabaseFault("another process writes this chain", code=exc.code, said=said) from exc

    def _put(self, group: Group) -> None:
        fresh: Sequence[Waiting] = group
        for left in reversed(range(TRIES)):
            try:
                self._insert(fresh)
            except DatabaseFault as exc:
                if exc.code not in (UNIQUE_VIOLATION, DEADLOCK) or not left:
                    raise
                fresh = sort_out(group, self._find(group))
            else:
                break
        if not fresh and self._durability is Durability.FSYNC:
            # What is there may be of a writer that does not wait for the disk.
            self._execute(_TOUCH, (self._chain.id,))

    def _find(self, group: Group) -> dict[str, StoredRecord]:
        ids = _ENCODE([escape(waiting.row.id) for waiting in group]).decode()
        return {row[0]: StoredRecord(*row[1:]) for row in self._execute(_FIND, (ids,))}

    def _insert(self, group: Group) -> None:
        if not any(waiting.beside is not None for waiting in group):
            self._head = self._insert_rows([waiting.row for waiting in group])
            return
        connection = self._connection
        if connection is None:
            raise DatabaseFault("the database does not answer")
        with connection.transaction():
            admitted = admit(connection, group, POSTGRES)
            head = self._insert_rows([waiting.row for waiting in admitted])
            put(connection, admitted, POSTGRES)
        self._head = head

    def _insert_rows(self, rows: Sequence[Row]) -> Head:
        """Insert rows behind the head, and return what is the head then."""
        head = self._head
        if head is None:
            raise DatabaseFault("the chain of this writer is not there", code=NO_CHAIN)
        if not rows:
            return head
        written = []
        for row in rows:
            if row.digest is None:
                raise ValueError(f"decision {row.id} has no digest: a database has no rows outside of its chains")
            head = Head(sequence=head.sequence + 1, link=next_link(head.link, row.digest))
            written.append(_write(row, self._chain, head))
        self._execute(_INSERT, (_ENCODE(written).decode(),))
        return head

    def _execute(self, sql: str, parameters: Sequence[object]) -> Rows:
        if self._connection is None:
            raise DatabaseFault("the database does not answer")
        return self._connection.execute_escaped(sql, parameters)


def _write(row: Row, chain: Chain, head: Head) -> dict[str, object]:
    """Return the columns of a row; msgspec writes bytes in base64."""
    values = {
        name: escape(value) if isinstance(value, str) else value
        for name, value in zip(Row._fields[:-1], row, strict=False)
    }
    return {**values, "link": head.link, "writer": chain.id, "number": head.sequence}


def sort_out(group: Group, stored: Mapping[str, StoredRecord]) -> list[Waiting]:
    """Tell rows whose ids are taken, on record or by an earlier row of the group, what is there; return the others."""
    fresh: list[Waiting] = []
    taken = dict(stored)
    for waiting in group:
        row = waiting.row
        if found := taken.get(row.id):
            waiting.find(found)
        else:
            fresh.append(waiting)
            taken[row.id] = StoredRecord(row.record, row.personal, None)
    return fresh
