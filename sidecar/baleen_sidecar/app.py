"""The composition root: the one place that knows who stands behind which port."""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from baleen_core.api_keys import ApiKeys
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.decision_chain import Head
from baleen_core.errors import BaleenError
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.quotas import Quota
from baleen_sidecar.flow.translation import OPENAI, PERSPECTIVE, changed
from baleen_sidecar.flow.url_key import ANALYZE, DISCOVERY, SUGGEST
from baleen_sidecar.ports import (
    Breakers,
    DecisionHistory,
    DecisionLog,
    Fetcher,
    FrameDecoder,
    ImageDecoder,
    Inference,
    LanguageDetector,
    PerceptualHash,
    QueueReport,
    QueueTotals,
    Quotas,
    RevisionStore,
    ScoreCache,
    Subjects,
    Tokens,
    Tracing,
)
from baleen_sidecar.settings import Settings
from baleen_sidecar.usecases.answer_once import AnswerOnce
from baleen_sidecar.usecases.charge_quotas import ChargeQuotas
from baleen_sidecar.usecases.control_breakers import ControlBreakers
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.usecases.guard_sources import GuardSources, source_rules
from baleen_sidecar.usecases.moderate import Charge, Limits, Moderate, Shell, free_of_charge
from baleen_sidecar.usecases.pay_debts import PayDebts
from baleen_sidecar.usecases.read_decisions import ReadDecisions
from baleen_sidecar.usecases.read_policies import ReadPolicies
from baleen_sidecar.usecases.report_health import Component, ReportHealth
from baleen_sidecar.usecases.scoring import Scoring
from baleen_sidecar.usecases.serve_models import ModelSet
from baleen_sidecar.usecases.simulate import Simulate
from baleen_sidecar.usecases.survey import Survey
from baleen_sidecar.usecases.watch_sources import WatchSources
from baleen_sidecar.web import batch, streams
from baleen_sidecar.web.application import Application
from baleen_sidecar.web.breaker_metrics import BreakerMetrics
from baleen_sidecar.web.cache_metrics import CacheMetrics
from baleen_sidecar.web.calls import Calls
from baleen_sidecar.web.connections import ConnectionLimits, Shared
from baleen_sidecar.web.door import Door, Doorkeeper
from baleen_sidecar.web.errors import (
    PROBLEM_TYPE,
    FieldError,
    ProblemDetails,
    describe,
    describe_status,
    unexpected,
)
from baleen_sidecar.web.faces import discovery, openai, perspective
from baleen_sidecar.web.faces.documents import add_faces
from baleen_sidecar.web.governor_metrics import watch_governor
from baleen_sidecar.web.held_metrics import HeldMetrics
from baleen_sidecar.web.hot import HotRoute, HotRoutes, everybody, nobody_asks, read_request_id
from baleen_sidecar.web.judge import Judge
from baleen_sidecar.web.live import LiveRules
from baleen_sidecar.web.loopback import LoopbackOnly
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.moderate import PATH, ModerateRoute
from baleen_sidecar.web.named_metrics import NamedMetrics
from baleen_sidecar.web.once import RequestKeys
from baleen_sidecar.web.openapi import answer, build_openapi
from baleen_sidecar.web.quota_metrics import QuotaMetrics
from baleen_sidecar.web.rate_limit import refusal_headers
from baleen_sidecar.web.request_body import ClientGone
from baleen_sidecar.web.routes import (
    breakers,
    cache,
    changes,
    decisions,
    governor,
    operations,
    policies,
    queues,
    simulations,
    subjects,
    surveys,
)
from baleen_sidecar.web.routes import sources as source_routes
from baleen_sidecar.web.source_metrics import SourceMetrics
from baleen_sidecar.web.traced import TracedRoute

log = logging.getLogger(__name__)

DESCRIPTION = "Content moderation: policies and models in, Allow, Review or Block out, with the reason."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that the application needs from the world outside.

    `components` are what health reports say beside policies and models, `degraded` what decisions say beside models.
    `on_decision` hears of each decision once it is on record. Without `keys` only loopback is answered; with them,
    `tokens` knows callers who show something else. `subjects` and `log_head`, the head of the log's chain, are there
    where the log itself is; and so are `rescans`, which somebody has to run.
    `concurrency` is there where somebody else, too, wants to know how much is being answered. `quotas` counts what
    callers use of `current_quotas`. Without a `governor` everybody is let in, however busy the machine is. `breakers`
    are those of the models, and `queues` say what waits for each, `queue_totals` for all together.
    """

    policies: Callable[[], PolicySnapshot]
    models: Callable[[], ModelSet]
    inference: Inference
    log: DecisionLog
    history: DecisionHistory
    store: RevisionStore
    languages: LanguageDetector
    images: ImageDecoder
    frames: FrameDecoder
    perceptual_hash: PerceptualHash
    fetcher: Fetcher
    shell: Shell
    registry: CollectorRegistry
    components: Callable[[], Sequence[Component]] = lambda: ()
    degraded: Callable[[], tuple[str, ...]] = lambda: ()
    on_decision: Callable[[DecisionRecord], None] = lambda record: None
    keys: Callable[[], ApiKeys] | None = None
    concurrency: Concurrency | None = None
    subjects: Subjects | None = None
    log_head: Callable[[], Head | None] = lambda: None
    current_quotas: Callable[[], Sequence[Quota]] = lambda: ()
    quotas: Quotas | None = None
    governor: Governor | None = None
    tokens: Tokens | None = None
    breakers: Breakers | None = None
    rescans: PayDebts | None = None
    cache: ScoreCache | None = None
    queues: Callable[[], Sequence[QueueReport]] = lambda: ()
    queue_totals: Callable[[], QueueTotals] = QueueTotals
    tracing: Tracing | None = None


def build_app(
    ports: Ports,
    settings: Settings,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> Application:
    """Put the application together; nothing is opened or started here."""
    concurrency = ports.concurrency or Concurrency(ports.shell.monotonic_seconds)
    metrics = RequestMetrics(
        ports.registry,
        in_flight=lambda: concurrency.in_flight,
        trace_id=(lambda: "") if ports.tracing is None else ports.tracing.trace_id,
    )
    ports.registry.register(NamedMetrics(metrics, ports.queue_totals))
    limits = Limits(text_bytes=settings.text_limit_bytes, video_bytes=settings.video_limit_bytes)
    scoring = Scoring(
        ports.models,
        ports.inference,
        executor=ports.shell.executor,
        text_limit_windows=settings.text_limit_windows,
        cache=ports.cache,
        is_cached_by_tenant=settings.cache_by_tenant,
    )
    ports.registry.register(CacheMetrics(ports.cache, joined=lambda: scoring.joined))
    moderate = Moderate(
        policies=ports.policies,
        scoring=scoring,
        log=ports.log,
        languages=ports.languages,
        images=ports.images,
        frames=ports.frames,
        perceptual_hash=ports.perceptual_hash,
        limits=limits,
        durability=settings.durability,
        shell=ports.shell,
        degraded=ports.degraded,
        on_decision=ports.on_decision,
        charge=_charging(ports),
        governor=ports.governor,
        room=None if ports.rescans is None else ports.rescans.room,
    )
    if ports.rescans is not None:
        ports.rescans.moderate = moderate
    if ports.governor is not None:
        watch_governor(ports.governor, ports.registry)
    sources = GuardSources(
        source_rules(settings.source_failure_threshold),
        monotonic_seconds=ports.shell.monotonic_seconds,
        chance=ports.shell.chance,
    )
    control_breakers = ControlBreakers(
        [each for each in (ports.breakers, sources) if each is not None], wall_seconds=ports.shell.wall_seconds
    )
    BreakerMetrics(control_breakers.reports, ports.registry)
    watched = WatchSources(
        sources, offline_seconds=settings.source_offline_seconds, monotonic_seconds=ports.shell.monotonic_seconds
    )
    ports.registry.register(SourceMetrics(watched))
    default = Context(tenant=settings.default_tenant, surface=settings.default_surface, source=settings.default_source)
    judge = Judge(moderate, ports.fetcher, sources, watched, default=default)
    health = ReportHealth(ports.policies, ports.models, ports.inference, components=ports.components)
    app = build_rest(ports, metrics, lifespan, control_breakers, health, judge)
    answers = AnswerOnce(ports.log, wall_seconds=ports.shell.wall_seconds)
    route = ModerateRoute(
        judge,
        limits=limits,
        image_limit_bytes=settings.image_limit_bytes,
        deadline_seconds=settings.deadline_seconds,
        metrics=metrics,
        monotonic_seconds=ports.shell.monotonic_seconds,
        answers=answers,
    )
    keys = RequestKeys(answers, moderate)
    batches = _batches(judge, settings, metrics, ports.shell.monotonic_seconds, keys)
    keeper = _keeper(ports)
    calls = Calls(
        judge,
        keeper=keeper,
        batch=batches,
        answers=answers,
        metrics=metrics,
        concurrency=concurrency,
        monotonic_seconds=ports.shell.monotonic_seconds,
        chance=ports.shell.chance,
        deadline_seconds=settings.deadline_seconds,
        batch_timeout_seconds=settings.batch_timeout_seconds,
        memory_bytes=settings.body_memory_bytes,
    )
    live = _streams(calls, settings, ports.registry)
    faces = build_faces(judge, settings, metrics, ports.shell.monotonic_seconds, keys)
    hot: Mapping[str, HotRoute] = {PATH: route, batch.PATH: batches, streams.PATH: live, **faces}
    if ports.tracing is not None:
        hot = {path: TracedRoute(each, ports.tracing) for path, each in hot.items()}
    routes = HotRoutes(
        hot,
        metrics=metrics,
        concurrency=concurrency,
        monotonic_seconds=ports.shell.monotonic_seconds,
        chance=ports.shell.chance,
        rest=app,
        let_in=everybody if ports.governor is None else ports.governor.admit,
        spend=nobody_asks if ports.governor is None else ports.governor.spend,
    )

    async def ready() -> bool:
        return (await health.readiness()).ready

    door = _door(ports, routes, metrics, keeper)
    shared = Shared()
    ports.registry.register(HeldMetrics(shared))
    return Application(door, routes, connection_limits(settings), calls=calls, ready=ready, streams=live, shared=shared)


def _streams(calls: Calls, settings: Settings, registry: CollectorRegistry) -> streams.StreamRoute:
    return streams.StreamRoute(
        calls,
        rules=LiveRules(window=settings.stream_window, idle_seconds=settings.idle_seconds),
        message_bytes=settings.stream_message_limit_bytes,
        deadline_seconds=settings.deadline_seconds,
        registry=registry,
    )


def _keeper(ports: Ports) -> Doorkeeper | None:
    if ports.keys is None:
        return None
    return Doorkeeper(
        ports.keys,
        tokens=ports.tokens,
        wall_seconds=ports.shell.wall_seconds,
        monotonic_seconds=ports.shell.monotonic_seconds,
        chance=ports.shell.chance,
    )


def _door(ports: Ports, routes: HotRoutes, metrics: RequestMetrics, keeper: Doorkeeper | None) -> Door | LoopbackOnly:
    if keeper is None:
        return LoopbackOnly(routes, ports.shell.chance)
    return Door(routes, keeper, metrics=metrics, chance=ports.shell.chance, routes=routes.routes)


def _when_there_is_room(governor: Governor | None) -> Callable[[], Awaitable[None]]:
    """Return what refuses work that no decision waits for while the machine is busy."""

    async def check() -> None:
        if governor is not None:
            governor.admit_optional()

    return check


def _charging(ports: Ports) -> Charge:
    if ports.quotas is None:
        return free_of_charge
    counted = QuotaMetrics(ports.registry, ports.quotas)
    return ChargeQuotas(ports.current_quotas, ports.quotas, chance=ports.shell.chance, count=counted.claimed)


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return what connections may do in this installation."""
    return ConnectionLimits(
        idle_seconds=settings.idle_seconds,
        connections=settings.connection_limit,
        connections_per_key=settings.connection_limit_per_key,
        connections_per_address=settings.connection_limit_per_address,
        memory_bytes=settings.body_memory_bytes,
    )


def _batches(
    judge: Judge,
    settings: Settings,
    metrics: RequestMetrics,
    monotonic_seconds: Callable[[], float],
    keys: RequestKeys,
) -> batch.BatchRoute:
    return batch.BatchRoute(
        judge,
        limit=settings.batch_limit,
        limit_bytes=settings.batch_limit_bytes,
        timeout_seconds=settings.batch_timeout_seconds,
        metrics=metrics,
        monotonic_seconds=monotonic_seconds,
        keys=keys,
    )


def build_faces(
    judge: Judge,
    settings: Settings,
    metrics: RequestMetrics,
    monotonic_seconds: Callable[[], float],
    keys: RequestKeys,
) -> Mapping[str, HotRoute]:
    """Make the routes that have content judged in the shapes of others, by their paths."""
    return {
        openai.PATH: openai.OpenAIRoute(
            judge,
            categories=changed(OPENAI, settings.openai_categories),
            limit=settings.batch_limit,
            limit_bytes=settings.batch_limit_bytes,
            deadline_seconds=settings.deadline_seconds,
            metrics=metrics,
            monotonic_seconds=monotonic_seconds,
            keys=keys,
        ),
        ANALYZE: perspective.AnalyzeRoute(
            judge,
            attributes=changed(PERSPECTIVE, settings.perspective_attributes),
            text_limit_bytes=settings.text_limit_bytes,
            deadline_seconds=settings.deadline_seconds,
            metrics=metrics,
            monotonic_seconds=monotonic_seconds,
            keys=keys,
        ),
        SUGGEST: perspective.SuggestRoute(),
        DISCOVERY: discovery.DiscoveryRoute(),
    }


def build_rest(
    ports: Ports,
    metrics: RequestMetrics,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None,
    control_breakers: ControlBreakers,
    health: ReportHealth,
    judge: Judge,
) -> FastAPI:
    """Everything but the hot route, with FastAPI; its own /docs would load assets from elsewhere, so ours stands in."""
    release = version("baleen")
    app = FastAPI(
        title="Baleen", version=release, description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    read_decisions = ReadDecisions(ports.log, ports.store, lambda: ports.models().signals)
    debts = None if ports.rescans is None else ports.rescans.debts
    app.include_router(changes.build_router(debts))
    app.include_router(decisions.build_router(read_decisions))
    app.include_router(subjects.build_router(ports.subjects))
    app.include_router(policies.build_router(ports.policies, ReadPolicies(ports.policies, ports.store)))
    simulate = Simulate(
        ports.policies,
        lambda: ports.models().expected,
        ports.history,
        ports.store,
        executor=ports.shell.executor,
        monotonic_seconds=ports.shell.monotonic_seconds,
    )
    spare = [Depends(_when_there_is_room(ports.governor))]
    app.include_router(simulations.build_router(simulate), dependencies=spare)
    survey = Survey(
        ports.policies,
        lambda: ports.models().signals,
        ports.history,
        ports.store,
        executor=ports.shell.executor,
        monotonic_seconds=ports.shell.monotonic_seconds,
        wall_seconds=ports.shell.wall_seconds,
    )
    app.include_router(surveys.build_router(survey), dependencies=spare)
    app.include_router(governor.build_router(ports.governor))
    app.include_router(
        operations.build_router(
            health,
            metrics,
            ports.registry,
            version=release,
            monotonic_seconds=ports.shell.monotonic_seconds,
            says_why=ports.keys is None,
            log_head=ports.log_head,
            rescans=ports.rescans,
            cache=ports.cache,
            queues=ports.queues,
            breakers=control_breakers,
            models=lambda: ports.models().expected,
        )
    )
    app.include_router(queues.build_router(ports.queues, ports.governor))
    app.include_router(
        breakers.build_router(
            control_breakers, monotonic_seconds=ports.shell.monotonic_seconds, wall_seconds=ports.shell.wall_seconds
        )
    )
    app.include_router(cache.build_router(ports.cache))
    app.include_router(
        source_routes.build_router(
            judge.watched,
            judge.place,
            monotonic_seconds=ports.shell.monotonic_seconds,
            wall_seconds=ports.shell.wall_seconds,
        )
    )
    _answer_errors(app, ports.shell.chance)
    parts = (
        changes,
        decisions,
        subjects,
        policies,
        simulations,
        surveys,
        governor,
        operations,
        breakers,
        cache,
        queues,
        source_routes,
    )

    @functools.cache
    def document() -> dict[str, Any]:
        built = build_openapi(app, {name: answer for part in parts for name, answer in part.ANSWERS.items()})
        add_faces(built)
        return built

    # Built when it is first asked for: it takes as long as all else that is made here.
    app.openapi = document  # type: ignore[method-assign]
    return app


def _answer_errors(app: FastAPI, chance: Callable[[int], bytes]) -> None:
    def request_id(request: Request) -> str:
        return read_request_id(dict(request.scope["headers"]), chance)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, BaleenError)
        return _problem(describe(error, request_id(request)), refusal_headers(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = tuple(FieldError(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
        detail = "; ".join(f"{each.field}: {each.message}" for each in fields)
        return _problem(describe_status(422, detail, request_id(request), fields))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = _problem(describe_status(error.status_code, _say(error, request), request_id(request)))
        response.headers.update(error.headers or {})
        return response

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # Nobody is there to read it.

    async def failed(request: Request, error: Exception) -> Response:
        identity = request_id(request)
        log.error("request failed", extra={"request_id": identity}, exc_info=error)
        return _problem(unexpected(identity))

    handlers: list[tuple[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = [
        (BaleenError, ours),
        (RequestValidationError, invalid),
        (HTTPException, refused),
        (ClientGone, gone),
        (Exception, failed),
    ]
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


def _say(error: HTTPException, request: Request) -> str:
    path = request.scope["path"]
    match error.status_code:
        case 404:
            return f"there is no {path} here"
        case 405 if error.headers:
            return f"{path} takes {error.headers['Allow']}"
    return str(error.detail)


def _problem(problem: ProblemDetails, more: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    response = answer(problem, problem.status)
    response.headers["content-type"] = PROBLEM_TYPE
    response.headers["x-request-id"] = problem.request_id
    response.raw_headers.extend(more)
    return response
