"""Erasure of people from the decisions on record."""

import logging
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.errors import NotFound
from baleen_core.records import Context
from baleen_sidecar.ports import Subjects
from baleen_sidecar.web.callers import context_of, key_of
from baleen_sidecar.web.openapi import answer, documented

log = logging.getLogger(__name__)

Author = Annotated[str, Path(min_length=1, max_length=256, description="The author's id, as requests named it")]
Tenant = Annotated[str | None, Query(min_length=1, max_length=253, description="Only decisions of this tenant")]


class ErasureAnswer(Struct, frozen=True):
    """How many decisions lost their personal part; those that had lost it before do not count."""

    erased: int


ANSWERS = {"ErasureAnswer": ErasureAnswer}


def build_router(subjects: Subjects | None) -> APIRouter:
    """Serve erasure where the decision log is; a sidecar that follows a gateway has none."""
    router = APIRouter(prefix="/v1/subjects", tags=["subjects"])

    @router.delete(
        # An id may have slashes.
        "/{author:path}",
        responses=documented(ErasureAnswer, 404, 422, 503),
        summary="Erase a person from the decisions on record",
    )
    async def erase(request: Request, author: Author, tenant: Tenant = None) -> Response:
        if subjects is None:
            raise NotFound("the decision log is not here; ask each gateway")
        of = context_of(key_of(request.scope), Context(tenant=tenant), "tenant").tenant
        erased = await subjects.erase(author, tenant=of)
        # Not of whom: a log of names would keep what was to go.
        log.info("subject erased", extra={"decisions": erased, "tenant": of})
        return answer(ErasureAnswer(erased))

    return router
