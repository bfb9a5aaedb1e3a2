"""Compares answers with the OpenAPI document: is the status documented, and is the body what it promises?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import Any

import httpx
import jsonschema_rs

PROBLEM = "application/problem+json"
_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/ProblemDetails"}

_validators: dict[tuple[int, int], tuple[Any, Any, jsonschema_rs.Validator]] = {}
"""What was compiled, by the identity of a document and of a schema of it, both of which it keeps alive."""


@dataclass
class DocumentedAnswers:
    """Checks answers against `document`, and remembers which were `seen`, as method, path template and status."""

    document: Mapping[str, Any] = field(default_factory=dict)
    seen: set[tuple[str, str, int]] = field(default_factory=set)

    def check(self, response: httpx.Response) -> None:
        """Fail when an answer is not what the document says of its operation; a stranger gets a problem."""
        response.read()
        operation, template = self._operation(response)
        if operation is None:
            return
        if not operation:
            assert_problem(self.document, response)
            return
        self.seen.add((response.request.method, template, response.status_code))
        documented = operation["responses"].get(str(response.status_code))
        assert documented, f"{template} answers {response.status_code}, which is not documented: {response.text[:500]}"
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            return
        media_type = response.headers["content-type"].partition(";")[0]
        content = documented["content"]
        assert media_type in content, f"{template} answers {media_type}; documented are {list(content)}"
        if media_type.endswith("json"):
            check_schema(self.document, content[media_type]["schema"], response.json())

    def _operation(self, response: httpx.Response) -> tuple[Mapping[str, Any] | None, str]:
        """Return the operation; an empty one for what the API does not have, None for what is no part of it."""
        # As it was sent: a parameter may have slashes, which are escaped.
        path = response.request.url.raw_path.partition(b"?")[0].decode()
        method = response.request.method.lower()
        if not self.document or path.startswith(("/docs", "/openapi.json")) or method in ("head", "options"):
            return None, path
        for template, operations in self.document["paths"].items():
            if fits(template, path):
                return operations.get(method, {}), template
        return {}, path


def fits(template: str, path: str) -> bool:
    """Say whether a path is one of those that a template such as `/v1/decisions/{id}` stands for."""
    wanted, found = template.split("/"), path.split("/")
    return len(wanted) == len(found) and all(
        part == other or (part.startswith("{") and other) for part, other in zip(wanted, found, strict=True)
    )


def assert_problem(document: Mapping[str, Any], response: httpx.Response) -> None:
    """Fail unless an answer is a problem as RFC 9457 has it, under the status that it came with."""
    header = Message()
    header["content-type"] = response.headers["content-type"]
    assert header.get_content_type() == PROBLEM, response.headers["content-type"]
    check_schema(document, _PROBLEM_SCHEMA, response.json())
    assert response.json()["status"] == response.status_code


def check_schema(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> None:
    """Fail unless a value is what a schema of the document says, naming every difference."""
    key = (id(document), id(schema))
    if key not in _validators:
        compiled = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        _validators[key] = (document, schema, compiled)
    *_, validator = _validators[key]
    wrong = [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(value)]
    assert not wrong, wrong
