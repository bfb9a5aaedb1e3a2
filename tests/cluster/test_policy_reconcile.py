"""A policy's life on a real API server, with the operator's own rights: what is written is what is there."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from baleen_core.policy.lists import restore_list
from baleen_core.policy.revision import read_revision
from baleen_core.resources import (
    ALLOW_DELETE_ANNOTATION,
    PLURALS,
    POLICY_KIND,
    REVISION_KIND,
    ROUTE_KIND,
    read_revision_resource,
    read_route,
    revision_name,
)
from baleen_operator.adapters.api import ApiServer
from baleen_operator.adapters.events import Events
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Action, Emit
from baleen_operator.reconcile.policy import reconcile_policy
from baleen_operator.reconcile.ports import Manifest, Ports
from control_plane import ControlPlane
from memory_cluster import FixedBacktests, FixedGateways, FixedProvider, run_here

pytestmark = pytest.mark.cluster

SOURCE = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
LISTED = {"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": SOURCE}]}


class Counted(KubeCluster):
    """The cluster adapter, which also remembers what it was asked to do."""

    actions: list[Action]

    async def act(self, action: Action) -> Manifest | None:
        self.actions.append(action)
        return await super().act(action)


@dataclass(slots=True, kw_only=True)
class Site:
    """One policy of one namespace, and an operator that looks when it is told to."""

    plane: ControlPlane
    namespace: str
    ports: Ports
    cluster: Counted
    actions: list[Action] = field(default_factory=list)

    def put(self, kind: str, *, name: str = "community", annotations: Any = None, **parts: Any) -> None:
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations or {}}
        group = "v1" if kind == "ConfigMap" else "moderation.baleen.dev/v1alpha1"
        manifest = {"apiVersion": group, "kind": kind, "metadata": metadata, **parts}
        self.plane.apply(manifest)

    def get(self, kind: str, name: str = "community") -> Mapping[str, Any]:
        try:
            return self.plane.get_json(kind, name, self.namespace)
        except KeyError:
            return {}

    async def reconcile(self) -> list[str]:
        """See everything and reconcile until nothing is left to do; return what was written."""
        await self.cluster.relist(PLURALS, [self.namespace])
        self.actions.clear()
        for _ in range(5):
            before = len(self.actions)
            await reconcile_policy((self.namespace, "community"), self.ports)
            if len(self.actions) == before:
                break
        return [f"{type(each).__name__} {each.target.kind}" for each in self.actions if not isinstance(each, Emit)]

    @property
    def ready(self) -> tuple[str, str]:
        conditions = self.get(POLICY_KIND)["status"]["conditions"]
        return next((each["status"], each["reason"]) for each in conditions if each["type"] == "Ready")


@asynccontextmanager
async def operating(plane: ControlPlane, namespace: str) -> AsyncIterator[Site]:
    metrics, mirror = Metrics(), Mirror()
    kubeconfig = str(plane.kubeconfig("baleen-operator"))
    async with ApiServer.connected(timeout_seconds=30, metrics=metrics, connections=8, kubeconfig=kubeconfig) as api:
        cluster = Counted(api, mirror, Events(api, metrics, instance="test"), may_write=lambda: True)
        cluster.actions = []
        ports = Ports(
            seen=mirror,
            cluster=cluster,
            gateways=FixedGateways(),
            backtests=FixedBacktests(),
            provider=FixedProvider(),
            clock=lambda: datetime.now(UTC),
            off_loop=run_here,
            salt=lambda: "salt-of-a-test",
        )
        yield Site(plane=plane, namespace=namespace, ports=ports, cluster=cluster, actions=cluster.actions)


async def test_a_policy_with_a_list_is_written_whole_and_only_once(control_plane: ControlPlane, namespace: str):
    async with operating(control_plane, namespace) as site:
        site.put("ConfigMap", name="slurs", data={"terms.txt": "idiot"})
        site.put(POLICY_KIND, spec={"version": "v1", "policy": LISTED})
        first = await site.reconcile()
        again = await site.reconcile()
        ready = site.ready
        route = read_route(site.get(ROUTE_KIND))
        _, _, revision = read_revision_resource(site.get(REVISION_KIND, revision_name("community", route.route.stable)))
        (written,) = read_revision(revision).policy.lists
        kept = site.get("ConfigMap", f"baleen-list-{(written.digest or '')[7:39]}-0")

    assert first == [
        "Apply ModerationPolicyRevision",
        "Apply ConfigMap",
        "Apply ModerationRoute",
        "ApplyStatus ModerationPolicy",
    ]
    assert (again, ready) == ([], ("True", "InForce"))
    assert restore_list(written.type, written.digest or "", kept["data"]["entries"]).entries == ("idiot",)


async def test_an_edit_a_pin_and_a_return_leave_their_rows(control_plane: ControlPlane, namespace: str):
    async with operating(control_plane, namespace) as site:
        site.put("ConfigMap", name="slurs", data={"terms.txt": "idiot"})
        site.put(POLICY_KIND, spec={"policy": LISTED})
        await site.reconcile()
        first = read_route(site.get(ROUTE_KIND)).route.stable
        site.put("ConfigMap", name="slurs", data={"terms.txt": "moron"})
        await site.reconcile()
        site.put("ModerationOverride", spec={"pin": {"digest": first, "reason": "too much"}})
        await site.reconcile()
        pinned = site.get(POLICY_KIND)["status"]["stable"]["digest"]
        site.plane.kubectl("-n", namespace, "delete", "modover", "community")
        site.put("ConfigMap", name="slurs", data={"terms.txt": "idiot"})
        await site.reconcile()
        quiet = await site.reconcile()
        history = [(row["epoch"], row["reason"]) for row in site.get(POLICY_KIND)["status"]["history"]]

    assert pinned == first
    assert history == [(4, "Returned"), (3, "Pinned: too much"), (2, "Applied"), (1, "Applied")]
    assert quiet == []


async def test_what_somebody_wrote_into_a_route_goes_with_the_correction(control_plane: ControlPlane, namespace: str):
    async with operating(control_plane, namespace) as site:
        site.put(
            POLICY_KIND, spec={"policy": {"rules": [{"name": "x", "when": "content.links > 3", "action": "Block"}]}}
        )
        await site.reconcile()
        before = site.get(ROUTE_KIND)["spec"]
        patch = {"spec": {"epoch": 7, "scope": {"tenant": "acme"}, "recentStable": ["sha256:" + "0" * 64]}}
        site.plane.kubectl("-n", namespace, "patch", "modroute", "community", "--type=merge", "-p", json.dumps(patch))
        await site.reconcile()
        after = site.get(ROUTE_KIND)["spec"]
        quiet = await site.reconcile()

    changed = {"epoch", "time", "reason"}
    assert {key: value for key, value in after.items() if key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }
    assert (after["epoch"], after["reason"], quiet) == (8, "Restored", [])


async def test_a_deleted_policy_is_held_until_its_route_may_go(control_plane: ControlPlane, namespace: str):
    async with operating(control_plane, namespace) as site:
        site.put(
            POLICY_KIND, spec={"policy": {"rules": [{"name": "x", "when": "content.links > 3", "action": "Block"}]}}
        )
        await site.reconcile()
        stable = read_route(site.get(ROUTE_KIND)).route.stable
        site.plane.kubectl("-n", namespace, "delete", "modpol", "community")
        held = await site.reconcile(), site.get(ROUTE_KIND)
        site.plane.kubectl("-n", namespace, "annotate", "modroute", "community", f"{ALLOW_DELETE_ANNOTATION}=true")
        await site.reconcile()
        gone = site.get(ROUTE_KIND)
        kept = site.get(REVISION_KIND, revision_name("community", stable))

    assert held[0] == []
    assert held[1]["spec"]["stable"] == stable
    assert gone == {}
    assert [row["epoch"] for row in kept["status"]["activations"]] == [1]


async def test_a_status_that_somebody_altered_is_written_once(control_plane: ControlPlane, namespace: str):
    async with operating(control_plane, namespace) as site:
        site.put(
            POLICY_KIND, spec={"policy": {"rules": [{"name": "x", "when": "content.links > 3", "action": "Block"}]}}
        )
        await site.reconcile()
        patch = json.dumps({"status": {"stable": {"version": "v9"}, "analysis": {"verdict": "Pass"}, "history": []}})
        arguments = ("patch", "modpol", "community", "--subresource=status", "--type=merge", "-p", patch)
        site.plane.kubectl("-n", namespace, *arguments)
        first, again = await site.reconcile(), await site.reconcile()

    assert (first, again) == (["ApplyStatus ModerationPolicy"], [])
