"""Requests made up from the OpenAPI document, right and wrong: every answer must be one that the document promises."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from media import encode, grey
from sidecars import RunningSidecar

# One process reads the document, which takes as long as many of these.
pytestmark = pytest.mark.xdist_group("api-fuzz")

load_all_checks()
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODERATE = "POST /v1/moderate"
TAKING_NOTHING = (
    "GET /health",
    "GET /metrics",
    "DELETE /v1/cache",
    "GET /ready",
    "GET /v1/breakers",
    "GET /v1/cache/stats",
    "GET /v1/governor",
    "GET /v1/policies",
    "GET /v1/queue/stats",
    "GET /v1/sources",
    "GET /v1/status",
    "POST /v1alpha1/comments:suggestscore",
)
OPERATIONS = (
    "DELETE /v1/subjects/{author}",
    "GET /v1/breakers",
    "POST /v1/breakers/{name}",
    "DELETE /v1/cache",
    "GET /v1/cache/stats",
    "GET /v1/decisions/changes",
    "GET /v1/queue/stats",
    "GET /v1/sources",
    "POST /v1/sources/{source}/stats",
    "GET /health",
    "GET /metrics",
    "GET /ready",
    "GET /v1/decisions/{decision_id}",
    "GET /v1/decisions/{decision_id}/explain",
    "POST /v1/decisions/{decision_id}/replay",
    "GET /v1/effective-policy",
    "GET /v1/governor",
    MODERATE,
    "GET /$discovery/rest",
    "POST /v1/moderate/batch",
    "GET /v1/stream",
    "POST /v1/moderations",
    "POST /v1alpha1/comments:analyze",
    "POST /v1alpha1/comments:suggestscore",
    "GET /v1/policies",
    "GET /v1/policies/{name}",
    "GET /v1/policies/{name}/diff",
    "GET /v1/policies/{name}/flips",
    "GET /v1/policies/{name}/performance",
    "POST /v1/policies/{name}/simulate",
    "GET /v1/status",
    "DELETE /v1/subjects/{author}",
)


@pytest.fixture(scope="module")
def schema(sidecar: RunningSidecar) -> schemathesis.BaseSchema:
    """Read the document of the running application."""
    schemathesis.openapi.media_type("image/*", st.binary() | st.just(encode(grey(128))))
    schemathesis.openapi.media_type("video/*", st.binary())
    return schemathesis.openapi.from_url(f"{sidecar.client.base_url}/openapi.json")


def test_every_operation_of_the_document_is_tried(schema: schemathesis.BaseSchema) -> None:
    assert {operation.ok().label for operation in schema.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *(pytest.param(label, GenerationMode.POSITIVE, id=f"{label} asked rightly") for label in OPERATIONS),
        # Of an operation that takes nothing, nothing can be asked wrongly.
        *(
            pytest.param(label, GenerationMode.NEGATIVE, id=f"{label} asked wrongly")
            for label in OPERATIONS
            if label not in TAKING_NOTHING
        ),
    ],
)
def test_every_answer_is_one_that_the_document_promises(
    schema: schemathesis.BaseSchema, label: str, mode: GenerationMode
) -> None:
    (operation,) = (each.ok() for each in schema.get_all_operations() if each.ok().label == label)
    cases = operation.as_strategy(mode)
    if label == MODERATE:
        # With a query, which most made-up requests have, a JSON request is refused before its body is looked at.
        cases |= operation.as_strategy(mode, media_type="application/json", query={}, headers={})

    @seed(20_240_601)
    @settings(
        max_examples=50 if label == MODERATE else 20,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def answered_as_documented(case: schemathesis.Case) -> None:
        case.validate_response(case.call(timeout=30), checks=CHECKS)

    answered_as_documented()
