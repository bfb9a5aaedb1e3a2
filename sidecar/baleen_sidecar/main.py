"""Make the adapters and run the server; who runs Triton, and where policies come from, is the caller's business."""

import asyncio
import gc
import logging
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector

from baleen_core.api_keys import ApiKeys
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.errors import InvalidError, Problem, StateError
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model
from baleen_core.records import SHARED_QUOTAS, DecisionRecord
from baleen_sidecar.adapters.account_tokens import AccountTokens
from baleen_sidecar.adapters.batched import BatchedInference
from baleen_sidecar.adapters.fetch import HttpFetcher
from baleen_sidecar.adapters.frames import DecodingLimits, ProcessFrameDecoder
from baleen_sidecar.adapters.images import PillowImages
from baleen_sidecar.adapters.jwt_tokens import EitherTokens, JwtTokens
from baleen_sidecar.adapters.key_file import KeyFile
from baleen_sidecar.adapters.language import EldcLanguageDetector
from baleen_sidecar.adapters.local_quotas import LocalQuotas
from baleen_sidecar.adapters.measured import MeasuredInference
from baleen_sidecar.adapters.opened_cache import OpenedCache, open_cache
from baleen_sidecar.adapters.pdq import PdqHash
from baleen_sidecar.adapters.policy_dir import PolicyFolder
from baleen_sidecar.adapters.quota_file import QuotaFile
from baleen_sidecar.adapters.resource_usage import ResourceUsage, thread_busy_seconds
from baleen_sidecar.adapters.signing_keys import SigningKeyAddress, SigningKeyFile
from baleen_sidecar.adapters.store import (
    Database,
    GroupedLog,
    PostgresDebts,
    PostgresDecisionLog,
    PostgresRevisionStore,
    SharedRevisionStore,
    SqliteDebts,
    SqliteDecisionLog,
    SqliteRevisionStore,
    StateFolder,
    migrate,
)
from baleen_sidecar.adapters.traced import TracedInference, TracedLog
from baleen_sidecar.app import Ports, build_app
from baleen_sidecar.flow.claims import ClaimRules
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.debts import DebtRoom
from baleen_sidecar.ports import (
    Breakers,
    DecisionLog,
    Fetcher,
    FrameDecoder,
    ImageDecoder,
    Inference,
    Quotas,
    RescanDebts,
    RevisionStore,
)
from baleen_sidecar.settings import Settings
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.usecases.moderate import Shell
from baleen_sidecar.usecases.pay_debts import PayDebts, PayingRules
from baleen_sidecar.usecases.report_health import Component
from baleen_sidecar.usecases.serve_models import FixedModels, ModelSet
from baleen_sidecar.web.application import Application
from baleen_sidecar.web.connections import ConnectionLimits, Shared
from baleen_sidecar.web.hot import ASGIApp
from baleen_sidecar.web.protocol import BoundedHttpProtocol

if TYPE_CHECKING:
    from baleen_sidecar.adapters.redis_quotas import RedisQuotas
    from baleen_sidecar.adapters.tracing import OtlpTracing
    from baleen_sidecar.web.grpc.server import GrpcServer

log = logging.getLogger(__name__)

CPU_THREADS = 2
"""Threads for decoding and preparing media. Pillow and hashing free the GIL."""
SHUTDOWN_SECONDS = 10
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
RESERVED_FILES: Final = 512
"""Files that a process has open beside connections: its log, models, lists, other ports and outgoing connections."""

Task = Callable[[], Coroutine[object, object, None]]
"""Something that goes on for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Everything that is open while a sidecar runs: the application, and where its policies and API keys come from.

    Whatever may change outside is followed by the tasks of `watched`, and by that of the policies.
    """

    app: Application
    policies: PolicyFolder
    ports: Ports
    keys: KeyFile | None = None
    watched: tuple[Task, ...] = ()


class Chance:
    """Unguessable bytes from the operating system, asked for in blocks: each call would cost more than a decision."""

    BLOCK_BYTES: Final = 4096

    def __init__(self) -> None:
        self._block = b""
        self._taken = 0

    def __call__(self, count: int) -> bytes:
        """Return `count` bytes that were returned to nobody else."""
        start, end = self._taken, self._taken + count
        if end > len(self._block):
            self._block = os.urandom(max(count, self.BLOCK_BYTES))
            start, end = 0, count
        # The rest is not copied: it is hundreds of times as long as what is taken.
        self._taken = end
        return self._block[start:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every sidecar has, wherever its policies and models come from."""

    state: StateFolder
    executor: Executor
    images: ImageDecoder
    log: GroupedLog
    store: RevisionStore
    fetcher: Fetcher
    frames: FrameDecoder
    shell: Shell
    registry: CollectorRegistry
    debts: RescanDebts
    settings: Settings
    batched: Callable[[Inference, Callable[[Model], int]], BatchedInference]
    """Puts queues before models, given at how many servers each may be asked."""
    keys: KeyFile | None = None
    quota_file: QuotaFile | None = None
    quotas: Quotas | None = None
    shared_quotas: "RedisQuotas | None" = None
    governor: Governor | None = None
    jwt: JwtTokens | None = None
    cache: OpenedCache = field(default_factory=OpenedCache)
    tracing: "OtlpTracing | None" = None

    @property
    def watched(self) -> tuple[Task, ...]:
        """What follows files and addresses, and what else is outside and may change."""
        tasks: list[Task] = []
        if self.keys is not None:
            tasks.append(self.keys.watch)
        if self.jwt is not None:
            tasks.append(self.jwt.keys.watch)
        if self.quota_file is not None:
            tasks.append(self.quota_file.watch)
        if self.governor is not None:
            tasks.append(self.governor.run)
        if self.shared_quotas is not None:
            tasks.append(self.shared_quotas.run)
        if self.cache.shared is not None:
            tasks.append(self.cache.shared.run)
        return tuple(tasks)

    def degraded(self) -> tuple[str, ...]:
        """Name what every decision is to say that it is not as it should be."""
        quotas = (SHARED_QUOTAS,) if self.quotas is not None and self.quotas.problem else ()
        return (*quotas, *self.cache.degraded())

    def components(self) -> tuple[Component, ...]:
        """Say how what is outside of this process and its folder is."""
        keys = () if self.keys is None else (self.keys.component(),)
        if self.quota_file is not None:
            keys = (*keys, self.quota_file.component())
        if self.shared_quotas is not None:
            keys = (*keys, self.shared_quotas.component())
        if self.jwt is not None:
            keys = (*keys, self.jwt.keys.component())
        found = (*keys, *self.cache.components())
        if not isinstance(self.log, PostgresDecisionLog):
            return found
        problem = self.log.problem
        return (*found, Component(name="database", healthy=not problem, detail=problem))

    def ports(
        self,
        inference: Inference,
        *,
        policies: Callable[[], PolicySnapshot],
        models: Callable[[], ModelSet],
        log: DecisionLog | None = None,
        components: Callable[[], Sequence[Component]] = lambda: (),
        degraded: Callable[[], tuple[str, ...]] = lambda: (),
        on_decision: Callable[[DecisionRecord], None] = lambda record: None,
        concurrency: Concurrency | None = None,
        accounts: AccountTokens | None = None,
        breakers: Breakers | None = None,
        replicas: Callable[[Model], int] = lambda model: 1,
    ) -> Ports:
        """Return all that the application needs, with these policies and models; `log` stands before our own.

        `accounts` is there where ServiceAccounts may call. `replicas` says at how many servers a model may be asked.
        """
        tokens = accounts if self.jwt is None else self.jwt if accounts is None else EitherTokens(self.jwt, accounts)
        is_here = log in (None, self.log)
        batched = self.batched(inference, replicas)
        measured: Inference = MeasuredInference(batched, self.registry)
        kept: DecisionLog = log or self.log
        if self.tracing is not None:
            measured, kept = TracedInference(measured, self.tracing), TracedLog(kept, self.tracing)
        return Ports(
            policies=policies,
            models=models,
            inference=measured,
            log=kept,
            history=self.log,
            store=self.store,
            languages=EldcLanguageDetector(),
            images=self.images,
            frames=self.frames,
            perceptual_hash=PdqHash(),
            fetcher=self.fetcher,
            shell=self.shell,
            registry=self.registry,
            components=lambda: (*self.components(), *components()),
            degraded=lambda: (*self.degraded(), *degraded()),
            on_decision=on_decision,
            concurrency=concurrency,
            current_quotas=(lambda: ()) if self.quota_file is None else self.quota_file.current,
            quotas=self.quotas,
            governor=self.governor,
            # Without a file nobody has a key, and with tokens that is no reason to answer whoever is on loopback.
            keys=self.keys.current if self.keys is not None else None if tokens is None else ApiKeys,
            tokens=tokens,
            subjects=self.log if is_here else None,
            log_head=self.log.head if is_here else lambda: None,
            breakers=breakers,
            rescans=self._rescans(measured, models) if is_here else None,
            cache=self.cache.scores,
            queues=batched.reports,
            queue_totals=batched.totals,
            tracing=self.tracing,
        )

    def _rescans(self, inference: Inference, models: Callable[[], ModelSet]) -> PayDebts:
        paid = Counter("baleen_rescans", "Second looks, by what became of them", ["result"], registry=self.registry)
        rescans = PayDebts(
            self.debts,
            self.log,
            self.fetcher,
            inference,
            models,
            shell=self.shell,
            room=DebtRoom(self.settings.rescan_limit_bytes),
            jitter=random.random,
            rules=PayingRules(
                deadline_seconds=self.settings.deadline_seconds, last_seconds=self.settings.rescan_days * 86_400.0
            ),
            count=lambda result: paid.labels(result).inc(),
        )
        for name, told, measure in (
            ("decisions", "Decisions that are owed a second look.", lambda: float(rescans.owed.decisions)),
            ("bytes", "Bytes that are kept for it.", lambda: float(rescans.owed.size_bytes)),
            ("oldest_seconds", "How old the oldest of them is.", rescans.oldest_seconds),
        ):
            Gauge(f"baleen_rescan_debt_{name}", told, registry=self.registry).set_function(measure)
        return rescans


@asynccontextmanager
async def open_parts(settings: Settings, *, replica: str = "") -> AsyncIterator[Parts]:
    """Open the state folder and the adapters that every sidecar has; on leaving, everything is closed again.

    `replica` is how this process is called where several write one decision log; empty: by the host's name.

    Raises:
        InvalidError: the file of API keys, of JWTs' keys, of quotas, or of the URL of the database or Redis, is not in
        order.
        StateError: the state folder is in use, newer or damaged; or the database is, or does not answer.
    """
    keys = None
    if settings.api_keys_file is not None:
        keys = KeyFile(settings.api_keys_file)
        keys.load()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    async with AsyncExitStack() as stack:
        state = stack.enter_context(StateFolder(settings.state))
        await asyncio.to_thread(migrate, state.database)
        executor = stack.enter_context(ThreadPoolExecutor(CPU_THREADS, thread_name_prefix="media"))
        decisions, store, debts = await _open_stores(stack, settings, state, replica)
        fetcher = HttpFetcher(
            limit_bytes=max(settings.image_limit_bytes, settings.video_limit_bytes),
            timeout_seconds=settings.fetch_timeout_seconds,
            limit_redirects=settings.fetch_limit_redirects,
            allowed_private_networks=settings.allowed_private_networks,
        )
        stack.push_async_callback(fetcher.aclose)
        quota_file, quotas, shared_quotas = await _open_quotas(stack, settings, replica)
        jwt = _open_jwt(settings)
        if jwt is not None:
            stack.push_async_callback(jwt.keys.aclose)
        cache = await stack.enter_async_context(open_cache(settings))

        def batched(inference: Inference, replicas: Callable[[Model], int]) -> BatchedInference:
            made = BatchedInference(
                inference,
                registry,
                queue_rows=settings.batch_queue_rows,
                queue_bytes=settings.batch_queue_bytes,
                batches_in_flight=settings.batches_in_flight,
                replicas=replicas,
            )
            stack.push_async_callback(made.close)
            return made

        yield Parts(
            state=state,
            executor=executor,
            images=PillowImages(max_bytes=settings.image_limit_bytes, max_pixels=settings.image_limit_pixels),
            log=decisions,
            store=store,
            fetcher=fetcher,
            frames=ProcessFrameDecoder(
                DecodingLimits(
                    max_bytes=settings.video_limit_bytes,
                    max_milliseconds=settings.video_limit_seconds * 1000,
                    max_pixels=settings.image_limit_pixels,
                )
            ),
            shell=Shell(wall_seconds=time.time, monotonic_seconds=time.monotonic, chance=Chance(), executor=executor),
            registry=registry,
            debts=debts,
            settings=settings,
            batched=batched,
            keys=keys,
            quota_file=quota_file,
            quotas=quotas,
            shared_quotas=shared_quotas,
            governor=_make_governor(settings),
            jwt=jwt,
            cache=cache,
            tracing=_open_tracing(stack, settings),
        )


def _open_tracing(stack: AsyncExitStack, settings: Settings) -> "OtlpTracing | None":
    if not settings.otlp_endpoint:
        return None
    try:
        # It takes a good part of a second to import, which whoever has no traces shall not pay.
        from baleen_sidecar.adapters.tracing import OtlpTracing
    except ModuleNotFoundError as exc:
        message = f"traces need the extra [tracing], as in `pip install 'baleen[tracing]'`: {exc.name} is missing"
        raise InvalidError([Problem(field="BALEEN_OTLP_ENDPOINT", message=message)]) from None
    tracing = OtlpTracing(settings.otlp_endpoint, version=version("baleen"))
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing


def _make_governor(settings: Settings) -> Governor | None:
    if not settings.governor:
        return None
    rules = settings.governor_rules()
    return Governor(
        ResourceUsage(),
        rules=rules,
        monotonic_seconds=time.monotonic,
        chance=Chance(),
        busy_seconds=thread_busy_seconds,
    )


async def _open_quotas(
    stack: AsyncExitStack, settings: Settings, replica: str
) -> tuple[QuotaFile | None, Quotas | None, "RedisQuotas | None"]:
    """Open the file of quotas, and what counts them; the latter twice where replicas share it."""
    if settings.quotas_file is None:
        return None, None, None
    file = QuotaFile(settings.quotas_file)
    file.load()
    if settings.redis_url_file is None:
        return file, LocalQuotas(time.monotonic), None
    # Its client takes half a second of processor time to import, which whoever has no Redis shall not pay.
    from baleen_sidecar.adapters.redis_quotas import RedisQuotas
    from baleen_sidecar.adapters.shared_redis import open_redis

    client = open_redis(settings.redis_url_file)
    stack.push_async_callback(client.aclose)
    # Two that have one name, such as two containers of a host, would be taken for one.
    name = f"{replica or socket.gethostname()}-{os.urandom(4).hex()}"
    quotas = RedisQuotas(client, replica=name, monotonic_seconds=time.monotonic)
    await quotas.beat()
    return file, quotas, quotas


def _open_jwt(settings: Settings) -> JwtTokens | None:
    if not settings.jwt_keys:
        return None
    keys: SigningKeyAddress | SigningKeyFile
    if settings.jwt_keys.startswith("https://"):
        # It is first read when it is first followed: a start waits for nobody else's server.
        keys = SigningKeyAddress(settings.jwt_keys, ca_file=settings.jwt_ca_file)
    else:
        keys = SigningKeyFile(Path(settings.jwt_keys))
        keys.load()
    rules = ClaimRules(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        roles_claim=settings.jwt_roles_claim,
        tenant_claim=settings.jwt_tenant_claim,
        leeway_seconds=settings.jwt_leeway_seconds,
    )
    return JwtTokens(keys, rules)


async def _open_stores(
    stack: AsyncExitStack, settings: Settings, state: StateFolder, replica: str
) -> tuple[GroupedLog, RevisionStore, RescanDebts]:
    """Open the decision log, the store of what its decisions are made by, and what is owed a second look."""
    own = SqliteRevisionStore(state.database)
    stack.callback(own.close)
    if settings.database_url_file is None:
        log = SqliteDecisionLog(
            state.database, durability=settings.durability, decisions_days=settings.retention_decisions_days
        )
        debts = SqliteDebts(state.database)
        stack.callback(debts.close)
        return await stack.enter_async_context(log), own, debts
    database = Database(settings.database_url_file)
    await asyncio.to_thread(database.migrate)
    shared = await asyncio.to_thread(PostgresRevisionStore, database)
    stack.callback(shared.close)
    store = SharedRevisionStore(own, shared)
    await store.share()
    decisions = PostgresDecisionLog(
        database,
        writer=state.writer(replica or socket.gethostname()),
        durability=settings.durability,
        decisions_days=settings.retention_decisions_days,
    )
    shared_debts = PostgresDebts(database)
    stack.callback(shared_debts.close)
    return await stack.enter_async_context(decisions), store, shared_debts


@asynccontextmanager
async def open_sidecar(
    settings: Settings, models: Sequence[LoadedModel], inference: Inference, *, breakers: Breakers | None = None
) -> AsyncIterator[Sidecar]:
    """Open a sidecar with policies from a folder, and read them once; `breakers` are those of the models.

    Raises:
        InvalidError: the file of API keys is not in order.
        StateError: the state folder is in use, newer or damaged.
    """
    async with open_parts(settings) as parts:
        adopt = AdoptPolicies(
            parts.store,
            tuple(loaded.model for loaded in models),
            executor=parts.executor,
            wall_seconds=parts.shell.wall_seconds,
        )
        policies = PolicyFolder(settings.policies, adopt)
        ports = parts.ports(inference, policies=adopt.current, models=FixedModels(models).current, breakers=breakers)
        await policies.load()
        yield Sidecar(
            app=build_app(ports, settings), policies=policies, ports=ports, keys=parts.keys, watched=parts.watched
        )


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything slow is started.

    Raises:
        StateError: the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol asyncio leaves Nagle on, and the second packet of an answer waits for an ACK: 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # Until one of them listens, two processes can have the same port.
        listening.listen()
    except OSError as exc:
        listening.close()
        raise StateError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the address of a port that was taken."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Ends when it is told to and leaves signals alone: uvicorn's would kill the process before all else is closed."""

    DRAIN_LOOK_SECONDS: Final = 0.05

    def __init__(
        self, config: uvicorn.Config, *, drain_seconds: float = 0.0, on_end: Callable[[], None] = lambda: None
    ) -> None:
        """`on_end` is called when it begins to end."""
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._on_end = on_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, after a time in which each answer asks its caller to connect anew.

        Whoever has an open connection may be asking on it at the very moment at which it is closed, and would be lost.
        """
        # A new list: answers under way have the old one.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self._on_end()
        give_up = time.monotonic() + self._drain_seconds
        while self.server_state.connections and time.monotonic() < give_up:
            if self.force_exit:
                break
            await asyncio.sleep(self.DRAIN_LOOK_SECONDS)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none; see `run_servers`."""
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An application, the port that was taken for it, and what its connections may do."""

    app: ASGIApp
    listening: socket.socket
    protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol
    drain_seconds: float = 0.0
    reserved_files: int = RESERVED_FILES
    """Files that are not for its connections."""

    def server(self) -> Server:
        """Make its server."""
        application = self.app if isinstance(self.app, Application) else None
        limits = within_files(application.limits, self.reserved_files) if application else None
        shared = application.shared if application else Shared()
        config = uvicorn.Config(
            self.app,
            http=partial(self.protocol, shared=shared, limits=limits),  # type: ignore[arg-type]  # it is only called
            # A connection that uvicorn upgrades would be outside its limits; ours is not (web/websocket.py).
            ws="none",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            # Nobody looks at addresses that a proxy says it was asked from.
            proxy_headers=False,
            lifespan="off",
        )
        on_end = self.app.drain if isinstance(self.app, Application) else lambda: None
        return Server(config, drain_seconds=self.drain_seconds, on_end=on_end)


def within_files(limits: ConnectionLimits, reserved_files: int = RESERVED_FILES) -> ConnectionLimits:
    """Have as many files as connections may need, and allow no more connections than there are files for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + reserved_files
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    fitting = max(1, soft - reserved_files)
    log.warning("fewer connections than set", extra={"open_files": soft, "set": limits.connections, "taken": fitting})
    return replace(limits, connections=fitting)


def open_grpc(app: Application, settings: Settings, *, drain_seconds: float = 0.0) -> "GrpcServer | None":
    """Take the port of gRPC, if there is to be one; it is served beside `app`, with the same core and the same drain.

    Raises:
        StateError: the port is taken or may not be used.
    """
    if settings.grpc_port is None:
        return None
    # What it stands on takes a tenth of a second to import, which whoever has no gRPC shall not pay.
    from baleen_sidecar.web.grpc.server import GrpcLimits, GrpcServer
    from baleen_sidecar.web.grpc.service import ServiceRules

    assert app.calls is not None, "build_app makes them"
    assert app.ready is not None, "build_app makes it"
    server = GrpcServer(
        app.calls,
        app.ready,
        rules=ServiceRules(
            batch_limit=settings.batch_limit,
            window=settings.stream_window,
            idle_seconds=settings.idle_seconds,
        ),
        limits=GrpcLimits(
            message_bytes=settings.grpc_message_limit_bytes,
            calls=settings.grpc_call_limit,
            connections=settings.grpc_connection_limit,
        ),
        grace_seconds=SHUTDOWN_SECONDS,
        drain_seconds=drain_seconds,
    )
    server.bind(settings.host, settings.grpc_port)
    return server


def reserved_files(settings: Settings) -> int:
    """Return how many files are not for connections of HTTP."""
    return RESERVED_FILES + (0 if settings.grpc_port is None else settings.grpc_connection_limit)


async def run_servers(*served: Served, beside: "GrpcServer | None" = None) -> None:
    """Answer requests until SIGTERM or SIGINT; those under way are finished first, within SHUTDOWN_SECONDS.

    Before that, callers with open connections get `drain_seconds` to leave.
    """
    servers = [each.server() for each in served]
    if threading.current_thread() is threading.main_thread():
        # All that was made until now stays. To look through it for garbage takes a tenth of a second, in which nobody
        # is answered.
        gc.collect()
        gc.freeze()
    with _signalled(servers if beside is None else [*servers, beside]):
        async with asyncio.TaskGroup() as group:
            for each, server in zip(served, servers, strict=True):
                group.create_task(server.serve(sockets=[each.listening]))
            if beside is not None:
                group.create_task(beside.serve())


async def run_server(
    app: ASGIApp,
    listening: socket.socket,
    *,
    beside: "GrpcServer | None" = None,
    reserved_files: int = RESERVED_FILES,
) -> None:
    """Run one, as `run_servers` does."""
    await run_servers(Served(app=app, listening=listening, reserved_files=reserved_files), beside=beside)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the block, in order, for as long as no server that runs in it takes them.

    They would kill a process that has begun something already, and the first process of a container hears of neither.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    task, received = asyncio.current_task(), False
    assert task is not None

    def end() -> None:
        nonlocal received
        # A second one would break off what the first one has begun to close.
        if not received:
            received = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    try:
        yield
    except asyncio.CancelledError:
        if not received or task.uncancel() > 0:
            raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def _signalled(servers: "Sequence[Server | GrpcServer]") -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int) -> None:
        for server in servers:
            server.handle_exit(number, None)

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
