"""What the API server asks before it stores something, and what it is told: AdmissionReview, `admission.k8s.io/v1`."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from baleen_core.errors import ContentError
from baleen_core.model.schema import Model
from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import POLICY_KIND
from baleen_operator.plan.acceptance import judge_text
from baleen_operator.plan.conditions import MAX_MESSAGE, say_problems, shorten
from baleen_operator.plan.injection import InjectionRules, inject

REVIEW_VERSION: Final = "admission.k8s.io/v1"
REVIEW_KIND: Final = "AdmissionReview"
MAX_WARNING: Final = 256
"""What is longer than that the API server may cut."""
_UNPROCESSABLE: Final = 422


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is asked about; `object` is as it would be stored."""

    uid: str
    namespace: str = ""
    object: dict[str, Any] | None = None


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
    metadata = found.get("metadata")
    if not isinstance(metadata, Mapping):
        raise ContentError("request.object has no metadata")
    if namespaces and asked.namespace not in namespaces:
        return Answer(allowed=True, warnings=(f"no operator looks after namespace {asked.namespace}",))
    # The namespace is that of the address, whatever the object says.
    manifest = {
        "apiVersion": API_VERSION,
        "kind": POLICY_KIND,
        **found,
        "metadata": {**metadata, "namespace": asked.namespace},
    }
    verdict = judge_text(manifest, models, grants)
    if verdict.problems:
        return Answer(allowed=False, message=f"{verdict.reason}: {say_problems(verdict.problems)}")
    return Answer(allowed=True, warnings=verdict.warnings)


def _object_of(asked: Asked) -> Mapping[str, Any]:
    if asked.object is None:
        raise ContentError("request.object is missing")
    return asked.object
