"""A process that follows a cluster: a gateway, from the API server; or an injected sidecar, from a gateway's stream."""

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.errors import BaleenError
from baleen_core.policy.grants import Grants
from baleen_core.policy_stream import Load
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.account_file import AccountFile
from baleen_sidecar.adapters.account_tokens import MAX_ASKING, AccountTokens
from baleen_sidecar.adapters.gateway_files import GatewayFiles
from baleen_sidecar.adapters.kube_client import ClusterAccess, KubeClient
from baleen_sidecar.adapters.kube_source import KubeSource
from baleen_sidecar.adapters.last_good import FileLastGood
from baleen_sidecar.adapters.model_files import FetchedModelFiles, FolderModelFiles
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.store import Copies, SqliteSpool
from baleen_sidecar.adapters.stream_source import StreamSource
from baleen_sidecar.adapters.token_review import TokenReviewAuthenticator
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.app import build_app
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.counters import DecisionCounts, KnownRollouts, RolloutCounts
from baleen_sidecar.main import (
    Parts,
    Served,
    Task,
    bind,
    open_grpc,
    open_parts,
    reserved_files,
    run_servers,
    url_of,
)
from baleen_sidecar.ports import DecisionLog, PolicySource
from baleen_sidecar.settings import ClusterSettings, Durability, Settings
from baleen_sidecar.usecases.adopt_routes import AdoptRoutes
from baleen_sidecar.usecases.follow_published import FollowPublished
from baleen_sidecar.usecases.report_health import Component
from baleen_sidecar.usecases.serve_models import ServeModels
from baleen_sidecar.usecases.ship_decisions import ShipDecisions
from baleen_sidecar.usecases.simulate import Simulate
from baleen_sidecar.usecases.take_records import TakeRecords
from baleen_sidecar.web.exposition import MetricsPage
from baleen_sidecar.web.policy_stream import PolicyStream, ReadFile, StreamSettings
from baleen_sidecar.web.stream_protocol import PolicyStreamProtocol

if TYPE_CHECKING:
    from baleen_sidecar.web.grpc.server import GrpcServer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Followed:
    """A source of policies, the tasks that follow it and pass it on, and what is served beside the application.

    `shipping` is where a sidecar's decisions go, `accounts` knows ServiceAccounts that may call.
    """

    source: PolicySource
    log: DecisionLog
    tasks: tuple[Task, ...]
    served: tuple[Served, ...] = ()
    shipping: ShipDecisions | None = None
    accounts: AccountTokens | None = None
    account_file: AccountFile | None = None

    def components(self) -> tuple[Component, ...]:
        return tuple(each.component() for each in (self.shipping, self.account_file) if each)

    def degraded(self) -> tuple[str, ...]:
        return self.shipping.degraded() if self.shipping else ()

    async def finish(self) -> None:
        """Do what is left once nothing is served any more, while the tasks still run."""
        if self.shipping:
            await self.shipping.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """What a gateway tells of itself."""

    decisions: DecisionCounts
    rollouts: RolloutCounts
    concurrency: Concurrency
    copies: Copies

    def count(self, record: DecisionRecord) -> None:
        """Count a decision that was made here."""
        self.decisions.count(record.decision)
        self.rollouts.count(record)

    def counting_claims(self, source: KubeSource) -> Callable[[DecisionRecord], None]:
        """Return what counts a decision that a sidecar says it made, by the rollouts that are under way here."""
        known = KnownRollouts(lambda: source.adopted)
        return lambda record: self.rollouts.count_claimed(record, known(), now=datetime.now(UTC))

    def load(self) -> Load:
        """Say how busy it is."""
        return Load(
            in_flight=self.concurrency.in_flight,
            request_seconds=self.concurrency.request_seconds,
            measured_seconds=self.concurrency.measured_seconds,
        )


async def follow(settings: Settings, cluster: ClusterSettings, env: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidError: `env` does not say where the API server is, a file of certificates is none, or the file of API
        keys, of JWTs' keys or of ServiceAccounts is not in order.
        StateError: a port is taken, or the state folder is in use, newer or damaged.
    """
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(bind(settings.host, settings.port))
        scraped = [stack.enter_context(bind(settings.host, port)) for port in cluster.metrics_ports()]
        # What a follower answers with Fsync is on its gateway's disk, so that its own need not be waited for.
        kept = settings if cluster.is_gateway else replace(settings, durability=Durability.INTERVAL)
        parts = await stack.enter_async_context(open_parts(kept, replica=cluster.replica))
        inference = RoutedInference(
            lambda endpoint: TritonInference(endpoint, timeout_seconds=settings.model_timeout_seconds)
        )
        stack.push_async_callback(inference.close)
        files = _find_files(cluster, parts)
        models = ServeModels(
            inference,
            load=files.load,
            images=parts.images,
            golden_file=files.golden_file,
            interval_seconds=settings.verify_interval_seconds,
        )
        own = _Own(
            decisions=DecisionCounts(),
            rollouts=RolloutCounts(os.urandom(8).hex(), key=os.urandom(16)),
            concurrency=Concurrency(time.monotonic),
            copies=Copies(parts.state.path),
        )
        followed = await stack.enter_async_context(
            _open_api_server(cluster, env, own, parts, _reading(models, files), _comparing(parts, models))
            if cluster.is_gateway
            else _open_gateway(cluster, settings.durability, parts)
        )
        adopt = AdoptRoutes(
            parts.store,
            followed.source,
            lambda: models.current().signals,
            executor=parts.executor,
            wall_seconds=time.time,
            jitter=random.random,
        )
        following = FollowPublished(
            followed.source, adopt, models, FileLastGood(parts.state.path), wall_seconds=time.time
        )
        ports = parts.ports(
            inference,
            log=followed.log,
            policies=adopt.current,
            models=models.current,
            components=lambda: (*following.components(), *followed.components()),
            degraded=lambda: (*following.degraded(), *followed.degraded()),
            on_decision=own.count,
            concurrency=own.concurrency,
            accounts=followed.accounts,
            breakers=inference,
            replicas=inference.replicas,
        )
        Gauge(
            "baleen_policy_source_connected", "1 while the source of policies is followed.", registry=parts.registry
        ).set_function(lambda: float(not followed.source.problem))
        # Whatever was enforced before is enforced again before the first request is read.
        await following.restore()
        application = build_app(ports, settings)
        app = Served(
            app=application,
            listening=listening,
            drain_seconds=cluster.drain_seconds,
            reserved_files=reserved_files(settings),
        )
        beside = open_grpc(application, settings, drain_seconds=cluster.drain_seconds)
        metrics = [Served(app=MetricsPage(parts.registry), listening=each) for each in scraped]
        served = (app, *followed.served, *metrics)
        ports_of_grpc = [] if beside is None else [beside.port]
        log.info("answering", extra={"urls": [url_of(each.listening) for each in served], "grpc_ports": ports_of_grpc})
        rescans = () if ports.rescans is None else (ports.rescans.run,)
        tasks = (*followed.tasks, *parts.watched, *rescans, following.run, models.run)
        await _until_served(_serve(served, followed, beside), tasks)


def _find_files(cluster: ClusterSettings, parts: Parts) -> FolderModelFiles:
    if cluster.is_gateway:
        return FolderModelFiles(cluster.model_files)
    gateway = GatewayFiles(cluster.gateway_url, cluster.gateway_token_file, ca_file=cluster.gateway_ca_file)
    return FetchedModelFiles(cluster.model_files, parts.state.path / "model-files", gateway.fetch)


def _reading(models: ServeModels, files: FolderModelFiles) -> ReadFile:
    """Read for sidecars what a model names."""

    async def read(sha256: str) -> bytes | None:
        named = models.find_file(sha256)
        if named is None:
            return None
        try:
            return await asyncio.to_thread(files.read, *named, sha256)
        except (BaleenError, OSError):
            return None

    return read


def _comparing(parts: Parts, models: ServeModels) -> Simulate:
    """Judge the log again for the operator, whatever is in force here."""
    return Simulate(
        PolicySnapshot,
        lambda: models.current().expected,
        parts.log,
        parts.store,
        executor=parts.executor,
        monotonic_seconds=time.monotonic,
    )


async def _serve(served: Sequence[Served], followed: _Followed, beside: "GrpcServer | None") -> None:
    await run_servers(*served, beside=beside)
    await followed.finish()


async def _until_served(serving: Awaitable[None], tasks: tuple[Task, ...]) -> None:
    """Run tasks that never end while something is served."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task()) for task in tasks]
        await serving
        for each in running:
            each.cancel()


@asynccontextmanager
async def _open_api_server(
    cluster: ClusterSettings, env: Mapping[str, str], own: _Own, parts: Parts, read_file: ReadFile, simulate: Simulate
) -> AsyncIterator[_Followed]:
    """Follow the API server, and pass on what it says on a second port."""
    access = (
        ClusterAccess(
            url=cluster.kubernetes_url,
            token_file=cluster.kubernetes_token_file,
            ca_file=cluster.kubernetes_ca_file,
        )
        if cluster.kubernetes_url
        else replace(
            ClusterAccess.in_cluster(env),
            token_file=cluster.kubernetes_token_file,
            ca_file=cluster.kubernetes_ca_file,
        )
    )
    client = KubeClient(access)
    try:
        source = KubeSource(client, namespaces=cluster.namespaces)
        grants = Grants(tenants=cluster.tenants)
        taken = Counter("baleen_records_received", "Decisions that sidecars sent.", ["result"], registry=parts.registry)
        stream = PolicyStream(
            source,
            TokenReviewAuthenticator(client),
            read_list=source.read_list,
            read_file=read_file,
            adopted=lambda: source.adopted,
            records=TakeRecords(
                parts.log,
                parts.store,
                grants.may_read,
                count=_counting(taken),
                # What a sidecar's revision decided is no decision of this gateway, but its rollouts are the same.
                on_decision=own.counting_claims(source),
            ),
            decisions=own.decisions.of,
            trial=own.rollouts.of,
            load=own.load,
            copies=own.copies,
            compare=simulate.compare,
            log_id=parts.log.log_id,
            settings=StreamSettings(
                replica=cluster.replica or socket.gethostname(),
                address=cluster.stream_address,
                grants=grants,
                operators=frozenset(_account(each) for each in cluster.operators),
                backup_accounts=frozenset(_account(each) for each in cluster.backup_accounts),
            ),
            chance=os.urandom,
        )
        account_file = _read_accounts(cluster)
        with bind(cluster.stream_host, cluster.stream_port) as listening:
            served = Served(app=stream, listening=listening, protocol=PolicyStreamProtocol)
            yield _Followed(
                source=source,
                log=parts.log,
                tasks=(source.run, stream.run, *(() if account_file is None else (account_file.watch,))),
                served=(served,),
                accounts=None if account_file is None else _knowing(client, account_file, cluster.accounts_audience),
                account_file=account_file,
            )
    finally:
        await client.aclose()


def _read_accounts(cluster: ClusterSettings) -> AccountFile | None:
    if cluster.accounts_file is None:
        return None
    found = AccountFile(cluster.accounts_file)
    found.load()
    return found


def _knowing(client: KubeClient, accounts: AccountFile, audience: str) -> AccountTokens:
    """Know callers by what the API server says, apart from sidecars: these must not be held up by strangers."""
    authenticator = TokenReviewAuthenticator(client, audience=audience, limit_asking=MAX_ASKING)
    return AccountTokens(authenticator, accounts.current, audience=audience)


@asynccontextmanager
async def _open_gateway(cluster: ClusterSettings, durability: Durability, parts: Parts) -> AsyncIterator[_Followed]:
    """Follow a gateway's stream, with no rights in the cluster, and send it what is decided."""
    source = StreamSource(
        cluster.gateway_url,
        cluster.gateway_token_file,
        replica=cluster.replica or socket.gethostname(),
        ca_file=cluster.gateway_ca_file,
    )
    sent = Counter("baleen_spool_sent", "Decisions that the gateway was sent.", ["result"], registry=parts.registry)
    try:
        async with SqliteSpool(parts.state.database, parts.log, limit_bytes=cluster.spool_limit_bytes) as spool:
            shipping = ShipDecisions(
                spool,
                source,
                parts.store,
                durability=durability,
                wall_seconds=time.time,
                monotonic_seconds=time.monotonic,
                jitter=random.random,
                count=_counting(sent),
            )
            Gauge(
                "baleen_spool_waiting_bytes", "Bytes of decisions that wait for the gateway.", registry=parts.registry
            ).set_function(lambda: float(spool.waiting_bytes))
            Gauge(
                "baleen_spool_oldest_age_seconds", "How old the oldest of them is.", registry=parts.registry
            ).set_function(shipping.lag_seconds)
            yield _Followed(source=source, log=shipping, tasks=(source.run, shipping.run), shipping=shipping)
    finally:
        await source.aclose()


def _counting(counter: Counter) -> Callable[[str, int], None]:
    return lambda result, number: counter.labels(result).inc(number)


def _account(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    return namespace, name
