"""Sources of content, such as cameras: how each does, and what they tell of themselves."""

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from msgspec import Meta, Struct

from baleen_core.records import Context
from baleen_sidecar.flow.sources import Message, Presence, Told
from baleen_sidecar.usecases.watch_sources import WatchedSource, WatchSources
from baleen_sidecar.web.callers import context_of, key_of, key_tenant
from baleen_sidecar.web.openapi import answer, documented, json_body
from baleen_sidecar.web.request_body import RequestBody
from baleen_sidecar.web.schemas import Count, decode_body, to_time

LIMIT_BYTES: Final = 8 * 1024
MOST_MILLISECONDS: Final = 86_400_000
KeyTenant = Annotated[str | None, Depends(key_tenant)]
Name = Annotated[
    str, Path(min_length=1, max_length=253, description="As `context.source` has it, such as `site-7/camera-3`")
]
Tenant = Annotated[str | None, Query(min_length=1, max_length=253, description="Whose source it is")]


class SourceStats(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source tells: frames and errors since it began, and the mean time of a frame, at most a day."""

    frames_processed: Count
    avg_latency_ms: Annotated[float, Meta(ge=0, le=MOST_MILLISECONDS)]
    errors_count: Count


class ToldAnswer(Struct, frozen=True, kw_only=True):
    """What a source told last, and when; `frames_per_second` is since the time before, null at first."""

    frames_processed: int
    avg_latency_ms: float
    errors_count: int
    frames_per_second: float | None
    time: str


class SourceAnswer(Struct, frozen=True, kw_only=True):
    """A source, by what was judged of it here.

    `contents`, `frames` and `errors` (content without a decision) are counted since it is known here. Rates, ratio and
    mean are of the last minute; the last two are null without content. `breaker` is null where it has none, and `told`
    where it told nothing.
    """

    source: str
    tenant: str | None
    status: Presence
    last_content: str | None
    contents: int
    frames: int
    errors: int
    contents_per_second: float
    frames_per_second: float
    error_ratio: float | None
    avg_latency_ms: float | None
    breaker: str | None
    told: ToldAnswer | None


class SourcesAnswer(Struct, frozen=True, kw_only=True):
    """All sources that are known here; one is offline when no content came for `offline_seconds`."""

    offline_seconds: float
    online: int
    offline: int
    sources: tuple[SourceAnswer, ...]


ANSWERS = {"SourcesAnswer": SourcesAnswer, "SourceAnswer": SourceAnswer, "SourceStats": SourceStats}
_DECODER: Final = msgspec.json.Decoder(SourceStats)
_KNOWN: Final = {"": SourceStats.__struct_fields__}


def build_router(
    sources: WatchSources,
    place: Callable[[Context], Context],
    *,
    monotonic_seconds: Callable[[], float],
    wall_seconds: Callable[[], float],
) -> APIRouter:
    """Serve sources; `place` says where comes from what does not say it."""
    router = APIRouter(prefix="/v1/sources", tags=["operations"])

    def described(watched: WatchedSource) -> SourceAnswer:
        return to_answer(watched, ahead_seconds=wall_seconds() - monotonic_seconds())

    @router.get("", responses=documented(SourcesAnswer), summary="Show how each source does")
    async def show(tenant: KeyTenant) -> Response:
        found = tuple(map(described, sources.reports(tenant)))
        online = sum(each.status is Presence.ONLINE for each in found)
        return answer(
            SourcesAnswer(
                offline_seconds=sources.offline_seconds, online=online, offline=len(found) - online, sources=found
            )
        )

    @router.post(
        # A source is a path.
        "/{source:path}/stats",
        # 404: to a server of paths, a line break ends one.
        responses=documented(SourceAnswer, 404, 413, 415, 422),
        openapi_extra={"requestBody": json_body("SourceStats")},
        summary="Tell how a source does",
        description="Totals since the source began, about every 30 seconds.",
    )
    async def tell(source: Name, request: Request, tenant: Tenant = None) -> Response:
        context = place(context_of(key_of(request.scope), Context(tenant=tenant, source=source), "tenant"))
        body = RequestBody(dict(request.headers.raw), request.receive)
        stats = decode_body(await body.read("statistics", LIMIT_BYTES), _DECODER, _KNOWN)
        told = Told(
            frames_processed=stats.frames_processed,
            avg_latency_ms=stats.avg_latency_ms,
            errors_count=stats.errors_count,
        )
        return answer(described(sources.told(context, told)))

    return router


def to_answer(watched: WatchedSource, *, ahead_seconds: float) -> SourceAnswer:
    """Turn what is known into what callers see; the wall clock is so much ahead of the monotonic one."""
    report, source = watched.report, watched.report.source
    return SourceAnswer(
        source=source.name,
        tenant=source.tenant,
        status=report.presence,
        last_content=None if source.heard_at is None else to_time(source.heard_at + ahead_seconds),
        contents=source.contents,
        frames=source.frames,
        errors=source.errors,
        contents_per_second=round(report.contents_per_second, 3),
        frames_per_second=round(report.frames_per_second, 3),
        error_ratio=None if report.error_ratio is None else round(report.error_ratio, 6),
        avg_latency_ms=None if report.mean_seconds is None else round(report.mean_seconds * 1000, 3),
        breaker=None if watched.breaker is None else watched.breaker.value,
        told=None if source.message is None else _told(source.message, ahead_seconds),
    )


def _told(message: Message, ahead_seconds: float) -> ToldAnswer:
    rate = message.frames_per_second
    return ToldAnswer(
        frames_processed=message.told.frames_processed,
        avg_latency_ms=message.told.avg_latency_ms,
        errors_count=message.told.errors_count,
        frames_per_second=None if rate is None else round(rate, 3),
        time=to_time(message.at + ahead_seconds),
    )
