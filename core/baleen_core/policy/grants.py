"""Which namespaces may bind what: settings of the installation, so that no team can bind or claim another's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from baleen_core.analysis.metrics import MetricType
from baleen_core.errors import Problem
from baleen_core.policy.schema import Policy, Role, Scope

NOT_GRANTED: Final = "NotGranted"
NO_PROVIDER: Final = "NoProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Empty fields grant everything, as suits an installation with one team.

    Without `has_provider` there is no server to ask PromQL metrics of; with it, `query_namespaces` may ask it.

    `tenants` names, for each namespace, the tenants that it may speak for; where it is not empty, a namespace that it
    does not name may speak for none, and only a namespace that has `*` may bind all tenants at once. A namespace that
    `floor_namespaces` names may bind any of them by floors.
    """

    policy_namespaces: frozenset[str] = frozenset()
    floor_namespaces: frozenset[str] = frozenset()
    tenants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_provider: bool = True
    query_namespaces: frozenset[str] = frozenset()

    def may_query(self, namespace: str) -> bool:
        """Say whether policies of this namespace may ask PromQL metrics, and there is a server to ask."""
        return self.has_provider and (not self.query_namespaces or namespace in self.query_namespaces)

    def may_read(self, namespace: str, scope: Scope) -> bool:
        """Say whether a sidecar of this namespace gets policies of this scope: its tenants', and those for all."""
        if not self.tenants or scope.tenant is None:
            return True
        granted = self.tenants.get(namespace, frozenset())
        return "*" in granted or scope.tenant in granted


def find_refusals(policy: Policy, grants: Grants) -> tuple[Problem, ...]:
    """Name each field by which a policy claims what its namespace was not granted."""
    problems = []
    namespaces = grants.policy_namespaces
    if namespaces and policy.namespace not in namespaces:
        problems.append(_refusal("metadata.namespace", f"policies count only in {_names(namespaces)}"))
    floors = grants.floor_namespaces
    if policy.role is Role.FLOOR and floors:
        if policy.namespace not in floors:
            problems.append(_refusal("spec.role", f"floors count only in {_names(floors)}"))
    elif grants.tenants:
        granted = grants.tenants.get(policy.namespace, frozenset())
        if "*" not in granted and policy.scope.tenant not in granted:
            found = f"tenant {policy.scope.tenant!r}" if policy.scope.tenant else "all tenants"
            message = f"namespace {policy.namespace} may not bind {found}; it was granted {_names(granted) or 'none'}"
            problems.append(_refusal("spec.scope.tenant", message))
    return (*problems, *_find_refused_queries(policy, grants))


def _find_refused_queries(policy: Policy, grants: Grants) -> Iterator[Problem]:
    allowed = grants.query_namespaces
    metrics = policy.plan.analysis.metrics if policy.plan.analysis else ()
    for index, each in enumerate(metrics):
        field = f"spec.rollout.analysis.metrics[{index}].type"
        if each.type is not MetricType.PROMQL:
            continue
        if not grants.has_provider:
            message = (
                "PromQL has no server to ask in this installation; whoever runs it gives one (the chart's value "
                "analysis.prometheus.url, or BALEEN_OPERATOR_PROMETHEUS_URL), or leave this metric out"
            )
            yield Problem(field=field, message=f"{NO_PROVIDER}: {message}")
        elif allowed and policy.namespace not in allowed:
            yield _refusal(field, f"PromQL may be asked only by policies in {_names(allowed)}; leave this metric out")


def _refusal(field: str, message: str) -> Problem:
    return Problem(field=field, message=f"{NOT_GRANTED}: {message}")


def _names(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
