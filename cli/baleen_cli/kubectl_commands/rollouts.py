"""A policy's candidate: how far the operator says that it is, and whom it judges, as gateways find it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from baleen_cli.kubectl_commands.facts import Facts, Manifest, condition, short
from baleen_core.assignment import FULL, Exposure, say_exposure
from baleen_core.errors import PolicyError
from baleen_core.policy.in_force import candidate_in_force
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.schema import Plan, Step, StepType
from baleen_core.ratio import MILLION, format_ratio

SHADOW: Final = "shadow"
NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A candidate: content that a policy says and that is not stable.

    Step, times (RFC 3339), decisions, reason and message are as the operator wrote them last; without a step it waits
    to begin. `exposure` is the route's (None: it is not routed), and `is_judging` says whether gateways go by that, an
    override considered.
    """

    digest: str
    version: str = ""
    step: str = ""
    start_time: str = ""
    step_time: str = ""
    decisions: int = 0
    reason: str = ""
    message: str = ""
    exposure: Exposure | None = None
    is_judging: bool = False

    @property
    def name(self) -> str:
        """Return what people call it: its version, or the beginning of its digest."""
        return self.version or short(self.digest)

    @property
    def weight(self) -> str:
        """Say in a word whom it judges: `5%`, tenants, `shadow`, or `none` when it is not judged at all."""
        if self.exposure is None or not self.is_judging:
            return NONE
        if self.exposure.is_shadow:
            return SHADOW
        if self.exposure.tenants:
            return ",".join(self.exposure.tenants)
        return format_ratio(self.exposure.weight_basis_points * (MILLION // FULL))

    @property
    def judges(self) -> str:
        """Say in words whom it judges."""
        return say_exposure(self.exposure if self.exposure is not None and self.is_judging else Exposure())


AT_GATE: Final = frozenset({"GateFailed", "GateInconclusive", "GateUnanswered", "Backtesting"})
"""Why a candidate does not begin that an approval lets through."""


def find_rollout(facts: Facts, now: datetime) -> Rollout | None:
    """Return the candidate of a policy, or None when what it says is stable, rejected, or not known yet."""
    route, said = facts.route, facts.override
    routed = route.route.candidate if route else None
    told = facts.status.candidate
    if routed is not None and told is not None and told.digest != routed.digest:
        # The operator writes the route first.
        told = None
    digest = routed.digest if routed else told.digest if told else ""
    if not digest or (route and digest == route.route.stable) or (said and digest in said.reject):
        return None
    judging = candidate_in_force(route.route, said, facts.revisions, now=now) if route else None
    ready = condition(facts.policy, "Ready")
    is_waiting = told is not None and ready.get("status") == "False"
    return Rollout(
        digest=digest,
        version=facts.version(digest),
        step=told.step if told else "",
        start_time=told.start_time if told else "",
        step_time=told.step_time if told else "",
        decisions=told.decisions if told else 0,
        reason=str(ready.get("reason", "")) if is_waiting else "",
        message=str(ready.get("message", "")) if is_waiting else "",
        exposure=routed.exposure if routed else None,
        is_judging=judging is not None,
    )


def read_plan(policy: Manifest | None) -> Plan | None:
    """Return by which steps an edit of a policy goes live; None when there is no policy, or it is not valid."""
    if policy is None:
        return None
    try:
        return parse_policy(policy).plan
    except PolicyError:
        return None


def steps_to_approve(plan: Plan, rollout: Rollout) -> tuple[Step, ...]:
    """Return the steps of type Approval that a candidate has not gone through yet."""
    names = [step.name for step in plan.steps]
    index = names.index(rollout.step) if rollout.step in names else 0
    return tuple(step for step in plan.steps[index:] if step.type is StepType.APPROVAL)


def describe_rollout(rollout: Rollout) -> str:
    """Say in a line how far a candidate is, and what it waits for."""
    if rollout.message:
        return rollout.message
    named = f"{rollout.version} ({short(rollout.digest)})" if rollout.version else short(rollout.digest)
    return f"{named} is the candidate, judging {rollout.judges}; the operator has not said how far it is"


def as_candidate(rollout: Rollout) -> dict[str, Any]:
    """Write a candidate for machines."""
    exposure = asdict(rollout.exposure) if rollout.exposure else {}
    return {
        "digest": rollout.digest,
        "version": rollout.version,
        "step": rollout.step,
        "weight": rollout.weight,
        "weightBasisPoints": exposure.get("weight_basis_points", 0),
        "tenants": list(exposure.get("tenants", ())),
        "shadow": exposure.get("is_shadow", False),
        "judging": rollout.is_judging,
        "startTime": rollout.start_time,
        "stepTime": rollout.step_time,
        "decisions": rollout.decisions,
        "reason": rollout.reason,
        "message": rollout.message,
    }


def find_rollouts(policies: Iterable[Facts], now: datetime) -> Mapping[tuple[str, str], Rollout]:
    """Return the candidates of many policies, by namespace and name."""
    found = ((each, find_rollout(each, now)) for each in policies)
    return {(each.namespace, each.name): rollout for each, rollout in found if rollout is not None}
