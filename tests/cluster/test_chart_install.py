"""The chart on a real API server: what it accepts, and a release from its installation to the next one."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from baleen_core.resources import GROUP, PLURALS
from control_plane import ROOT, ControlPlane
from helm import CHART, KEYS, RELEASE, helm, manifests, merged

pytestmark = pytest.mark.cluster

DATA = ROOT / "tests" / "data" / "chart"
CASES = sorted(path.name.removesuffix(".values.yaml") for path in DATA.glob("*.values.yaml"))
OF_OTHERS = {"Certificate", "Issuer", "ServiceMonitor", "VerticalPodAutoscaler", "ScaledObject"}
"""Kinds that other projects bring into a cluster; this API server does not know them."""
INJECT = f"{GROUP}/inject=true"
CRDS = {f"{plural}.{GROUP}" for plural in PLURALS.values()}


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_a_rendered_release_into_a_restricted_namespace(
    case: str, control_plane: ControlPlane, namespace: str
):
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    control_plane.kubectl("label", "namespace", namespace, *levels)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
    values = yaml.safe_load((DATA / f"{case}.values.yaml").read_text())
    objects = [each for each in manifests(values, namespace=namespace) if each["kind"] not in OF_OTHERS]
    taken = control_plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"),
        input=yaml.safe_dump_all(objects),
    )

    assert len(taken.stdout.splitlines()) == len(objects)
    # Deployments are not refused for pods that would be: the server only warns.
    assert taken.stderr == ""


@pytest.fixture
def namespaces(private_control_plane: ControlPlane) -> Iterator[tuple[str, str]]:
    """Give two namespaces, and take what a release left of itself in the cluster."""
    names = ("moderation-a", "moderation-b")
    for name in names:
        private_control_plane.make_namespace(name)
        # Pods are refused without it, and the controllers come back slowly from an API server that was away.
        account = ("serviceaccount/default", "-n", name)
        private_control_plane.kubectl("wait", "--for=create", *account, "--timeout=120s")
    yield names
    private_control_plane.kubectl("delete", "namespace", *names, "--wait=false")


def owners(plane: ControlPlane) -> dict[str, Any]:
    annotations = {name: plane.get_json("crd", name)["metadata"]["annotations"] for name in CRDS}
    return {name: found.get("meta.helm.sh/release-namespace") for name, found in annotations.items()}


def test_a_release_is_installed_upgraded_taken_away_and_found_again(
    private_control_plane: ControlPlane, namespaces: tuple[str, str], tmp_path: Path
):
    plane, (first, second) = private_control_plane, namespaces
    kubeconfig = plane.kubeconfig()
    newer = tmp_path / "newer"
    # As a package has it: with the files of the link.
    shutil.copytree(CHART, newer)
    crd = newer / "files" / "crds" / "moderationroutes.yaml"
    kind = yaml.safe_load(crd.read_text())
    kind["spec"]["names"]["shortNames"].append("modway")
    crd.write_text(yaml.safe_dump(kind))

    # The kinds and roles here were applied by hand, as in the guide that does without Helm.
    installed = helm("install", RELEASE, CHART, "-n", first, "--take-ownership", values=KEYS, kubeconfig=kubeconfig)
    owned = owners(plane)
    bound = plane.get_json("clusterrolebinding", "baleen-operator")["subjects"]
    plane.apply(yaml.safe_load((ROOT / "examples/policies/kids.yaml").read_text()) | {"metadata": policy(first)})
    another = helm("install", "other", CHART, "-n", second, values=KEYS, kubeconfig=kubeconfig, check=False)
    # As the operator does.
    trusting = {"webhooks": [{"name": "pods.moderation.baleen.dev", "clientConfig": {"caBundle": ca_bundle(plane)}}]}
    plane.kubectl("patch", "mutatingwebhookconfiguration", "baleen", "--patch", json.dumps(trusting))
    refused = plane.kubectl("run", "asks", "--image=app", f"--labels={INJECT}", "-n", second, check=False)
    upgraded = merged(KEYS, {"operator": {"replicas": 3}})
    helm("upgrade", RELEASE, newer, "-n", first, values=upgraded, kubeconfig=kubeconfig)
    replicas = plane.get_json("deployment", "baleen-operator", first)["spec"]["replicas"]
    names = plane.get_json("crd", f"moderationroutes.{GROUP}")["spec"]["names"]["shortNames"]
    webhooks = plane.get_json("mutatingwebhookconfiguration", "baleen")["webhooks"]
    (trusted,) = (each for each in webhooks if each["name"] == "pods.moderation.baleen.dev")
    helm("uninstall", RELEASE, "-n", first, kubeconfig=kubeconfig)
    kinds = (
        "clusterroles,clusterrolebindings,crds,mutatingwebhookconfigurations,validatingwebhookconfigurations,"
        "validatingadmissionpolicies,validatingadmissionpolicybindings"
    )
    left = plane.kubectl("get", kinds, "-o", "name").stdout
    secrets = plane.list_json("secret", first)
    plane.kubectl("run", "asks", "--image=app", f"--labels={INJECT}", "-n", second)
    moved = helm("install", RELEASE, CHART, "-n", second, "--take-ownership", values=KEYS, kubeconfig=kubeconfig)

    assert "is in namespace moderation-a" in installed.stdout
    assert owned == dict.fromkeys(CRDS, first)
    assert bound == [{"kind": "ServiceAccount", "name": "baleen-operator", "namespace": first}]
    assert another.returncode != 0
    assert f"there is a release of Baleen in this cluster already: {RELEASE} in namespace {first}" in another.stderr
    assert replicas == 3
    assert 'failed calling webhook "pods.moderation.baleen.dev"' in refused.stderr
    assert trusted["clientConfig"]["caBundle"] == ca_bundle(plane)
    assert "modway" in names
    # Nothing but the kinds is left, and with them every policy: no webhook that keeps pods from being made, no key.
    assert secrets == []
    assert {line for line in left.splitlines() if "baleen" in line} == {
        f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in CRDS
    }
    assert plane.get_json("modpol", "kept", first)["spec"]
    assert "is in namespace moderation-b" in moved.stdout
    assert owners(plane) == dict.fromkeys(CRDS, second)
    helm("uninstall", RELEASE, "-n", second, kubeconfig=kubeconfig)


def ca_bundle(plane: ControlPlane) -> str:
    return base64.b64encode(plane.ca.read_bytes()).decode()


def policy(namespace: str) -> dict[str, str]:
    return {"name": "kept", "namespace": namespace}
