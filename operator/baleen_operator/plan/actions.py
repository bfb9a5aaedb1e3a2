"""Everything that a plan can ask to be done; adapters carry it out, in the order of the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of resource as the API server's paths name it; `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply `body`, all that the operator says about an object, and nothing that it does not say.

    `resource_version` is that of the object the plan was made on: when it is another one by now the API server refuses
    (Stale). It is None for an object that was not there.
    """

    target: Target
    namespace: str
    name: str
    body: Mapping[str, Any]
    resource_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyStatus:
    """Server-side apply the `.status` of an object that is there."""

    target: Target
    namespace: str
    name: str
    status: Mapping[str, Any]
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete the object that has this `uid`, and no other of its name."""

    target: Target
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Set how many replicas a workload has, unless it is another version of it by now (Stale)."""

    target: Target
    namespace: str
    name: str
    replicas: int
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Tell people, by an Event on the object; `type` is Normal or Warning. It may be lost."""

    target: Target
    namespace: str
    name: str
    uid: str
    type: str
    reason: str
    message: str


Action = Apply | ApplyStatus | Delete | Scale | Emit
