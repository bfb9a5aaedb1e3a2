"""A policy in a cluster in memory, with an operator that keeps its memory and a clock that tests turn."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from baleen_core.errors import Stale
from baleen_core.model.schema import Model, ModelSignal, Preprocessing, Source, SourceType
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, REVISION_KIND, ROUTE_KIND, revision_name
from baleen_operator.plan.actions import Action, Apply
from baleen_operator.reconcile.policy import reconcile_policy
from baleen_operator.reconcile.ports import Outcome
from memory_cluster import MemoryCluster, TickingClock, make_ports
from policies import override_manifest, policy_manifest

SPACE = "trust-safety"
KEY = (SPACE, "community")


def model(name: str = "toxicity", version: str = "1", signal: str = "toxic") -> Model:
    return Model(
        name=name,
        version=version,
        source=Source(type=SourceType.FILE, uri="model.onnx"),
        inputs=(),
        outputs=(),
        preprocessing=Preprocessing(recipe="tox-block/1"),
        signals=(ModelSignal(name=signal, output="probabilities", index=0),),
    )


def policy(block: str = "92%", *, name: str = "community", annotations: Any = None, **spec: Any) -> dict[str, Any]:
    signals = [{"name": "toxicity.toxic", "block": block}]
    manifest = policy_manifest({"categories": [{"name": "toxicity", "signals": signals}]}, **spec)
    manifest["metadata"] = {"name": name, "namespace": SPACE} | ({"annotations": annotations} if annotations else {})
    return manifest


def with_list(*, kind: str = "ConfigMap", **spec: Any) -> dict[str, Any]:
    source = {"type": kind, "name": "slurs", "key": "terms.txt"}
    return policy_manifest({"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": source}]}, **spec)


def config_map(text: str, *, name: str = "slurs") -> dict[str, Any]:
    metadata = {"name": name, "namespace": SPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"terms.txt": text}}


class Site:
    """A cluster, an operator that keeps its memory, and a clock."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.cluster.models_served = (model(),)
        self.clock = TickingClock()
        self.restart()

    def restart(self, **ports: Any) -> None:
        self.ports = make_ports(self.cluster, self.clock, **ports)

    async def reconcile(self, name: str = "community") -> Outcome:
        """Reconcile until nothing is to be done at once."""
        affected: frozenset[tuple[str, str]] = frozenset()
        for _ in range(5):
            outcome = await reconcile_policy((SPACE, name), self.ports)
            affected |= outcome.affected
            if outcome.requeue_seconds != 0:
                return Outcome(requeue_seconds=outcome.requeue_seconds, affected=affected)
        raise AssertionError("it never settles")

    async def apply(self, *manifests: Mapping[str, Any]) -> dict[str, Any]:
        for manifest in manifests:
            self.cluster.put(manifest)
        await self.reconcile()
        return self.status

    def find(self, kind: str, name: str = "community") -> dict[str, Any]:
        found = self.cluster.find(kind, SPACE, name)
        assert found is not None, f"{kind} {name} is not there"
        return found

    @property
    def route(self) -> dict[str, Any]:
        return self.find(ROUTE_KIND)["spec"]

    @property
    def stable(self) -> str:
        return self.route["stable"]

    @property
    def status(self) -> dict[str, Any]:
        return self.find(POLICY_KIND).get("status", {})

    def condition(self, type: str, name: str = "community") -> tuple[str, str]:
        conditions = self.find(POLICY_KIND, name)["status"]["conditions"]
        return next((each["status"], each["reason"]) for each in conditions if each["type"] == type)

    def message(self, type: str, name: str = "community") -> str:
        conditions = self.find(POLICY_KIND, name)["status"]["conditions"]
        return next(each["message"] for each in conditions if each["type"] == type)

    def history(self) -> list[tuple[int, str]]:
        return [(row["epoch"], row["reason"].partition(":")[0]) for row in self.status["history"]]

    def revision(self, digest: str) -> dict[str, Any]:
        return self.find(REVISION_KIND, revision_name("community", digest))

    def written(self, namespace: str = SPACE) -> dict[str, list[dict[str, Any]]]:
        """Return what people and the operator wrote of policies, by kind, as if it had been in this namespace."""
        found = {kind: self.cluster.all(kind) for kind in (POLICY_KIND, ROUTE_KIND, OVERRIDE_KIND, REVISION_KIND)}
        for each in (each for manifests in found.values() for each in manifests):
            said = {name: each["metadata"].get(name) for name in ("name", "labels", "annotations")}
            each["metadata"] = {"namespace": namespace} | {name: value for name, value in said.items() if value}
        return found


async def pass_time(site: Site, seconds: float) -> None:
    """Let time pass, and the operator look then."""
    site.clock.now += timedelta(seconds=seconds)
    await site.reconcile()


TROUBLES = ("an edit that is not valid", "an override", "a model")
"""What keeps a rollout as it is: nothing is decided of it but that it fails."""


async def lose_status(site: Site, trouble: str) -> None:
    """Let a route be written whose status is not, since the policy is edited in between, and trouble begin then."""

    def begin(action: Action) -> None:
        if not (isinstance(action, Apply) and action.target.kind == ROUTE_KIND):
            return
        site.cluster.on_write = lambda action: None
        changes: dict[str, Any] = {"description": "x"}
        match trouble:
            case "an edit that is not valid":
                changes = {"policy": policy("920%")["spec"]["policy"]}
            case "an override":
                site.cluster.put(override_manifest(reject=["latest"]))
            case "a model":
                site.cluster.models_served = ()
        site.cluster.edit(POLICY_KIND, *KEY, lambda each: each["spec"].update(changes))

    site.cluster.on_write = begin
    with pytest.raises(Stale):
        await site.reconcile()
    await site.reconcile()
