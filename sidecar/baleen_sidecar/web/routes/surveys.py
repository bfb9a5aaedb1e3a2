"""What the decisions on record say of a policy's revisions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from baleen_sidecar.usecases.simulate import DEFAULT_DECISIONS
from baleen_sidecar.usecases.survey import DEFAULT_SECONDS, MAX_SECONDS, MAX_SURVEYED, Survey
from baleen_sidecar.web.openapi import answer, documented
from baleen_sidecar.web.routes.policies import Name
from baleen_sidecar.web.surveys import (
    REVISION,
    PerformanceAnswer,
    RolloutFlipsAnswer,
    check_by,
    read_sides,
    to_flips_answer,
    to_performance_answer,
)

ANSWERS = {"PerformanceAnswer": PerformanceAnswer, "RolloutFlipsAnswer": RolloutFlipsAnswer}

Decisions = Annotated[int, Query(ge=1, le=MAX_SURVEYED, description="Count so many of the policy, the newest")]
Seconds = Annotated[int, Query(ge=1, le=MAX_SECONDS, description="Count none that are older")]
By = Annotated[str, Query(max_length=63, description="What decisions are grouped by: `revision`")]
Side = "^sha256:[0-9a-f]{64}$"
Stable = Annotated[str | None, Query(alias="from", pattern=Side, description="Digest of a rollout's stable revision")]
Candidate = Annotated[str | None, Query(pattern=Side, description="Digest of its candidate")]


def build_router(survey: Survey) -> APIRouter:
    """Serve surveys."""
    router = APIRouter(prefix="/v1", tags=["policies"])

    @router.get(
        "/policies/{name}/performance",
        responses=documented(PerformanceAnswer, 404, 422, 503),
        summary="Count what came of each revision's decisions",
        description="Looks at the newest decisions on record here. One survey runs at a time.",
    )
    async def performance(
        name: Name,
        request: Request,
        by: By = REVISION,
        decisions: Decisions = DEFAULT_DECISIONS,
        seconds: Seconds = DEFAULT_SECONDS,
    ) -> Response:
        check_by(by)

        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        found = await survey.performance(name, decisions=decisions, seconds=seconds, is_wanted=is_wanted)
        return answer(to_performance_answer(found))

    @router.get(
        "/policies/{name}/flips",
        responses=documented(RolloutFlipsAnswer, 404, 422, 500, 503),
        summary="Say on what the sides of a rollout differ",
        description=(
            "Compares what both revisions said of the newest decisions that were made in the rollout under way, or in "
            "the one of the digests that are named. Examples are ids alone. One survey runs at a time."
        ),
    )
    async def flips(
        name: Name,
        request: Request,
        from_: Stable = None,
        to: Candidate = None,
        decisions: Decisions = DEFAULT_DECISIONS,
    ) -> Response:
        sides = read_sides(from_, to)

        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        return answer(to_flips_answer(await survey.flips(name, sides, decisions=decisions, is_wanted=is_wanted)))

    return router
