"""A ModelDeployment's `metadata` and `status`; core reads its `spec`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from baleen_operator.resources.policy import Condition

ACCEPTED: Final = "Accepted"
READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
AVAILABLE: Final = "Available"
GOLDEN_VERIFIED: Final = "GoldenVerified"


class ModelState(StrEnum):
    """How a model is, on the server where it is worst; those further up are worse."""

    WRONG = "WrongAnswers"
    MISSING = "Missing"
    FAILED = "LoadFailed"
    UNCHECKED = "Unchecked"
    UNREACHABLE = "Unreachable"
    SILENT = "NoAnswer"
    LOADING = "Loading"
    PENDING = "Pending"
    VERIFIED = "Verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """What is known of one model over all servers; `last_verified_time` is when it last gave its golden answers."""

    name: str
    version: str
    sha256: str
    state: str
    message: str
    last_verified_time: str
    signals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The `status` of a ModelDeployment; a replica is ready when all its models gave their golden answers."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    desired_replicas: int = 0
    selector: str = ""
    models: tuple[ModelStatus, ...] = ()
    endpoints: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def condition(self, type: str) -> Condition | None:
        """Return the condition of a type."""
        return next((condition for condition in self.conditions if condition.type == type), None)

    def model(self, name: str) -> ModelStatus | None:
        """Return what is known of a model."""
        return next((model for model in self.models if model.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A ModelDeployment as an object of the cluster, with the status that it has."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    is_leaving: bool
    status: Status


def read_resource(manifest: Mapping[str, Any]) -> Resource:
    """Read what the API server itself wrote; a status that somebody else wrote badly counts as none."""
    metadata = manifest["metadata"]
    try:
        status = read_status(manifest.get("status") or {})
    except (KeyError, TypeError, ValueError, AttributeError):
        status = Status()
    return Resource(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 1)),
        resource_version=metadata["resourceVersion"],
        is_leaving="deletionTimestamp" in metadata,
        status=status,
    )


def read_status(status: Mapping[str, Any]) -> Status:
    """Read a status as `write_status` wrote it."""
    return Status(
        observed_generation=int(status.get("observedGeneration", 0)),
        replicas=int(status.get("replicas", 0)),
        ready_replicas=int(status.get("readyReplicas", 0)),
        desired_replicas=int(status.get("desiredReplicas", 0)),
        selector=str(status.get("selector", "")),
        models=tuple(_read_model(model) for model in status.get("models", ())),
        endpoints=tuple(map(str, status.get("endpoints", ()))),
        conditions=tuple(_read_condition(condition) for condition in status.get("conditions", ())),
    )


def write_status(status: Status) -> dict[str, Any]:
    """Write a status; what says nothing is left out."""
    fields: dict[str, Any] = {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "readyReplicas": status.ready_replicas,
        "desiredReplicas": status.desired_replicas,
        "selector": status.selector,
        "models": [_write_model(model) for model in status.models],
        "endpoints": list(status.endpoints),
        "conditions": [_write_condition(condition) for condition in status.conditions],
    }
    return _without_empty(fields)


def _read_model(model: Mapping[str, Any]) -> ModelStatus:
    return ModelStatus(
        name=str(model["name"]),
        version=str(model.get("version", "")),
        sha256=str(model.get("sha256", "")),
        state=str(model.get("state", "")),
        message=str(model.get("message", "")),
        last_verified_time=str(model.get("lastVerifiedTime", "")),
        signals=tuple(map(str, model.get("signals", ()))),
    )


def _write_model(model: ModelStatus) -> dict[str, Any]:
    return _without_empty(
        {
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "state": model.state,
            "message": model.message,
            "lastVerifiedTime": model.last_verified_time,
            "signals": list(model.signals),
        }
    )


def _read_condition(condition: Mapping[str, Any]) -> Condition:
    return Condition(
        type=str(condition["type"]),
        status=str(condition["status"]),
        reason=str(condition.get("reason", "")),
        message=str(condition.get("message", "")),
        observed_generation=int(condition.get("observedGeneration", 0)),
        last_transition_time=str(condition.get("lastTransitionTime", "")),
    )


def _write_condition(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.last_transition_time,
    }


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if value not in ("", [])}
