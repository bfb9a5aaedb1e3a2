"""What a user called, from the API server's audit log, against what its roles allow, in both directions."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

PRODUCT_USERS: Final = (
    "system:serviceaccount:baleen-system:baleen-operator",
    "system:serviceaccount:baleen-system:baleen-gateway",
)
_CREATED: Final = 201
_NAMELESS: Final = ("create", "deletecollection")
"""Verbs whose request names no object when RBAC looks at it, though the log has the created one's name."""


class WildcardRule(Exception):
    """A role has `*` where it must list verbs, groups, resources or names."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rule:
    """One verb on one resource that a role gives; an empty name or namespace stands for every one."""

    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""

    def allows(self, call: "Call") -> bool:
        """Say whether this rule is enough for the call."""
        return (
            (self.verb, self.group, self.resource) == (call.verb, call.group, call.resource)
            and self.name in ("", call.name)
            and self.namespace in ("", call.namespace)
        )

    def __str__(self) -> str:
        return _sentence(self.verb, self.group, self.resource, self.name, self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Call:
    """One kind of request that the API server let through; no name or namespace where the request had none."""

    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return _sentence(self.verb, self.group, self.resource, self.name, self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The calls that no role of the user allows, one for each kind, and the rules that no call needed."""

    user: str
    not_allowed: tuple[Call, ...]
    unused: tuple[Rule, ...]

    def problems(self) -> Iterator[str]:
        """Say what is wrong, one line each."""
        for call in self.not_allowed:
            yield f"{self.user}: no role of the chart allows what was called: {call}"
        for rule in self.unused:
            yield f"{self.user}: a role of the chart allows what nobody called: {rule}"


def compare(
    logs: Iterable[Path], manifests: Iterable[Path], users: Iterable[str] = PRODUCT_USERS
) -> tuple[Comparison, ...]:
    """Compare logs with the roles and bindings in the manifests, for service accounts `system:serviceaccount:ns:name`.

    Raises WildcardRule for any role there, whoever has it.
    """
    documents = read_manifests(manifests)
    rules = {user: read_rules(documents, user) for user in users}
    calls = read_calls(logs, rules)
    return tuple(
        Comparison(
            user=user, not_allowed=_find_not_allowed(calls[user], rules[user]), unused=_find_unused(calls, user, rules)
        )
        for user in rules
    )


def read_manifests(paths: Iterable[Path]) -> tuple[Mapping[str, Any], ...]:
    """Return every document of these files; raise WildcardRule if a role among them has `*`."""
    documents = tuple(
        document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document
    )
    for document in documents:
        for index, rule in enumerate(document.get("rules") or ()):
            for field, values in rule.items():
                # `*/scale` is a wildcard, too.
                if any("*" in value for value in values):
                    place = f"{document['kind']} {document['metadata']['name']}, rules[{index}].{field}"
                    raise WildcardRule(f"{place}: {values} has a wildcard; list what is needed instead")
    return documents


def read_rules(documents: Iterable[Mapping[str, Any]], user: str) -> frozenset[Rule]:
    """Return what the bindings among the documents give to a service account, one rule for each verb and resource."""
    documents = tuple(documents)
    roles = {_identity(role["kind"], role["metadata"]): role for role in documents if role["kind"].endswith("Role")}
    return frozenset(
        rule
        for binding in documents
        if binding["kind"].endswith("RoleBinding") and _is_bound(binding, user)
        for rule in _expand(_role_of(binding, roles), _namespace_of(binding))
    )


def read_calls(logs: Iterable[Path], users: Iterable[str]) -> dict[str, frozenset[Call]]:
    """Return what each user called of resources, but for what was refused for lack of a right."""
    found: dict[str, set[Call]] = {user: set() for user in users}
    for log in logs:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for event in _read_events(lines):
                if event["user"].get("username") in found:
                    found[event["user"]["username"]].update(_calls_of(event))
    return {user: frozenset(calls) for user, calls in found.items()}


def _read_events(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # torn when a test killed the server


def _calls_of(event: Mapping[str, Any]) -> Iterator[Call]:
    target = event.get("objectRef")
    if target is None or event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid":
        return
    verb = event["verb"]
    resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
    name, namespace = target.get("name", ""), target.get("namespace", "")
    where = {"group": target.get("apiGroup", ""), "resource": resource, "namespace": namespace}
    yield Call(verb=verb, name="" if verb in _NAMELESS else name, **where)
    if verb in ("patch", "update") and event.get("responseStatus", {}).get("code") == _CREATED:
        # The server asks for this right as well, without a line of its own in the log.
        yield Call(verb="create", name=name, **where)


def _find_not_allowed(calls: frozenset[Call], rules: frozenset[Rule]) -> tuple[Call, ...]:
    refused = {call for call in calls if not any(rule.allows(call) for rule in rules)}
    # One of a kind is enough: tests call with a thousand names.
    return tuple(sorted({(call.verb, call.group, call.resource): call for call in sorted(refused)}.values()))


def _find_unused(
    calls: Mapping[str, frozenset[Call]], user: str, rules: Mapping[str, frozenset[Rule]]
) -> tuple[Rule, ...]:
    return tuple(sorted(rule for rule in rules[user] if not any(rule.allows(call) for call in calls[user])))


def _identity(kind: str, metadata: Mapping[str, Any]) -> tuple[str, str, str]:
    return kind, "" if kind == "ClusterRole" else metadata.get("namespace", "default"), metadata["name"]


def _namespace_of(binding: Mapping[str, Any]) -> str:
    return "" if binding["kind"] == "ClusterRoleBinding" else binding["metadata"].get("namespace", "default")


def _role_of(binding: Mapping[str, Any], roles: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Mapping[str, Any]:
    wanted = binding["roleRef"]
    identity = _identity(wanted["kind"], {"name": wanted["name"], "namespace": _namespace_of(binding)})
    if identity not in roles:
        name = binding["metadata"]["name"]
        raise KeyError(f"{binding['kind']} {name}: its {wanted['kind']} {wanted['name']} is not among the manifests")
    return roles[identity]


def _is_bound(binding: Mapping[str, Any], user: str) -> bool:
    return any(
        subject["kind"] == "ServiceAccount"
        and f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}" == user
        for subject in binding.get("subjects") or ()
    )


def _expand(role: Mapping[str, Any], namespace: str) -> Iterator[Rule]:
    for rule in role.get("rules") or ():
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or ("",):
                        yield Rule(verb=verb, group=group, resource=resource, name=name, namespace=namespace)


def _sentence(verb: str, group: str, resource: str, name: str, namespace: str) -> str:
    full = f"{resource}.{group}" if group else resource
    return f"{verb} {full}" + (f" {name}" if name else "") + (f" in namespace {namespace}" if namespace else "")
