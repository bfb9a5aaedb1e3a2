"""Revisions, lists and activations in the same file as the decisions, on connections of their own."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Row, Select, Table, func, insert, select
from sqlalchemy.exc import IntegrityError as RowExists

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError
from baleen_core.policy.schema import Revision
from baleen_sidecar.adapters.store.engine import open_current, state_errors
from baleen_sidecar.adapters.store.schema import activations, lists, revisions
from baleen_sidecar.ports import Activation

_FIELDS = (
    activations.c.policy,
    activations.c.digest,
    activations.c.version,
    activations.c.time,
    activations.c.reason,
)


class SqliteRevisionStore:
    """Keeps the last good state. Every method raises StateError when the file cannot be read or written.

    With `read_only`, the command line can look beside a running sidecar.

    Raises:
        NotFound: there is no such file.
        StateError: it is not a store of this version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._engine = open_current(path, mode="ro" if read_only else "rw")

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

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _put(self, table: Table, values: Mapping[str, str]) -> None:
        # Insert first, look afterwards: a transaction that began by reading cannot write once another has written.
        try:
            with state_errors(self._path, passing=RowExists), self._engine.begin() as connection:
                connection.execute(insert(table).values(**values))
        except RowExists:
            self._check_same(table, values["digest"], values["content"])

    def _check_same(self, table: Table, digest: str, content: str) -> None:
        kept = self._get(table, digest)
        if kept != content:
            found = digest_of((kept or "").encode())
            raise IntegrityError(f"other content is kept under {digest} in {table.name}", expected=digest, found=found)

    def _get(self, table: Table, digest: str) -> str | None:
        with state_errors(self._path), self._engine.connect() as connection:
            content: str | None = connection.scalar(select(table.c.content).where(table.c.digest == digest))
        return content

    def _record(self, activation: Activation) -> None:
        values = {column.name: getattr(activation, column.name) for column in _FIELDS}
        with state_errors(self._path), self._engine.begin() as connection:
            connection.execute(insert(activations).values(**values))

    def _activations(self, query: Select[tuple[str, str, str, str, str]]) -> Sequence[Activation]:
        with state_errors(self._path), self._engine.connect() as connection:
            return [_to_activation(row) for row in connection.execute(query)]


def _to_activation(row: Row[tuple[str, str, str, str, str]]) -> Activation:
    return Activation(policy=row.policy, digest=row.digest, version=row.version, time=row.time, reason=row.reason)
