"""What is in force here: policies, their differences, and which of them bind a place."""

from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from msgspec import Struct

from baleen_core.assignment import FULL
from baleen_core.decision.engine import CompiledPolicy
from baleen_core.decision.snapshot import LoadedPolicy, LoadedTrial, PolicySnapshot, PolicyStatus
from baleen_core.policy.schema import Scope
from baleen_core.records import Context, PolicyRole
from baleen_sidecar.usecases.read_policies import ReadPolicies
from baleen_sidecar.web.callers import context_of, key_of
from baleen_sidecar.web.errors import FieldError
from baleen_sidecar.web.openapi import answer, documented

Name = Annotated[str, Path(min_length=1, max_length=127, description="`name`, or `namespace.name` where names repeat")]
Place = Annotated[str | None, Query(min_length=1, max_length=253)]
Digest = Annotated[str, Query(pattern="^sha256:[0-9a-f]{64}$", description="A revision's digest")]


class ScopeAnswer(Struct, frozen=True, omit_defaults=True):
    """Where a policy binds; an absent field means any."""

    tenant: str | None = None
    surface: str | None = None
    source: str | None = None


class CandidateAnswer(Struct, frozen=True):
    """A revision that is rolled out beside the one in force: how much of the content it judges, 0 to 1.

    It judges all content of `tenants`. In a `shadow` it judges all of it, and nothing that it says counts.
    """

    digest: str
    version: str
    weight: float
    tenants: tuple[str, ...]
    shadow: bool


class PolicySummary(Struct, frozen=True, kw_only=True):
    """One policy: the revision in force and why, and what is wrong with what it says now."""

    namespace: str
    name: str
    version: str
    digest: str | None
    standing: str
    type: str | None
    role: str | None
    enforcement: str | None
    scope: ScopeAnswer
    parameters: dict[str, str]
    candidate: CandidateAnswer | None
    problems: tuple[FieldError, ...]


class PolicyList(Struct, frozen=True):
    """All policies, and problems that belong to none of them."""

    policies: tuple[PolicySummary, ...]
    problems: tuple[FieldError, ...]


class ActivationAnswer(Struct, frozen=True):
    """A revision came into force: which, when (RFC 3339) and why."""

    digest: str
    version: str
    time: str
    reason: str


class PolicyDetail(Struct, frozen=True):
    """One policy with the canonical content of its revision in force and its history, newest first."""

    summary: PolicySummary
    content: msgspec.Raw
    history: tuple[ActivationAnswer, ...]


class ChangeAnswer(Struct, frozen=True):
    """One difference between two revisions; a value is null where the path is not there."""

    type: str
    path: str
    old_value: str | None
    new_value: str | None


class DiffAnswer(Struct, frozen=True, rename={"from_": "from"}):
    """Every difference between two revisions."""

    from_: str
    to: str
    changes: tuple[ChangeAnswer, ...]


class BindingPolicy(Struct, frozen=True):
    """A policy that binds a place, and in which role."""

    role: PolicyRole
    namespace: str
    name: str
    type: str
    version: str
    digest: str
    candidate: CandidateAnswer | None


class EffectivePolicy(Struct, frozen=True):
    """All policies that bind a place; the strictest verdict of winners and floors is the decision."""

    policies: tuple[BindingPolicy, ...]


ANSWERS = {
    "PolicyList": PolicyList,
    "PolicyDetail": PolicyDetail,
    "DiffAnswer": DiffAnswer,
    "EffectivePolicy": EffectivePolicy,
}


def build_router(current: Callable[[], PolicySnapshot], policies: ReadPolicies) -> APIRouter:
    """Serve the policies in force."""
    router = APIRouter(prefix="/v1", tags=["policies"])

    @router.get("/policies", responses=documented(PolicyList), summary="List the policies in force")
    async def list_policies() -> Response:
        snapshot = current()
        return answer(
            PolicyList(
                policies=tuple(_summary(snapshot, status) for status in snapshot.statuses),
                problems=tuple(FieldError(problem.field, problem.message) for problem in snapshot.problems),
            )
        )

    @router.get("/policies/{name}", responses=documented(PolicyDetail, 404, 422, 500, 503), summary="Read one policy")
    async def get_policy(name: Name) -> Response:
        found = await policies.get(name)
        return answer(
            PolicyDetail(
                summary=_summary(current(), found.status),
                content=msgspec.Raw(found.content.encode()),
                history=tuple(ActivationAnswer(row.digest, row.version, row.time, row.reason) for row in found.history),
            )
        )

    @router.get(
        "/policies/{name}/diff", responses=documented(DiffAnswer, 404, 422, 500, 503), summary="Compare two revisions"
    )
    async def diff(name: Name, from_: Annotated[Digest, Query(alias="from")], to: Digest) -> Response:
        changes = await policies.diff(name, from_, to)
        return answer(
            DiffAnswer(
                from_, to, tuple(ChangeAnswer(row.type, row.path, row.old_value, row.new_value) for row in changes)
            )
        )

    @router.get(
        "/effective-policy", responses=documented(EffectivePolicy, 422), summary="Say which policies bind a place"
    )
    async def effective(
        request: Request, tenant: Place = None, surface: Place = None, source: Place = None
    ) -> Response:
        asked = Context(tenant=tenant, surface=surface, source=source)
        in_force = current().in_force(context_of(key_of(request.scope), asked, "tenant"))
        trials = {id(stable): trial for stable, trial in in_force.rollouts}
        members = (
            (PolicyRole.WINNER, in_force.winners),
            (PolicyRole.FLOOR, in_force.floors),
            (PolicyRole.DRY_RUN, in_force.dry_runs),
        )
        return answer(
            EffectivePolicy(
                tuple(_binding(role, policy, trials.get(id(policy))) for role, found in members for policy in found)
            )
        )

    return router


def _binding(role: PolicyRole, policy: CompiledPolicy, trial: LoadedTrial | None) -> BindingPolicy:
    return BindingPolicy(
        role,
        policy.namespace,
        policy.name,
        policy.revision.type,
        policy.version,
        policy.revision.digest,
        _candidate(trial),
    )


def _candidate(trial: LoadedTrial | None) -> CandidateAnswer | None:
    if trial is None:
        return None
    exposure = trial.exposure
    return CandidateAnswer(
        trial.compiled.revision.digest,
        trial.compiled.version,
        exposure.weight_basis_points / FULL,
        exposure.tenants,
        exposure.is_shadow,
    )


def _summary(snapshot: PolicySnapshot, status: PolicyStatus) -> PolicySummary:
    loaded = next((policy for policy in snapshot.policies if _is_of(policy, status)), None)
    revision = loaded.candidate.revision if loaded else None
    scope = revision.scope if revision else Scope()
    return PolicySummary(
        namespace=status.namespace,
        name=status.name,
        version=status.version,
        digest=status.digest,
        standing=status.standing.value,
        type=revision.type if revision else None,
        role=revision.role.value if revision else None,
        enforcement=revision.policy.enforcement.value if revision else None,
        scope=ScopeAnswer(scope.tenant, scope.surface, scope.source),
        parameters=dict(revision.policy.parameters) if revision else {},
        candidate=_candidate(loaded.trial) if loaded else None,
        problems=tuple(FieldError(problem.field, problem.message) for problem in status.problems),
    )


def _is_of(policy: LoadedPolicy, status: PolicyStatus) -> bool:
    return (policy.candidate.namespace, policy.candidate.name) == (status.namespace, status.name)
