"""The decision log on PostgreSQL, which several gateways write at once, each a chain of its own."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import msgspec

from baleen_core.decision_chain import ChainedRow, Fault, FaultKind, Head, Verification, verify
from baleen_core.errors import BaleenError, InvalidError, Problem
from baleen_sidecar.adapters.store.beside_rows import POSTGRES, drop_old, forget, forget_debts, has_old
from baleen_sidecar.adapters.store.chain_rows import Chain, HashedRow, read_newest, read_start, verify_chain
from baleen_sidecar.adapters.store.decision_reader import PostgresDecisionReader
from baleen_sidecar.adapters.store.engine import DatabaseFault, state_errors
from baleen_sidecar.adapters.store.erasure import find_rows, kept_of
from baleen_sidecar.adapters.store.grouped_log import MIB, GroupedLog
from baleen_sidecar.adapters.store.postgres import RETENTION_LOCK, SLOW_SECONDS, TRY_LOCK, Database, PostgresConnection
from baleen_sidecar.adapters.store.postgres_rows import PostgresRows
from baleen_sidecar.adapters.store.retention import BATCH_ROWS, ExpiredRow, ages_at, drop_rows, find_expired
from baleen_sidecar.adapters.store.upkeep import UpkeepThread
from baleen_sidecar.settings import Durability

logger = logging.getLogger(__name__)

UPKEEP_SECONDS: Final = 5.0
"""How often the database is asked whether it is there, and what is too old is dropped."""
MAX_GROUP_ROWS: Final = 10_000
ANY_CHAIN: Final = Chain(0, "any")
"""Gives the columns that a row of whatever writer has its place in."""

_CHAINS: Final = "SELECT id, writer FROM chain WHERE writer IS NOT NULL ORDER BY id"
# Without a link a row before the beginning would pass for one from before the chain; in a database there are none.
_STRAY: Final = (
    "SELECT sequence, id, time FROM decisions WHERE writer IS NULL OR number IS NULL OR link IS NULL "
    "OR NOT EXISTS (SELECT 1 FROM chain WHERE chain.id = decisions.writer AND chain.writer IS NOT NULL) "
    "ORDER BY sequence LIMIT 1"
)
_FSYNC: Final = "SHOW fsync"
_LOCK_ROWS: Final = (
    "SELECT sequence FROM decisions WHERE sequence IN "
    "(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(? AS json)) AS each(value)) "
    "ORDER BY sequence FOR UPDATE"
)
# Locked by their places, as retention does, so that two who want the same rows never wait for each other.
_ERASE: Final = (
    "UPDATE decisions SET personal_digest = found.digest, personal = NULL, salt = NULL, author = NULL, "
    "content_digest = '', record = coalesce(found.record, decisions.record) "
    "FROM (SELECT decisions.sequence, decode(row.digest, 'base64') AS digest, decode(row.record, 'base64') AS record "
    "FROM json_to_recordset(CAST(? AS json)) AS row(sequence bigint, digest text, record text) "
    "JOIN decisions ON decisions.sequence = row.sequence "
    "ORDER BY decisions.sequence FOR UPDATE OF decisions) AS found "
    "WHERE decisions.sequence = found.sequence AND decisions.personal_digest IS NULL"
)
_ENCODE: Final = msgspec.json.Encoder().encode


class PostgresDecisionLog(GroupedLog):
    """A GroupedLog in a database, which must have been migrated; `writer` names the chain, and outlives the process.

    With Durability.FSYNC, an append returns once the database has its commit on its disk; with INTERVAL, once it has
    it: it then syncs within a second. Decisions that say nothing else are kept for `decisions_days`; 0: for ever.
    """

    def __init__(
        self,
        database: Database,
        *,
        writer: str,
        durability: Durability = Durability.FSYNC,
        max_rows: int = 200,
        max_wait_seconds: float = 0.002,
        max_waiting_rows: int = 10_000,
        max_waiting_bytes: int = 64 * MIB,
        upkeep_seconds: float = UPKEEP_SECONDS,
        decisions_days: int = 0,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        if not 1 <= max_rows <= MAX_GROUP_ROWS:
            raise ValueError(f"max_rows is {max_rows}; it must be 1 to {MAX_GROUP_ROWS}")
        rows = PostgresRows(database, writer, durability=durability)
        super().__init__(
            rows,
            lambda: PostgresDecisionReader(database),
            max_rows=max_rows,
            max_wait_seconds=max_wait_seconds,
            max_waiting_rows=max_waiting_rows,
            max_waiting_bytes=max_waiting_bytes,
        )
        self._database = database
        self._durability = durability
        self._own_rows = rows
        # One at a time: each has a connection of its own.
        self._syncing = asyncio.Lock()
        self._erasing = asyncio.Lock()
        self._upkeep = PostgresUpkeep(
            database,
            interval_seconds=upkeep_seconds,
            decisions_days=decisions_days,
            head=self.head,
            wall_seconds=wall_seconds,
        )

    @property
    def problem(self) -> str:
        """Say why decisions could not be put on record when that was last tried; empty: they could be."""
        return self._own_rows.failure or self._upkeep.failure

    async def sync(self) -> None:
        """Have the database flush what it has, where appending does not wait for that."""
        if self._durability is Durability.FSYNC:
            return
        async with self._syncing:
            try:
                await asyncio.to_thread(self._own_rows.sync)
            except (DatabaseFault, BaleenError) as exc:
                raise self._unavailable(exc) from exc

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Look through the rows of all writers; see `erase_subject_of`."""
        async with self._erasing:
            return await asyncio.to_thread(erase_subject_of, self._database, author, tenant=tenant)

    def _begin(self) -> None:
        with state_errors(self._database.name):
            self._writer.start()
            self._upkeep.start()

    def _end(self) -> None:
        self._own_rows.end_sync()
        self._upkeep.stop()

    def _why(self, cause: Exception) -> str:
        return str(cause) if isinstance(cause, DatabaseFault) else "the database cannot be asked"


class PostgresUpkeep(UpkeepThread):
    """Drops what is too old of all writers, also of those that are gone, as one of those that run; looks for the rest.

    What it connects for shows, where nobody asks for decisions, whether the database is there.
    """

    def __init__(
        self,
        database: Database,
        *,
        interval_seconds: float,
        decisions_days: int,
        head: Callable[[], Head | None],
        wall_seconds: Callable[[], float],
    ) -> None:
        super().__init__(database.name, interval_seconds=interval_seconds, head=head)
        self._database = database
        self._decisions_days = decisions_days
        self._wall_seconds = wall_seconds
        self._connection: PostgresConnection | None = None

    def start(self) -> None:
        """Connect, say what the database does not promise, and begin.

        Raises:
            DatabaseFault: it does not answer, or refuses.
        """
        ((setting,),) = self._open().execute(_FSYNC).fetchall()
        if setting == "off":
            logger.warning("the database syncs nothing (fsync = off)", extra={"database": self._where})
        super().start()

    def _round(self) -> None:
        was_open = self._connection is not None
        try:
            self._drop_expired()
        except DatabaseFault as exc:
            if not was_open or not exc.is_of_connection:
                raise
            # It may have been cut while nobody used it.
            self._drop_connection()
            self._drop_expired()

    def _drop_expired(self) -> None:
        connection = self._open()
        self._drop_while_there_is_time(
            lambda: drop_expired_of_all(connection, now_seconds=self._wall_seconds(), default_days=self._decisions_days)
        )
        ages = ages_at(self._wall_seconds())
        if has_old(connection, keys_to=ages.keys_to, changes_before=ages.changes_before):
            self._drop_while_there_is_time(
                lambda: drop_old(connection, keys_to=ages.keys_to, changes_before=ages.changes_before, limit=BATCH_ROWS)
            )

    def _open(self) -> PostgresConnection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def drop_expired_of_all(connection: PostgresConnection, *, now_seconds: float, default_days: int) -> int:
    """Drop some of what is older than it is to be kept, of whichever writer, as `drop_expired` does; return how many.

    None, while another process does.

    Raises:
        DatabaseFault: the database failed; nothing was dropped then.
    """
    with connection.transaction():
        ((is_ours,),) = connection.execute(TRY_LOCK, (RETENTION_LOCK,)).fetchall()
        if not is_ours:
            return 0
        expired = find_expired(connection, ANY_CHAIN, now_seconds=now_seconds, default_days=default_days)
        forget_debts(connection, [each.row.id for each in expired], POSTGRES)
        # They are dropped by writer, and who erases some of them takes them by their places.
        connection.execute(_LOCK_ROWS, (_ENCODE([each.sequence for each in expired]).decode(),))

        def by_writer(each: ExpiredRow) -> int:
            return each.writer or 0

        for writer, rows in groupby(sorted(expired, key=by_writer), key=by_writer):
            chain = Chain(writer, ANY_CHAIN.writer)
            if (start := read_start(connection, chain)) is not None:
                drop_rows(connection, chain, start, sorted(rows, key=lambda each: each.row.sequence))
    return len(expired)


def erase_subject_of(database: Database, author: str, *, tenant: str | None = None) -> int:
    """Erase every decision about an author, of a tenant or of any, whoever made it; say how many there were.

    The database overwrites what is erased when it vacuums the table; its own logs and backups are its owner's.

    Raises:
        StateError: the database cannot be read or written; what was erased before that stays so.
    """
    with database.connected(SLOW_SECONDS) as connection:
        return sum(_erase(connection, rows) for rows in find_rows(connection, author, tenant))


def _erase(connection: PostgresConnection, rows: Sequence[HashedRow]) -> int:
    """Erase rows, and what is kept beside them; a record goes there only where it is another one then."""
    changes = []
    for row in rows:
        digest, record = kept_of(row)
        changes.append({"sequence": row.sequence, "digest": digest, "record": None if record == row.record else record})
    with connection.transaction():
        # First: whoever settles a debt takes it out before he writes.
        forget(connection, [row.id for row in rows], POSTGRES)
        return connection.execute_escaped(_ERASE, (_ENCODE(changes).decode(),)).rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """What became of one writer's chain; without a `writer`, of rows that are in none, which is a fault."""

    writer: str
    found: Verification


def verify_database(database: Database, noted: Sequence[Head] = ()) -> list[VerifiedChain]:
    """Follow the chain of each writer as it stands now; they may go on writing meanwhile.

    Raises:
        InvalidError: a head that was noted names no writer.
        StateError: it is not a store of this version, or does not answer.
    """
    if nameless := [head for head in noted if not head.writer]:
        message = f"{nameless[0]} names no writer; a database has one chain a writer, and heads writer/place:link"
        raise InvalidError([Problem(field="head", message=message)])
    database.open_current().dispose()
    with database.connected(SLOW_SECONDS) as connection, connection.one_moment():
        chains = [Chain(number, writer) for number, writer in connection.execute(_CHAINS)]
        verified = [
            _verify(connection, chain, [head for head in noted if head.writer == chain.writer]) for chain in chains
        ]
        known = {chain.writer for chain in chains}
        verified += [_missing(head) for head in noted if head.writer not in known]
        if stray := connection.execute(_STRAY).fetchone():
            verified.append(_inserted(*stray))
    return verified


def read_heads(database: Database) -> list[Head]:
    """Return the head of each writer's chain without following it.

    Raises:
        StateError: as for `verify_database`.
    """
    database.open_current().dispose()
    with database.connected() as connection, connection.one_moment():
        chains = [Chain(number, writer) for number, writer in connection.execute(_CHAINS)]
        heads = ((chain, read_newest(connection, chain).head) for chain in chains)
        return [replace(head, writer=chain.writer) for chain, head in heads if head is not None]


def _verify(connection: PostgresConnection, chain: Chain, noted: Sequence[Head]) -> VerifiedChain:
    found = verify_chain(connection, chain, noted)
    head = replace(found.head, writer=chain.writer)
    return VerifiedChain(writer=chain.writer, found=replace(found, head=head))


def _missing(head: Head) -> VerifiedChain:
    """Say that a whole chain is gone of which a head was noted."""
    start = Head(sequence=0, link=b"", writer=head.writer)
    fault = Fault(kind=FaultKind.CUT, sequence=1, text="no chain of this writer is there, and a head of it was noted")
    return VerifiedChain(writer=head.writer, found=Verification(start=start, head=start, fault=fault))


def _inserted(sequence: int, decision_id: str, time: str) -> VerifiedChain:
    """Say that a row is in no writer's chain."""
    row = ChainedRow(sequence=sequence, id=decision_id, time=time, digest=None, link=None)
    return VerifiedChain(writer="", found=verify(Head(sequence=sequence - 1, link=b""), [row]))
