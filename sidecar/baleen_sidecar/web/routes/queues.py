"""What waits for models, and what they were not asked."""

from collections import Counter
from collections.abc import Callable, Sequence

from fastapi import APIRouter
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.priority import Priority
from baleen_sidecar.ports import Lane, QueueReport
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.web.openapi import answer, documented


class QueueAnswer(Struct, frozen=True, kw_only=True):
    """The queue of one model: rows that wait, by lane and priority, and calls that were rejected, by reason.

    `mean_batch_rows` is how many rows went to the model together, null before there was a batch.
    """

    model: str
    waiting_rows: int
    waiting: dict[str, dict[str, int]]
    batches_under_way: int
    mean_batch_rows: float | None
    rejected: dict[str, int]


class QueueStats(Struct, frozen=True, kw_only=True):
    """The queues of all models that were asked yet; `rejected` counts since this process began.

    `waiting_requests` wait for the governor, before any model is asked.
    """

    waiting_rows: int
    waiting_requests: int
    rejected: dict[str, int]
    queues: tuple[QueueAnswer, ...]


ANSWERS = {"QueueStats": QueueStats}


def build_router(queues: Callable[[], Sequence[QueueReport]], governor: Governor | None) -> APIRouter:
    """Serve what waits."""
    router = APIRouter(prefix="/v1/queue", tags=["operations"])

    @router.get("/stats", responses=documented(QueueStats), summary="Show what waits for models, and what was rejected")
    async def stats() -> Response:
        return answer(describe(queues(), waiting_requests=0 if governor is None else governor.waiting))

    return router


def describe(reports: Sequence[QueueReport], *, waiting_requests: int) -> QueueStats:
    """Say what waits, and what was rejected."""
    rejected: Counter[str] = Counter()
    for report in reports:
        rejected.update(report.rejected)
    return QueueStats(
        waiting_rows=sum(report.waiting_rows for report in reports),
        waiting_requests=waiting_requests,
        rejected=dict(rejected),
        queues=tuple(map(to_answer, reports)),
    )


def to_answer(report: QueueReport) -> QueueAnswer:
    """Turn a report into what callers see, with every lane and priority."""
    return QueueAnswer(
        model=report.model,
        waiting_rows=report.waiting_rows,
        waiting={
            lane.value: {each.title: report.waiting.get(lane, {}).get(each, 0) for each in Priority} for lane in Lane
        },
        batches_under_way=report.batches_under_way,
        mean_batch_rows=None if report.mean_batch_rows is None else round(report.mean_batch_rows, 3),
        rejected=dict(report.rejected),
    )
