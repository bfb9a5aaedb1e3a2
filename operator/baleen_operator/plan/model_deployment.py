"""What to do about a ModelDeployment, and what to say of it, given what was seen of its servers.

Ready is said only when every model on every server gave its golden answers. What could not be found out is Unknown:
neither right nor wrong.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from baleen_core.canonical import canonical_json, digest_of
from baleen_core.model.schema import Model, ModelDeployment
from baleen_core.resources import DEPLOYMENT_KIND, GROUP, PLURALS, VERSION
from baleen_operator.plan.actions import Action, Apply, ApplyStatus, Delete, Emit, Target
from baleen_operator.plan.conditions import say_problems, shorten, write_time
from baleen_operator.plan.refusals import Refusal
from baleen_operator.resources.model_deployment import (
    ACCEPTED,
    AVAILABLE,
    GOLDEN_VERIFIED,
    READY,
    RECONCILING,
    STALLED,
    ModelState,
    ModelStatus,
    Resource,
    Status,
    write_status,
)
from baleen_operator.resources.policy import Condition

APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
"""On what the operator made: the digest of all that it said, by which it knows whether it has something else to say."""

MODEL_DEPLOYMENTS: Final = Target(group=GROUP, version=VERSION, plural=PLURALS[DEPLOYMENT_KIND], kind=DEPLOYMENT_KIND)

MAX_MESSAGE: Final = 1024
REFRESH_SECONDS: Final = 60
"""`lastVerifiedTime` alone is written no more often than this: each write is sent to everybody who watches."""

_SHOWN: Final = 5
_RANK: Final = {state: rank for rank, state in enumerate(ModelState)}
_STALLED: Final = frozenset({ModelState.WRONG, ModelState.MISSING, ModelState.FAILED, ModelState.UNCHECKED})
_REASONS: Final[Mapping[ModelState, str]] = {
    ModelState.WRONG: "WrongAnswers",
    ModelState.MISSING: "ModelMissing",
    ModelState.FAILED: "LoadFailed",
    ModelState.UNCHECKED: "GoldenUnavailable",
    ModelState.UNREACHABLE: "Unreachable",
    ModelState.SILENT: "NoAnswer",
    ModelState.LOADING: "Loading",
    ModelState.PENDING: "Progressing",
    ModelState.VERIFIED: "Verified",
}
MODEL_UNLOADED: Final = "ModelUnloaded"
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|Ki|Mi|Gi|Ti|k|M|G|T)?", re.ASCII)
_UNITS: Final[Mapping[str, Fraction]] = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
    **{unit: Fraction(1000**power) for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
}
_CALM: Final = frozenset({"Verified", "Loading", "Progressing", "ScaledToZero"})
"""Reasons that are no cause for a Warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server: `host:port` of its gRPC, and whether it says itself that it is ready."""

    endpoint: str
    is_ready: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A version of a model in a server's repository; `reason` is why it is not ready, in the server's words."""

    version: str
    is_ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one model is on one server, with what is to be said about it; `was_unloaded` if it had been verified."""

    endpoint: str
    model: str
    state: ModelState
    message: str = ""
    was_unloaded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How far the Deployment of a runtime is. `problem` is why it gets no further, with its `reason`."""

    replicas: int = 0
    ready: int = 0
    is_settled: bool = False
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that was seen: the deployment, its servers, how each model is on each, and the rollout of its own runtime."""

    deployment: ModelDeployment
    resource: Resource
    places: tuple[Place, ...]
    findings: tuple[Finding, ...]
    rollout: Rollout | None = None
    endpoints: tuple[str, ...]
    selector: str = ""
    now: datetime


def judge(
    model: Model, place: Place, entries: Mapping[str, Sequence[Entry]], *, before: ModelStatus | None, may_load: bool
) -> Finding:
    """Say how a model is by the server's own index; VERIFIED here means only that it can be asked."""
    here = entries.get(model.name, ())
    if any(entry.is_ready and entry.version == model.version for entry in here):
        return _found(place, model, ModelState.VERIFIED)
    if not here:
        names = ", ".join(sorted(entries)[:_SHOWN]) or "none"
        more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
        message = f"model {model.name!r} is not in the repository of Triton at {place.endpoint}; it has {names}{more}"
        return _found(place, model, ModelState.MISSING, message)
    ready = [entry.version for entry in here if entry.is_ready]
    if ready:
        message = (
            f"Triton at {place.endpoint} serves version {', '.join(ready)} of model {model.name!r}, not {model.version}"
        )
        return _found(place, model, ModelState.FAILED if may_load else ModelState.PENDING, message)
    failed = next((entry.reason for entry in here if entry.reason not in ("", "unloaded")), "")
    if before is not None and before.version == model.version:
        if before.state == ModelState.VERIFIED and may_load:
            message = f"model {model.name!r} was unloaded from Triton at {place.endpoint} by somebody else"
            return replace(_found(place, model, ModelState.LOADING, message), was_unloaded=True)
        # While it is tried again it is not news that it fails.
        if before.state == ModelState.FAILED:
            return _found(place, model, ModelState.FAILED, before.message or failed)
    if failed and not may_load:
        return _found(
            place, model, ModelState.FAILED, f"Triton at {place.endpoint} cannot load {model.name!r}: {failed}"
        )
    message = f"model {model.name!r} is being loaded at {place.endpoint}"
    return _found(place, model, ModelState.LOADING if may_load else ModelState.PENDING, message)


def is_to_load(model: Model, entries: Mapping[str, Sequence[Entry]]) -> bool:
    """A model is loaded when the server has it and serves no version of it: another one may be somebody's."""
    here = entries.get(model.name, ())
    return bool(here) and not any(entry.is_ready for entry in here)


def silence(models: Iterable[Model], place: Place, cause: str) -> tuple[Finding, ...]:
    """Return what is found of the models on a server that does not answer; one that is starting may be silent."""
    state = ModelState.UNREACHABLE if place.is_ready else ModelState.PENDING
    message = f"Triton at {place.endpoint} does not answer: {cause}" if place.is_ready else "a replica is starting"
    return tuple(_found(place, model, state, message) for model in models)


def read_rollout(live: Mapping[str, Any] | None, replicas: int) -> Rollout:
    """Read how far a Deployment is; None when it is not there yet."""
    if live is None:
        return Rollout()
    status = live.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    reason = problem = ""
    if failure.get("status") == "True":
        reason, problem = "ReplicaFailure", str(failure.get("message", ""))
    elif progressing.get("status") == "False":
        reason, problem = "ProgressDeadlineExceeded", str(progressing.get("message", ""))
    have, ready = int(status.get("replicas", 0)), int(status.get("readyReplicas", 0))
    is_settled = (
        status.get("observedGeneration") == live["metadata"].get("generation")
        and live["spec"].get("replicas") == replicas
        and have == int(status.get("updatedReplicas", 0)) == replicas
    )
    return Rollout(replicas=have, ready=ready, is_settled=is_settled, reason=reason, problem=problem)


def describe(observed: Observed) -> Status:
    """Return the status that what was seen amounts to."""
    deployment, resource, before = observed.deployment, observed.resource, observed.resource.status
    wanted = deployment.replicas if observed.rollout else len(observed.places)
    verified = _verified_places(observed)
    reason, message, is_stalled = _explain(observed, wanted, verified)
    is_ready = reason == "Verified"
    served = f"{len(verified)} of {wanted} servers gave all golden answers"
    about_golden = [finding for finding in observed.findings if finding.state is ModelState.WRONG]
    golden = "False" if about_golden else "True" if is_ready else "Unknown"
    said = {
        ACCEPTED: ("True", "Accepted", "the deployment is valid"),
        READY: ("True" if is_ready else "False", reason, message),
        RECONCILING: _true_when(not is_ready and not is_stalled and wanted > 0, reason, message),
        STALLED: _true_when(is_stalled, reason, message),
        AVAILABLE: ("True", "Serving", served) if verified else ("False", reason, message),
        GOLDEN_VERIFIED: (
            golden,
            {"False": "WrongAnswers", "True": "Verified", "Unknown": reason}[golden],
            _summary(about_golden) if about_golden else message,
        ),
    }
    if verified and len(verified) < wanted:
        said[AVAILABLE] = ("True", "Serving", shorten(f"{served}; {message}", MAX_MESSAGE))
    return Status(
        observed_generation=resource.generation,
        replicas=observed.rollout.replicas if observed.rollout else len(observed.places),
        ready_replicas=len(verified),
        desired_replicas=wanted,
        selector=observed.selector,
        models=tuple(_describe_model(model, observed, wanted) for model in deployment.models),
        endpoints=observed.endpoints,
        conditions=_conditions(before, said, resource.generation, observed.now),
    )


def describe_refusal(resource: Resource, refusal: Refusal, now: datetime) -> Status:
    """Say why a deployment is not accepted; what was made of it before goes on as it is."""
    message = say_problems(refusal.problems)
    return _describe_stalled(resource, ("False", refusal.reason, message), refusal.reason, message, now)


def describe_failure(resource: Resource, reason: str, message: str, now: datetime) -> Status:
    """Say that the runtime could not be made as it is wanted; what was made before goes on as it is."""
    accepted = ("True", "Accepted", "the deployment is valid")
    return _describe_stalled(resource, accepted, reason, shorten(message, MAX_MESSAGE), now)


def _describe_stalled(
    resource: Resource, accepted: tuple[str, str, str], reason: str, message: str, now: datetime
) -> Status:
    before = resource.status
    unknown = ("Unknown", reason, "nothing was made of this deployment so far")
    said = {ACCEPTED: accepted, READY: ("False", reason, message), RECONCILING: ("False", reason, message)}
    said[STALLED] = ("True", reason, message)
    for type in (AVAILABLE, GOLDEN_VERIFIED):
        old = before.condition(type)
        said[type] = (old.status, old.reason, old.message) if old else unknown
    return replace(
        before,
        observed_generation=resource.generation,
        conditions=_conditions(before, said, resource.generation, now),
    )


def plan_status(resource: Resource, status: Status) -> tuple[Action, ...]:
    """Return what writes the status, and tells people, when there is something new to say."""
    if _is_same(resource.status, status):
        return ()
    actions: list[Action] = [
        ApplyStatus(
            target=MODEL_DEPLOYMENTS,
            namespace=resource.namespace,
            name=resource.name,
            status=write_status(status),
            resource_version=resource.resource_version,
        )
    ]
    before, after = resource.status.condition(READY), status.condition(READY)
    if after is not None and (before is None or (before.status, before.reason) != (after.status, after.reason)):
        actions.append(
            Emit(
                target=MODEL_DEPLOYMENTS,
                namespace=resource.namespace,
                name=resource.name,
                uid=resource.uid,
                type="Normal" if after.reason in _CALM else "Warning",
                reason=after.reason,
                message=after.message,
            )
        )
    return tuple(actions)


def seconds_until_look(status: Status, now: datetime, *, soon_seconds: float, interval_seconds: float) -> float:
    """Return when to look again: soon at what was well a moment ago, at the interval at what has long been as it is."""
    ready = status.condition("Ready")
    if ready is None or ready.status == "True":
        return interval_seconds
    waited = _seconds_between(ready.last_transition_time, write_time(now))
    return min(interval_seconds, max(soon_seconds, waited / 4))


def after_loading(observed: Observed, outcomes: Mapping[tuple[str, str], str]) -> Observed:
    """Return what is known when loading was tried: by server and model why it failed, or nothing where it did not."""

    def update(finding: Finding) -> Finding:
        failure = outcomes.get((finding.endpoint, finding.model))
        if failure is None:
            return finding
        if failure:
            return replace(finding, state=ModelState.FAILED, message=failure)
        message = f"model {finding.model!r} was loaded at {finding.endpoint}; its golden answers are asked for next"
        return replace(finding, state=ModelState.LOADING, message=message, was_unloaded=False)

    return replace(observed, findings=tuple(map(update, observed.findings)))


def plan_object(target: Target, desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> tuple[Action, ...]:
    """Return what makes an object as it is wanted: nothing when it is so already."""
    digest = digest_of(canonical_json(desired))
    metadata = desired["metadata"]
    body = {**desired, "metadata": {**metadata, "annotations": {APPLIED_ANNOTATION: digest}}}
    if live is not None and _covers(live, body):
        return ()
    return (
        Apply(
            target=target,
            namespace=metadata["namespace"],
            name=metadata["name"],
            body=body,
            resource_version=live["metadata"]["resourceVersion"] if live else None,
        ),
    )


def plan_removal(target: Target, live: Iterable[Mapping[str, Any]], owner_uid: str) -> tuple[Action, ...]:
    """Return what removes those objects that belong to the deployment."""
    return tuple(
        Delete(
            target=target,
            namespace=each["metadata"]["namespace"],
            name=each["metadata"]["name"],
            uid=each["metadata"]["uid"],
        )
        for each in live
        if is_owned(each, owner_uid)
    )


def is_owned(live: Mapping[str, Any], owner_uid: str) -> bool:
    """Say whether an object belongs to the ModelDeployment of this uid."""
    return any(owner.get("uid") == owner_uid for owner in live["metadata"].get("ownerReferences") or ())


def _found(place: Place, model: Model, state: ModelState, message: str = "") -> Finding:
    return Finding(endpoint=place.endpoint, model=model.name, state=state, message=message)


def _verified_places(observed: Observed) -> tuple[str, ...]:
    bad = {finding.endpoint for finding in observed.findings if finding.state is not ModelState.VERIFIED}
    return tuple(place.endpoint for place in observed.places if place.endpoint not in bad)


def _explain(observed: Observed, wanted: int, verified: Sequence[str]) -> tuple[str, str, bool]:
    """Return the reason, the message and whether it takes a person, of the worst that was found."""
    worst = min((finding.state for finding in observed.findings), key=_RANK.__getitem__, default=ModelState.VERIFIED)
    those = [finding for finding in observed.findings if finding.state is worst]
    if worst in _STALLED:
        return _REASONS[worst], _summary(those), True
    rollout = observed.rollout
    if rollout and rollout.problem:
        return rollout.reason, rollout.problem, True
    if wanted == 0:
        return "ScaledToZero", "no replicas are wanted, so nothing serves", False
    if worst is ModelState.LOADING and (unloaded := [finding for finding in those if finding.was_unloaded]):
        return MODEL_UNLOADED, _summary(unloaded), False
    if worst not in (ModelState.VERIFIED, ModelState.PENDING):
        return _REASONS[worst], _summary(those), False
    if rollout and (not rollout.is_settled or len(verified) < wanted):
        return "Progressing", f"{rollout.ready} of {wanted} replicas are ready", False
    if worst is ModelState.PENDING:
        return _REASONS[worst], _summary(those), False
    return "Verified", f"every model gave its golden answers on {len(verified)} of {wanted} servers", False


def _summary(findings: Sequence[Finding]) -> str:
    messages = list(dict.fromkeys(finding.message for finding in findings if finding.message))
    more = [f"and {len(messages) - _SHOWN} more"] if len(messages) > _SHOWN else []
    return shorten("; ".join([*messages[:_SHOWN], *more]), MAX_MESSAGE)


def _describe_model(model: Model, observed: Observed, wanted: int) -> ModelStatus:
    findings = [finding for finding in observed.findings if finding.model == model.name]
    pending = [] if len(observed.places) >= wanted > 0 else [ModelState.PENDING]
    state = min((*(finding.state for finding in findings), *pending), key=_RANK.__getitem__)
    before = observed.resource.status.model(model.name)
    since = before.last_verified_time if before is not None and before.version == model.version else ""
    return ModelStatus(
        name=model.name,
        version=model.version,
        sha256=model.source.sha256 or "",
        state=state,
        message=_summary([finding for finding in findings if finding.state is state]),
        last_verified_time=write_time(observed.now) if state is ModelState.VERIFIED else since,
        signals=tuple(signal.name for signal in model.signals),
    )


def _true_when(holds: bool, reason: str, message: str) -> tuple[str, str, str]:
    return ("True" if holds else "False", reason, message)


def _conditions(
    before: Status, said: Mapping[str, tuple[str, str, str]], generation: int, now: datetime
) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=type,
            status=status,
            reason=reason,
            message=message,
            observed_generation=generation,
            last_transition_time=old.last_transition_time
            if (old := before.condition(type)) and old.status == status and old.last_transition_time
            else write_time(now),
        )
        for type, (status, reason, message) in said.items()
    )


def _is_same(before: Status, after: Status) -> bool:
    """Two statuses are the same when only the times of verification differ, and those by little."""
    fresh = all(
        (old := before.model(new.name)) is not None
        and _seconds_between(old.last_verified_time, new.last_verified_time) < REFRESH_SECONDS
        for new in after.models
    )
    return fresh and _without_times(before) == _without_times(after)


def _without_times(status: Status) -> Status:
    return replace(status, models=tuple(replace(model, last_verified_time="") for model in status.models))


def _seconds_between(earlier: str, later: str) -> float:
    if earlier == later:
        return 0
    try:
        return abs((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
    except ValueError:
        return REFRESH_SECONDS


def _covers(live: Any, desired: Any) -> bool:
    """Say whether what is there has all that is wanted; the API server adds defaults, and others their own fields."""
    match desired:
        case Mapping():
            return isinstance(live, Mapping) and all(_covers(live.get(key), value) for key, value in desired.items())
        case list() | tuple():
            same_length = isinstance(live, list) and len(live) == len(desired)
            return same_length and all(_covers(mine, value) for mine, value in zip(live, desired, strict=True))
        case str() if isinstance(live, str):
            return live == desired or (_amount(live) is not None and _amount(live) == _amount(desired))
        case _:
            return bool(live == desired)


def _amount(text: str) -> Fraction | None:
    """Read a quantity, since the API server writes 0.5 as 500m and 1024Mi as 1Gi."""
    match = _QUANTITY.fullmatch(text)
    return Fraction(match[1]) * _UNITS[match[2] or ""] if match else None
