"""Breakers: how each is and why, and opening and closing them by hand."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from msgspec import Struct

from baleen_sidecar.flow.breaker import Manual
from baleen_sidecar.ports import BreakerReport, Order
from baleen_sidecar.usecases.control_breakers import ControlBreakers, summarize
from baleen_sidecar.web.callers import key_of
from baleen_sidecar.web.openapi import answer, documented, json_body
from baleen_sidecar.web.request_body import RequestBody
from baleen_sidecar.web.schemas import decode_body, to_time

LIMIT_BYTES: Final = 8 * 1024
NOBODY: Final = "loopback"
"""Who gives orders where nobody needs an API key."""

Name = Annotated[
    str, Path(min_length=1, max_length=512, description="As `GET /v1/breakers` says it, such as `model/toxicity`")
]


class BreakerOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What is wanted of a breaker: open, closed, or left to itself again, and why."""

    state: Manual
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class OrderAnswer(Struct, frozen=True):
    """Who ordered the state that a breaker has, when and why."""

    state: str
    by: str
    reason: str
    time: str


class BreakerAnswer(Struct, frozen=True, kw_only=True):
    """One breaker. `calls`, `failures` and `slow` are of the last half minute.

    `state` is `Closed` (asked as ever), `HalfOpen` (tried, a few calls at a time) or `Open` (not asked).
    `next_try` is when it is found out again whether it may close, `ejected_until` until when a server is left alone
    for doing worse than the others. `under_way` are calls that have not ended, waited for or not.
    """

    name: str
    kind: str
    state: str
    since: str
    why: str
    calls: int
    failures: int
    slow: int
    failures_in_a_row: int
    trials: int
    under_way: int
    next_try: str | None
    ejected_until: str | None
    retries: int
    hedges: int
    order: OrderAnswer | None


class BreakersSummary(Struct, frozen=True):
    """How many breakers are how; `overall_health` is `Failing` when a model is open at all of its servers."""

    total_breakers: int
    healthy: int
    degraded: int
    failing: int
    overall_health: str


class BreakersAnswer(Struct, frozen=True):
    """All breakers of this process; a source has one once something of it could not be read."""

    summary: BreakersSummary
    breakers: tuple[BreakerAnswer, ...]


ANSWERS = {"BreakersAnswer": BreakersAnswer, "BreakerAnswer": BreakerAnswer, "BreakerOrder": BreakerOrder}
_DECODER: Final = msgspec.json.Decoder(BreakerOrder)
_KNOWN: Final = {"": BreakerOrder.__struct_fields__}


def build_router(
    control: ControlBreakers, *, monotonic_seconds: Callable[[], float], wall_seconds: Callable[[], float]
) -> APIRouter:
    """Serve breakers."""
    router = APIRouter(prefix="/v1/breakers", tags=["operations"])

    def told(report: BreakerReport) -> BreakerAnswer:
        return to_answer(report, ahead_seconds=wall_seconds() - monotonic_seconds())

    @router.get("", responses=documented(BreakersAnswer), summary="Show every breaker")
    async def show() -> Response:
        reports = control.reports()
        return answer(BreakersAnswer(summary=to_summary(reports), breakers=tuple(map(told, reports))))

    @router.post(
        # A source is a path.
        "/{name:path}",
        responses=documented(BreakerAnswer, 404, 413, 415, 422),
        openapi_extra={"requestBody": json_body("BreakerOrder")},
        summary="Open or close a breaker by hand, or leave it to itself again",
        description="Counts in this process, until it ends or another order comes.",
    )
    async def order(name: Name, request: Request) -> Response:
        body = RequestBody(dict(request.headers.raw), request.receive)
        wanted = decode_body(await body.read("order", LIMIT_BYTES), _DECODER, _KNOWN)
        key = key_of(request.scope)
        by = NOBODY if key is None else key.name
        return answer(told(control.order(name, wanted.state, by=by, reason=wanted.reason)))

    return router


def to_summary(reports: Sequence[BreakerReport]) -> BreakersSummary:
    """Say how breakers are together."""
    summary = summarize(reports)
    return BreakersSummary(
        total_breakers=summary.total,
        healthy=summary.healthy,
        degraded=summary.degraded,
        failing=summary.failing,
        overall_health=summary.overall.value,
    )


def to_answer(report: BreakerReport, *, ahead_seconds: float) -> BreakerAnswer:
    """Turn a report into what callers see; the wall clock is so much ahead of the monotonic one."""
    return BreakerAnswer(
        name=report.name,
        kind=report.kind.value,
        state=report.state.value,
        since=to_time(report.since + ahead_seconds),
        why=report.why,
        calls=report.calls,
        failures=report.failures,
        slow=report.slow,
        failures_in_a_row=report.failures_in_a_row,
        trials=report.trials,
        under_way=report.under_way,
        next_try=None if report.next_try_at is None else to_time(report.next_try_at + ahead_seconds),
        ejected_until=None if report.ejected_until is None else to_time(report.ejected_until + ahead_seconds),
        retries=report.retries,
        hedges=report.hedges,
        order=None if report.order is None else _order(report.order),
    )


def _order(order: Order) -> OrderAnswer:
    return OrderAnswer(state=order.state.value, by=order.by, reason=order.reason, time=to_time(order.at))
