"""ModelDeployments on a real API server: what the operator makes is taken, runs restricted, and goes with its owner."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from baleen_core.model.parse import parse_model
from baleen_operator.plan.manifests import (
    Owner,
    build_config_maps,
    build_disruption_budget,
    build_network_policy,
    build_runtime,
    build_service,
)
from control_plane import ControlPlane
from model_runtimes import FULL, PLAIN, RULES
from operators import RunningOperator, running_operator
from serving import until as wait_until
from word_triton import deployment, unique, word_triton

pytestmark = pytest.mark.cluster

SETTINGS = {"fetch_image": RULES.fetch_image, "allowed_images": "registry.example/triton"}
KINDS = "deployment,replicaset,service,configmap,poddisruptionbudget,networkpolicy"
OURS = "moderation.baleen.dev/model-deployment"


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[RunningOperator]:
    with running_operator(control_plane, namespace, model_files=str(tmp_path), **SETTINGS) as running:
        running.wait_until_leading()
        yield running


@pytest.mark.triton
def test_a_triton_of_someone_else_is_loaded_verified_and_looked_after(control_plane, namespace, operator, tmp_path):
    manifest = deployment(namespace, tmp_path, model=unique(namespace))
    model = parse_model(manifest["spec"]["models"][0])
    with word_triton(tmp_path, model) as triton:
        manifest["spec"]["runtime"] = {"external": {"endpoints": [triton.server.endpoint]}}
        control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))
        control_plane.kubectl("wait", "--for=condition=Ready", "moddep/words", "-n", namespace, "--timeout=60s")

        status = control_plane.get_json("moddep", "words", namespace)["status"]
        assert status["endpoints"] == [triton.server.endpoint]
        assert [each["state"] for each in status["models"]] == ["Verified"]

        triton.unload()
        said = control_plane.wait_for_condition(
            "moddep", "words", "Ready", namespace, status="False", reason="ModelUnloaded"
        )
        assert said["metadata"]["generation"] == said["status"]["observedGeneration"]
        control_plane.wait_for_condition("moddep", "words", "Ready", namespace)
        reasons = ["Loading", "Verified", "ModelUnloaded"]
        wait_until(lambda: set(reasons) <= set(events_of(control_plane, namespace)))

    control_plane.wait_for_condition("moddep", "words", "Available", namespace, status="False", reason="Unreachable")


def events_of(control_plane: ControlPlane, namespace: str) -> list[str]:
    return [each["reason"] for each in control_plane.list_json("event", namespace)]


def owned(control_plane: ControlPlane, namespace: str) -> list[dict]:
    found = control_plane.kubectl(
        "get", KINDS, "-n", namespace, "-l", OURS, "-o", "json", "--show-managed-fields"
    ).stdout
    return json.loads(found)["items"]


def test_a_runtime_is_made_and_all_of_it_goes_with_its_deployment(control_plane, namespace, operator, tmp_path):
    manifest = deployment(namespace, tmp_path, model=unique(namespace), replicas=2)
    author = json.dumps(manifest)
    control_plane.kubectl("apply", "--server-side", "-f", "-", input=author)
    control_plane.wait_for_condition("moddep", "words", "Accepted", namespace)
    wait_until(lambda: "ReplicaSet" in {each["kind"] for each in owned(control_plane, namespace)})

    found = owned(control_plane, namespace)
    assert sorted({each["kind"] for each in found}) == [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ReplicaSet",
        "Service",
    ]
    made = [each for each in found if each["kind"] != "ReplicaSet"]
    managers = {entry["manager"] for each in made for entry in each["metadata"]["managedFields"]}
    assert managers <= {"baleen-operator", "kube-controller-manager"}
    assert not any("finalizers" in each["metadata"] for each in found)
    said = control_plane.get_json("moddep", "words", namespace)
    assert "finalizers" not in said["metadata"]
    assert {each["type"]: each["reason"] for each in said["status"]["conditions"]}["Ready"] == "Progressing"
    assert control_plane.kubectl("diff", "--server-side", "-f", "-", input=author).stdout == ""

    control_plane.kubectl("delete", "moddep", "words", "-n", namespace)
    wait_until(lambda: owned(control_plane, namespace) == [])


def test_what_was_made_goes_when_someone_else_runs_the_models(control_plane, namespace, operator, tmp_path):
    manifest = deployment(namespace, tmp_path, model=unique(namespace))
    control_plane.apply(manifest)
    control_plane.wait_for_condition("moddep", "words", "Accepted", namespace)
    wait_until(lambda: "ReplicaSet" in {each["kind"] for each in owned(control_plane, namespace)})
    manifest["spec"]["runtime"] = {"external": {"endpoints": ["127.0.0.1:1"]}}
    control_plane.apply(manifest)

    wait_until(lambda: owned(control_plane, namespace) == [])


def test_a_runtime_that_is_as_it_should_be_is_not_written_again(control_plane, namespace, operator, tmp_path):
    half = {"resources": {"requests": {"cpu": "0.5", "memory": "2048Mi"}}}
    manifest = deployment(namespace, tmp_path, model=unique(namespace), podTemplate=half)
    control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))
    control_plane.wait_for_condition("moddep", "words", "Accepted", namespace)
    wait_until(lambda: len(owned(control_plane, namespace)) >= 5)

    def patches() -> int:
        lines = control_plane.audit_log.read_text().splitlines()
        calls = (json.loads(line) for line in lines if namespace in line and '"patch"' in line)
        return sum(call["objectRef"]["resource"] == "deployments" for call in calls)

    def reads() -> float:
        return operator.metric("baleen_operator_api_requests_total", verb="get", resource="deployments", code="200")

    before, looked = patches(), reads()
    wait_until(lambda: reads() >= looked + 2)

    assert patches() == before


@pytest.mark.parametrize("model", [PLAIN, FULL], ids=["plain", "everything said"])
def test_what_is_made_is_taken_by_the_api_server_and_its_pods_are_restricted(control_plane, namespace, model):
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    owner = Owner(namespace=namespace, name="starter", uid="5d0a3c1e-0000-4000-8000-000000000001")
    config_maps = build_config_maps(model, owner)
    runtime = build_runtime(model, owner, RULES, config_maps)
    objects = [
        *config_maps,
        runtime,
        build_service(owner),
        build_disruption_budget(owner),
        build_network_policy(model, owner, RULES),
    ]
    template = runtime["spec"]["template"]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "models", "namespace": namespace}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"name": "of-the-template", "namespace": namespace},
        "spec": template["spec"],
    }
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(account))
    wait_until(lambda: "default" in control_plane.kubectl("get", "serviceaccount", "-n", namespace).stdout)
    done = control_plane.kubectl(
        "apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all([*objects, pod], sort_keys=False)
    )

    assert "Warning" not in done.stderr
    assert done.stdout.count("created") == len(objects) + 1
    del pod["spec"]["containers"][0]["securityContext"]
    refused = control_plane.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_refusals_are_in_the_status_and_the_younger_of_two_is_told_whose_the_name_is(
    control_plane, namespace, operator, tmp_path
):
    first = deployment(namespace, tmp_path, model=unique(namespace))
    control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(first))
    control_plane.wait_for_condition("moddep", "words", "Accepted", namespace)
    second = deployment(namespace, tmp_path, name="words-too", model=unique(namespace))
    control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(second))
    taken = control_plane.wait_for_condition(
        "moddep", "words-too", "Accepted", namespace, status="False", reason="NameConflict"
    )
    messages = {each["type"]: each["message"] for each in taken["status"]["conditions"]}
    assert f"belongs to ModelDeployment {namespace}/words" in messages["Accepted"]

    image = {"runtime": {"image": "evil.example/triton:1", "backend": "Python"}}
    control_plane.kubectl(
        "patch", "moddep", "words", "-n", namespace, "--type=merge", "-p", json.dumps({"spec": image})
    )
    control_plane.wait_for_condition("moddep", "words", "Accepted", namespace, status="False", reason="ImageNotAllowed")

    control_plane.kubectl("delete", "moddep", "words", "-n", namespace)
    control_plane.wait_for_condition("moddep", "words-too", "Accepted", namespace)
