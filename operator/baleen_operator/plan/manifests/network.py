"""How a runtime is reached, by whom, and how many of its pods may be taken away at once."""

from typing import Any, Final

from baleen_core.model.schema import ModelDeployment, SourceType
from baleen_operator.plan.manifests.naming import (
    DISRUPTION_BUDGETS,
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    NETWORK_POLICIES,
    SERVICES,
    Owner,
    build_object,
    runtime_name,
    selector_labels,
)
from baleen_operator.plan.manifests.rules import RuntimeRules

PORTS: Final = {"grpc": GRPC_PORT, "http": HTTP_PORT, "metrics": METRICS_PORT}
_DNS: Final = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]


def build_service(owner: Owner) -> dict[str, Any]:
    """Return the Service, behind which only pods are that have all their models loaded."""
    return build_object(
        SERVICES,
        owner,
        runtime_name(owner.name),
        spec={
            "type": "ClusterIP",
            "selector": selector_labels(owner.name),
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in PORTS.items()
            ],
        },
    )


def build_disruption_budget(owner: Owner) -> dict[str, Any]:
    """Return the PodDisruptionBudget: one pod at a time, and a pod that does not serve at any time."""
    return build_object(
        DISRUPTION_BUDGETS,
        owner,
        runtime_name(owner.name),
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_labels(owner.name)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def build_network_policy(deployment: ModelDeployment, owner: Owner, rules: RuntimeRules) -> dict[str, Any]:
    """Return the NetworkPolicy: in from gateways and the operator; out to DNS and, to fetch, to package indexes."""
    clients = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": rules.system_namespace}},
            "podSelector": {"matchLabels": dict(labels)},
        }
        for labels in rules.client_labels
    ]
    egress: list[dict[str, Any]] = [{"ports": [dict(port) for port in _DNS]}]
    fetches = any(model.source.type is SourceType.PACKAGE for model in deployment.models)
    if fetches and rules.fetch_networks:
        networks = [{"ipBlock": {"cidr": network}} for network in rules.fetch_networks]
        egress.append({"to": networks, "ports": [{"protocol": "TCP", "port": 443}]})
    return build_object(
        NETWORK_POLICIES,
        owner,
        runtime_name(owner.name),
        spec={
            "podSelector": {"matchLabels": selector_labels(owner.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": clients, "ports": [{"protocol": "TCP", "port": port} for port in PORTS.values()]}],
            "egress": egress,
        },
    )
