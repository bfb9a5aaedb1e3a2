"""Builders of the objects that make up a Triton runtime. Each returns new objects and shares none."""

from baleen_operator.plan.manifests.fetching import build_config_maps
from baleen_operator.plan.manifests.naming import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    ENDPOINT_SLICES,
    GRPC_PORT,
    MAX_NAME_LENGTH,
    NETWORK_POLICIES,
    SERVICES,
    Owner,
    runtime_name,
    selector_labels,
    service_endpoint,
)
from baleen_operator.plan.manifests.network import build_disruption_budget, build_network_policy, build_service
from baleen_operator.plan.manifests.rules import RuntimeRules
from baleen_operator.plan.manifests.runtime import build_runtime, runtime_image

__all__ = [
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "DISRUPTION_BUDGETS",
    "ENDPOINT_SLICES",
    "GRPC_PORT",
    "MAX_NAME_LENGTH",
    "NETWORK_POLICIES",
    "SERVICES",
    "Owner",
    "RuntimeRules",
    "build_config_maps",
    "build_disruption_budget",
    "build_network_policy",
    "build_runtime",
    "build_service",
    "runtime_image",
    "runtime_name",
    "selector_labels",
    "service_endpoint",
]
