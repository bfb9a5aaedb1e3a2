"""What the resources of a folder or a cluster say: in order by kind, and checked. Nothing here waits or remembers."""

import base64
import binascii
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from baleen_core.errors import InvalidError, PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.lists import read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.schema import ListContent, ListSource, ListSourceType, Policy
from baleen_core.validation import find_problems

DEFAULT_NAMESPACE: Final = "default"
KINDS: Final = ("ModerationPolicy", "ModerationOverride", "ConfigMap", "Secret")
PASSED_OVER: Final = ("ModelDeployment", "Namespace", "Kustomization")
"""Kinds that may lie in the same folder and are not ours to read here."""

Key = tuple[str, str]
"""Namespace and name."""
Place = tuple[ListSourceType, str, str]
"""Where the text of a list is: kind, namespace and name."""

H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One resource as it is written, and the file it is in."""

    file: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Everything that is there now; with `problems`, some of it could not be read."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Documents by kind and name."""

    policies: Mapping[Key, Mapping[str, Any]]
    overrides: Mapping[Key, Mapping[str, Any]]
    contents: Mapping[Place, Mapping[str, Any]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A policy that is valid, with the content of its lists by their names."""

    policy: Policy
    lists: Mapping[str, ListContent]


def sort_documents(documents: Documents) -> Sorted:
    """Put documents in order by kind and name; what is no resource of ours, or is there twice, is a problem."""
    policies: dict[Key, Mapping[str, Any]] = {}
    overrides: dict[Key, Mapping[str, Any]] = {}
    contents: dict[Place, Mapping[str, Any]] = {}
    problems: list[Problem] = []
    for document in documents.documents:
        body, kind = document.body, document.body.get("kind")
        if kind in PASSED_OVER:
            continue
        try:
            key = _key(body)
            match kind:
                case "ModerationPolicy":
                    _put(policies, key, body)
                case "ModerationOverride":
                    _put(overrides, key, body)
                case "ConfigMap" | "Secret":
                    _put(contents, (ListSourceType(kind), *key), _texts(body))
                case _:
                    raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        except ValueError as exc:
            problems.append(Problem(field=document.file, message=str(exc)))
    return Sorted(policies=policies, overrides=overrides, contents=contents, problems=tuple(problems))


def check_policy(
    manifest: Mapping[str, Any],
    contents: Mapping[Place, Mapping[str, Any]],
    models: Sequence[Model],
    *,
    with_tests: bool = True,
) -> Checked:
    """Parse a policy, find its lists, run its tests.

    Raises:
        PolicyError: everything that is wrong with it.
    """
    policy = parse_policy(manifest)
    lists: dict[str, ListContent] = {}
    problems: list[Problem] = []
    for index, each in enumerate(policy.content.lists):
        path = f"spec.policy.lists[{index}]"
        try:
            assert each.source is not None, "a policy as written has the source of each list"
            lists[each.name] = read_list(each.type, _find_text(each.source, policy.namespace, contents))
        except InvalidError as exc:
            problems += [replace(one, field=f"{path}.{one.field}".rstrip(".")) for one in exc.problems]
        except LookupError as exc:
            problems.append(Problem(field=f"{path}.source", message=str(exc.args[0])))
    # With a list missing, tests that need it would fail for a reason that is not theirs.
    judged = policy if with_tests else replace(policy, tests=())
    problems += () if problems else find_problems(judged, lists, models)
    if problems:
        raise PolicyError(problems)
    return Checked(policy=policy, lists=lists)


def short(digest: str) -> str:
    """Shorten a digest for people."""
    return digest[:17]


def _find_text(source: ListSource, namespace: str, contents: Mapping[Place, Mapping[str, Any]]) -> str:
    found = contents.get((source.type, namespace, source.name))
    if found is None:
        known = (
            ", ".join(sorted(f"{kind.value} {name}" for kind, space, name in contents if space == namespace)) or "none"
        )
        raise LookupError(
            f"there is no {source.type.value} {source.name!r} in namespace {namespace}; there are: {known}"
        )
    if source.key not in found:
        keys = ", ".join(sorted(map(str, found))) or "none"
        raise LookupError(f"{source.type.value} {source.name!r} has no key {source.key!r}; its keys: {keys}")
    text = found[source.key]
    if not isinstance(text, str):
        raise LookupError(f"key {source.key!r} of {source.type.value} {source.name!r} is not text")
    return text


def _texts(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data") or {}
    if not isinstance(data, Mapping):
        raise ValueError("data is not a mapping of keys to text")
    if body["kind"] == "ConfigMap":
        return data
    try:
        decoded = {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
    except (binascii.Error, TypeError, UnicodeDecodeError) as exc:
        raise ValueError(f"data of the Secret is not base64 of UTF-8 text: {exc}") from None
    return decoded | dict(body.get("stringData") or {})


def _key(body: Mapping[str, Any]) -> Key:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ValueError("metadata.name is missing")
    return str(metadata.get("namespace") or DEFAULT_NAMESPACE), metadata["name"]


def _put(found: dict[H, Mapping[str, Any]], key: H, body: Mapping[str, Any]) -> None:
    if key in found:
        raise ValueError(f"{body.get('kind', 'the resource')} {key} is there twice; the first one counts")
    found[key] = body
