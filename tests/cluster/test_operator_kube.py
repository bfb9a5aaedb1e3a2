"""The operator's calls on a real API server: what they do, what they refuse, and how a refusal reads."""

import asyncio
import base64
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from baleen_core.errors import ClusterError, Stale
from baleen_core.policy.schema import ListSourceType
from baleen_core.resources import LIST_LABEL, OVERRIDE_KIND, PLURALS, POLICY_KIND, ROUTE_KIND
from baleen_operator.adapters import kube
from baleen_operator.adapters.api import ApiServer
from baleen_operator.adapters.events import Events
from baleen_operator.adapters.kube import TARGETS, TEXTS, KubeCluster
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Apply, ApplyStatus, Delete, Emit
from control_plane import ControlPlane
from operators import running_operator
from waiting import until

pytestmark = pytest.mark.cluster

ROUTES, POLICIES = TARGETS[ROUTE_KIND], TARGETS[POLICY_KIND]
CONFIG_MAPS = TEXTS[ListSourceType.CONFIG_MAP]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A cluster adapter and what stands around it."""

    api: ApiServer
    mirror: Mirror
    events: Events
    cluster: KubeCluster
    metrics: Metrics


@asynccontextmanager
async def connected(
    control_plane: ControlPlane, *, user: str = "baleen-operator", holds: bool = True
) -> AsyncIterator[Parts]:
    """Connect with a user's rights."""
    metrics, mirror = Metrics(), Mirror()
    kubeconfig = str(control_plane.kubeconfig(user))
    async with ApiServer.connected(timeout_seconds=30, metrics=metrics, connections=8, kubeconfig=kubeconfig) as api:
        events = Events(api, metrics, instance="test")
        cluster = KubeCluster(api, mirror, events, may_write=lambda: holds)
        yield Parts(api=api, mirror=mirror, events=events, cluster=cluster, metrics=metrics)


def route(namespace: str, epoch: int, *, version: str | None = None) -> Apply:
    spec = {"epoch": epoch, "policy": "community", "type": "Moderation", "role": "Policy", "scope": {}}
    return Apply(target=ROUTES, namespace=namespace, name="community", body={"spec": spec}, resource_version=version)


def write_policy(control_plane: ControlPlane, namespace: str, *names: str) -> None:
    """Apply policies of one category."""
    signals = [{"name": "words.score", "review": "50%"}]
    items = [
        {
            "apiVersion": "moderation.baleen.dev/v1alpha1",
            "kind": POLICY_KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"version": "v1", "policy": {"categories": [{"name": "rudeness", "signals": signals}]}},
        }
        for name in names
    ]
    control_plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


async def test_what_is_written_is_seen_at_once(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane) as parts:
        written = await parts.cluster.act(route(namespace, 1))
        seen = parts.mirror.get(ROUTE_KIND, (namespace, "community"))

    assert written is not None
    assert seen is not None
    assert seen["spec"]["epoch"] == 1
    assert seen["metadata"]["uid"] == written["metadata"]["uid"]
    assert "managedFields" not in seen["metadata"]


async def test_what_was_planned_on_something_else_is_refused(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane) as parts:
        first = await parts.cluster.act(route(namespace, 1))
        assert first is not None
        await parts.cluster.act(route(namespace, 2, version=first["metadata"]["resourceVersion"]))

        with pytest.raises(Stale, match="patch moderationroutes/community"):
            await parts.cluster.act(route(namespace, 3, version=first["metadata"]["resourceVersion"]))
        with pytest.raises(Stale):
            await parts.cluster.act(route(namespace, 3))

    assert control_plane.get_json("modroute", "community", namespace)["spec"]["epoch"] == 2


async def test_an_epoch_never_goes_down(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane) as parts:
        written = await parts.cluster.act(route(namespace, 5))
        assert written is not None

        with pytest.raises(ClusterError, match="epoch"):
            await parts.cluster.act(route(namespace, 4, version=written["metadata"]["resourceVersion"]))


async def test_one_field_manager_writes_and_what_it_no_longer_says_is_gone(control_plane: ControlPlane, namespace: str):
    def lists(**data: str) -> Apply:
        return Apply(target=CONFIG_MAPS, namespace=namespace, name="copy", body={"data": data})

    async with connected(control_plane) as parts:
        await parts.cluster.act(lists(a="1", b="2"))
        await parts.cluster.act(lists(a="1"))
    done = control_plane.kubectl("get", "configmap", "copy", "-n", namespace, "-o", "json", "--show-managed-fields")
    found = json.loads(done.stdout)

    assert found["data"] == {"a": "1"}
    assert [(each["manager"], each["operation"]) for each in found["metadata"]["managedFields"]] == [
        ("baleen-operator", "Apply")
    ]


async def test_a_status_is_written_without_touching_what_its_author_wrote(control_plane: ControlPlane, namespace: str):
    write_policy(control_plane, namespace, "community")
    async with connected(control_plane) as parts:
        await parts.cluster.relist([POLICY_KIND], [namespace])
        seen = parts.mirror.get(POLICY_KIND, (namespace, "community"))
        assert seen is not None
        status = ApplyStatus(
            target=POLICIES,
            namespace=namespace,
            name="community",
            status={"observedGeneration": 1},
            resource_version=seen["metadata"]["resourceVersion"],
        )
        written = await parts.cluster.act(status)
        assert written is not None

        assert written["status"] == {"observedGeneration": 1}
        assert written["spec"] == seen["spec"]
        assert written["metadata"]["generation"] == seen["metadata"]["generation"]
        with pytest.raises(Stale):
            await parts.cluster.act(status)


async def test_only_the_object_that_was_meant_is_deleted_and_a_second_time_is_no_error(
    control_plane: ControlPlane, namespace: str
):
    async with connected(control_plane) as parts:
        written = await parts.cluster.act(route(namespace, 1))
        assert written is not None
        uid = written["metadata"]["uid"]

        with pytest.raises(Stale):
            await parts.cluster.act(Delete(target=ROUTES, namespace=namespace, name="community", uid="0" * 8))
        await parts.cluster.act(Delete(target=ROUTES, namespace=namespace, name="community", uid=uid))
        assert parts.mirror.get(ROUTE_KIND, (namespace, "community")) is None
        await parts.cluster.act(Delete(target=ROUTES, namespace=namespace, name="community", uid=uid))


async def test_without_the_lease_nothing_is_written(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane, holds=False) as parts:
        with pytest.raises(ClusterError, match="does not hold the Lease"):
            await parts.cluster.act(route(namespace, 1))

    with pytest.raises(KeyError):
        control_plane.get_json("modroute", "community", namespace)


async def test_texts_are_read_from_config_maps_and_secrets(control_plane: ControlPlane, namespace: str):
    control_plane.kubectl("create", "configmap", "slurs", "-n", namespace, "--from-literal=terms.txt=foo")
    control_plane.kubectl("create", "secret", "generic", "hashes", "-n", namespace, "--from-literal=h=bär")
    binary = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "binary", "namespace": namespace},
        "data": {"h": base64.b64encode(b"\xff\xfe").decode()},
    }
    control_plane.kubectl("create", "-f", "-", input=json.dumps(binary))
    async with connected(control_plane) as parts:
        read = parts.cluster.read_texts

        assert await read(ListSourceType.CONFIG_MAP, namespace, "slurs") == {"terms.txt": "foo"}
        assert await read(ListSourceType.SECRET, namespace, "hashes") == {"h": "bär"}
        assert await read(ListSourceType.SECRET, namespace, "none") is None
        with pytest.raises(ValueError, match="UTF-8"):
            await read(ListSourceType.SECRET, namespace, "binary")


async def test_of_a_kept_list_only_the_metadata_is_fetched(control_plane: ControlPlane, namespace: str):
    body = {"metadata": {"labels": {LIST_LABEL: "abc"}}, "data": {"entries": "x" * 900_000}, "immutable": True}
    async with connected(control_plane) as parts:
        await parts.cluster.act(Apply(target=CONFIG_MAPS, namespace=namespace, name="copy", body=body))
        metadata = await parts.cluster.list_metadata(ListSourceType.CONFIG_MAP, namespace, "copy")
        none = await parts.cluster.list_metadata(ListSourceType.SECRET, namespace, "copy")
        selected = await parts.cluster.select(CONFIG_MAPS, namespace, {LIST_LABEL: "abc"})

    assert metadata is not None
    assert metadata["labels"] == {LIST_LABEL: "abc"}
    assert none is None
    assert [each["metadata"]["name"] for each in selected] == ["copy"]


async def test_everything_is_listed_in_pages_and_what_is_gone_is_forgotten(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kube, "PAGE", 2)
    names = [f"p{number}" for number in range(5)]
    write_policy(control_plane, namespace, *names)
    async with connected(control_plane) as parts:
        await parts.cluster.relist(PLURALS, [namespace])
        assert sorted(name for _, name in parts.mirror.keys(POLICY_KIND)) == names
        assert parts.metrics.requests.labels("list", "moderationpolicies", "200")._value.get() == 3

        control_plane.kubectl("delete", "modpol", "p1", "p3", "-n", namespace)
        await parts.cluster.relist(PLURALS, [namespace])

        assert sorted(name for _, name in parts.mirror.keys(POLICY_KIND)) == ["p0", "p2", "p4"]


async def test_a_kind_that_is_not_there_is_no_empty_list(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane, user="admin") as parts:
        missing = kube.Target(group="moderation.baleen.dev", version="v1alpha1", plural="nothings", kind="Nothing")

        with pytest.raises(ClusterError, match="CustomResourceDefinition is missing"):
            await parts.cluster.select(missing, namespace, {})


async def test_what_rbac_refuses_is_named_with_verb_resource_and_namespace(control_plane: ControlPlane, namespace: str):
    async with connected(control_plane, user="policy-author") as parts:
        with pytest.raises(ClusterError) as patched:
            await parts.cluster.act(route(namespace, 1))
        with pytest.raises(ClusterError) as listed:
            await parts.cluster.select(TEXTS[ListSourceType.SECRET], namespace, {})

        assert str(patched.value) == f"RBAC: may not patch moderationroutes in namespace {namespace}"
        assert str(listed.value) == f"RBAC: may not list secrets in namespace {namespace}"
        assert parts.api.forbidden == (str(patched.value), str(listed.value))
        assert parts.metrics.forbidden.labels("patch", "moderationroutes")._value.get() == 1


async def test_people_are_told_by_an_event_once(control_plane: ControlPlane, namespace: str):
    write_policy(control_plane, namespace, "community")
    uid = control_plane.get_json("modpol", "community", namespace)["metadata"]["uid"]
    event = Emit(
        target=POLICIES,
        namespace=namespace,
        name="community",
        uid=uid,
        type="Warning",
        reason="Rejected",
        message="spec.policy: " + "x" * 2000,
    )

    def events() -> list[Any]:
        done = control_plane.kubectl("events", "-n", namespace, "--for=moderationpolicy/community", "-o", "json")
        return list(json.loads(done.stdout or '{"items": []}')["items"])

    async with connected(control_plane) as parts:
        writing = asyncio.create_task(parts.events.run())
        for _ in range(3):
            await parts.cluster.act(event)
        await until(lambda: bool(events()))
        writing.cancel()

    (found,) = events()
    assert (found["type"], found["reason"], found["count"]) == ("Warning", "Rejected", 1)
    assert found["message"].startswith("spec.policy: xxx")
    assert found["involvedObject"]["uid"] == uid


def test_rights_that_are_taken_away_are_named_and_work_goes_on_when_they_are_given_back(
    private_control_plane: ControlPlane,
):
    role = json.loads(private_control_plane.kubectl("get", "clusterrole", "baleen-operator", "-o", "json").stdout)
    lesser = {**role, "rules": [dict(each) for each in role["rules"]]}
    for each in lesser["rules"]:
        if "moderationpolicies/status" in each["resources"]:
            each["verbs"] = ["get"]
    private_control_plane.make_namespace("safety")
    with running_operator(private_control_plane) as operator:
        operator.wait_until_leading()
        private_control_plane.kubectl("replace", "-f", "-", input=json.dumps(lesser))
        write_policy(private_control_plane, "safety", "community")
        refusal = "RBAC: may not patch moderationpolicies/status in namespace safety"
        logged = operator.wait_for("could not reconcile", reason=refusal)

        assert logged["level"] == "warning"
        assert (logged["kind"], logged["namespace"], logged["name"]) == (POLICY_KIND, "safety", "community")
        assert refusal in operator.ready()[1]["details"]
        assert operator.metric("baleen_operator_forbidden_requests_total", resource="moderationpolicies/status") > 0

        role["metadata"].pop("resourceVersion")
        private_control_plane.kubectl("replace", "-f", "-", input=json.dumps(role))
        private_control_plane.wait_for_condition(
            "modpol", "community", "Accepted", "safety", status="False", seconds=90
        )
        assert operator.ready()[1]["details"] == []


def test_a_right_to_watch_that_is_missing_is_named_by_the_leader(private_control_plane: ControlPlane):
    role = json.loads(private_control_plane.kubectl("get", "clusterrole", "baleen-operator", "-o", "json").stdout)
    for each in role["rules"]:
        if "moderationoverrides" in each["resources"]:
            # This rule is for other kinds, too: whichever is watched first is named.
            taken_away = each["resources"]
            each["verbs"] = [verb for verb in each["verbs"] if verb != "watch"]
    private_control_plane.kubectl("replace", "-f", "-", input=json.dumps(role))
    with running_operator(private_control_plane) as operator:
        again = operator.wait_for("watching again soon")
        status, report = operator.ready()

        assert any(f'cannot watch resource "{resource}"' in again["reason"] for resource in taken_away)
        assert status in (200, 503)
        assert report["role"] == "leader"


async def test_an_api_server_that_was_away_is_named_waited_for_and_back_with_its_data_and_deletions_are_found_out(
    private_control_plane: ControlPlane,
):
    plane = private_control_plane
    plane.make_namespace("safety")
    overrides = [
        {
            "apiVersion": "moderation.baleen.dev/v1alpha1",
            "kind": OVERRIDE_KIND,
            "metadata": {"name": f"policy-{number}", "namespace": "safety"},
            "spec": {"paused": True},
        }
        for number in range(3)
    ]
    with running_operator(plane, lease_duration_seconds="120") as operator:
        operator.wait_until_leading()
        plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": overrides}))
        wait_for_metric(operator, 3)
        operator.process.send_signal(signal.SIGSTOP)
        plane.kubectl("delete", "modover", "--all", "-n", "safety")
        before = plane.pids()
        async with connected(plane) as parts:
            plane.stop_api()
            with plane.client() as client, pytest.raises(httpx.ConnectError):
                client.get("/version")
            with pytest.raises(ClusterError, match="list moderationpolicies: "):
                await parts.cluster.relist([POLICY_KIND], [])
            assert "does not answer" in parts.api.problem

            with running_operator(plane) as waiting:
                waiting.wait_for("waiting")
                status, report = waiting.ready()
                assert status == 503
                assert any("the API server does not answer" in reason for reason in report["reasons"])

                plane.start_api()
                await parts.cluster.relist([POLICY_KIND], [])
                assert parts.api.problem == ""
                operator.process.send_signal(signal.SIGCONT)
                waiting.wait_until_leading()
        after = plane.pids()

        assert plane.get_json("namespace", "safety")
        assert before.pop("kube-apiserver") != after.pop("kube-apiserver")
        assert before == after
        wait_for_metric(operator, 0)


def wait_for_metric(operator: Any, count: int) -> None:
    """Return once so many overrides are known."""
    give_up = time.monotonic() + 90
    while operator.metric("baleen_operator_seen_objects", kind=OVERRIDE_KIND) != count:
        assert time.monotonic() < give_up, operator.said()
        time.sleep(0.05)
