"""What a policy would have decided, had it been in force."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from baleen_sidecar.usecases.simulate import Simulate
from baleen_sidecar.web.openapi import answer, documented, json_body
from baleen_sidecar.web.request_body import RequestBody
from baleen_sidecar.web.routes.policies import Name
from baleen_sidecar.web.simulations import (
    LIMIT_BYTES,
    SimulationAnswer,
    SimulationRequest,
    read_simulation,
    to_simulation_answer,
)

ANSWERS = {"SimulationAnswer": SimulationAnswer, "SimulationRequest": SimulationRequest}


def build_router(simulate: Simulate) -> APIRouter:
    """Serve simulations."""
    router = APIRouter(prefix="/v1", tags=["policies"])

    @router.post(
        "/policies/{name}/simulate",
        responses=documented(SimulationAnswer, 404, 413, 415, 422, 503),
        openapi_extra={"requestBody": json_body("SimulationRequest")},
        summary="Judge the decisions on record again by a draft of the policy",
        description=(
            "Compares the revision in force with the draft, on the evidence of the newest decisions that the policy "
            "judged. Nothing is put in force, no model is asked, and one simulation runs at a time."
        ),
    )
    async def run(name: Name, request: Request) -> Response:
        body = RequestBody(dict(request.headers.raw), request.receive)
        draft, decisions, gate = read_simulation(await body.read("simulation", LIMIT_BYTES))

        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        found = await simulate.run(name, draft, decisions=decisions, gate=gate, is_wanted=is_wanted)
        return answer(to_simulation_answer(found))

    return router
