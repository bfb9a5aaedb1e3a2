"""Names, labels and owners: by these a runtime's objects are found again, and go when their ModelDeployment goes."""

from dataclasses import dataclass
from typing import Any, Final

from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import DEPLOYMENT_KIND, GROUP, MANAGED_BY
from baleen_operator.plan.actions import Target

CONFIG_MAPS: Final = Target(group="", version="v1", plural="configmaps", kind="ConfigMap")
SERVICES: Final = Target(group="", version="v1", plural="services", kind="Service")
DEPLOYMENTS: Final = Target(group="apps", version="v1", plural="deployments", kind="Deployment")
DISRUPTION_BUDGETS: Final = Target(
    group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget"
)
NETWORK_POLICIES: Final = Target(
    group="networking.k8s.io", version="v1", plural="networkpolicies", kind="NetworkPolicy"
)
ENDPOINT_SLICES: Final = Target(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")

DEPLOYMENT_LABEL: Final = f"{GROUP}/model-deployment"
"""On everything that belongs to a runtime: the name of its ModelDeployment."""

HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002

_PREFIX: Final = "triton-"  # a Service's name begins with a letter, which a ModelDeployment's need not
MAX_NAME_LENGTH: Final = 63 - len(_PREFIX)
"""How long the name of a ModelDeployment with a runtime may be: it becomes a part of a Service's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ModelDeployment that a runtime belongs to."""

    namespace: str
    name: str
    uid: str


def runtime_name(deployment: str) -> str:
    """Return the name that a runtime's objects have."""
    return f"{_PREFIX}{deployment}"


def service_endpoint(owner: Owner) -> str:
    """Return `host:port` under which the cluster's DNS knows a runtime."""
    return f"{runtime_name(owner.name)}.{owner.namespace}.svc:{GRPC_PORT}"


def selector_labels(deployment: str) -> dict[str, str]:
    """Return the labels by which a runtime's pods are found; a Deployment's selector can never change."""
    return {DEPLOYMENT_LABEL: deployment}


def build_labels(deployment: str) -> dict[str, str]:
    """Return the labels of all of a runtime's objects."""
    return {
        "app.kubernetes.io/name": "triton",
        "app.kubernetes.io/instance": deployment,
        "app.kubernetes.io/component": "model-server",
        **MANAGED_BY,
        **selector_labels(deployment),
    }


def build_object(target: Target, owner: Owner, name: str, **fields: Any) -> dict[str, Any]:
    """Return an object that the cluster's garbage collector takes away with its owner."""
    return {
        "apiVersion": target.api_version,
        "kind": target.kind,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": build_labels(owner.name),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": DEPLOYMENT_KIND,
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                    # Blocking would need a right on the owner's finalizers, and nothing here is worth waiting for.
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **fields,
    }
