"""Check a policy whole: what it says, the lists that it points at, and its own tests.

The same check in a folder, in a cluster and on the command line, so that a policy that is valid in one is in all.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from baleen_core.errors import InvalidError, PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.lists import read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.schema import ListContent, ListSource, ListSourceType, Policy
from baleen_core.validation import find_problems

Place = tuple[ListSourceType, str, str]
"""Where the text of a list is: kind, namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A policy that is valid, with the content of its lists by their names."""

    policy: Policy
    lists: Mapping[str, ListContent]


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
    # With a list missing, tests that need it would fail for a reason that is not theirs.
    lists = find_lists(policy, contents)
    judged = policy if with_tests else replace(policy, tests=())
    if problems := find_problems(judged, lists, models):
        raise PolicyError(problems)
    return Checked(policy=policy, lists=lists)


def find_lists(policy: Policy, contents: Mapping[Place, Mapping[str, Any]]) -> Mapping[str, ListContent]:
    """Return the content of each list of a policy by the list's name.

    Raises:
        PolicyError: everything that is missing or wrong.
    """
    problems: list[Problem] = []
    lists: dict[str, ListContent] = {}
    for index, each in enumerate(policy.content.lists):
        path = f"spec.policy.lists[{index}]"
        try:
            assert each.source is not None, "a policy as written has the source of each list"
            lists[each.name] = read_list(each.type, _find_text(each.source, policy.namespace, contents))
        except InvalidError as exc:
            problems += [replace(one, field=f"{path}.{one.field}".rstrip(".")) for one in exc.problems]
        except LookupError as exc:
            problems.append(Problem(field=f"{path}.source", message=str(exc.args[0])))
    if problems:
        raise PolicyError(problems)
    return lists


def texts_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the texts of a ConfigMap or Secret by their keys.

    Raises:
        ValueError: its data is not text.
    """
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
