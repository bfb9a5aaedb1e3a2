"""How a policy stands, for those who ask and wait: its status with conditions, and what people should hear of.

Ready, Reconciling and Stalled mean what kstatus takes them for: `kubectl wait` and GitOps tools understand them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from baleen_core.analysis.metrics import MetricType
from baleen_core.analysis.verdict import MetricResult
from baleen_core.analysis.words import figure, interval_text, number_text
from baleen_core.assignment import FULL
from baleen_core.policy.in_force import Approval, Override
from baleen_core.policy.scope import SCOPE_CONFLICT
from baleen_core.ratio import MILLION, format_ratio
from baleen_core.reading import unknown_name
from baleen_core.resources import ALLOW_DELETE_ANNOTATION, APPLIED_BY_ANNOTATION
from baleen_operator.plan.acceptance import GATE_FAILED, INVALID, Refused, Valid
from baleen_operator.plan.conditions import Finding, conditions_after, name_revision, shorten, write_time
from baleen_operator.plan.gate import Gating
from baleen_operator.plan.history import APPLIED, PINNED, PROMOTED, REJECTED, RESTORED, RETURNED, row_of
from baleen_operator.plan.policy import (
    FAILED,
    GATED,
    MODELS_UNAVAILABLE,
    OVERRIDE_INVALID,
    PAUSED,
    Decision,
    Observed,
    version_of,
    weigh_approval,
)
from baleen_operator.plan.rollout import Outcome
from baleen_operator.plan.trial import find_flips
from baleen_operator.resources.policy import (
    MAX_HISTORY,
    MAX_SAID,
    Candidate,
    Compared,
    Condition,
    Convergence,
    Named,
    Status,
)

UNKNOWN_DIGEST: Final = "UnknownDigest"
IN_FORCE: Final = "InForce"
ROLLED_BACK: Final = "RolledBack"
ACTIVATED: Final = "Activated"
ROUTE_RESTORED: Final = "RouteRestored"
DELETION_HELD: Final = "DeletionHeld"
SETTLED: Final = "Settled"
STEP: Final = "RolloutStep"
GATE_INCONCLUSIVE: Final = "GateInconclusive"
GATE_UNANSWERED: Final = "GateUnanswered"
BACKTESTING: Final = "Backtesting"
MAX_KNOWN: Final = 10
NO_EFFECT_MARK: Final = "; ModerationOverride: spec."


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcers:
    """Who is known to enforce what is routed, and how many of them do.

    Until somebody `has_looked`, there may be others.
    """

    total: int = 0
    current: int = 0
    stale: tuple[str, ...] = ()
    has_looked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that people should hear of once."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """The one thing that is most worth saying: ready, on its way, or in need of a person."""

    reason: str
    message: str
    is_ready: bool = False
    is_stalled: bool = False


def make_status(
    seen: Observed,
    decision: Decision,
    enforcers: Enforcers,
    *,
    winner: tuple[str, str] | None,
    missing: Collection[str],
    now: datetime,
) -> Status:
    """Write the status of a policy that is there.

    `winner` is another policy that always wins over it; `missing` are lists of what is routed that are not in the
    cluster and cannot be written again.
    """
    assert seen.head is not None, "only a policy that is there has a status"
    generation = seen.head.generation
    standing = _find_standing(seen, decision, winner, now)
    notes = find_notes(seen, decision, now)
    findings = (
        _accepted(decision),
        Finding(
            type="Ready",
            holds=standing.is_ready,
            reason=standing.reason,
            message="; ".join((standing.message, *notes)),
        ),
        _on_the_way(standing, holds=not standing.is_ready and not standing.is_stalled),
        _in_need(standing),
        _serving(seen, decision, missing),
        _converged(decision, enforcers),
    )
    effective = decision.effective
    return Status(
        observed_generation=generation,
        stable=None if effective is None else Named(digest=effective, version=_version(seen, decision, effective)),
        candidate=_candidate(seen, decision, now),
        failed=decision.failed,
        backtests=decision.backtests,
        verdict=decision.analysis.verdict.value if decision.analysis else "",
        compared=tuple(map(_describe, decision.analysis.metrics)) if decision.analysis else (),
        flips=tuple((each.from_.value, each.to.value, each.count) for each in find_flips(seen.counted))
        if decision.progress
        else (),
        convergence=_convergence(seen, decision, enforcers, now),
        history=decision.rows[:MAX_HISTORY],
        conditions=conditions_after(seen.status.conditions, findings, generation=generation, now=now),
    )


def find_notes(seen: Observed, decision: Decision, now: datetime) -> tuple[str, ...]:
    """Say what of an Override has no effect, and which revisions were tampered with."""
    said = seen.override or Override()
    notes = []
    for digest in sorted(said.reject - set(seen.revisions) - {_digest(decision)}):
        notes.append(f"ModerationOverride: spec.reject: {_unknown(seen, decision, digest)}")
    if said.approve and (why := _why_not_approved(seen, decision, said.approve)):
        notes.append(f"ModerationOverride: spec.approve: {why}")
    if (
        decision.verdict is not None
        and isinstance(decision.verdict, Valid)
        and decision.verdict.lacks
        and not decision.held
    ):
        notes.append(f"a model that it needs is not served now: {decision.verdict.lacks}")
    notes += [
        f"ModerationPolicyRevision {each.name} cannot be used: {each.problem}"
        for each in seen.revisions.values()
        if each.meaning is None and each.digest != _digest(decision)
    ]
    return tuple(notes)


def _why_not_approved(seen: Observed, decision: Decision, approval: Approval) -> str:
    """Say why an approval has no effect, if it has none."""
    verdict, known = decision.verdict, {*seen.revisions, _digest(decision)}
    if approval.digest not in known:
        return _unknown(seen, decision, approval.digest)
    if not isinstance(verdict, Valid) or approval.digest != verdict.digest:
        return ""
    weighed, is_stable = (
        weigh_approval(seen),
        decision.route is not None and decision.route.route.stable == verdict.digest,
    )
    if weighed.why_not and not is_stable:
        return weighed.why_not + (f": {_stand_for(seen, verdict)}" if weighed.lacks_applier else "")
    if not approval.through_step:
        return ""
    names = [step.name for step in verdict.plan.steps]
    if approval.through_step in names:
        return ""
    return f"throughStep: {unknown_name(approval.through_step, names, 'step')}"


def _stand_for(seen: Observed, valid: Valid) -> str:
    """Say how somebody takes over what nobody is known to have applied."""
    user = "$(kubectl auth whoami -o jsonpath={.status.userInfo.username})"
    annotate = f"kubectl -n {seen.namespace} annotate modpol {seen.name} --overwrite"
    return f'{annotate} {APPLIED_BY_ANNOTATION}="{valid.text} {user}"'


def find_notices(seen: Observed, decision: Decision, status: Status | None) -> tuple[Notice, ...]:
    """Return what changed by this decision and is worth an Event; nothing where nothing changes."""
    notices = []
    if decision.is_new and decision.route is not None:
        notices += _of_candidate(decision) if decision.route.stable_epoch else _of_route(decision)
    if decision.overriding is not None:
        row = decision.overriding
        word = row.reason.partition(":")[0]
        message = f"{name_revision(row.digest, row.version)} is in force: {row.reason}"
        notices.append(Notice(reason=word, message=message, is_warning=word != "OverrideEnded"))
    if decision.holds_route:
        message = (
            f"the policy {seen.name} was deleted and its route stays in force, since "
            f"{'it is a floor' if _is_floor(decision) else 'no other policy binds its type and scope'}; to let it go: "
            f"kubectl -n {seen.namespace} annotate modroute {seen.name} {ALLOW_DELETE_ANNOTATION}=true"
        )
        notices.append(Notice(reason=DELETION_HELD, message=message, is_warning=True))
    if status is not None:
        notices += _of_status(seen, status)
    return tuple(notices)


def _of_candidate(decision: Decision) -> list[Notice]:
    """Tell of a step; that a rollout failed is told by the condition that says so."""
    progress = decision.progress
    if progress is None or progress.outcome is not Outcome.GOES_ON:
        return []
    name = name_revision(progress.state.digest, progress.state.version)
    return [Notice(reason=STEP, message=f"{name} is in {progress.message}")]


def _of_route(decision: Decision) -> list[Notice]:
    assert decision.route is not None, "there is a route"
    row = row_of(decision.route)
    name = name_revision(row.digest, row.version)
    match row.reason:
        case reason if reason == APPLIED:
            return [Notice(reason=ACTIVATED, message=f"{name} is routed")]
        case reason if reason == PROMOTED:
            return [Notice(reason=PROMOTED, message=f"{name} went through all steps and is routed")]
        case reason if reason == RETURNED:
            return [Notice(reason=ROLLED_BACK, message=f"{name} is routed again: it was stable within the window")]
        case reason if reason == RESTORED:
            message = f"the route was changed or deleted by hand; it says {name} again, as the operator had decided"
            return [Notice(reason=ROUTE_RESTORED, message=message, is_warning=True)]
    return []


def _of_status(seen: Observed, status: Status) -> list[Notice]:
    """Name what is wrong now and was not, or in other words."""
    notices: list[Notice] = []
    accepted, stalled, ready = (
        (seen.status.condition(type), status.condition(type)) for type in ("Accepted", "Stalled", "Ready")
    )
    for before, after in (accepted, stalled):
        is_wrong = after is not None and after.status == ("False" if after.type == "Accepted" else "True")
        # What is refused is stalled for the same reason, which is said once.
        if after is not None and is_wrong and not notices and _says(before) != _says(after):
            notices.append(Notice(reason=after.reason, message=after.message, is_warning=True))
    before, after = ready
    if not notices and after is not None and after.reason == GATE_INCONCLUSIVE and _says(before) != _says(after):
        notices.append(Notice(reason=GATE_INCONCLUSIVE, message=after.message, is_warning=True))
    was = before.message if before is not None else ""
    if not notices and after is not None and NO_EFFECT_MARK in after.message and after.message != was:
        notices.append(Notice(reason="NoEffect", message=after.message, is_warning=True))
    return notices


def _says(condition: Condition | None) -> tuple[str, ...]:
    return () if condition is None else (condition.status, condition.reason, condition.message)


def _find_standing(seen: Observed, decision: Decision, winner: tuple[str, str] | None, now: datetime) -> _Standing:
    """Find what keeps this generation from being in force: what needs a person comes first."""
    verdict, said = decision.verdict, seen.override or Override()
    if not isinstance(verdict, Valid):
        refused = verdict or Refused(reason=INVALID, message="it was not checked")
        return _Standing(reason=refused.reason, message=refused.message, is_stalled=True)
    name = name_revision(verdict.digest, verdict.version)
    if seen.override_problem:
        message = f"ModerationOverride: {seen.override_problem}; what is in force stays"
        return _Standing(reason=OVERRIDE_INVALID, message=message, is_stalled=True)
    pin = said.pin_at(now)
    if pin and pin.digest != decision.effective:
        message = f"ModerationOverride: spec.pin.digest: {_unknown(seen, decision, pin.digest)}; the pin has no effect"
        return _Standing(reason=UNKNOWN_DIGEST, message=message, is_stalled=True)
    if decision.held == MODELS_UNAVAILABLE:
        return _Standing(reason=MODELS_UNAVAILABLE, message=f"{name} waits for models: {verdict.lacks}")
    if decision.held == PAUSED:
        by = "spec.paused" if verdict.paused else "its ModerationOverride"
        return _Standing(reason=PAUSED, message=f"{name} waits: {by} says so")
    if verdict.digest in said.reject and decision.effective != verdict.digest:
        return _Standing(
            reason=REJECTED,
            message=f"{name} is rejected by its ModerationOverride; write other content, or take it out of spec.reject",
            is_stalled=True,
        )
    if decision.held == GATED:
        return _at_gate(name, decision)
    progress = decision.progress
    if decision.held == FAILED or (progress and progress.outcome is Outcome.ROLLED_BACK):
        failed = next(each for each in decision.failed if each.digest == verdict.digest)
        again = (
            "take its digest out of spec.approve of its ModerationOverride, and name it there once more"
            if failed.was_approved
            else "name its digest in spec.approve of its ModerationOverride"
        )
        why = failed.message.removesuffix(".")
        message = f"{name} was rolled back: {why}; write other content, or to try it again {again}"
        return _Standing(reason=failed.reason or FAILED, message=message, is_stalled=True)
    if pin and pin.digest != verdict.digest:
        other = name_revision(pin.digest, _version(seen, decision, pin.digest))
        until = f" until {pin.expire_time}" if pin.expire_time else ""
        because = f": {pin.reason}" if pin.reason else ""
        return _Standing(reason=PINNED, message=f"{name} waits: its ModerationOverride pins {other}{until}{because}")
    if progress:
        is_stuck = progress.outcome is Outcome.STUCK
        return _Standing(reason=progress.reason, message=f"{name} is in {progress.message}", is_stalled=is_stuck)
    if decision.effective != verdict.digest:
        return _Standing(reason="NotInForce", message=f"{name} is routed and cannot be used", is_stalled=True)
    if winner is not None:
        message = (
            f"{SCOPE_CONFLICT}: {'/'.join(winner)} has the same type and scope and wins; "
            "narrow the scope of one of them, or delete one"
        )
        return _Standing(reason=SCOPE_CONFLICT, message=message, is_stalled=True)
    return _Standing(reason=IN_FORCE, message=f"{name} is in force", is_ready=True)


def _at_gate(name: str, decision: Decision) -> _Standing:
    """Say why a candidate does not begin, and what its author, or the person on call, can do."""
    gate = decision.gate
    assert gate is not None, "what is gated has a gate"
    approve = "name its digest in spec.approve of its ModerationOverride"
    match gate.gating:
        case Gating.FAILED:
            message = (
                f"{name} was stopped by gates.backtest: {gate.message}. The gate of what is stable counts, "
                f"too, so a limit is raised by an edit of its own, before; to let this through as it is, {approve}"
            )
            return _Standing(reason=GATE_FAILED, message=message, is_stalled=True)
        case Gating.INCONCLUSIVE:
            message = f"{name} is held by gates.backtest, which is asked again: {gate.message}; not to wait, {approve}"
            return _Standing(reason=GATE_INCONCLUSIVE, message=message)
        case Gating.UNANSWERED:
            message = (
                f"{name} is held by gates.backtest, which is asked again: the gateways could not answer: "
                f"{gate.message}; not to wait, {approve}"
            )
            return _Standing(reason=GATE_UNANSWERED, message=message)
    return _Standing(reason=BACKTESTING, message=f"{name} is at gates.backtest: {gate.message}")


def _accepted(decision: Decision) -> Finding:
    verdict, gate = decision.verdict, decision.gate
    if isinstance(verdict, Valid) and gate is not None and gate.gating is Gating.FAILED:
        return Finding(type="Accepted", holds=False, reason=GATE_FAILED, message=f"gates.backtest: {gate.message}")
    if isinstance(verdict, Valid) and decision.held != MODELS_UNAVAILABLE:
        name = name_revision(verdict.digest, verdict.version)
        return Finding(type="Accepted", holds=True, reason="Valid", message=f"{name} is valid")
    if isinstance(verdict, Valid):
        return Finding(type="Accepted", holds=False, reason=MODELS_UNAVAILABLE, message=verdict.lacks)
    refused = verdict or Refused(reason=INVALID, message="it was not checked")
    return Finding(type="Accepted", holds=False, reason=refused.reason, message=refused.message)


def _on_the_way(standing: _Standing, *, holds: bool) -> Finding:
    if holds:
        return Finding(type="Reconciling", holds=True, reason=standing.reason, message=standing.message)
    return Finding(type="Reconciling", holds=False, reason=SETTLED, message="nothing is on its way")


def _in_need(standing: _Standing) -> Finding:
    if standing.is_stalled:
        return Finding(type="Stalled", holds=True, reason=standing.reason, message=standing.message)
    return Finding(type="Stalled", holds=False, reason=SETTLED, message="nothing needs a person")


def _serving(seen: Observed, decision: Decision, missing: Collection[str]) -> Finding:
    if decision.effective is None:
        message = "no revision of it is in force: none was ever routed, or none of those that were can be used"
        return Finding(type="Serving", holds=False, reason="NoRevision", message=message)
    name = name_revision(decision.effective, _version(seen, decision, decision.effective))
    message = f"{name} is routed"
    if missing:
        lists = ", ".join(name_revision(each, "") for each in sorted(missing))
        message += (
            f"; its lists {lists} are no longer in the cluster and their source says something else by now: gateways "
            "that have them on disk go on, new ones cannot take it up"
        )
    return Finding(type="Serving", holds=True, reason="ListsMissing" if missing else "Routed", message=message)


def _converged(decision: Decision, enforcers: Enforcers) -> Finding:
    if decision.route is None:
        return Finding(type="Converged", holds=False, reason="NoRoute", message="there is nothing to enforce")
    if enforcers.current < enforcers.total:
        behind = ", ".join(enforcers.stale)
        message = f"{enforcers.current} of {enforcers.total} enforce it; behind: {behind or 'not named'}"
        return Finding(type="Converged", holds=False, reason="Behind", message=message)
    if not enforcers.has_looked:
        message = "which gateways there are is not known yet: they were not looked up since the operator started"
        return Finding(type="Converged", holds=False, reason="GatewaysUnknown", message=message)
    if enforcers.total == 0:
        return Finding(type="Converged", holds=True, reason="NoneKnown", message="no gateway or sidecar is known")
    return Finding(type="Converged", holds=True, reason="AllCurrent", message=f"all {enforcers.total} enforce it")


def _convergence(seen: Observed, decision: Decision, enforcers: Enforcers, now: datetime) -> Convergence:
    since = ""
    if decision.route is not None:
        was_routed = row_of(decision.route).identity in {row.identity for row in seen.status.history}
        since = seen.status.convergence.converged_time if was_routed else ""
        if enforcers.has_looked:
            all_have_it = enforcers.total > 0 and enforcers.current >= enforcers.total
            since = (since or write_time(now)) if all_have_it else ""
    return Convergence(total=enforcers.total, current=enforcers.current, stale=enforcers.stale, converged_time=since)


def _candidate(seen: Observed, decision: Decision, now: datetime) -> Candidate | None:
    """Name valid content that waits or is rolled out, since when, and how far it is."""
    verdict, before = decision.verdict, seen.status.candidate
    routed = decision.route.route.candidate if decision.route else None
    if decision.state is not None and routed is not None:
        state, exposure = decision.state, routed.exposure
        rollout, known = _rollout(seen, decision), seen.counted.known
        return Candidate(
            digest=state.digest,
            version=state.version,
            start_time=_write_instant(state.start_time),
            plan=state.plan,
            step=state.step,
            step_time=_write_instant(state.step_time) if state.step_time else "",
            pause_time=_write_instant(state.pause_time) if state.pause_time else "",
            decisions=state.decisions,
            approved_by=state.approved_by,
            weight=format_ratio(exposure.weight_basis_points * (MILLION // FULL)) if not exposure.is_shadow else "",
            rollout=rollout,
            stable_judged=known.stable if rollout else 0,
            candidate_judged=known.candidate if rollout else 0,
        )
    if not isinstance(verdict, Valid):
        return before if before and routed and before.digest == routed.digest else None
    if verdict.digest == decision.effective:
        return None
    if before is not None and before.digest == verdict.digest:
        return (
            before
            if routed
            else Candidate(
                digest=verdict.digest, version=verdict.version, start_time=before.start_time or write_time(now)
            )
        )
    return Candidate(digest=verdict.digest, version=verdict.version, start_time=write_time(now))


def _rollout(seen: Observed, decision: Decision) -> str:
    """Name the rollout that an analysis is made of; empty where there is none, or it is of another one now."""
    before = seen.route.published if seen.route else None
    if decision.analysis is None or decision.route is None or before is None:
        return ""
    return before.rollout if before.rollout == decision.route.rollout else ""


def _describe(result: MetricResult) -> Compared:
    metric, looks = result.metric, result.looks
    if metric.type is MetricType.PROMQL:
        return Compared(
            name=metric.name,
            candidate="" if result.candidate is None else number_text(result.candidate),
            verdict=result.verdict.value,
            within=looks.within if looks else 0,
            beyond=looks.beyond if looks else 0,
            numbers=looks.numbers if looks else 0,
            look_time=_write_instant(looks.time) if looks else "",
            problem=shorten(looks.problem, MAX_SAID) if looks else "",
        )
    return Compared(
        name=metric.name,
        stable="" if result.stable is None else figure(metric, result.stable),
        candidate="" if result.candidate is None else figure(metric, result.candidate),
        interval="" if result.interval is None else interval_text(metric, result.interval),
        verdict=result.verdict.value,
    )


def _write_instant(time: datetime) -> str:
    """Write a time that steps are measured from, finer than Kubernetes does."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unknown(seen: Observed, decision: Decision, digest: str) -> str:
    names = [
        name_revision(each, _version(seen, decision, each))
        for each in dict.fromkeys((*(row.digest for row in decision.rows), *seen.revisions))
        if each in seen.revisions
    ]
    more = len(names) - MAX_KNOWN
    known = ", ".join(names[:MAX_KNOWN]) + (f" and {more} more" if more > 0 else "")
    return f"{name_revision(digest, '')} is no revision of this policy; known are {known or 'none'}"


def _version(seen: Observed, decision: Decision, digest: str) -> str:
    return version_of(digest, decision.route, decision.rows, seen.revisions)


def _digest(decision: Decision) -> str:
    return decision.verdict.digest if isinstance(decision.verdict, Valid) else ""


def _is_floor(decision: Decision) -> bool:
    return decision.route is not None and decision.route.role == "Floor"
