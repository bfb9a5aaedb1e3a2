"""The Deployment of a Triton runtime: explicit model control, and nothing that it does not need."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from baleen_core.model.python_backend import SILENT
from baleen_core.model.rendering import ENGINE_CACHE
from baleen_core.model.schema import Backend, ModelDeployment, PodTemplate, Precision
from baleen_operator.plan.manifests.fetching import REPOSITORY_FOLDER, build_fetch_container, build_volumes
from baleen_operator.plan.manifests.naming import (
    DEPLOYMENTS,
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    Owner,
    build_labels,
    build_object,
    runtime_name,
    selector_labels,
)
from baleen_operator.plan.manifests.network import PORTS
from baleen_operator.plan.manifests.rules import RuntimeRules
from baleen_operator.plan.manifests.security import build_container_security, build_pod_security

_MEBIBYTE: Final = 1 << 20
_SERVER_MEMORY: Final = 512 * _MEBIBYTE
"""What Triton needs beside its models."""
_UNKNOWN_MODEL_MEMORY: Final = 512 * _MEBIBYTE
"""What a model is taken to need that does not say it; the largest that is shipped needs less."""

_LEAVE_SECONDS: Final = 5
"""How long a pod that is to end still takes calls, until everybody has seen that it is no endpoint any more."""
_FINISH_SECONDS: Final = 30
"""How long Triton then takes to answer what it has begun."""
_GRACE_SECONDS: Final = 45

_LIVE: Final = "/v2/health/live"
_READY: Final = "/v2/health/ready"  # with strict readiness: every model is loaded


def build_runtime(
    deployment: ModelDeployment, owner: Owner, rules: RuntimeRules, config_maps: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the Deployment; `config_maps` are those of the models, in their order."""
    return build_object(
        DEPLOYMENTS,
        owner,
        runtime_name(owner.name),
        spec={
            "replicas": deployment.replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 1200,
            "selector": {"matchLabels": selector_labels(owner.name)},
            # A pod serves only when its models do, so the old ones stay until new ones took over.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": build_labels(owner.name),
                    "annotations": {"kubectl.kubernetes.io/default-container": "triton"},
                },
                "spec": _build_pod(deployment, owner, rules, config_maps),
            },
        },
    )


def runtime_image(deployment: ModelDeployment, rules: RuntimeRules) -> str | None:
    """Return Triton's image: the author's, or the installation's for the backend."""
    return deployment.image or rules.images.get(deployment.backend)


def _build_pod(
    deployment: ModelDeployment, owner: Owner, rules: RuntimeRules, config_maps: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "serviceAccountName": deployment.pod_template.service_account_name or "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": build_pod_security(),
        "initContainers": [build_fetch_container(rules)],
        "containers": [_build_triton(deployment, rules)],
        "volumes": [
            *build_volumes(deployment, config_maps),
            *({"name": name, "emptyDir": dict(source)} for name, (_, source) in _scratch(deployment).items()),
        ],
        **_build_placement(deployment.pod_template, owner),
    }


def _build_placement(template: PodTemplate, owner: Owner) -> dict[str, Any]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector_labels(owner.name)},
    }
    chosen: dict[str, Any] = {
        "topologySpreadConstraints": [dict(one) for one in template.topology_spread_constraints] or [spread],
        "nodeSelector": dict(template.node_selector),
        "tolerations": [dict(toleration) for toleration in template.tolerations],
        "affinity": template.affinity,
        "imagePullSecrets": [{"name": secret} for secret in template.image_pull_secrets],
        "runtimeClassName": template.runtime_class_name,
        "priorityClassName": template.priority_class_name,
    }
    return {field: value for field, value in chosen.items() if value}


def _build_triton(deployment: ModelDeployment, rules: RuntimeRules) -> dict[str, Any]:
    image = runtime_image(deployment, rules)
    assert image is not None  # refused before
    return {
        "name": "triton",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["tritonserver"],
        "args": [
            f"--model-repository={REPOSITORY_FOLDER}",
            "--model-control-mode=explicit",
            # A pod that starts again has its models again, with the operator up or not.
            *(f"--load-model={model.name}" for model in deployment.models),
            # One model that cannot be loaded is told by its name in the status, and not by a server that keeps dying.
            "--exit-on-error=false",
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            f"--http-port={HTTP_PORT}",
            f"--grpc-port={GRPC_PORT}",
            f"--metrics-port={METRICS_PORT}",
            f"--exit-timeout-secs={_FINISH_SECONDS}",
        ],
        "env": [{"name": name, "value": value} for name, value in _environment(deployment).items()],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORTS.items()],
        "resources": _build_resources(deployment),
        # Triton opens its ports when it has tried to load everything, which may take minutes.
        "startupProbe": _build_probe(_LIVE, period_seconds=5, failures=240),
        "livenessProbe": _build_probe(_LIVE, period_seconds=10, failures=3),
        "readinessProbe": _build_probe(_READY, period_seconds=5, failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_SECONDS}}},
        "securityContext": build_container_security(),
        "volumeMounts": [
            {"name": "models", "mountPath": REPOSITORY_FOLDER, "readOnly": True},
            *({"name": name, "mountPath": path} for name, (path, _) in _scratch(deployment).items()),
        ],
    }


def _build_probe(path: str, *, period_seconds: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _build_resources(deployment: ModelDeployment) -> dict[str, Any]:
    template, gpu = deployment.pod_template, deployment.gpu
    requests, limits = dict(template.requests), dict(template.limits)
    if not requests and not limits:
        needed = _SERVER_MEMORY + sum(model.memory_bytes or _UNKNOWN_MODEL_MEMORY for model in deployment.models)
        requests = {"cpu": str(_threads(deployment)), "memory": _mebibytes(needed)}
        # No limit of CPU: a throttled server misses deadlines that a busy one would have kept.
        limits = {"memory": _mebibytes(2 * needed)}
    if gpu:
        limits[gpu.resource] = str(gpu.count)
    return {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _mebibytes(amount: int) -> str:
    return f"{-(-amount // _MEBIBYTE)}Mi"


def _threads(deployment: ModelDeployment) -> int:
    return max(model.optimization.intra_op_threads for model in deployment.models)


def _environment(deployment: ModelDeployment) -> dict[str, str]:
    found = {
        "HOME": "/tmp",  # noqa: S108  a volume of its own
        "OMP_NUM_THREADS": str(_threads(deployment)),
        # A model's arrays are only joined and looked at, and threads of OpenBLAS spin from the import of numpy on.
        "OPENBLAS_NUM_THREADS": "1",
        **SILENT,
    }
    if deployment.gpu:
        found["CUDA_CACHE_MAXSIZE"] = "2147483648"
    if any(model.optimization.precision is Precision.FP16 for model in deployment.models):
        found["ORT_TENSORRT_FP16_ENABLE"] = "1"
    if _keeps_engines(deployment):
        found |= {"ORT_TENSORRT_ENGINE_CACHE_ENABLE": "1", "ORT_TENSORRT_CACHE_PATH": ENGINE_CACHE}
    return found


def _scratch(deployment: ModelDeployment) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return where the server may write: path and kind of each volume by its name."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {"tmp": ("/tmp", {})}  # noqa: S108  a volume of its own
    if deployment.backend is Backend.PYTHON:
        # Its processes hand tensors over in shared memory, of which containers have 64 MiB otherwise.
        found["shared-memory"] = ("/dev/shm", {"medium": "Memory", "sizeLimit": "512Mi"})  # noqa: S108
    if _keeps_engines(deployment):
        found["engines"] = (ENGINE_CACHE, {})
    return found


def _keeps_engines(deployment: ModelDeployment) -> bool:
    return any(model.optimization.engine_cache for model in deployment.models)
