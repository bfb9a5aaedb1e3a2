"""Revisions, lists and activations in the same file as the decisions, on connections of their own."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, Row, Select, Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError
from baleen_core.policy.schema import Revision
from baleen_sidecar.adapters.store.engine import open_current, state_errors
from baleen_sidecar.adapters.store.postgres import REVISION_CONNECTIONS, Database
from baleen_sidecar.adapters.store.schema import activations, lists, revisions
from baleen_sidecar.ports import Activation

_INSERTS: Final[dict[str, Callable[[Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_FIELDS = (
    activations.c.policy,
    activations.c.digest,
    activations.c.version,
    activations.c.time,
    activations.c.reason,
)


class SqlRevisionStore:
    """Keeps revisions, lists and the history. Every method raises StateError when it cannot read or write."""

    def __init__(self, engine: Engine, where: Path | str) -> None:
        self._engine = engine
        self._where = where

    async def put_revision(self, policy: str, revision: Revision) -> None:
        """Keep a revision; keeping it again changes nothing.

        Raises:
            IntegrityError: other content is kept under this digest.
        """
        values = {"digest": revision.digest, "policy": policy, "content": revision.content}
        await asyncio.to_thread(self._put, revisions, values)

    async def get_revision(self, digest: str) -> Revision | None:
        """Find a revision by digest."""
        content = await asyncio.to_thread(self._get, revisions, digest)
        return None if content is None else Revision(digest=digest, content=content)

    async def put_list(self, digest: str, content: str) -> None:
        """Keep a list's canonical text under its digest.

        Raises:
            IntegrityError: other content is kept under this digest.
        """
        await asyncio.to_thread(self._put, lists, {"digest": digest, "content": content})

    async def get_list(self, digest: str) -> str | None:
        """Find a list's canonical text by digest."""
        return await asyncio.to_thread(self._get, lists, digest)

    async def record_activation(self, activation: Activation) -> None:
        """Append to the history."""
        await asyncio.to_thread(self._record, activation)

    async def history(self, policy: str, *, limit: int = 10) -> Sequence[Activation]:
        """Return the activations of a policy, newest first."""
        query = select(*_FIELDS).where(activations.c.policy == policy)
        return await asyncio.to_thread(self._activations, query.order_by(activations.c.sequence.desc()).limit(limit))

    async def find_activation(self, policy: str, *, digest: str = "", version: str = "") -> Activation | None:
        """Find the newest activation of a policy with this digest, or with this version, however long ago it was."""
        query = select(*_FIELDS).where(activations.c.policy == policy)
        if digest:
            query = query.where(activations.c.digest == digest)
        if version:
            query = query.where(activations.c.version == version)
        newest = query.order_by(activations.c.sequence.desc()).limit(1)
        return next(iter(await asyncio.to_thread(self._activations, newest)), None)

    async def last_active(self) -> Sequence[Activation]:
        """Return the newest activation of each policy, by policy name."""
        newest = select(func.max(activations.c.sequence)).group_by(activations.c.policy)
        query = select(*_FIELDS).where(activations.c.sequence.in_(newest))
        return await asyncio.to_thread(self._activations, query.order_by(activations.c.policy))

    def copy_to(self, other: "SqlRevisionStore") -> None:
        """Put there what it lacks of the revisions and lists that are here."""
        for table in (revisions, lists):
            for digest in self._digests(table) - other._digests(table):
                with state_errors(self._where), self._engine.connect() as connection:
                    row = connection.execute(select(table).where(table.c.digest == digest)).one()
                other._put(table, dict(row._mapping))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _digests(self, table: Table) -> set[str]:
        with state_errors(self._where), self._engine.connect() as connection:
            return set(connection.scalars(select(table.c.digest)))

    def _put(self, table: Table, values: Mapping[str, str]) -> None:
        # Insert first, look afterwards: a transaction that began by reading cannot write once another has written.
        statement = _INSERTS[self._engine.dialect.name](table).values(**values).on_conflict_do_nothing()
        with state_errors(self._where), self._engine.begin() as connection:
            is_new = connection.execute(statement).rowcount
        if not is_new:
            self._check_same(table, values["digest"], values["content"])

    def _check_same(self, table: Table, digest: str, content: str) -> None:
        kept = self._get(table, digest)
        if kept != content:
            found = digest_of((kept or "").encode())
            raise IntegrityError(f"other content is kept under {digest} in {table.name}", expected=digest, found=found)

    def _get(self, table: Table, digest: str) -> str | None:
        with state_errors(self._where), self._engine.connect() as connection:
            content: str | None = connection.scalar(select(table.c.content).where(table.c.digest == digest))
        return content

    def _record(self, activation: Activation) -> None:
        values = {column.name: getattr(activation, column.name) for column in _FIELDS}
        with state_errors(self._where), self._engine.begin() as connection:
            connection.execute(insert(activations).values(**values))

    def _activations(self, query: Select[tuple[str, str, str, str, str]]) -> Sequence[Activation]:
        with state_errors(self._where), self._engine.connect() as connection:
            return [_to_activation(row) for row in connection.execute(query)]


class SqliteRevisionStore(SqlRevisionStore):
    """The last good state, in a file.

    With `read_only`, the command line can look beside a running sidecar.

    Raises:
        NotFound: there is no such file.
        StateError: it is not a store of this version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(open_current(path, mode="ro" if read_only else "rw"), path)


class PostgresRevisionStore(SqlRevisionStore):
    """What decisions in a database were made by.

    Raises:
        StateError: it is not a store of this version, or does not answer.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.open_current(REVISION_CONNECTIONS), database.name)


def _to_activation(row: Row[tuple[str, str, str, str, str]]) -> Activation:
    return Activation(policy=row.policy, digest=row.digest, version=row.version, time=row.time, reason=row.reason)
