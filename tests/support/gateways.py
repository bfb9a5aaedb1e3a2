"""A gateway's second listener on a port of this machine, and what it needs, for tests of both its ends."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import uvicorn

from baleen_core.errors import BaleenError, Problem
from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import ListType
from baleen_core.policy_stream import Load
from baleen_core.records import DecisionRecord
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.adapters.latest import Latest
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.counters import KnownRollouts, RolloutCounts
from baleen_sidecar.main import bind
from baleen_sidecar.ports import Adopted, Key, Published, ServiceAccount
from baleen_sidecar.testing import MemoryDecisionLog, MemoryRevisionStore
from baleen_sidecar.usecases.take_records import TakeRecords
from baleen_sidecar.web.policy_stream import PolicyStream, StreamSettings
from baleen_sidecar.web.stream_protocol import PolicyStreamProtocol
from plain_http import TRUSTS_NOBODY
from waiting import until

TOKENS = {
    "shop-token": ServiceAccount(namespace="shop", name="default", pod="shop-1"),
    "shop-2-token": ServiceAccount(namespace="shop", name="default", pod="shop-2"),
    "bank-token": ServiceAccount(namespace="bank", name="default", pod="bank-1"),
    "backup-token": ServiceAccount(namespace="baleen-system", name="baleen-backup"),
    "operator-token": ServiceAccount(namespace="baleen-system", name="baleen-operator"),
}


class KnownTokens:
    """Knows the tokens that it was given; `failure`, if there is one, is raised instead."""

    def __init__(self, tokens: Mapping[str, ServiceAccount] = TOKENS) -> None:
        self._tokens = tokens
        self.failure: BaleenError | None = None

    async def authenticate(self, token: str) -> ServiceAccount | None:
        """Return whose token it is."""
        if self.failure is not None:
            raise self.failure
        return self._tokens.get(token)


class FedSource:
    """A PolicySource that says what a test tells it to say."""

    def __init__(self) -> None:
        self._latest: Latest[Published] = Latest()
        self.state = Published()
        self.lists: dict[str, str] = {}
        self.lists_of: dict[str, str | BaleenError | None] = {}
        """What is found, or happens, whatever list is asked for in such a namespace."""
        self.list_reads: list[str] = []
        self.adopted: Mapping[Key, Adopted] = {}
        self.problem = ""

    def say(self, *policies: PublishedPolicy, **more: Any) -> None:
        """Publish these policies and no others; `more` are other fields of Published, which stay."""
        self.state = replace(self.state, policies={each.key: each for each in policies}, **more)
        self._latest.put(self.state)

    def complain(self, *problems: Problem) -> None:
        """Publish the same with these problems."""
        self.state = replace(self.state, problems=problems)
        self._latest.put(self.state)

    def published(self) -> AsyncGenerator[Published, None]:
        """Yield what was said last."""
        return self._latest.follow()

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        """Return a list that the test put there."""
        self.list_reads.append(digest)
        found = self.lists_of.get(namespace, self.lists.get(digest))
        if isinstance(found, BaleenError):
            raise found
        return found

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        """Remember it."""
        self.adopted = adopted


class Gateway:
    """One that listens; it can be stopped and started again on its port."""

    def __init__(
        self,
        source: Any = None,
        *,
        grants: Grants | None = None,
        tokens: Any = None,
        log: Any = None,
        store: Any = None,
        copies: Any = None,
        compare: Any = None,
        log_id: Any = None,
        **settings: Any,
    ) -> None:
        self.source = source or FedSource()
        self.tokens = tokens or KnownTokens()
        self.copies = copies
        self.compare = compare
        self.log_id = log_id
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._tasks: list[asyncio.Future[Any]] = []
        self.decisions: dict[str, dict[str, int]] = {"sha256:b": {"Allow": 3}}
        self.rollouts = RolloutCounts("process-1")
        self._known = KnownRollouts(lambda: self.source.adopted)
        self.concurrency: Concurrency | None = Concurrency(time.monotonic)
        """How busy it says that it is; None: it does not say it, as older ones do not."""
        self.log = log or MemoryDecisionLog()
        self.store = store or MemoryRevisionStore()
        self.counted: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self._grants = grants or Grants()
        self._settings = StreamSettings(
            replica="gateway-1", grants=self._grants, **({"heartbeat_seconds": 0.2} | settings)
        )
        self.app = self._make_app()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str = "") -> httpx.AsyncClient:
        """Return a client with a token; the caller closes it."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=TRUSTS_NOBODY, trust_env=False, timeout=30)

    async def start(self) -> None:
        """Listen; on the port it had, if it had one."""
        listening = bind("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        self.app = self._make_app()
        config = uvicorn.Config(
            self.app,
            http=PolicyStreamProtocol,
            ws="none",
            loop="none",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        server = self._server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._tasks = [asyncio.ensure_future(server._serve([listening])), asyncio.ensure_future(self.app.run())]
        await until(lambda: server.started)

    async def stop(self) -> None:
        """End as a gateway does that is told to."""
        assert self._server is not None
        self._server.should_exit = True
        serving, running = self._tasks
        await serving
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def _load(self) -> Load | None:
        if (counted := self.concurrency) is None:
            return None
        return Load(
            in_flight=counted.in_flight,
            request_seconds=counted.request_seconds,
            measured_seconds=counted.measured_seconds,
        )

    def _make_app(self) -> PolicyStream:
        return PolicyStream(
            self.source,
            self.tokens,
            read_list=self.source.read_list,
            read_file=self._read_file,
            adopted=lambda: self.source.adopted,
            records=TakeRecords(
                self.log, self.store, self._grants.may_read, count=self._count, on_decision=self._count_claimed
            ),
            settings=self._settings,
            chance=os.urandom,
            decisions=lambda digest: self.decisions.get(digest, {}),
            trial=self.rollouts.of,
            load=self._load,
            copies=self.copies,
            compare=self.compare,
            log_id=self.log_id or self.log.log_id,
        )

    def _count_claimed(self, record: DecisionRecord) -> None:
        self.rollouts.count_claimed(record, self._known(), now=datetime.now(UTC))

    async def _read_file(self, sha256: str) -> bytes | None:
        return self.files.get(sha256)

    def _count(self, result: str, number: int) -> None:
        self.counted[result] += number


@asynccontextmanager
async def gateway(source: Any = None, **settings: Any) -> AsyncIterator[Gateway]:
    """Run a gateway."""
    made = Gateway(source, **settings)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
