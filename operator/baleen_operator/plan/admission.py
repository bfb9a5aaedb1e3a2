"""What the API server asks before it stores something, and what it is told: AdmissionReview, `admission.k8s.io/v1`."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from baleen_core.errors import ContentError, PolicyError
from baleen_core.model.schema import Model
from baleen_core.policy.diff import diff
from baleen_core.policy.grants import Grants
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.proof import find_unproven
from baleen_core.policy.schema import API_VERSION, Policy, RevisionContent
from baleen_core.resources import POLICY_KIND
from baleen_operator.plan.acceptance import judge_text
from baleen_operator.plan.conditions import MAX_MESSAGE, say_problems, shorten
from baleen_operator.plan.injection import InjectionRules, inject

REVIEW_VERSION: Final = "admission.k8s.io/v1"
REVIEW_KIND: Final = "AdmissionReview"
MAX_WARNING: Final = 256
"""What is longer than that the API server may cut."""
MAX_CHANGES: Final = 10
"""How many changes, and how many ways to be softer, are named."""
_UNPROCESSABLE: Final = 422


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes, as the API server knows them."""

    username: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is asked about: `object` as it would be stored, `old_object` as it is stored, and who wants to store it.

    A `dry_run` stores nothing.
    """

    uid: str
    namespace: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    dry_run: bool | None = None
    user_info: User = msgspec.field(default_factory=User)


class _Review(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str
    kind: str
    request: Asked


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it may be stored, why not, what to change in it, and what people are told meanwhile."""

    allowed: bool
    message: str = ""
    patch: Sequence[Mapping[str, Any]] = ()
    warnings: tuple[str, ...] = ()


_DECODER: Final = msgspec.json.Decoder(_Review)


def read_review(data: bytes) -> Asked:
    """Read what an API server asks.

    Raises:
        ContentError: it is something else; what is wrong with it.
    """
    try:
        review = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ContentError(f"this is no {REVIEW_KIND} of {REVIEW_VERSION}: {exc}") from None
    if (review.api_version, review.kind) != (REVIEW_VERSION, REVIEW_KIND):
        found = shorten(f"{review.kind} of {review.api_version}", MAX_WARNING)
        raise ContentError(f"a {found} is no {REVIEW_KIND} of {REVIEW_VERSION}")
    return review.request


def write_review(asked: Asked, answer: Answer) -> bytes:
    """Write what the API server is told."""
    response: dict[str, Any] = {"uid": asked.uid, "allowed": answer.allowed}
    if not answer.allowed:
        response["status"] = {
            "code": _UNPROCESSABLE,
            "reason": "Invalid",
            "message": shorten(answer.message, MAX_MESSAGE),
        }
    if answer.patch:
        response |= {"patchType": "JSONPatch", "patch": b64encode(msgspec.json.encode(answer.patch)).decode()}
    if answer.warnings:
        response["warnings"] = [shorten(each, MAX_WARNING) for each in answer.warnings]
    return msgspec.json.encode({"apiVersion": REVIEW_VERSION, "kind": REVIEW_KIND, "response": response})


def admit_pod(asked: Asked, rules: InjectionRules) -> Answer:
    """Give a pod its sidecar, or say why it cannot have one.

    Raises:
        ContentError: there is no pod in what was asked.
    """
    pod = _object_of(asked)
    try:
        return Answer(allowed=True, patch=inject(pod, rules))
    except ContentError as exc:
        return Answer(allowed=False, message=say_problems(exc.problems))


def admit_policy(
    asked: Asked, models: Sequence[Model] | None, grants: Grants, namespaces: Collection[str] = ()
) -> Answer:
    """Judge what a policy's author wrote; what is missing around it only makes it wait, and is a warning.

    `models` are those that are served; None when that is not known. Lists are not read: they may come after their
    policy, and whoever can reach this server could learn from its answers what is in them. `namespaces` are those
    that are looked after; empty: all of them.

    Raises:
        ContentError: there is no policy in what was asked.
    """
    found = _object_of(asked)
    if not isinstance(found.get("metadata"), Mapping):
        raise ContentError("request.object has no metadata")
    if namespaces and asked.namespace not in namespaces:
        return Answer(allowed=True, warnings=(f"no operator looks after namespace {asked.namespace}",))
    manifest = as_policy(found, asked.namespace)
    verdict = judge_text(manifest, models, grants)
    if verdict.problems:
        return Answer(allowed=False, message=f"{verdict.reason}: {say_problems(verdict.problems)}")
    return Answer(allowed=True, warnings=(*verdict.warnings, *_tell_of_edit(asked, manifest)))


def read_edit(asked: Asked) -> tuple[Policy, Policy] | None:
    """Return what a policy said and what it is to say; None where there was none, or one of them is not valid."""
    found, before = asked.object, asked.old_object
    if found is None or before is None:
        return None
    read = []
    for each in (before, found):
        try:
            read.append(parse_policy(as_policy(each, asked.namespace)))
        except PolicyError:
            return None
    return read[0], read[1]


def names_backtest(asked: Asked) -> bool:
    """Say whether a policy, as it was or is to be, names a gate of logged decisions, valid or not."""
    found: list[Any] = [asked.object, asked.old_object]
    for name in ("spec", "gates", "backtest"):
        found = [each.get(name) if isinstance(each, Mapping) else None for each in found]
    return any(each is not None for each in found)


def say_in_parts(message: str) -> tuple[str, ...]:
    """Cut a message that is longer than a warning may be, between its words."""
    parts, rest = [], message
    while len(rest) > MAX_WARNING:
        at = rest.rfind(" ", 0, MAX_WARNING)
        at = at if at > 0 else MAX_WARNING
        parts.append(rest[:at])
        rest = rest[at:].lstrip()
    return (*parts, rest)


def _tell_of_edit(asked: Asked, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what an edit may make softer that must not be, and, where nothing is to be stored, what it changes.

    What was said before need not be what is stable, and what was stable a while ago may come back. So whether the edit
    goes live is for the operator to say.
    """
    edit = read_edit(asked)
    if edit is None:
        return ()
    before, after = edit
    protected = sorted({*before.gates.never_loosen, *after.gates.never_loosen})
    unproven = find_unproven(as_revision(before), as_revision(after), protected)
    warnings = [f"by gates.neverLoosen this may be refused: {each}" for each in unproven[:MAX_CHANGES]]
    if asked.dry_run:
        changes = diff(as_revision(before), as_revision(after))
        warnings += [f"changes {each}" for each in changes[:MAX_CHANGES]]
        if len(changes) > MAX_CHANGES:
            warnings.append(f"and {len(changes) - MAX_CHANGES} more changes")
    return tuple(warnings)


def as_revision(policy: Policy) -> RevisionContent:
    """Return what a policy says as a revision without a name, its lists not read."""
    return RevisionContent(digest="", type=policy.type, role=policy.role, scope=policy.scope, policy=policy.content)


def as_policy(found: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """Return a manifest; the namespace is that of the address, whatever the object says."""
    metadata = found.get("metadata")
    said = metadata if isinstance(metadata, Mapping) else {}
    return {"apiVersion": API_VERSION, "kind": POLICY_KIND, **found, "metadata": {**said, "namespace": namespace}}


def _object_of(asked: Asked) -> Mapping[str, Any]:
    if asked.object is None:
        raise ContentError("request.object is missing")
    return asked.object
