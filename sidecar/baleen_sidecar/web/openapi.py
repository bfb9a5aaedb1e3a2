"""One OpenAPI document for the hot route and FastAPI's: schemas come from the types that do the work."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from baleen_core.priority import Priority
from baleen_sidecar.flow.door import is_open, right_for
from baleen_sidecar.web.errors import PROBLEM_TYPE, ProblemDetails
from baleen_sidecar.web.schemas import Author, DecisionAnswer, ModerateRequest, RequestContext

REF: Final = "#/components/schemas/{name}"
_ENCODER: Final = msgspec.json.Encoder()
_DESCRIPTIONS: Final = {
    400: "The request is malformed",
    401: "No API key or token that is good here",
    403: "The caller lacks a role, or may not speak for the tenant",
    404: "There is nothing of that name",
    409: "The idempotency key was sent with another request within the last 24 hours",
    410: "The personal part of the decision, which this needs, was erased",
    413: "The content is over a limit, which is named",
    415: "The content's type is not accepted; the accepted ones are named",
    422: "The request is not valid; each wrong field is named",
    426: "The request asks for no WebSocket",
    429: "A limit of the caller is used up, which is named; see Retry-After",
    500: "Stored content does not match its digest",
    503: "Overloaded, no policy in force, or the decision cannot be put on record; see Retry-After",
    504: "The deadline passed",
}


def answer(value: Any, status: int = 200) -> Response:
    """Encode a struct as the response that its route documents."""
    return Response(_ENCODER.encode(value), status_code=status, media_type="application/json")


def documented(schema: type[Any], *problems: int) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses`: its answer and the problems that it may answer with."""
    content = {"application/json": {"schema": {"$ref": REF.format(name=_name(schema))}}}
    return {200: {"description": "OK", "content": content}} | refusals(*problems)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document problems by their status."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": REF.format(name="ProblemDetails")}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def build_openapi(app: FastAPI, answers: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Join FastAPI's document, the hot route and the schemas of all answers."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    types = [ModerateRequest, DecisionAnswer, ProblemDetails, *answers.values()]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas.update(components)
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["paths"]["/v1/moderate"] = {"post": _moderate()}
    document["components"]["securitySchemes"] = _schemes()
    for path, operations in document["paths"].items():
        if not is_open(path):
            for operation in operations.values():
                need_key(path, operation)
    return document


def _schemes() -> dict[str, Any]:
    told = (
        "Needed wherever the server was given a file of API keys; without one it answers loopback alone, and any caller"
    )
    tokens = (
        "Instead of an API key: the token of a ServiceAccount that may call, or, for the roles `review` and `admin`, a "
        "JWT, where the server was told of them"
    )
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": f"{told}. {tokens}"},
        "header": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": f"{told}; wins over the other",
        },
    }


def need_key(path: str, operation: dict[str, Any]) -> None:
    """Document which API key an operation needs, and what is said without one, unless it says so itself."""
    right = right_for(path)
    tenants = ", and one that may speak for any tenant" if right.is_of_all_tenants else ""
    told = f"Needs an API key with the role `{right.role}`{tenants}."
    operation["description"] = f"{operation['description']} {told}" if "description" in operation else told
    operation["security"] = [{"bearer": []}, {"header": []}]
    # 503: whose a token is cannot always be found out.
    strangers = {str(status): response for status, response in refusals(401, 403, 429, 503).items()}
    operation["responses"] = {**strangers, **operation["responses"]}


def json_body(name: str) -> dict[str, Any]:
    """Return the request body of an operation that takes the schema of this name as JSON."""
    return {"required": True, "content": {"application/json": {"schema": {"$ref": REF.format(name=name)}}}}


def _moderate() -> dict[str, Any]:
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {
        "tags": ["moderation"],
        "operationId": "moderate",
        "summary": "Moderate a text, an image or a short video",
        "description": (
            "Send JSON, or the bytes themselves with their Content-Type; then the context stands in the query. "
            "The answer is given once the decision is on record."
        ),
        "parameters": [*place_parameters("Raw bytes only"), *request_headers(), idempotency_key()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": REF.format(name="ModerateRequest")}},
                "text/plain": {"schema": {"type": "string"}},
                "image/*": raw,
                "video/*": raw,
            },
        },
        "responses": {
            str(status): response
            for status, response in documented(DecisionAnswer, 409, 413, 415, 422, 429, 503, 504).items()
        },
    }


def place_parameters(description: str = "Of the content") -> list[dict[str, Any]]:
    """Document the context as parameters of a query."""
    context = msgspec.json.schema(RequestContext)["$defs"]["RequestContext"]["properties"]
    author = msgspec.json.schema(Author)["$defs"]["Author"]["properties"]
    fields = {name: context[name] for name in context if name != "author"}
    fields |= {f"author.{name}": schema for name, schema in author.items()}
    return [
        {"name": name, "in": "query", "required": False, "schema": _plain(schema), "description": description}
        for name, schema in fields.items()
    ]


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query parameter is absent, never null."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    return {key: value for key, value in options[0].items() if key != "default"}


def request_headers() -> list[dict[str, Any]]:
    """Document the headers of a request that has content judged."""
    return [
        {
            "name": "X-Baleen-Deadline-Ms",
            "in": "header",
            "required": False,
            "description": "Milliseconds after which an answer is of no use; late work is refused",
            "schema": {"type": "integer", "minimum": 1, "maximum": 600_000},
        },
        {
            "name": "X-Baleen-Priority",
            "in": "header",
            "required": False,
            "description": (
                "Who waits while others go first: up to the top priority of the caller's key, which counts where more "
                "is claimed. The answer has the one that counted"
            ),
            "schema": {"type": "string", "enum": [each.title for each in Priority], "default": Priority.NORMAL.title},
        },
        {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "description": "Repeated in the answer, the log and the record",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"},
        },
    ]


def _name(schema: type[Any]) -> str:
    return schema.__name__


def idempotency_key() -> dict[str, Any]:
    """Document the header by which a request can be sent again."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": (
            "Chosen by the caller for this request. Sent again within 24 hours, it is answered with the same "
            "decision, and `idempotency-replayed: true`"
        ),
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    }
