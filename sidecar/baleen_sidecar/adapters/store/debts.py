"""What is owed another look, and which decisions that changed; the log itself puts both there and takes debts out."""

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import msgspec

from baleen_core.policy.schema import Verdict
from baleen_sidecar.adapters.store.beside_rows import write_models
from baleen_sidecar.adapters.store.connection import Connection
from baleen_sidecar.adapters.store.durable_file import DurableFile
from baleen_sidecar.adapters.store.engine import BUSY_SECONDS, DatabaseFault, begin_writing, state_errors
from baleen_sidecar.adapters.store.postgres import Database, PostgresConnection
from baleen_sidecar.ports import Change, Debt, KeptContent, Owed

T = TypeVar("T")

MAX_SETS: Final = 100
"""Sets of models that are looked at: more than the models that are declared make, at any one time."""

_OWED: Final = "SELECT count(*), coalesce(sum(size), 0), coalesce(min(time), '') FROM rescan_debts"
_SETS: Final = "SELECT DISTINCT models FROM rescan_debts LIMIT ?"
_CLAIM: Final = (
    "UPDATE rescan_debts SET claim = ?, due = ?, tries = tries + 1 WHERE decision_id IN "
    "(SELECT decision_id FROM rescan_debts WHERE due <= ? AND models IN ({sets}) "
    "ORDER BY risk DESC, time, decision_id LIMIT ? {locking}) "
    "RETURNING decision_id, time, risk, models, content, tries, failed_reads"
)
_PUT_BACK: Final = (
    "UPDATE rescan_debts SET claim = '', due = ?, failed_reads = failed_reads + ? WHERE decision_id = ? AND claim = ?"
)
_FORGIVE: Final = "DELETE FROM rescan_debts WHERE decision_id = ? AND claim = ?"
_CHANGES: Final = (
    "SELECT decision_id, rescan_of, was, became, time, tenant, sequence FROM decision_changes "
    "WHERE sequence > ? {of} ORDER BY sequence LIMIT ?"
)
_READ_CONTENT: Final = msgspec.json.Decoder(KeptContent).decode


class StoredDebts:
    """Statements that are the same for all; a subclass says on what they are run. Every method raises StateError."""

    _locking = ""

    async def owed(self) -> Owed:
        """Say how much is owed."""
        return await asyncio.to_thread(self._run, _read_owed, writes=False)

    async def claim(
        self, payable: Collection[tuple[str, ...]], *, limit: int, now_seconds: float, lease_seconds: float
    ) -> Sequence[Debt]:
        """Take debts that wait for these sets of models, the riskiest first and of those the oldest."""
        if not payable:
            return ()
        claim = os.urandom(16).hex()
        sets = sorted(map(write_models, payable))[:MAX_SETS]
        statement = _CLAIM.format(sets=", ".join("?" * len(sets)), locking=self._locking)
        values = (claim, int(now_seconds + lease_seconds), int(now_seconds), *sets, limit)
        found = await asyncio.to_thread(
            self._run, lambda connection: [_debt_of(row, claim) for row in connection.execute(statement, values)]
        )
        return sorted(found, key=lambda debt: (-debt.risk, debt.time, debt.decision_id))

    async def put_back(self, debt: Debt, *, due_seconds: float, read_failed: bool = False) -> None:
        """Give up a claim; from `due_seconds` on it can be taken again. A read that failed is counted."""
        await self._change(_PUT_BACK, (int(due_seconds), int(read_failed), debt.decision_id, debt.claim))

    async def forgive(self, debt: Debt) -> None:
        """Take a debt out of which the decision is gone."""
        await self._change(_FORGIVE, (debt.decision_id, debt.claim))

    async def changes(self, *, after: int, limit: int, tenant: str | None = None) -> Sequence[Change]:
        """Return changes, oldest first, of higher `sequence` than `after`; of one tenant or of all."""
        statement = _CHANGES.format(of="" if tenant is None else "AND tenant = ?")
        values = (after, limit) if tenant is None else (after, tenant, limit)
        return await asyncio.to_thread(
            self._run,
            lambda connection: [_change_of(row) for row in connection.execute(statement, values)],
            writes=False,
        )

    async def _change(self, statement: str, values: Sequence[object]) -> None:
        await asyncio.to_thread(self._run, lambda connection: connection.execute(statement, values) and None)

    def _run(self, work: Callable[[Connection], T], *, writes: bool = True) -> T:
        """Run it as one transaction, on one thread at a time."""
        raise NotImplementedError


def _read_owed(connection: Connection) -> Owed:
    decisions, size, oldest = connection.execute(_OWED).fetchone()
    sets = connection.execute(_SETS, (MAX_SETS,)).fetchall() if decisions else []
    waits_for = frozenset(tuple(models.split()) for (models,) in sets)
    return Owed(decisions=decisions, size_bytes=int(size), oldest=oldest, waits_for=waits_for)


def _debt_of(row: Sequence[object], claim: str) -> Debt:
    decision_id, time, risk, models, content, tries, failed_reads = row
    return Debt(
        decision_id=str(decision_id),
        time=str(time),
        risk=int(str(risk)),
        models=tuple(str(models).split()),
        content=_READ_CONTENT(str(content)),
        tries=int(str(tries)),
        failed_reads=int(str(failed_reads)),
        claim=claim,
    )


def _change_of(row: Sequence[object]) -> Change:
    decision_id, rescan_of, was, became, time, tenant, sequence = row
    return Change(
        decision_id=str(decision_id),
        rescan_of=str(rescan_of),
        was=Verdict(str(was)),
        became=Verdict(str(became)),
        time=str(time),
        tenant=None if tenant is None else str(tenant),
        sequence=int(str(sequence)),
    )


class SqliteDebts(StoredDebts):
    """In the file of a decision log; beside the one who writes that, it waits for its turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = DurableFile(path, synchronous="NORMAL", overwrites=True)
        self._lock = Lock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.drop()

    def _run(self, work: Callable[[Connection], T], *, writes: bool = True) -> T:
        with self._lock, state_errors(self._path):
            try:
                connection = self._file.connection()
                if writes:
                    begin_writing(connection, patience_seconds=BUSY_SECONDS)
                else:
                    connection.execute("BEGIN")
                found = work(connection)
                connection.execute("COMMIT")
            except Exception:
                self._file.drop()
                raise
        return found


class PostgresDebts(StoredDebts):
    """In a database that several gateways share: none waits for rows that another one is just taking."""

    _locking = "FOR UPDATE SKIP LOCKED"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: PostgresConnection | None = None
        self._lock = Lock()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _run(self, work: Callable[[Connection], T], *, writes: bool = True) -> T:
        with self._lock, state_errors(self._database.name):
            for is_last in (self._connection is None, True):
                try:
                    if self._connection is None:
                        self._connection = self._database.connect()
                    with self._connection.transaction():
                        return work(self._connection)
                except DatabaseFault as exc:
                    # It may have been cut while nobody used it.
                    self._drop()
                    if is_last or not exc.is_of_connection:
                        raise
            raise AssertionError("the second try returns or raises")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
