"""Health, readiness, status, metrics and the documentation of the API, with all assets served from here."""

import mimetypes
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Annotated

import psutil
from fastapi import APIRouter, Path, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from msgspec import Struct
from prometheus_client import CollectorRegistry

from baleen_core.decision_chain import Head
from baleen_core.errors import NotFound
from baleen_core.model.schema import Model
from baleen_sidecar.ports import QueueReport, ScoreCache
from baleen_sidecar.usecases.control_breakers import ControlBreakers
from baleen_sidecar.usecases.pay_debts import PayDebts
from baleen_sidecar.usecases.report_health import Component, ReportHealth
from baleen_sidecar.web import exposition
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.openapi import answer, documented
from baleen_sidecar.web.routes import queues as queue_routes
from baleen_sidecar.web.routes.breakers import BreakersSummary, to_summary
from baleen_sidecar.web.routes.cache import CacheStatsAnswer, describe

DOCS_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Keeps the browser from asking any other host, whatever the page and its scripts say."""
ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")


class Health(Struct, frozen=True):
    """The process is alive."""

    status: str


class ComponentAnswer(Struct, frozen=True):
    """One thing that is needed, and what is wrong with it; /ready does not say the latter where callers need keys."""

    name: str
    healthy: bool
    detail: str


class Ready(Struct, frozen=True):
    """Whether requests can be answered; `degraded` names what is not as it should be."""

    ready: bool
    degraded: tuple[str, ...]
    components: tuple[ComponentAnswer, ...]


class RescanDebt(Struct, frozen=True):
    """How much was allowed for now and is owed a second look, and the sets of models that this waits for."""

    decisions: int
    size_bytes: int
    oldest_seconds: float
    waits_for: tuple[tuple[str, ...], ...]


class Status(Struct, frozen=True, kw_only=True):
    """Numbers for people, of this process since it began: requests, and seconds (mean, p50, p95, p99) by content type.

    `refused_by_status` counts requests without a decision; `error_ratio` is the part of all requests that failed
    through no fault of the caller, null before the first. `cpu_percent` is of one CPU, since it was asked for last.
    `models` has the version of each. `decision_log_head` is the newest link of the decision log's chain as
    `place:link`, null where there is none, and so is `rescan_debt`.
    """

    version: str
    python: str
    models: dict[str, str]
    ready: bool
    uptime_seconds: float
    requests: dict[str, int]
    refused_by_status: dict[str, int]
    error_ratio: float | None
    request_duration_seconds: dict[str, dict[str, float]]
    cpu_percent: float
    memory_bytes: int
    queues: tuple[queue_routes.QueueAnswer, ...]
    breakers: BreakersSummary
    components: tuple[ComponentAnswer, ...]
    decision_log_head: str | None
    rescan_debt: RescanDebt | None
    cache: CacheStatsAnswer


ANSWERS = {"Health": Health, "Ready": Ready, "Status": Status}


def build_router(
    health: ReportHealth,
    metrics: RequestMetrics,
    registry: CollectorRegistry,
    *,
    version: str,
    monotonic_seconds: Callable[[], float],
    says_why: bool = True,
    log_head: Callable[[], Head | None] = lambda: None,
    rescans: PayDebts | None = None,
    cache: ScoreCache | None = None,
    queues: Callable[[], Sequence[QueueReport]] = lambda: (),
    breakers: ControlBreakers,
    models: Callable[[], Sequence[Model]] = lambda: (),
) -> APIRouter:
    """Serve what operations need; `says_why` is whether /ready, which is open to all, quotes policies and addresses."""
    router = APIRouter(tags=["operations"])
    started = monotonic_seconds()
    process = psutil.Process()
    process.cpu_percent()  # The first call only starts the measurement.

    @router.get("/health", responses=documented(Health), summary="Say that the process lives")
    async def alive() -> Response:
        return answer(Health("alive"))

    @router.get("/ready", responses=_ready_responses(), summary="Say whether requests can be answered")
    async def ready() -> Response:
        found = await health.readiness()
        components = found.components if says_why else tuple(replace(each, detail="") for each in found.components)
        body = Ready(found.ready, found.degraded, _components(components))
        return answer(body, 200 if found.ready else 503)

    @router.get("/v1/status", responses=documented(Status), summary="Show numbers for people")
    async def status() -> Response:
        found = await health.readiness()
        head = log_head()
        return answer(
            Status(
                version=version,
                python=platform.python_version(),
                models={model.name: model.version for model in models()},
                ready=found.ready,
                uptime_seconds=round(monotonic_seconds() - started, 3),
                requests=metrics.totals(),
                refused_by_status={str(each): count for each, count in sorted(metrics.refusals().items())},
                error_ratio=metrics.error_ratio(),
                request_duration_seconds=metrics.percentiles(),
                cpu_percent=process.cpu_percent(),
                memory_bytes=process.memory_info().rss,
                queues=tuple(map(queue_routes.to_answer, queues())),
                breakers=to_summary(breakers.reports()),
                components=_components(found.components),
                decision_log_head=None if head is None else str(head),
                rescan_debt=None if rescans is None else _debt(rescans),
                cache=describe(cache),
            )
        )

    @router.get(
        exposition.PATH, response_class=Response, summary="Expose metrics to Prometheus", responses=_text_response()
    )
    async def expose(request: Request) -> Response:
        return exposition.expose(registry, ",".join(request.headers.getlist("accept")))

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Baleen",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
            # Else Swagger UI would send our document to a validator on the internet.
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["content-security-policy"] = DOCS_POLICY
        return page

    @router.get("/docs/assets/{name}", include_in_schema=False)
    async def asset(name: Annotated[str, Path(max_length=64)]) -> Response:
        return Response(read_asset(name), media_type=mimetypes.guess_type(name)[0])

    return router


def read_asset(name: str) -> bytes:
    """Return one of Swagger UI's files, which the package fastapi-offline carries.

    Raises:
        NotFound: the name is not one of ASSETS; nothing else is ever opened.
    """
    if name not in ASSETS:
        raise NotFound(f"there is no asset {name!r}")
    return (files("fastapi_offline") / "static" / name).read_bytes()


def _debt(rescans: PayDebts) -> RescanDebt:
    owed = rescans.owed
    return RescanDebt(
        decisions=owed.decisions,
        size_bytes=owed.size_bytes,
        oldest_seconds=round(rescans.oldest_seconds(), 3),
        waits_for=tuple(sorted(owed.waits_for)),
    )


def _components(found: tuple[Component, ...]) -> tuple[ComponentAnswer, ...]:
    return tuple(ComponentAnswer(each.name, each.healthy, each.detail) for each in found)


def _ready_responses() -> dict[int | str, dict[str, object]]:
    ready = documented(Ready)
    return {**ready, 503: {**ready[200], "description": "Not ready"}}


def _text_response() -> dict[int | str, dict[str, object]]:
    kinds = ("text/plain", exposition.OPENMETRICS)
    return {200: {"description": "OK", "content": {kind: {"schema": {"type": "string"}} for kind in kinds}}}
