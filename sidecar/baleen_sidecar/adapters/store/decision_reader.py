"""Reads decisions; beside a running sidecar too, since readers of a write-ahead log hold up nobody."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine, func, select

from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store.decision_rows import RECORD_COLUMNS, StoredRecord, from_row
from baleen_sidecar.adapters.store.engine import open_current, state_errors
from baleen_sidecar.adapters.store.postgres import READ_CONNECTIONS, Database
from baleen_sidecar.adapters.store.schema import chain, decisions, idempotency_keys
from baleen_sidecar.ports import KEY_SECONDS, KnownKey, LoggedDecision


class DecisionReader:
    """Finds decisions, whoever wrote them. Every method raises StateError when it cannot read."""

    def __init__(self, engine: Engine, where: Path | str) -> None:
        self._engine = engine
        self._where = where

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id."""
        return await asyncio.to_thread(self._get, decision_id)

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is on record under an idempotency key that is not too old."""
        return await asyncio.to_thread(self._find_key, key_id, int(now_seconds) - KEY_SECONDS)

    async def recent(self, *, limit: int = 100, decision: Verdict | None = None) -> Sequence[DecisionRecord]:
        """Return the newest records, newest first; with `decision`, of that one alone."""
        return await asyncio.to_thread(self._recent, limit, decision)

    async def newest(self, *, before: int | None = None, limit: int) -> Sequence[LoggedDecision]:
        """Return the newest decisions as they are written, newest first; with `before`, those in places below it."""
        return await asyncio.to_thread(self._newest, before, limit)

    async def log_id(self) -> str:
        """Return what all readers of this log say alike, and no other log does; empty: nobody shares it."""
        return ""

    async def count(self) -> int:
        """Say how many decisions are on record."""
        return await asyncio.to_thread(self._count)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _get(self, decision_id: str) -> DecisionRecord | None:
        query = select(*RECORD_COLUMNS).where(decisions.c.id == decision_id)
        with state_errors(self._where), self._engine.connect() as connection:
            found = connection.execute(query).first()
        return None if found is None else from_row(decision_id, StoredRecord(*found))

    def _find_key(self, key_id: str, after: int) -> KnownKey | None:
        keys = idempotency_keys.c
        query = select(keys.fingerprint, keys.decision_id).where(keys.id == key_id, keys.time > after)
        with state_errors(self._where), self._engine.connect() as connection:
            found = connection.execute(query).first()
        return None if found is None else KnownKey(fingerprint=found.fingerprint, decision_id=found.decision_id)

    def _recent(self, limit: int, decision: Verdict | None) -> Sequence[DecisionRecord]:
        query = select(decisions.c.id, *RECORD_COLUMNS).order_by(decisions.c.sequence.desc()).limit(limit)
        if decision is not None:
            query = query.where(decisions.c.decision == decision.value)
        with state_errors(self._where), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [from_row(row.id, StoredRecord(*row[1:])) for row in rows]

    def _newest(self, before: int | None, limit: int) -> Sequence[LoggedDecision]:
        query = (
            select(decisions.c.sequence, decisions.c.id, *RECORD_COLUMNS)
            .order_by(decisions.c.sequence.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(decisions.c.sequence < before)
        with state_errors(self._where), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            LoggedDecision(
                sequence=row.sequence,
                id=row.id,
                record=row.record,
                personal=row.personal,
                is_erased=row.personal_digest is not None,
            )
            for row in rows
        ]

    def _count(self) -> int:
        with state_errors(self._where), self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(decisions)) or 0


class SqliteDecisionReader(DecisionReader):
    """Reads a file, which it opens read-only.

    Raises:
        NotFound: there is no such file.
        StateError: it is not a store of this version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(open_current(path, mode="ro"), path)


class PostgresDecisionReader(DecisionReader):
    """Reads a database.

    Raises:
        StateError: it is not a store of this version, or does not answer.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.open_current(READ_CONNECTIONS), database.name)

    async def log_id(self) -> str:
        """Return the name of the database's first writer; empty before there is one."""
        return await asyncio.to_thread(self._first_writer)

    def _first_writer(self) -> str:
        # Chance is in the name and no chain is ever removed, so it serves as the name of the whole log.
        query = select(chain.c.writer).where(chain.c.writer.is_not(None)).order_by(chain.c.id).limit(1)
        with state_errors(self._where), self._engine.connect() as connection:
            return connection.scalar(query) or ""
