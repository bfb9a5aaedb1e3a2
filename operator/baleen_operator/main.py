"""The operator's process: its status page first, then the CRDs, then the Lease, and only then kopf and the work."""

import asyncio
import contextlib
import gc
import logging
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

import kopf

from baleen_core.errors import ClusterError, InvalidError
from baleen_core.resources import DEPLOYMENT_KIND, PLURALS, POLICY_KIND, ROUTE_KIND
from baleen_operator.adapters.api import ApiServer
from baleen_operator.adapters.backtests import GatewayBacktests, TriedBacktests
from baleen_operator.adapters.certificates import CertificateRules, Certificates
from baleen_operator.adapters.crds import find_problems
from baleen_operator.adapters.election import Election
from baleen_operator.adapters.events import Events
from baleen_operator.adapters.gateways import GatewayPlaces, PolledGateways
from baleen_operator.adapters.intake import Intake
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.adapters.lease import LeaseRules
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.adapters.model_files import FolderModelFiles
from baleen_operator.adapters.prometheus import PrometheusProvider, Server
from baleen_operator.adapters.queue import KeyedQueue, Task, Work, is_expected, is_race
from baleen_operator.adapters.status_page import Readiness, status_page
from baleen_operator.adapters.triton import GrpcTriton
from baleen_operator.adapters.webhooks import ListedModels, Webhooks, webhook_server
from baleen_operator.handlers.thread import reason_of, watch
from baleen_operator.handlers.watch import build_registry
from baleen_operator.logs import about, set_up_logging
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Target
from baleen_operator.plan.refusals import refuse_runtime
from baleen_operator.plan.schedule import back_off_seconds, within_seconds
from baleen_operator.reconcile.gateway_scaling import Scaled, ScalingPorts, Workload, reconcile_gateways
from baleen_operator.reconcile.model_deployment import reconcile_model_deployment
from baleen_operator.reconcile.model_ports import ModelPorts
from baleen_operator.reconcile.policy import reconcile_policy
from baleen_operator.reconcile.ports import Key, Ports
from baleen_operator.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_SETTINGS: Final = 2
EXIT_LEASE_LOST: Final = 3

TRY_SECONDS: Final = 2.0
"""How long gateways may take to judge their logs for somebody who only tries an edit."""
WAIT_SECONDS: Final = 2.0
"""How often something that has to be there before the work begins is looked for."""
SETTLE_SECONDS: Final = 2.0
"""How long a listing of kopf's is given to end before everything is listed to find what it missed."""
RELIST_PAUSE_SECONDS: Final = 10.0
SCALING: Final = "GatewayScaling"
"""What metrics call the rounds in which the number of gateways is decided."""
WATCH_WELL_SECONDS: Final = 60.0
"""A watch that lived for so long was well: the next failure is a first one."""


def main() -> int:
    """Run the operator until it is told to end, or must; return the exit code."""
    set_up_logging()
    try:
        settings = Settings.from_env(os.environ)
    except InvalidError as exc:
        for problem in exc.problems:
            logger.error("a setting is wrong", extra={"setting": problem.field, "problem": problem.message})
        return EXIT_SETTINGS
    set_up_logging(settings.log_level)
    # Documents come and go in masses, hardly ever with cycles; and looking through half a million objects for garbage,
    # as often as Python would by default, takes a third of a second each time, in which no thread runs.
    gc.set_threshold(20_000, 20, 10)
    # Whoever waits for an answer gets its turn sooner: kopf, the Lease and the checks of policies are other threads.
    sys.setswitchinterval(0.001)
    try:
        asyncio.run(serve(settings))
    except (ClusterError, OSError) as exc:
        logger.error("the operator cannot start", extra={"reason": str(exc)})
        return 1
    except Exception:
        logger.critical("the operator ended by a fault of its own", exc_info=True)
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Lead, or stand by, until a signal says to end."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    metrics, readiness = Metrics(), Readiness()
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(status_page(settings.host, settings.port, readiness, metrics))
        logger.info("answering", extra={"host": settings.host, "port": port})
        api = await stack.enter_async_context(
            # One for each that may be calling, and some to spare: waiting for one counts as waiting for an answer.
            connect(settings, metrics, connections=settings.workers + settings.model_workers + 16)
        )
        operator = build_operator(settings, api, metrics, readiness)
        certificates = await stack.enter_async_context(serve_webhooks(settings, api, metrics, operator.events))
        if certificates is not None:
            readiness.more = lambda: {"webhook_certificate": certificates.state}
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(operator.events.run())]
            if certificates is not None:
                beside.append(group.create_task(certificates.run()))
                # A replica that is ready is asked.
                await _first(ended.wait(), asyncio.ensure_future(certificates.looked.wait()))
            work = group.create_task(operator.run())
            await _first(ended.wait(), work)
            logger.info("ending")
            await operator.drain(settings.drain_seconds)
            for each in (work, *beside):
                each.cancel()


async def _first(signalled: Awaitable[object], work: "asyncio.Future[Any]") -> None:
    waiting = asyncio.ensure_future(signalled)
    try:
        await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def connect(
    settings: Settings, metrics: Metrics, *, connections: int
) -> contextlib.AbstractAsyncContextManager[ApiServer]:
    """Connect to the API server with the pod's credentials, or else those of KUBECONFIG as it is now."""
    return ApiServer.connected(
        timeout_seconds=settings.request_timeout_seconds,
        metrics=metrics,
        connections=connections,
        kubeconfig=os.environ.get("KUBECONFIG"),
    )


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def new_salt() -> str:
    """Return what nobody can guess: 256 bits, in letters and digits."""
    return secrets.token_hex(32)


def end_at_once(holder: str) -> None:
    """End the process: somebody else may lead by now. The next start finds all that it needs in the cluster."""
    logger.critical("the Lease is lost: the process ends", extra={"holder": holder})
    sys.stderr.flush()
    os._exit(EXIT_LEASE_LOST)


class Threads:
    """Where work goes that takes CPU time: few threads, for only one computes at a time."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="check")

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do the work in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)


@contextlib.asynccontextmanager
async def serve_webhooks(
    settings: Settings, api: ApiServer, metrics: Metrics, events: Events
) -> AsyncIterator[Certificates | None]:
    """Answer API servers, if any are to ask, whatever this replica waits for; yields what looks after the certificate.

    Raises:
        OSError: the address cannot be listened on.
    """
    if not settings.webhook_names:
        yield None
        return
    # Threads of their own: an API server waits for five seconds, and thousands of policies take longer at the start.
    off_loop = Threads()
    certificates = Certificates(
        api,
        CertificateRules(
            namespace=settings.system_namespace,
            secret=settings.webhook_secret,
            names=settings.webhook_names,
            lifetime=settings.webhook_certificate_lifetime,
        ),
        events,
        metrics,
        clock=now,
        off_loop=off_loop,
    )
    mirror = new_mirror(settings)
    cluster = KubeCluster(api, mirror, events, may_write=lambda: False)
    # Its own, since a replica that stands by follows no gateway.
    gateways = poll_gateways(settings, cluster, metrics, on_change=lambda keys: None)
    webhooks = Webhooks(
        rules=settings.injection_rules,
        grants=settings.grants,
        namespaces=settings.namespaces,
        models=ListedModels(cluster, mirror, tuple(settings.namespaces)),
        metrics=metrics,
        off_loop=off_loop,
        stamps_off_loop=Threads(),
        backtest=TriedBacktests(cluster, gateways, off_loop=off_loop, seconds=TRY_SECONDS),
    )
    async with webhook_server(settings.host, settings.webhook_port, certificates.context, webhooks) as port:
        logger.info("answering API servers", extra={"host": settings.host, "port": port})
        yield certificates


def new_mirror(settings: Settings) -> Mirror:
    """Return an empty mirror, in which a ModelDeployment that the installation does not allow serves nothing."""
    rules = settings.runtime_rules
    return Mirror(is_allowed=lambda deployment: refuse_runtime(deployment, rules) is None)


def build_operator(settings: Settings, api: ApiServer, metrics: Metrics, readiness: Readiness) -> "Operator":
    """Put the parts together: the only place that knows who stands behind which port."""
    identity = f"{socket.gethostname()}_{uuid4()}"
    rules = LeaseRules(
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        duration_seconds=settings.lease_duration_seconds,
        retry_seconds=settings.lease_retry_seconds,
    )
    election = Election(
        lambda: connect(settings, metrics, connections=2),
        rules,
        identity,
        on_lost=end_at_once,
    )
    mirror = new_mirror(settings)
    events = Events(api, metrics, instance=identity)
    cluster = KubeCluster(api, mirror, events, may_write=lambda: election.is_held)

    def on_error(task: Task, error: Exception, seconds: float) -> None:
        kind, (namespace, name) = task
        metrics.reconcile_errors.labels(kind, type(error).__name__).inc()
        fields = about(kind, namespace, name, error=type(error).__name__, reason=str(error), again_seconds=seconds)
        if is_race(error):
            logger.debug("somebody else wrote in between", extra=fields)
        elif is_expected(error):
            logger.warning("could not reconcile", extra=fields)
        else:
            logger.error("could not reconcile", extra=fields, exc_info=error)

    async def on_policy(task: Task) -> float | None:
        with metrics.reconcile_seconds.labels(POLICY_KIND).time():
            outcome = await reconcile_policy(task[1], ports)
        if mirror.get(ROUTE_KIND, task[1]) is None:
            gateways.forget(task[1])
            backtests.forget(task[1])
            provider.forget(task[1])
        work.add(((POLICY_KIND, each) for each in outcome.affected), urgent=True)
        if not mirror.reads_secrets(task[1]):
            return outcome.requeue_seconds
        return within_seconds(outcome.requeue_seconds, settings.secret_poll_seconds)

    async def on_deployment(task: Task) -> float | None:
        with metrics.reconcile_seconds.labels(DEPLOYMENT_KIND).time():
            outcome = await reconcile_model_deployment(task[1], model_ports)
        work.add(((POLICY_KIND, each) for each in outcome.affected), urgent=True)
        return outcome.requeue_seconds

    work = Work(
        queues={
            POLICY_KIND: KeyedQueue(on_policy, on_error=on_error),
            DEPLOYMENT_KIND: KeyedQueue(on_deployment, on_error=on_error),
        },
        workers={POLICY_KIND: settings.workers, DEPLOYMENT_KIND: settings.model_workers},
    )
    intake = Intake(mirror, metrics, work.add)
    mirror.on_change = intake.on_change
    gateways = poll_gateways(
        settings,
        cluster,
        metrics,
        on_change=lambda keys: work.add(((POLICY_KIND, key) for key in keys), urgent=False),
    )
    backtests = GatewayBacktests(
        gateways, clock=now, on_change=lambda keys: work.add(((POLICY_KIND, key) for key in keys), urgent=True)
    )
    provider = PrometheusProvider(
        prometheus_server(settings),
        metrics,
        clock=now,
        on_change=lambda keys: work.add(((POLICY_KIND, key) for key in keys), urgent=False),
    )
    ports = Ports(
        seen=mirror,
        cluster=cluster,
        gateways=gateways,
        backtests=backtests,
        provider=provider,
        clock=now,
        off_loop=Threads(),
        salt=new_salt,
        grants=settings.grants,
        approval_by_another=settings.approval_by_another,
    )
    model_files = FolderModelFiles(settings.model_files)
    model_ports = ModelPorts(
        seen=mirror,
        cluster=cluster,
        clock=now,
        triton=GrpcTriton(),
        files=model_files,
        rules=settings.runtime_rules,
    )
    for kind, queue in work.queues.items():
        metrics.observe_queue(kind, queue)
    for kind in PLURALS:
        metrics.observe_seen(kind, lambda kind=kind: mirror.count(kind))  # type: ignore[misc]
    return Operator(
        settings=settings,
        api=api,
        metrics=metrics,
        readiness=readiness,
        election=election,
        cluster=cluster,
        events=events,
        work=work,
        intake=intake,
        gateways=gateways,
        backtests=backtests,
        provider=provider,
        model_files=model_files,
        scaling=scaling_ports(settings, cluster, gateways),
    )


def poll_gateways(
    settings: Settings, cluster: KubeCluster, metrics: Metrics, *, on_change: Callable[[Collection[Key]], None]
) -> PolledGateways:
    """Return what knows the gateways."""
    return PolledGateways(
        GatewayPlaces(
            urls=settings.gateway_urls,
            namespace=settings.gateway_namespace,
            service=settings.gateway_service,
            port=settings.gateway_port,
        ),
        cluster,
        metrics,
        token_file=settings.gateway_token_file,
        timeout_seconds=settings.gateway_timeout_seconds,
        on_change=on_change,
        # Each round of scaling needs answers that are newer than the round before.
        news_seconds=settings.gateway_scale_seconds if settings.gateway_workload else math.inf,
    )


def prometheus_server(settings: Settings) -> Server | None:
    """Return where PromQL metrics are asked; None where an installation has no such server."""
    if not settings.prometheus_url:
        return None
    return Server(
        url=settings.prometheus_url,
        ca_file=settings.prometheus_ca_file,
        token_file=settings.prometheus_token_file,
        timeout_seconds=settings.prometheus_timeout_seconds,
    )


def scaling_ports(settings: Settings, cluster: KubeCluster, gateways: PolledGateways) -> ScalingPorts | None:
    """Return what it takes to scale the gateways; None where somebody else does."""
    kind, _, name = settings.gateway_workload.partition("/")
    if not name:
        return None
    target = Target(group="apps", version="v1", plural=f"{kind.lower()}s", kind=kind)
    return ScalingPorts(
        cluster=cluster,
        gateways=gateways,
        seconds=time.monotonic,
        workload=Workload(target=target, namespace=settings.gateway_namespace, name=name),
        rules=settings.scaling_rules,
    )


@dataclass(slots=True, kw_only=True)
class Operator:
    """The order in which everything begins, goes on and ends."""

    settings: Settings
    api: ApiServer
    metrics: Metrics
    readiness: Readiness
    election: Election
    cluster: KubeCluster
    events: Events
    work: Work
    intake: Intake
    gateways: PolledGateways
    backtests: GatewayBacktests
    provider: PrometheusProvider
    model_files: FolderModelFiles
    scaling: ScalingPorts | None = None
    watch_problem: str = ""
    list_problem: str = ""
    working: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.readiness.outages = self._outages
        self.readiness.details = lambda: (*self.api.forbidden, *self.election.forbidden)

    async def run(self) -> None:
        """Wait for what is needed, wait for the Lease, and then lead; ends only by being cancelled."""
        await self._await_crds()
        self.readiness.role, self.readiness.waiting_for = "standby", ()
        await self.election.win()
        self.readiness.role, self.readiness.waiting_for = "leader", ("everything to be listed once",)
        self.metrics.leader.set(1)
        async with asyncio.TaskGroup() as group:
            await self._list_once()
            self.intake.everything()
            self.working = group.create_task(self.work.run())
            group.create_task(self.gateways.run())
            group.create_task(self.backtests.run())
            group.create_task(self.provider.run())
            if self.scaling is not None:
                group.create_task(self._keep_scaling(self.scaling))
            group.create_task(self._keep_listing())
            group.create_task(self._keep_watching())
            self.readiness.waiting_for = ()

    async def drain(self, seconds: float) -> None:
        """End what was begun, and let the next one lead at once."""
        self.readiness.role, self.readiness.waiting_for = "ending", ("nothing: the operator ends",)
        self.work.stop()
        if self.working is not None:
            await asyncio.wait({self.working}, timeout=seconds)
        self.model_files.close()
        await self.election.resign()

    def _outages(self) -> tuple[str, ...]:
        problems = (self.api.problem or self.election.problem, self.watch_problem, self.list_problem)
        return tuple(each for each in problems if each)

    async def _await_crds(self) -> None:
        said: tuple[str, ...] = ()
        while True:
            try:
                problems = await find_problems(self.api)
            except ClusterError as exc:
                problems = (str(exc),)
            if not problems:
                return
            self.readiness.waiting_for = problems
            if problems != said:
                said = problems
                logger.warning("waiting", extra={"reasons": list(problems)})
            await asyncio.sleep(WAIT_SECONDS)

    async def _list_once(self) -> None:
        # Before any work: what is not listed yet would be taken for missing, and made anew.
        while True:
            if await self._list():
                return
            await asyncio.sleep(WAIT_SECONDS)

    async def _list(self) -> bool:
        try:
            await self.cluster.relist(tuple(PLURALS), self.settings.namespaces)
        except ClusterError as exc:
            self.list_problem = str(exc)
            logger.warning("could not list", extra={"reason": str(exc)})
            return False
        self.list_problem = ""
        self.metrics.relists.inc()
        return True

    async def _keep_listing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.relist_seconds):
                    await self.intake.listed.wait()
            by_kopf = self.intake.listed.is_set()
            await asyncio.sleep(SETTLE_SECONDS if by_kopf else 0)
            self.intake.listed.clear()
            if not await self._list():
                self.intake.listed.set()
            elif not by_kopf:
                # The copies of lists are not watched: somebody may have deleted one.
                self.intake.with_lists()
            await asyncio.sleep(RELIST_PAUSE_SECONDS)

    async def _keep_scaling(self, ports: ScalingPorts) -> None:
        scaled, said = Scaled(), ""
        while True:
            try:
                with self.metrics.reconcile_seconds.labels(SCALING).time():
                    scaled = await reconcile_gateways(scaled, ports)
            except ClusterError as exc:
                self.metrics.reconcile_errors.labels(SCALING, type(exc).__name__).inc()
                problem = str(exc)
            else:
                self._show(scaled)
                if scaled.message:
                    logger.info("gateways scaled", extra={"change": scaled.message})
                problem = scaled.problem
            if problem and problem != said:
                logger.warning("the gateways are not scaled", extra={"reason": problem})
            said = problem
            await asyncio.sleep(self.settings.gateway_scale_seconds)

    def _show(self, scaled: Scaled) -> None:
        self.metrics.gateway_requests_in_flight.set(scaled.demand.in_flight)
        self.metrics.gateway_loads_unknown.set(scaled.demand.unknown)
        if scaled.scaling is not None and scaled.current is not None:
            self.metrics.gateway_replicas.set(scaled.current)
            self.metrics.gateway_replicas_desired.set(scaled.scaling.replicas)

    async def _keep_watching(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                await watch(build_registry(self.intake, self._log_in), self.settings.namespaces)
                self.watch_problem = "the watches ended"
            except Exception as exc:
                self.watch_problem = f"the watches ended: {reason_of(exc)}"
            failures = 1 if loop.time() - began > WATCH_WELL_SECONDS else failures + 1
            self.metrics.watch_restarts.inc()
            seconds = back_off_seconds(failures, 1.0)
            logger.warning("watching again soon", extra={"reason": self.watch_problem, "seconds": seconds})
            await asyncio.sleep(seconds)

    async def _log_in(self) -> kopf.ConnectionInfo:
        found = await self.api.connection()
        self.watch_problem = ""
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_file,
            token=found.token,
            certificate_path=found.certificate_file,
            private_key_path=found.key_file,
            insecure=found.insecure,
        )
