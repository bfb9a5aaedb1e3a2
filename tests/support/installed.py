"""Baleen in a cluster of one node as people install it: images, API keys, chart, and a Triton with shipped models."""

import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from baleen_cli.models.catalog import load_catalog
from baleen_cli.models.store import MODEL_FILE, ModelStore
from baleen_cli.triton.repository import write_repository
from baleen_core.api_keys import CHANCE_BYTES, ApiKey, KeyRole, hash_key, make_key, render_key
from baleen_core.model.parse import parse_model
from control_plane import NAMESPACE
from helm import CHART, RELEASE, Values, helm
from images import image
from node_cluster import NodeCluster

POLICIES: Final = "trust-safety"
TRITON: Final = "triton"
"""The namespace of a Triton that somebody else runs, and its name."""
ENDPOINT: Final = f"{TRITON}.{TRITON}.svc:8001"
GATEWAY: Final = f"http://baleen-gateway.{NAMESPACE}.svc"
_USER: Final = 65532
_GRPC: Final = 8001
_HTTP: Final = 8000
_SIZE: Final = "2Gi"


VALUES: Final[Values] = {
    "gateway": {"replicas": 2, "apiKeys": {"existingSecret": "baleen-keys"}},
    "models": {"storage": {"type": "PersistentVolumeClaim", "existingClaim": "baleen-models"}},
    "test": {"apiKey": {"existingSecret": "baleen-test"}},
}
"""Those of the release: its images are on the node by the names that the chart gives them."""


def chart_image(name: str) -> str:
    """Return what the chart calls an image where nobody says anything else."""
    return f"baleen-{name}:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"


def install(cluster: NodeCluster) -> None:
    """Bring what it needs, and install the chart."""
    prepare(cluster)
    helm("install", RELEASE, CHART, "--namespace", NAMESPACE, values=VALUES, kubeconfig=cluster.kubeconfig())


def prepare(cluster: NodeCluster) -> str:
    """Bring images, models and API keys, all namespaces `restricted`, and return the key that may do everything.

    What is missing is the release.
    """
    for name in (NAMESPACE, POLICIES, TRITON):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    _offer_files(cluster)
    # Triton takes the longest to start.
    triton = image("triton")
    cluster.import_image(triton.archive)
    _run_triton(cluster, triton.name)
    for name in ("operator", "sidecar"):
        cluster.import_image(image(name).archive)
        cluster.name_image(image(name).name, f"docker.io/library/{chart_image(name)}")
    key = make_key(secrets.token_bytes(CHANCE_BYTES))
    keys = [render_key(ApiKey(name="everybody", sha256=hash_key(key), roles=frozenset(KeyRole)))]
    cluster.apply(
        _secret("baleen-keys", {"keys.yaml": yaml.safe_dump({"keys": keys})}),
        _secret("baleen-test", {"api-key": key}),
    )
    return key


def _secret(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(data)}


def _offer_files(cluster: NodeCluster) -> None:
    """Put on volumes what `baleen models fetch` fetched: tokenizers for Baleen, a model repository for Triton."""
    store = ModelStore()
    models = cluster.offer_volume("baleen-models", storage=_SIZE)
    shutil.copytree(store.root, models / "baleen" / "models", ignore=shutil.ignore_patterns(MODEL_FILE, "*.lock"))
    repository = cluster.offer_volume(TRITON, storage=_SIZE)
    linked = cluster.folder / "repository"
    shipped = [parse_model(source.entry) for source in load_catalog()]
    write_repository(linked, shipped, lambda model: store.locate(model.name).onnx)
    # Copies: the kubelet gives the files of a volume to the pod's group.
    shutil.copytree(linked, repository, dirs_exist_ok=True)
    shutil.rmtree(linked)
    cluster.apply(_claim("baleen-models", NAMESPACE), _claim(TRITON, TRITON))


def _claim(volume: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume, "namespace": namespace},
        "spec": {
            "storageClassName": "",
            "volumeName": volume,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": _SIZE}},
        },
    }


def _run_triton(cluster: NodeCluster, image_name: str) -> None:
    labels = {"app": TRITON}
    container = {
        "name": TRITON,
        "image": image_name,
        "imagePullPolicy": "Never",
        "command": ["tritonserver"],
        "args": [
            *("--model-repository=/models", "--model-control-mode=explicit"),
            *("--disable-auto-complete-config", f"--grpc-port={_GRPC}", f"--http-port={_HTTP}"),
        ],
        "ports": [{"containerPort": _GRPC}],
        "startupProbe": _probe(2, failures=150),
        "readinessProbe": _probe(5, failures=3),
        # Without a request it has a thousandth of a busy node, and takes its models for dead that answer late.
        "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsUser": _USER,
            "runAsNonRoot": True,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": TRITON}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
        ],
    }
    metadata = {"name": TRITON, "namespace": TRITON}
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "grpc", "port": _GRPC}]},
        },
    )


def _probe(period_seconds: int, *, failures: int) -> Mapping[str, Any]:
    asked = {"path": "/v2/health/ready", "port": _HTTP}
    return {"httpGet": asked, "periodSeconds": period_seconds, "timeoutSeconds": 5, "failureThreshold": failures}


def application(namespace: str, name: str, *command: str, **labels: str) -> dict[str, Any]:
    """Return a pod of an application that has Python, and the API key of its namespace's Secret `key`."""
    container = {
        "name": "main",
        "image": chart_image("sidecar"),
        "imagePullPolicy": "Never",
        "command": list(command),
        "env": [
            {"name": "URL", "value": GATEWAY},
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "api-key"}}},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    }


def pods(cluster: NodeCluster, component: str) -> Sequence[str]:
    """Return the names of the release's pods that are an operator, or a gateway."""
    selector = f"app.kubernetes.io/component={component}"
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name").stdout.split()
    return [name.removeprefix("pod/") for name in listed]
