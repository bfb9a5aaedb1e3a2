"""What decisions were made by, also where the decisions are: whoever reads them there can replay them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from baleen_core.errors import BaleenError
from baleen_core.policy.schema import Revision
from baleen_sidecar.adapters.store.revision_store import (
    PostgresRevisionStore,
    SqliteRevisionStore,
    SqlRevisionStore,
)
from baleen_sidecar.ports import Activation


class SharedRevisionStore:
    """Keeps revisions and lists in the file that a process starts from, and in a shared database.

    The history of what was in force is this process's own, and stays in the file. What the file has is found without
    the database. Raises StateError where what is to be kept cannot be kept in both; it is in the other one then.
    """

    def __init__(self, own: SqliteRevisionStore, shared: PostgresRevisionStore) -> None:
        self._own = own
        self._shared = shared

    async def share(self) -> None:
        """Give the database what it lacks of what the file has: it may be another one than before."""
        await asyncio.to_thread(self._own.copy_to, self._shared)

    async def put_revision(self, policy: str, revision: Revision) -> None:
        """Keep a revision; see the port."""
        await self._put(lambda store: store.put_revision(policy, revision))

    async def get_revision(self, digest: str) -> Revision | None:
        """Find a revision by digest, also one that another process was given."""
        return await self._own.get_revision(digest) or await self._shared.get_revision(digest)

    async def put_list(self, digest: str, content: str) -> None:
        """Keep a list's canonical text under its digest."""
        await self._put(lambda store: store.put_list(digest, content))

    async def get_list(self, digest: str) -> str | None:
        """Find a list's canonical text by digest; it may be empty."""
        found = await self._own.get_list(digest)
        return await self._shared.get_list(digest) if found is None else found

    async def record_activation(self, activation: Activation) -> None:
        """Append to this process's history."""
        await self._own.record_activation(activation)

    async def history(self, policy: str, *, limit: int = 10) -> Sequence[Activation]:
        """Return the activations of a policy here, newest first."""
        return await self._own.history(policy, limit=limit)

    async def find_activation(self, policy: str, *, digest: str = "", version: str = "") -> Activation | None:
        """Find the newest activation of a policy here."""
        return await self._own.find_activation(policy, digest=digest, version=version)

    async def last_active(self) -> Sequence[Activation]:
        """Return the newest activation of each policy here."""
        return await self._own.last_active()

    async def _put(self, put: Callable[[SqlRevisionStore], Awaitable[None]]) -> None:
        try:
            await put(self._own)
        except BaleenError:
            await put(self._shared)
            raise
        await put(self._shared)
