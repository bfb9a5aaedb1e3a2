"""How Baleen's state is written as Kubernetes resources: names, labels and shapes that operator and sidecar agree on.

A policy's content is an immutable ModerationPolicyRevision, and a list's content immutable ConfigMaps (Secrets when its
author keeps it in one), all named by digest; what is in force is one small ModerationRoute for each policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from baleen_core.assignment import DEFAULT_KEYS, FULL, Assignment, Exposure, StickyKey, name_rollout
from baleen_core.errors import PolicyError, Problem
from baleen_core.policy.in_force import Override, Route, RoutedCandidate
from baleen_core.policy.parse import digest, place, read_backtest, read_header, read_scope, type_word
from baleen_core.policy.schema import (
    API_VERSION,
    MAX_CATEGORIES,
    MAX_ROLLBACK_WINDOW,
    MAX_TENANTS,
    BacktestGate,
    Revision,
    Role,
    Scope,
)
from baleen_core.ratio import format_ratio
from baleen_core.reading import Reader, boolean, integer, name, one_of, text

GROUP: Final = "moderation.baleen.dev"
VERSION: Final = "v1alpha1"
POLICY_KIND: Final = "ModerationPolicy"
REVISION_KIND: Final = "ModerationPolicyRevision"
ROUTE_KIND: Final = "ModerationRoute"
OVERRIDE_KIND: Final = "ModerationOverride"
DEPLOYMENT_KIND: Final = "ModelDeployment"
PLURALS: Final[Mapping[str, str]] = {
    POLICY_KIND: "moderationpolicies",
    REVISION_KIND: "moderationpolicyrevisions",
    ROUTE_KIND: "moderationroutes",
    OVERRIDE_KIND: "moderationoverrides",
    DEPLOYMENT_KIND: "modeldeployments",
}

POLICY_LABEL: Final = f"{GROUP}/policy"
"""On a revision: the name of the policy that it is of."""
VERSION_ANNOTATION: Final = f"{GROUP}/version"
"""On a revision: the version that its author gave the content first."""
LIST_LABEL: Final = f"{GROUP}/list"
"""On a ConfigMap or Secret that keeps a list: the first 40 hexadecimal digits of its digest."""
ALLOW_DELETE_ANNOTATION: Final = f"{GROUP}/allow-delete"
"""On a policy (or on its route, once it is gone): `"true"` lets it be deleted though nothing else covers its scope."""
APPLIED_BY_ANNOTATION: Final = f"{GROUP}/applied-by"
"""On a policy: who applied its content, as the API server knows it; which content (`name_text`), a space, the user."""
APPROVED_BY_ANNOTATION: Final = f"{GROUP}/approved-by"
"""On an override: who wrote its approval, as the API server knows it; `<digest>/<step>`, a space, the user."""
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "baleen-operator"}

MAX_RECENT: Final = MAX_ROLLBACK_WINDOW
MAX_SHARD_BYTES: Final = 900_000
"""etcd takes objects of at most 1.5 MiB, and the API server ConfigMaps of 1 MiB."""
SHARD_KEY: Final = "entries"
SHARDS_ANNOTATION: Final = f"{GROUP}/shards"
DIGEST_ANNOTATION: Final = f"{GROUP}/digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRoute:
    """A ModerationRoute: what the operator decided for a policy. Each change has a higher `epoch`.

    `version` is of the stable revision; `time` (RFC 3339, UTC) says since when, `reason` why, `by` whose edit it was,
    of which `commit`, `approved_by` who approved it, and `stable_epoch` with which epoch it became stable (0: with this
    one). `created` is when the policy was created,
    which decides between policies of one scope. `never_loosen` names categories that its next content may not soften,
    `backtest` is the gate of logged decisions that it must pass.
    """

    namespace: str
    name: str
    epoch: int
    type: str
    role: Role
    scope: Scope
    created: str
    route: Route
    version: str = ""
    time: str = ""
    reason: str = ""
    by: str = ""
    commit: str = ""
    approved_by: str = ""
    stable_epoch: int = 0
    never_loosen: tuple[str, ...] = ()
    backtest: BacktestGate | None = None

    @property
    def rollout(self) -> str:
        """Name the try of the rollout that is under way, apart from any other one; empty where none is."""
        candidate = self.route.candidate
        if candidate is None:
            return ""
        salt = candidate.assignment.salt
        return name_rollout(salt, self.namespace, self.name, self.route.stable, candidate.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPolicy:
    """What a cluster says of one policy: the revisions that route and override name, and their versions, by digest.

    `override_problem` says why an Override that is there cannot be read; what is in force stays then.
    """

    route: PublishedRoute
    override: Override | None = None
    override_problem: str = ""
    revisions: Mapping[str, Revision]
    versions: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """Return namespace and name."""
        return self.route.namespace, self.route.name


def revision_name(policy: str, digest: str) -> str:
    """Return `<policy>-<10 hexadecimal digits>`; a policy's name is at most 63 characters, a resource's 253."""
    return f"{policy}-{digest.removeprefix('sha256:')[:10]}"


def list_object_name(digest: str, shard: int) -> str:
    """Return the name of the ConfigMap or Secret that keeps shard 0, 1, … of a list."""
    return f"baleen-list-{digest.removeprefix('sha256:')[:32]}-{shard}"


def split_list(text: str) -> tuple[str, ...]:
    """Cut a list's canonical text into shards of at most MAX_SHARD_BYTES each, between its lines; at least one."""
    shards: list[str] = []
    lines: list[str] = []
    size = 0
    for line in text.split("\n"):
        length = len(line.encode()) + 1
        if lines and size + length > MAX_SHARD_BYTES:
            shards.append("\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += length
    return (*shards, "\n".join(lines))


def join_list(shards: Sequence[str]) -> str:
    """Put the shards of a list together again."""
    return "\n".join(shards)


def write_revision(namespace: str, policy: str, version: str, revision: Revision) -> dict[str, Any]:
    """Write a revision as a ModerationPolicyRevision.

    It has no owner: deleting a policy must not delete its history.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": REVISION_KIND,
        "metadata": {
            "name": revision_name(policy, revision.digest),
            "namespace": namespace,
            "labels": {POLICY_LABEL: policy, **MANAGED_BY},
            "annotations": {VERSION_ANNOTATION: version},
        },
        "spec": {"digest": revision.digest, "schemaVersion": 1, "content": revision.content},
    }


def read_revision_resource(manifest: Mapping[str, Any]) -> tuple[str, str, Revision]:
    """Return policy, version and revision of a ModerationPolicyRevision; the content is not verified here.

    Raises:
        PolicyError: lists what is wrong with it.
    """
    problems: list[Problem] = []
    top = Reader(manifest, "", problems)
    read_header(top, kind=REVISION_KIND)
    metadata, spec = top.mapping("metadata", required=True), top.mapping("spec", required=True)
    labels, annotations = metadata.mapping("labels"), metadata.mapping("annotations")
    policy = labels.required(POLICY_LABEL, name, "")
    version = annotations.optional(VERSION_ANNOTATION, text(min_length=0, max_length=63), "")
    revision = Revision(
        digest=spec.required("digest", digest, ""),
        content=spec.required("content", text(max_length=2**20), ""),
    )
    if problems:
        raise PolicyError(problems)
    return policy, version, revision


def write_route(route: PublishedRoute) -> dict[str, Any]:
    """Write a route as a ModerationRoute; empty fields are left out."""
    spec: dict[str, Any] = {
        "epoch": route.epoch,
        "policy": route.name,
        "type": route.type,
        "role": route.role.value,
        "scope": {
            field: value
            for field in ("tenant", "surface", "source")
            if (value := getattr(route.scope, field)) is not None
        },
        "created": route.created,
        "stable": route.route.stable,
        "recentStable": list(route.route.recent_stable),
        "version": route.version,
        "time": route.time,
        "reason": route.reason,
        "by": route.by,
        "commit": route.commit,
        "approvedBy": route.approved_by,
        "stableEpoch": route.stable_epoch,
    }
    kept = {field: value for field, value in spec.items() if value not in ("", [], 0)}
    if gates := _write_gates(route):
        kept["gates"] = gates
    if route.route.candidate is not None:
        kept |= _write_candidate(route.route.candidate)
    return {
        "apiVersion": API_VERSION,
        "kind": ROUTE_KIND,
        "metadata": {"name": route.name, "namespace": route.namespace, "labels": dict(MANAGED_BY)},
        "spec": kept,
    }


def _write_gates(route: PublishedRoute) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if route.never_loosen:
        written["neverLoosen"] = list(route.never_loosen)
    if (gate := route.backtest) is not None:
        limits = {"maxFlipRate": gate.max_flip_rate, "maxNewBlocks": gate.max_new_blocks}
        said = {field: format_ratio(limit) for field, limit in limits.items() if limit is not None}
        written["backtest"] = {"decisions": gate.decisions, **said}
    return written


def _write_candidate(candidate: RoutedCandidate) -> dict[str, Any]:
    exposure, assignment = candidate.exposure, candidate.assignment
    written: dict[str, Any] = {
        "digest": candidate.digest,
        "weightBasisPoints": exposure.weight_basis_points,
        "shadow": exposure.is_shadow,
    }
    if exposure.tenants:
        written["match"] = {"tenants": list(exposure.tenants)}
    return {
        "candidate": written,
        "assignment": {"keys": [each.value for each in assignment.keys], "salt": assignment.salt},
    }


def _read_candidate(spec: Reader) -> RoutedCandidate | None:
    if not spec.has("candidate"):
        return None
    candidate, assignment = spec.mapping("candidate"), spec.mapping("assignment", required=True)
    return RoutedCandidate(
        digest=candidate.required("digest", digest, ""),
        exposure=Exposure(
            weight_basis_points=candidate.optional("weightBasisPoints", integer(0, FULL), 0),
            tenants=candidate.mapping("match").values("tenants", place, limit=MAX_TENANTS),
            is_shadow=candidate.optional("shadow", boolean, False),
        ),
        assignment=Assignment(
            keys=assignment.values("keys", one_of(StickyKey), limit=len(StickyKey)) or DEFAULT_KEYS,
            salt=assignment.required("salt", text(max_length=128), ""),
        ),
    )


_TEXT: Final = text(min_length=0, max_length=256)


def read_route(manifest: Mapping[str, Any]) -> PublishedRoute:
    """Read a ModerationRoute.

    Raises:
        PolicyError: lists what is wrong with it.
    """
    problems: list[Problem] = []
    top = Reader(manifest, "", problems)
    read_header(top, kind=ROUTE_KIND)
    metadata, spec = top.mapping("metadata", required=True), top.mapping("spec", required=True)
    gates = spec.mapping("gates")
    found = PublishedRoute(
        namespace=metadata.required("namespace", name, ""),
        name=metadata.required("name", name, ""),
        epoch=spec.required("epoch", integer(1, 2**53), 1),
        type=spec.required("type", type_word, ""),
        role=spec.required("role", one_of(Role), Role.POLICY),
        scope=read_scope(spec.mapping("scope")),
        created=spec.optional("created", _TEXT, ""),
        route=Route(
            stable=spec.optional("stable", digest, ""),
            recent_stable=spec.values("recentStable", digest, limit=MAX_RECENT),
            candidate=_read_candidate(spec),
        ),
        version=spec.optional("version", _TEXT, ""),
        time=spec.optional("time", _TEXT, ""),
        reason=spec.optional("reason", _TEXT, ""),
        by=spec.optional("by", _TEXT, ""),
        commit=spec.optional("commit", _TEXT, ""),
        approved_by=spec.optional("approvedBy", _TEXT, ""),
        stable_epoch=spec.optional("stableEpoch", integer(1, 2**53), 0),
        never_loosen=gates.values("neverLoosen", name, limit=MAX_CATEGORIES),
        backtest=read_backtest(gates.mapping("backtest")) if gates.has("backtest") else None,
    )
    if spec.required("policy", name, found.name) != found.name:
        spec.report("policy", f"is not the route's own name {found.name!r}")
    if problems:
        raise PolicyError(problems)
    return found
