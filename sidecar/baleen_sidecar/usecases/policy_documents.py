"""What the resources of a folder or a cluster say: in order by kind, and checked. Nothing here waits or remembers."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from baleen_core.checking import Place, texts_of
from baleen_core.errors import Problem
from baleen_core.policy.schema import ListSourceType
from baleen_sidecar.ports import Key

DEFAULT_NAMESPACE: Final = "default"
KINDS: Final = ("ModerationPolicy", "ModerationOverride", "ConfigMap", "Secret")
PASSED_OVER: Final = ("ModelDeployment", "Namespace", "Kustomization")
"""Kinds that may lie in the same folder and are not ours to read here."""

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
                    _put(contents, (ListSourceType(kind), *key), texts_of(body))
                case _:
                    raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        except ValueError as exc:
            problems.append(Problem(field=document.file, message=str(exc)))
    return Sorted(policies=policies, overrides=overrides, contents=contents, problems=tuple(problems))


def short(digest: str) -> str:
    """Shorten a digest for people."""
    return digest[:17]


def _key(body: Mapping[str, Any]) -> Key:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ValueError("metadata.name is missing")
    return str(metadata.get("namespace") or DEFAULT_NAMESPACE), metadata["name"]


def _put(found: dict[H, Mapping[str, Any]], key: H, body: Mapping[str, Any]) -> None:
    if key in found:
        raise ValueError(f"{body.get('kind', 'the resource')} {key} is there twice; the first one counts")
    found[key] = body
