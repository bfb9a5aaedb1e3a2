"""Observe how busy the gateways are, plan how many there should be, and scale their Deployment or StatefulSet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from baleen_core.policy_stream import Load
from baleen_operator.plan.actions import Action, Emit, Scale, Target
from baleen_operator.plan.scaling import Because, Demand, Scaling, ScalingRules, ScalingState, demand_of, scale
from baleen_operator.reconcile.ports import Manifest


class Scalable(Protocol):
    """The workload that is scaled."""

    async def read_scale(self, target: Target, namespace: str, name: str) -> Manifest | None:
        """Return the workload's Scale; None when there is no such workload.

        Raises:
            ClusterError: the API server refused (the verb and resource are named) or did not answer.
        """

    async def act(self, action: Action) -> Manifest | None:
        """Carry an action out.

        Raises:
            Stale: somebody else scaled it meanwhile.
            ClusterError: as above.
        """


class BusyGateways(Protocol):
    """What the gateways said last about their load."""

    def loads(self) -> Mapping[str, Load | None]:
        """Return the load of each gateway that is known; None for one that does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The Deployment or StatefulSet of the gateways."""

    target: Target
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPorts:
    """Everything that scaling needs; `seconds` is a clock that only goes forward."""

    cluster: Scalable
    gateways: BusyGateways
    seconds: Callable[[], float]
    workload: Workload
    rules: ScalingRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What was found and done, and what the next round goes on with; `current` is None without a workload."""

    current: int | None = None
    scaling: Scaling | None = None
    demand: Demand = field(default_factory=Demand)
    loads: Mapping[str, Load | None] = field(default_factory=dict)
    message: str = ""
    """What changed and why; empty when nothing did."""

    @property
    def problem(self) -> str:
        """Say what keeps the number from following the load; empty when nothing does."""
        if self.scaling is None:
            return "there is no such workload"
        match self.scaling.because:
            case Because.OFF:
                return "it has no replicas: only people switch it on again"
            case Because.UNKNOWN:
                return "no gateway says how busy it is"
        return ""

    @property
    def state(self) -> ScalingState:
        return self.scaling.state if self.scaling else ScalingState()


async def reconcile_gateways(before: Scaled, ports: ScalingPorts) -> Scaled:
    """Do one round.

    Raises:
        Stale: somebody else scaled meanwhile. ClusterError: the API server refused or did not answer. Either way the
        next round begins from `before`.
    """
    workload = ports.workload
    found = await ports.cluster.read_scale(workload.target, workload.namespace, workload.name)
    loads = ports.gateways.loads()
    if found is None:
        return Scaled(loads=loads)
    # The API server leaves a zero out.
    current = int(found.get("spec", {}).get("replicas", 0))
    demand = demand_of(before.loads, loads)
    scaling = scale(before.state, ports.rules, demand, current=current, now=ports.seconds())
    message = "" if scaling.replicas == current else describe(ports.rules, demand, scaling, current)
    for action in plan_actions(workload, found, scaling.replicas, current, message):
        await ports.cluster.act(action)
    return Scaled(current=current, scaling=scaling, demand=demand, loads=loads, message=message)


def plan_actions(
    workload: Workload, found: Manifest, replicas: int, current: int, message: str
) -> tuple[Scale, Emit] | tuple[()]:
    """Return what brings the workload to so many replicas and says so; nothing when it has them."""
    if replicas == current:
        return ()
    metadata = found["metadata"]
    return (
        Scale(
            target=workload.target,
            namespace=workload.namespace,
            name=workload.name,
            replicas=replicas,
            resource_version=metadata["resourceVersion"],
        ),
        Emit(
            target=workload.target,
            namespace=workload.namespace,
            name=workload.name,
            uid=metadata["uid"],
            type="Normal",
            reason="GatewaysScaledUp" if replicas > current else "GatewaysScaledDown",
            message=message,
        ),
    )


def describe(rules: ScalingRules, demand: Demand, scaling: Scaling, current: int) -> str:
    """Say what changes and why, in a sentence."""
    change = f"from {current} to {scaling.replicas} gateways"
    if scaling.because is Because.BOUNDS:
        return f"{change}: {rules.min_replicas} to {rules.max_replicas} are allowed"
    said = f"{demand.in_flight:.1f} requests in flight on {demand.known} gateways"
    unknown = f", {demand.unknown} more do not say theirs" if demand.unknown else ""
    return f"{change}: {said}{unknown}; {rules.target_in_flight:g} are aimed at for each"
