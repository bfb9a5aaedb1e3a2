"""Decisions on record: read, explained, replayed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.policy.schema import Verdict
from baleen_sidecar.usecases.read_decisions import ReadDecisions
from baleen_sidecar.web.callers import key_tenant
from baleen_sidecar.web.openapi import answer, documented
from baleen_sidecar.web.schemas import DecisionAnswer, to_answer

DecisionId = Annotated[str, Path(min_length=1, max_length=64, description="The id that the decision was given with")]
KeyTenant = Annotated[str | None, Depends(key_tenant)]


class Explanation(Struct, frozen=True):
    """A decision in sentences."""

    id: str
    decision: Verdict
    explanation: tuple[str, ...]


class ReplayAnswer(Struct, frozen=True):
    """A decision made once more from its record; `identical` means bit for bit, else the differences are named."""

    id: str
    identical: bool
    decision: Verdict
    replayed: Verdict
    differences: tuple[str, ...]


ANSWERS = {"Explanation": Explanation, "ReplayAnswer": ReplayAnswer}


def build_router(decisions: ReadDecisions) -> APIRouter:
    """Serve what is on record."""
    router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

    @router.get("/{decision_id}", responses=documented(DecisionAnswer, 404, 422, 503), summary="Read a decision")
    async def get(decision_id: DecisionId, tenant: KeyTenant) -> Response:
        return answer(to_answer(await decisions.get(decision_id, tenant)))

    @router.get(
        "/{decision_id}/explain",
        responses=documented(Explanation, 404, 410, 422, 500, 503),
        summary="Say why, in words",
    )
    async def explain(decision_id: DecisionId, tenant: KeyTenant) -> Response:
        record, sentences = await decisions.explain(decision_id, tenant)
        return answer(Explanation(record.id, record.decision.decision, sentences))

    @router.post(
        "/{decision_id}/replay", responses=documented(ReplayAnswer, 404, 410, 422, 500, 503), summary="Decide once more"
    )
    async def replay(decision_id: DecisionId, tenant: KeyTenant) -> Response:
        made = await decisions.replay(decision_id, tenant)
        return answer(
            ReplayAnswer(
                id=made.record.id,
                identical=not made.differences,
                decision=made.record.decision.decision,
                replayed=made.again.decision,
                differences=made.differences,
            )
        )

    return router
