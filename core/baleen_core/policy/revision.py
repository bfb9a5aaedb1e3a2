"""Revisions: what a policy decides, named by its content, so that equal content has one name on every machine."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, Final, TypeVar

from baleen_core.canonical import canonical_json, digest_of
from baleen_core.errors import IntegrityError, PolicyError, Problem
from baleen_core.policy.parse import DEFAULT_MAX_DISTANCE, Notation, read_content, read_scope, type_word
from baleen_core.policy.schema import (
    SCHEMA_VERSION,
    Category,
    ListContent,
    Policy,
    PolicyContent,
    PolicyList,
    Revision,
    RevisionContent,
    Role,
)
from baleen_core.ratio import MILLION
from baleen_core.reading import Reader, integer, one_of

_MILLIONTHS: Final = Notation(ratio=integer(0, MILLION), is_revision=True)
_REQUIRED: Final = object()

T = TypeVar("T")


def make_revision(policy: Policy, lists: Mapping[str, ListContent]) -> Revision:
    """Name what a policy decides by its content; `lists` has the content of each of its lists by the list's name.

    Raises:
        PolicyError: a list has no content, or content of another type.
    """
    content = _write(
        type=policy.type, role=policy.role, scope=policy.scope, policy=bind_lists(in_order(policy.content), lists)
    )
    return Revision(digest=digest_of(content), content=content.decode())


def name_text(policy: Policy) -> str:
    """Name what a policy's author wrote of its content: a digest in which lists are named and not read."""
    content = in_order(policy.content)
    return digest_of(_write(type=policy.type, role=policy.role, scope=policy.scope, policy=content))


def read_revision(revision: Revision) -> RevisionContent:
    """Read a revision back, trusting nothing but its digest.

    Raises:
        IntegrityError: the content does not match the digest, or is not in the canonical form.
        PolicyError: the content is of an unknown schema version, or no valid policy.
    """
    data = revision.content.encode(errors="surrogatepass")
    found = digest_of(data)
    if found != revision.digest:
        raise IntegrityError("revision", expected=revision.digest, found=found)
    read = _read(_load(revision), revision.digest)
    canonical = _write(type=read.type, role=read.role, scope=read.scope, policy=read.policy)
    if canonical != data:
        raise IntegrityError("canonical form of the revision", expected=digest_of(canonical), found=found)
    return read


def in_order(content: PolicyContent) -> PolicyContent:
    """Put everything that has a name in the order of the names, since no decision depends on the order as written."""
    return replace(
        content,
        categories=tuple(_category_in_order(category) for category in _by_name(content.categories)),
        lists=_by_name(content.lists),
        rules=_by_name(content.rules),
        parameters=dict(sorted(content.parameters.items())),
        models=_by_name(content.models),
    )


def bind_lists(content: PolicyContent, lists: Mapping[str, ListContent]) -> PolicyContent:
    """Replace each list's source by the digest of its content.

    Raises:
        PolicyError: a list has no content, or content of another type.
    """
    problems = [problem for each in content.lists for problem in _binding_problems(each, lists)]
    if problems:
        raise PolicyError(problems)
    return replace(
        content, lists=tuple(replace(each, source=None, digest=lists[each.name].digest) for each in content.lists)
    )


def _binding_problems(each: PolicyList, lists: Mapping[str, ListContent]) -> list[Problem]:
    field = f"spec.policy.lists[{each.name}].source"
    if each.name not in lists:
        return [Problem(field=field, message=f"the content of list {each.name} is not there")]
    if lists[each.name].type is not each.type:
        kind = lists[each.name].type.value
        return [Problem(field=field, message=f"has content of type {kind}; the list is of type {each.type.value}")]
    return []


def _category_in_order(category: Category) -> Category:
    signals = tuple(sorted(category.signals, key=lambda threshold: threshold.signal))
    return replace(category, signals=signals, languages=tuple(sorted(category.languages)))


def _by_name(parts: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(sorted(parts, key=attrgetter("name")))


def _write(**parts: object) -> bytes:
    return canonical_json({"schemaVersion": SCHEMA_VERSION} | {key: _plain(value) for key, value in parts.items()})


def _plain(value: object) -> object:
    """Write typed data as JSON values, fields as authors spell them, and without those that have their default."""
    match value:
        case PolicyList(max_distance=distance) if distance == DEFAULT_MAX_DISTANCE:
            return _plain(replace(value, max_distance=None))
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
        case _ if is_dataclass(value):
            found = {field: getattr(value, field.name) for field in fields(value)}
            return {spelling(field): _plain(item) for field, item in found.items() if item != default_of(field)}
    return value


def spelling(field: Field[Any]) -> str:
    """Return a field's name as authors write it."""
    # Authors name a threshold's signal `name`, as they do with everything in a list.
    if field.name == "signal":
        return "name"
    first, *others = field.name.split("_")
    return first + "".join(map(str.title, others))


def default_of(field: Field[Any]) -> object:
    """Return what a field is when it is left out; a value that is equal to nothing when it must not be."""
    if field.default is not MISSING:
        return field.default
    return _REQUIRED if field.default_factory is MISSING else field.default_factory()


def _load(revision: Revision) -> object:
    try:
        return json.loads(revision.content)
    except (ValueError, RecursionError) as exc:
        raise IntegrityError("content of the revision", expected="canonical JSON", found=str(exc)) from None


def _read(value: object, digest: str) -> RevisionContent:
    problems: list[Problem] = []
    revision = Reader(value, "", problems)
    version = revision.required("schemaVersion", integer(1, 2**53), 0)
    if version != SCHEMA_VERSION and not problems:
        message = f"{version} is not known here; this release reads {SCHEMA_VERSION}, so use a newer one"
        raise PolicyError([Problem(field="schemaVersion", message=message)])
    found = RevisionContent(
        digest=digest,
        type=revision.required("type", type_word, ""),
        role=revision.required("role", one_of(Role), Role.POLICY),
        scope=read_scope(revision.mapping("scope", required=True)),
        policy=read_content(revision.mapping("policy", required=True), _MILLIONTHS),
    )
    revision.done()
    if problems:
        raise PolicyError(problems)
    return found
