"""What the OpenAPI document says of batches and façades: schemas from the types that do the work."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from baleen_sidecar.flow.url_key import ANALYZE, DISCOVERY, SUGGEST
from baleen_sidecar.web import batch, streams
from baleen_sidecar.web.faces import openai
from baleen_sidecar.web.faces.openai import ModerationsAnswer, ModerationsRequest, OpenAIErrorAnswer
from baleen_sidecar.web.faces.perspective import AnalyzeCommentRequest, AnalyzeCommentResponse, GoogleErrorAnswer
from baleen_sidecar.web.openapi import (
    REF,
    documented,
    idempotency_key,
    json_body,
    need_key,
    place_parameters,
    request_headers,
)

_TYPES: Final = (
    batch.BatchRequest,
    batch.BatchItem,
    batch.BatchAnswer,
    ModerationsRequest,
    ModerationsAnswer,
    OpenAIErrorAnswer,
    AnalyzeCommentRequest,
    AnalyzeCommentResponse,
    GoogleErrorAnswer,
)
_TAGS: Final = ["moderation"]


def add_faces(document: dict[str, Any]) -> None:
    """Add the paths of batches and façades, and the schemas that they name."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=REF)
    there = document["components"]["schemas"]
    assert all(there.get(name, schema) == schema for name, schema in schemas.items()), "two types have one name"
    items = schemas["BatchRequest"]["properties"]["items"]
    # They are read one by one, so that one that is wrong spoils no other.
    items |= {"items": {"$ref": REF.format(name="BatchItem")}, "minItems": 1}
    there.update(schemas)
    paths = {
        batch.PATH: {"post": _batch()},
        openai.PATH: {"post": _openai()},
        ANALYZE: {"post": _analyze()},
        SUGGEST: {"post": _suggest()},
        DISCOVERY: {"get": _discovery()},
        streams.PATH: {"get": streams.describe_stream()},
    }
    for path, operations in paths.items():
        if path != DISCOVERY:
            for operation in operations.values():
                need_key(path, operation)
    document["paths"].update(paths)


def _batch() -> dict[str, Any]:
    return {
        "tags": _TAGS,
        "operationId": "moderateBatch",
        "summary": "Moderate many pieces of content, each with an outcome of its own",
        "description": (
            "Items are judged side by side, by one deadline. The answer is 200 also where items were refused: each has "
            "its decision or its problem, in the order of the request."
        ),
        "parameters": [*request_headers(), idempotency_key()],
        "requestBody": json_body("BatchRequest"),
        "responses": _by_status(documented(batch.BatchAnswer, 409, 413, 415, 422, 504)),
    }


def _openai() -> dict[str, Any]:
    return {
        "tags": _TAGS,
        "operationId": "createModeration",
        "summary": "Moderate as OpenAI's clients ask",
        "description": "Flagged is what may not pass as it is: a decision that is Review or Block.",
        "parameters": [*place_parameters(), *request_headers(), idempotency_key()],
        "requestBody": json_body("ModerationsRequest"),
        "responses": {
            "200": _json("OK", "ModerationsAnswer"),
            **_refusals("OpenAIErrorAnswer", (400, 401, 403, 404, 409, 429, 503, 504)),
        },
    }


def _analyze() -> dict[str, Any]:
    return {
        "tags": _TAGS,
        "operationId": "analyzeComment",
        "summary": "Moderate as Perspective's clients ask",
        "description": "Scores are those of categories of the policies in force.",
        "parameters": [*place_parameters(), *_of_clients(), *request_headers(), idempotency_key()],
        "requestBody": json_body("AnalyzeCommentRequest"),
        "responses": {
            "200": _json("OK", "AnalyzeCommentResponse"),
            **_refusals("GoogleErrorAnswer", (400, 401, 403, 409, 429, 503, 504)),
        },
    }


def _suggest() -> dict[str, Any]:
    return {
        "tags": _TAGS,
        "operationId": "suggestCommentScore",
        "summary": "Refused: scores of others are not taken",
        "responses": _refusals("GoogleErrorAnswer", (401, 403, 429, 501, 503)),
    }


def _discovery() -> dict[str, Any]:
    return {
        "tags": _TAGS,
        "operationId": "discoverCommentAnalyzer",
        "summary": "The document by which Google's clients find comments:analyze",
        "parameters": [
            {"name": "version", "in": "query", "required": False, "schema": {"type": "string", "enum": ["v1alpha1"]}}
        ],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}},
            **_refusals("GoogleErrorAnswer", (400, 404)),
        },
    }


def _of_clients() -> list[dict[str, Any]]:
    told = "Sent by Google's clients; changes nothing"
    key = "An API key, for clients that can send it in no other way: proxies may log it"
    return [
        {"name": "alt", "in": "query", "required": False, "schema": {"type": "string", "enum": ["json"]}},
        {"name": "key", "in": "query", "required": False, "schema": {"type": "string"}, "description": key},
        {"name": "prettyPrint", "in": "query", "required": False, "schema": {"type": "string"}, "description": told},
        {"name": "quotaUser", "in": "query", "required": False, "schema": {"type": "string"}, "description": told},
    ]


def _json(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": REF.format(name=name)}}},
    }


_SAID: Final[Mapping[int, str]] = {
    400: "The request is not valid, over a limit, or of a type that is not accepted",
    401: "No API key that is good here",
    403: "The API key lacks a role, or may not speak for the tenant",
    404: "There is no model, or version, of that name",
    409: "The idempotency key was sent with another request within the last 24 hours",
    429: "A limit of the caller, which is named, is used up; see Retry-After",
    501: "Scores of others are not taken",
    503: "Overloaded, no policy in force, no score, or the decision cannot be put on record; see Retry-After",
    504: "The deadline passed",
}


def _refusals(name: str, statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): _json(_SAID[status], name) for status in statuses}


def _by_status(responses: Mapping[int | str, Any]) -> dict[str, Any]:
    return {str(status): response for status, response in responses.items()}
