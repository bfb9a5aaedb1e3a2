"""How much is let in, by what is used of CPU and memory."""

from math import inf

from fastapi import APIRouter
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.errors import NotFound
from baleen_core.priority import Priority
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.web.openapi import answer, documented


class CurrentUsage(Struct, frozen=True, kw_only=True):
    """Percent of what may be used; the level goes by a mean of CPU over the last seconds, of what refusals leave."""

    cpu_percent: float
    memory_percent: float


class Allowed(Struct, frozen=True, kw_only=True):
    """What may be used, and by what that is known: `cgroup-v1`, `cgroup-v2`, or `process` where there is no limit."""

    cpus: float
    cpu_source: str
    memory_bytes: int
    memory_source: str


class GovernorAnswer(Struct, frozen=True, kw_only=True):
    """The throttle level (0, 0.3, 0.5, 0.8 or 1), what each priority meets at it, and how many requests wait.

    `should_throttle` is whether work that no decision waits for is refused; `allowed` is null before the first look.
    `entering_per_second` is how many requests may come in a second, null while there is no need for a limit.
    """

    current_usage: CurrentUsage
    allowed: Allowed | None
    throttle_level: float
    load_shedding_active: bool
    should_throttle: bool
    admission: dict[str, str]
    waiting: int
    entering_per_second: float | None


ANSWERS = {"GovernorAnswer": GovernorAnswer}


def build_router(governor: Governor | None) -> APIRouter:
    """Serve the governor."""
    router = APIRouter(prefix="/v1", tags=["operations"])

    @router.get("/governor", responses=documented(GovernorAnswer, 404), summary="Say how much is let in, and why")
    async def show() -> Response:
        if governor is None:
            raise NotFound("there is no governor here: BALEEN_GOVERNOR is off")
        return answer(to_governor_answer(governor))

    return router


def to_governor_answer(governor: Governor) -> GovernorAnswer:
    """Say how things stand."""
    throttle, usage, limit = governor.throttle, governor.usage, governor.entering_per_second
    return GovernorAnswer(
        current_usage=CurrentUsage(
            cpu_percent=round(throttle.cpu_percent, 2), memory_percent=round(throttle.memory_percent, 2)
        ),
        allowed=None
        if usage is None
        else Allowed(
            cpus=usage.cpus,
            cpu_source=usage.cpu_source,
            memory_bytes=usage.memory_bytes,
            memory_source=usage.memory_source,
        ),
        throttle_level=throttle.level,
        load_shedding_active=throttle.sheds,
        should_throttle=throttle.should_throttle,
        admission={each.title: throttle.admission(each).value for each in Priority},
        waiting=governor.waiting,
        entering_per_second=None if limit == inf else round(limit, 1),
    )
