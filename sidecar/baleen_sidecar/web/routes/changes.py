"""Which decisions a second look changed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.errors import NotFound
from baleen_core.policy.schema import Verdict
from baleen_sidecar.ports import RescanDebts
from baleen_sidecar.web.callers import key_tenant
from baleen_sidecar.web.openapi import answer, documented

MAX_CHANGES = 1000
After = Annotated[int, Query(ge=0, le=2**53 - 1, description="The `next` of the last answer; 0 for all that are told")]
Limit = Annotated[int, Query(ge=1, le=MAX_CHANGES, description="How many changes to return at most")]
KeyTenant = Annotated[str | None, Depends(key_tenant)]


class ChangeAnswer(Struct, frozen=True):
    """A decision (`id`) that stands for an earlier one (`rescan_of`), what that was, and what it became."""

    id: str
    rescan_of: str
    was: Verdict
    became: Verdict
    time: str
    tenant: str | None


class Changes(Struct, frozen=True):
    """Changes, oldest first; those that come later are after `next`."""

    changes: tuple[ChangeAnswer, ...]
    next: int


ANSWERS = {"Changes": Changes}


def build_router(debts: RescanDebts | None) -> APIRouter:
    """Serve changes where the decision log is; a sidecar that follows a gateway has none."""
    router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

    @router.get("/changes", responses=documented(Changes, 404, 422, 503), summary="Say what second looks changed")
    async def changes(tenant: KeyTenant, after: After = 0, limit: Limit = 100) -> Response:
        if debts is None:
            raise NotFound("the decision log is not here; ask each gateway")
        found = await debts.changes(after=after, limit=limit, tenant=tenant)
        told = tuple(
            ChangeAnswer(each.decision_id, each.rescan_of, each.was, each.became, each.time, each.tenant)
            for each in found
        )
        return answer(Changes(told, found[-1].sequence if found else after))

    return router
