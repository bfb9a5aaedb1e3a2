"""`GET /$discovery/rest`: the document by which Google's clients find `comments:analyze`.

It is made from the types that do the work, and leads to wherever it was asked for.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from baleen_core.errors import ContentError, NotFound, Problem
from baleen_sidecar.flow.url_key import ANALYZE, SUGGEST
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.faces.perspective import AnalyzeCommentRequest, AnalyzeCommentResponse, google_answer
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest
from baleen_sidecar.web.moderate import read_parameters
from baleen_sidecar.web.schemas import RequestContext

VERSION: Final = "v1alpha1"
_HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_ENCODER: Final = msgspec.json.Encoder()
_KEPT: Final = frozenset(
    {"type", "description", "properties", "items", "enum", "$ref", "minimum", "maximum", "pattern"}
)
"""What the schemas of a discovery document have in common with JSON Schema."""


class DiscoveryRoute:
    """Answers `GET /$discovery/rest`."""

    method = "GET"

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        version = read_parameters(request.query).get("version", VERSION)
        if version != VERSION:
            raise NotFound(f"there is no version {version[:64]!r} of commentanalyzer here; there is {VERSION}")
        host = request.headers.get(b"host", b"").decode("latin-1")
        if not _HOST.fullmatch(host):
            raise ContentError([Problem(field="Host", message="names no host that could be asked")])
        # A proxy that ends TLS says so; whoever claims it without one leads only themselves astray.
        is_secure = request.headers.get(b"x-forwarded-proto") == b"https"
        document = build_discovery(f"{'https' if is_secure else 'http'}://{host}/")
        # It names the host that it was asked by, which a cache would hand to others.
        return HotAnswer(status=200, body=_ENCODER.encode(document), headers=((b"cache-control", b"no-store"),))

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return google_answer(problem, more)


def build_discovery(root: str) -> dict[str, Any]:
    """Return the document of an API whose address is `root`."""
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": f"commentanalyzer:{VERSION}",
        "name": "commentanalyzer",
        "version": VERSION,
        "title": "Baleen, asked as Perspective is",
        "description": "Scores of comments by the policies in force here.",
        "protocol": "rest",
        "rootUrl": root,
        "baseUrl": root,
        "servicePath": "",
        "basePath": "",
        "batchPath": "batch",
        "parameters": {
            "alt": {"type": "string", "location": "query", "default": "json", "description": "Only json."},
            "key": {"type": "string", "location": "query", "description": "An API key of Baleen's."},
            "prettyPrint": {"type": "boolean", "location": "query", "description": "Changes nothing."},
            "quotaUser": {"type": "string", "location": "query", "description": "Changes nothing."},
        },
        "schemas": _schemas(),
        "resources": {
            "comments": {
                "methods": {
                    "analyze": _method("analyze", ANALYZE, "Judge a comment, and return the scores asked for."),
                    "suggestscore": _method("suggestscore", SUGGEST, "Refused: scores of others are not taken."),
                }
            }
        },
    }


def _method(name: str, path: str, description: str) -> dict[str, Any]:
    context = msgspec.json.schema(RequestContext)["$defs"]["RequestContext"]["properties"]
    return {
        "id": f"commentanalyzer.comments.{name}",
        "path": path.removeprefix("/"),
        "flatPath": path.removeprefix("/"),
        "httpMethod": "POST",
        "description": description,
        "parameterOrder": [],
        "parameters": {
            each: {"type": "string", "location": "query", "description": f"The {each} of the comment."}
            for each in context
            if each != "author"
        },
        "request": {"$ref": AnalyzeCommentRequest.__name__},
        "response": {"$ref": AnalyzeCommentResponse.__name__},
    }


def _schemas() -> dict[str, Any]:
    _, found = msgspec.json.schema_components([AnalyzeCommentRequest, AnalyzeCommentResponse], ref_template="{name}")
    return {name: {"id": name, **_plain(schema)} for name, schema in found.items()}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    found = dict(_translated(schema))
    # Google's clients read the type of everything that is no reference.
    return found if "$ref" in found else {"type": "string" if "enum" in found else "any", **found}


def _translated(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        match name, value:
            case "properties", dict():
                yield name, {each: _plain(below) for each, below in value.items()}
            case (("items" | "additionalProperties"), dict()):
                yield name, _plain(value)
            case "prefixItems" | "anyOf" | "additionalProperties", _:
                pass
            case _ if name in _KEPT:
                yield name, value
