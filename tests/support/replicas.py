"""A replica that adopts what it is given, on a store that outlives it, and what a test publishes to it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus
from baleen_core.errors import Problem, StateError
from baleen_core.policy.in_force import Override, Pin
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType, Revision
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.ports import Activation, Adopted, Published
from baleen_sidecar.testing import MemoryPolicySource, MemoryRevisionStore
from baleen_sidecar.usecases.adopt_routes import AdoptRoutes
from publishing import Publication, publication

SPACE = "trust-safety"
KEY = (SPACE, "community")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOTHING = "sha256:" + "0" * 64


def content(block: str = "92%", **more: Any) -> dict[str, Any]:
    """Write a policy's content: one threshold, and whatever else is asked for."""
    signals = [{"name": "toxicity.toxic", "block": block}]
    return {"categories": [{"name": "toxicity", "signals": signals}], **more}


def edits(*blocks: str, name: str = "community", epoch: int = 0, **more: Any) -> Publication:
    """Publish a policy that was edited so often, at an epoch for each edit, with a scope that no other has."""
    contents = [content(each) for each in blocks]
    return publication(SPACE, name, *contents, epoch=epoch or len(blocks), scope={"surface": name}, **more)


def with_lists(*texts: str, name: str = "community", epoch: int = 1, **more: Any) -> Publication:
    """Publish a policy with these lists of terms."""
    read = {f"list-{number}": read_list(ListType.TERMS, text) for number, text in enumerate(texts)}
    source = {"type": "ConfigMap", "name": "terms", "key": "terms.txt"}
    lists = [{"name": each, "type": "Terms", "action": "Block", "source": source} for each in read]
    return publication(SPACE, name, {**content(), "lists": lists, **more}, epoch=epoch, lists=read)


def texts_of(*publications: Publication) -> dict[str, str]:
    """Return the texts of their lists, by digest."""
    return {each.digest: canonical_list(each) for published in publications for each in published.lists}


def without(policy: PublishedPolicy, *digests: str) -> PublishedPolicy:
    """Offer some of its revisions no more."""
    kept = {digest: revision for digest, revision in policy.revisions.items() if digest not in digests}
    return replace(policy, revisions=kept)


def altered(policy: PublishedPolicy, digest: str) -> PublishedPolicy:
    """Offer a revision that is not what its digest names."""
    revision = policy.revisions[digest]
    other = replace(revision, content=revision.content.replace("0000", "1111"))
    return replace(policy, revisions={**policy.revisions, digest: other})


def pinning(digest: str, *, reason: str = "", until: datetime | None = None) -> Override:
    """Make an override that pins this."""
    return Override(pin=Pin(digest=digest, reason=reason, expire_time=until.isoformat() if until else ""))


class Store(MemoryRevisionStore):
    """A store that counts what is read of it, and refuses while it has a `fault`."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = self.read_fault = ""
        self.reads: list[str] = []

    async def put_revision(self, policy: str, revision: Revision) -> None:
        self._check(self.fault)
        await super().put_revision(policy, revision)

    async def put_list(self, digest: str, content: str) -> None:
        self._check(self.fault)
        await super().put_list(digest, content)

    async def record_activation(self, activation: Activation) -> None:
        self._check(self.fault)
        await super().record_activation(activation)

    async def get_revision(self, digest: str) -> Revision | None:
        self.reads.append(digest)
        self._check(self.read_fault)
        return await super().get_revision(digest)

    async def get_list(self, digest: str) -> str | None:
        self.reads.append(digest)
        self._check(self.read_fault)
        return await super().get_list(digest)

    async def last_active(self) -> Any:
        self._check(self.read_fault)
        return await super().last_active()

    def lose(self, digest: str) -> None:
        del self._revisions[digest]

    def alter(self, digest: str) -> None:
        self._revisions[digest] = replace(self._revisions[digest], content="{}")

    @staticmethod
    def _check(fault: str) -> None:
        if fault:
            raise StateError(fault)


class Replica:
    """One that adopts what it is given at the time `now`, on a store that outlives it."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store, self.source = Store(), MemoryPolicySource()
        self.signals: frozenset[str] = frozenset()
        self.now, self.jitter = NOON, 0.0
        self._executor = executor
        self.begin()

    def begin(self) -> None:
        """Begin anew, with the store alone."""
        self.routes = AdoptRoutes(
            self.store,
            self.source,
            lambda: self.signals,
            executor=self._executor,
            wall_seconds=lambda: self.now.timestamp(),
            jitter=lambda: self.jitter,
        )

    async def restart(self) -> None:
        """Begin anew, with what was kept and the store."""
        kept = self.routes.kept()
        self.begin()
        await self.routes.restore(kept)

    async def adopt(self, *policies: PublishedPolicy, unread: str = "") -> float | None:
        """Adopt everything that is published now; return after how many seconds it is to be done again."""
        problems = (Problem(field=unread, message="cannot be read"),) if unread else ()
        again_at = await self.routes.adopt(Published(policies={each.key: each for each in policies}, problems=problems))
        return None if again_at is None else (again_at - self.now).total_seconds()

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def snapshot(self) -> PolicySnapshot:
        return self.routes.current()

    @property
    def status(self) -> PolicyStatus:
        return self.status_of("community")

    def status_of(self, name: str) -> PolicyStatus:
        return next(each for each in self.snapshot.statuses if each.name == name)

    @property
    def adopted(self) -> Adopted:
        return self.routes.adopted()[KEY]

    @property
    def in_force(self) -> dict[str, str]:
        return {each.candidate.name: each.candidate.revision.digest for each in self.snapshot.policies}

    @property
    def problems(self) -> str:
        return "; ".join(map(str, self.status.problems))

    async def reasons(self, name: str = "community") -> list[str]:
        return [row.reason for row in await self.store.history(f"{SPACE}/{name}", limit=1000)]


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    """Give the one thread that replicas do their work in."""
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def replica(executor: ThreadPoolExecutor) -> Replica:
    """Give a replica that has adopted nothing yet."""
    return Replica(executor)
