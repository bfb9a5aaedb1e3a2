"""A cluster in memory with one or more ModelDeployments, for tests of what the operator makes of them."""

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from baleen_core.errors import ClusterError, ModelError, Stale
from baleen_core.model.parse import parse_model_deployment
from baleen_core.resources import DEPLOYMENT_KIND
from baleen_operator.plan.actions import Action, Apply, ApplyStatus, Delete, Emit, Target
from baleen_operator.plan.manifests import ENDPOINT_SLICES

Key = tuple[str, str]


class ModelCluster:
    """Is the ports `seen` and `cluster`: keeps what is applied, refuses what is stale, and remembers all actions."""

    def __init__(self) -> None:
        self.deployments: dict[Key, dict[str, Any]] = {}
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.actions: list[Action] = []
        self.refuses: dict[str, str] = {}
        """Why objects of a kind are refused."""
        self._version = 0

    def create(self, manifest: Mapping[str, Any], *, created: str = "2026-01-01T00:00:00Z") -> Key:
        """Add a ModelDeployment as an author would."""
        made = copy.deepcopy(dict(manifest))
        key = (made["metadata"]["namespace"], made["metadata"]["name"])
        made["metadata"] |= {"uid": f"uid-{len(self.deployments)}", "generation": 1, "creationTimestamp": created}
        self.deployments[key] = made
        self._touch(made)
        return key

    def edit(self, key: Key, **spec: Any) -> None:
        """Change fields of a deployment's spec; None takes one out."""
        manifest = self.deployments[key]
        manifest["spec"] = {name: value for name, value in (manifest["spec"] | spec).items() if value is not None}
        manifest["metadata"]["generation"] += 1
        self._touch(manifest)

    def status(self, key: Key) -> dict[str, Any]:
        """Return a deployment's status."""
        return self.deployments[key].get("status", {})

    def conditions(self, key: Key) -> dict[str, tuple[str, str]]:
        """Return status and reason of each condition by its type."""
        return {each["type"]: (each["status"], each["reason"]) for each in self.status(key)["conditions"]}

    def message(self, key: Key, type: str) -> str:
        """Return a condition's message."""
        return next(each["message"] for each in self.status(key)["conditions"] if each["type"] == type)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        return [found for (each, _, _), found in sorted(self.objects.items()) if each == kind]

    def events(self) -> list[tuple[str, str]]:
        """Return type and reason of every Event so far."""
        return [(action.type, action.reason) for action in self.actions if isinstance(action, Emit)]

    def written(self) -> list[Action]:
        """Return all that was written, without the Events, and forget it."""
        found = [action for action in self.actions if not isinstance(action, Emit)]
        self.actions = [action for action in self.actions if isinstance(action, Emit)]
        return found

    def run_pods(self, key: Key, *addresses: str, ready: bool = True) -> None:
        """Pretend that the runtime's pods run, as controllers and kubelets would."""
        namespace, name = key
        runtime = self.objects["Deployment", namespace, f"triton-{name}"]
        runtime["metadata"]["generation"] = 1
        count = len(addresses)
        runtime["status"] = {
            "observedGeneration": 1,
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": count if ready else 0,
        }
        self.objects["EndpointSlice", namespace, f"triton-{name}-1"] = {
            "metadata": {"name": f"triton-{name}-1", "labels": {"kubernetes.io/service-name": f"triton-{name}"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
        }

    # -- the port `seen`

    def get(self, kind: str, key: Key) -> Mapping[str, Any] | None:
        return copy.deepcopy(self.deployments.get(key))

    def keys(self, kind: str) -> Sequence[Key]:
        return tuple(self.deployments)

    def revisions(self, key: Key) -> Sequence[Mapping[str, Any]]:
        return ()

    def sharing_scope(self, type: str, scope: object) -> Sequence[Key]:
        return ()

    def models(self) -> Sequence[Any]:
        return ()

    def claimant(self, model: str) -> Key | None:
        claims: dict[str, Key] = {}
        in_order = sorted(
            self.deployments.items(), key=lambda each: (each[1]["metadata"]["creationTimestamp"], each[0])
        )
        for key, manifest in in_order:
            try:
                names = [each.name for each in parse_model_deployment(manifest).models]
            except ModelError:
                continue
            if not any(name in claims for name in names):
                claims |= dict.fromkeys(names, key)
        return claims.get(model)

    # -- the port `cluster`

    async def read_texts(self, type: object, namespace: str, name: str) -> None:
        return None

    async def list_metadata(self, type: object, namespace: str, name: str) -> None:
        return None

    async def read(self, target: Target, namespace: str, name: str) -> Mapping[str, Any] | None:
        return copy.deepcopy(self.objects.get((target.kind, namespace, name)))

    async def select(self, target: Target, namespace: str, labels: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        found = [
            each for (kind, home, _), each in sorted(self.objects.items()) if (kind, home) == (target.kind, namespace)
        ]
        return [copy.deepcopy(each) for each in found if labels.items() <= each["metadata"].get("labels", {}).items()]

    async def act(self, action: Action) -> Mapping[str, Any] | None:
        self.actions.append(action)
        match action:
            case Apply():
                return self._apply(action)
            case ApplyStatus():
                manifest = self.deployments[action.namespace, action.name]
                if manifest["metadata"]["resourceVersion"] != action.resource_version:
                    raise Stale("somebody wrote in between")
                manifest["status"] = dict(action.status)
                assert manifest["kind"] == DEPLOYMENT_KIND
                return copy.deepcopy(self._touch(manifest))
            case Delete():
                found = self.objects.get((action.target.kind, action.namespace, action.name))
                if found and found["metadata"]["uid"] == action.uid:
                    del self.objects[action.target.kind, action.namespace, action.name]
        return None

    def _apply(self, action: Apply) -> Mapping[str, Any]:
        assert action.target is not ENDPOINT_SLICES
        if action.target.kind in self.refuses:
            raise ClusterError(f"patch {action.target.plural}/{action.name}: {self.refuses[action.target.kind]}")
        place = (action.target.kind, action.namespace, action.name)
        before = self.objects.get(place)
        if action.resource_version != (before["metadata"]["resourceVersion"] if before else None):
            raise Stale("somebody wrote in between")
        made = copy.deepcopy(dict(action.body))
        made["metadata"]["uid"] = before["metadata"]["uid"] if before else f"uid-of-{action.name}"
        if before:
            made |= {field: value for field, value in before.items() if field == "status"}
            made["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        self.objects[place] = made
        return self._touch(made)

    def _touch(self, made: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        made["metadata"]["resourceVersion"] = str(self._version)
        return made


class FixedClock:
    """The wall clock, which stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
