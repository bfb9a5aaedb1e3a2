"""A policy's rollout as a state machine: which step it is in, whom its candidate is exposed to, and what it waits for.

It is level-triggered: the state is what the last status says, everything else is given, and the same call with the same
facts comes to the same. One call goes at most one step further, so that every step is seen in a route before the next.
A state of another plan than the policy's own begins again, at the first step beside the same stable revision.

The route is written before the status. Whoever is killed in between, or kept from writing the status, leaves a route
that is a step ahead of it; `resume` takes it from there, so that nobody is taken back to a step that was over.
"""

from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from baleen_core.analysis.verdict import AnalysisVerdict
from baleen_core.assignment import FULL, Exposure, say_exposure
from baleen_core.canonical import canonical_json, digest_of
from baleen_core.policy.schema import OnDeadline, OnInconclusive, Plan, Step, StepType
from baleen_operator.plan.conditions import write_time

PREPARING: Final = "Preparing"
SHADOW: Final = "Shadow"
HOLDING: Final = "Holding"
AWAITING_APPROVAL: Final = "AwaitingApproval"
PAUSED: Final = "Paused"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
ANALYSIS_FAILED: Final = "AnalysisFailed"
ANALYSIS_INCONCLUSIVE: Final = "AnalysisInconclusive"
NOBODY: Final = Exposure(is_shadow=True)
LOOK_SECONDS: Final = 5.0
"""How often it is looked at what was counted, where no analysis says it."""


class Outcome(StrEnum):
    """What becomes of the candidate by this look at it."""

    GOES_ON = "GoesOn"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    STUCK = "Stuck"
    """It stays exposed as it is, until a person does something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a rollout is: the candidate, since when (RFC 3339), by which plan, and how far in which step.

    Without a `step_time` the step has not begun, since not everybody has the candidate yet. `decisions` are the
    candidate's in this step, and counted only where the step ends by them. While it is paused, `pause_time` says since
    when: that time counts for nothing. `approved_by` is who approved it last, where that is known.
    """

    digest: str
    version: str
    start_time: datetime
    plan: str
    step: str
    step_time: datetime | None = None
    decisions: int = 0
    pause_time: datetime | None = None
    approved_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a rollout goes by: the time, who has the candidate, what people said, and what was decided since.

    `decisions` are those judged by both sides since the last look, `exposed` those for which the candidate counted.
    `paused` says why it must not go on, if it must not; `approved` through which step somebody approved this candidate:
    all of them if empty, None if nobody did; `approved_by` who, where that is known. `is_let_in` says that it could
    begin only by this approval. `verdict` is what the analysis says, with its `finding` in words; None where nothing is
    compared. `awaited` says in words what had too few looks yet for an Inconclusive verdict to mean that nobody knows.
    """

    now: datetime
    is_everywhere: bool
    missing_at: str = ""
    paused: str = ""
    approved: str | None = None
    approved_by: str = ""
    is_let_in: bool = False
    decisions: int = 0
    exposed: int = 0
    verdict: AnalysisVerdict | None = None
    finding: str = ""
    awaited: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What was decided: the state now, whom the candidate is exposed to, and the words for its condition.

    `wait_seconds` says after which time alone something is to be decided; `again` that something is at once.
    """

    state: State
    outcome: Outcome
    exposure: Exposure
    reason: str
    message: str
    wait_seconds: float | None = None
    again: bool = False


def name_plan(plan: Plan) -> str:
    """Return a digest of all that a plan says; what it leaves out does not count, so that a new field changes none."""
    return digest_of(canonical_json(_said(plan)))


def _said(value: object) -> Any:
    """Return a value as JSON, without the fields of data that are as they are when nothing is said."""
    if isinstance(value, tuple):
        return [_said(each) for each in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    found = {}
    for each in fields(value):
        given = getattr(value, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if given != default:
            found[each.name] = _said(given)
    return found


def begin(plan: Plan, digest: str, version: str, now: datetime) -> State:
    """Return the state of a rollout that has just been asked for; the plan has at least one step."""
    return State(digest=digest, version=version, start_time=now, plan=name_plan(plan), step=plan.steps[0].name)


def resume(
    state: State | None,
    plan: Plan,
    digest: str,
    version: str,
    now: datetime,
    *,
    routed: Exposure | None = None,
    approved: str | None = None,
) -> State:
    """Return where a rollout of this content by this plan is; at its beginning if the state is of another.

    `routed` is whom the route that is there exposes the candidate to, `approved` as in `Facts`.
    """
    if state is None or state.digest != digest or state.plan != name_plan(plan):
        return begin(plan, digest, version, now)
    return _caught_up(replace(state, version=version), plan, now, routed, approved)


def _caught_up(given: State, plan: Plan, now: datetime, routed: Exposure | None, approved: str | None) -> State:
    """Return the state in the step that the route says and the status does not, if it is one that comes now.

    The time of the steps before must be over and their approval there, so a route that somebody wrote by hand cuts no
    time and no approval. What was counted and what the analysis said when it was written cannot be told any more.
    """
    first = _index(plan, given)
    if routed is None or routed == _current_exposure(plan, given, first):
        return given
    state = _unpaused(replace(given, step_time=given.step_time or now), now)
    for index in range(first, len(plan.steps)):
        if index > first:
            state = replace(state, step=plan.steps[index].name, step_time=now, decisions=0)
        if routed == exposure_of(plan, index):
            return state
        if not _time_is_over(plan.steps[index], index, plan, state, now, approved):
            break
    return given


def advance(plan: Plan, state: State, facts: Facts) -> Progress:
    """Decide whether a rollout stays in its step, goes to the next, is done, or is over."""
    if facts.approved is not None and (facts.is_let_in or _covers_approval(plan, facts.approved)):
        # Whoever takes an approval back when it has had its effect does not take it out of the history.
        state = replace(state, approved_by=facts.approved_by)
    index = _index(plan, state)
    step = plan.steps[index]
    if state.step_time is not None and facts.verdict is AnalysisVerdict.FAIL:
        # Whatever else keeps it from going on: somebody may be judged by it.
        failed = _stay(plan, state, ANALYSIS_FAILED, facts.finding, exposure=exposure_of(plan, index))
        return replace(failed, outcome=Outcome.ROLLED_BACK)
    if facts.paused:
        state = replace(state, pause_time=state.pause_time or facts.now)
        return _stay(plan, state, PAUSED, f"is paused: {facts.paused}", exposure=_current_exposure(plan, state, index))
    state = _unpaused(state, facts.now)
    deadline = state.start_time + timedelta(seconds=plan.progress_deadline_seconds)
    is_late = facts.now >= deadline
    if is_late and (plan.on_deadline is OnDeadline.ROLL_BACK or facts.approved is None):
        return _at_deadline(plan, state, index)
    if is_late:
        state = replace(state, approved_by=facts.approved_by)
    until_deadline = float("inf") if is_late else (deadline - facts.now).total_seconds()
    if state.step_time is None:
        if not facts.is_everywhere:
            message = f"is brought to those that lack it{f': {facts.missing_at}' if facts.missing_at else ''}"
            return _looked_at_in(_stay(plan, state, PREPARING, message, exposure=NOBODY), until_deadline)
        state = replace(state, step_time=facts.now)
    assert state.step_time is not None, "the step has begun"
    counted = facts.decisions if step.type is StepType.SHADOW else facts.exposed
    if step.until.decisions:
        state = replace(state, decisions=state.decisions + counted)
    if not _is_over(step, index, plan, state, facts):
        reason, message = _waiting(step, state)
        stayed = _stay(plan, state, reason, message, exposure=exposure_of(plan, index))
        return _looked_at_in(stayed, until_deadline, _next_look(plan, step), _remaining(step, state, facts.now))
    if not facts.is_everywhere:
        message = f"is over, and waits for those that do not enforce it yet: {facts.missing_at or 'not named'}"
        return _looked_at_in(_stay(plan, state, HOLDING, message, exposure=exposure_of(plan, index)), until_deadline)
    if step.type is not StepType.APPROVAL and (unsure := _unsure(plan, state, facts, index)) is not None:
        return _looked_at_in(unsure, until_deadline, _next_look(plan, step))
    if index + 1 == len(plan.steps):
        promoted = _stay(plan, state, HOLDING, "is through all steps", exposure=exposure_of(plan, index))
        return replace(promoted, outcome=Outcome.PROMOTED)
    state = replace(state, step=plan.steps[index + 1].name, step_time=facts.now, decisions=0)
    reason, message = _waiting(plan.steps[index + 1], state)
    return replace(_stay(plan, state, reason, message, exposure=exposure_of(plan, index + 1)), again=True)


def _unsure(plan: Plan, state: State, facts: Facts, index: int) -> Progress | None:
    """Return what becomes of a step that is over without the analysis being sure of the candidate; None: it goes on."""
    if plan.analysis is None or facts.verdict is AnalysisVerdict.PASS:
        return None
    # What looks could not have decided yet is not unsure: there the policy has no say.
    is_inconclusive = facts.verdict is AnalysisVerdict.INCONCLUSIVE and not facts.awaited
    if is_inconclusive and plan.analysis.on_inconclusive is OnInconclusive.PROMOTE:
        return None
    message = f"its time is over, and it is not known whether it may go on: {facts.awaited or facts.finding}"
    stayed = _stay(plan, state, HOLDING, message, exposure=exposure_of(plan, index))
    if is_inconclusive and plan.analysis.on_inconclusive is OnInconclusive.ROLL_BACK:
        return replace(stayed, reason=ANALYSIS_INCONCLUSIVE, outcome=Outcome.ROLLED_BACK)
    return stayed


def _looked_at_in(progress: Progress, *seconds: float) -> Progress:
    """Have it looked at again after the least of these times, or, where time alone decides nothing, not by itself."""
    least = min(seconds)
    return replace(progress, wait_seconds=None if least == float("inf") else least)


def look_seconds(plan: Plan) -> float:
    """Return how often it is looked at what was counted."""
    return LOOK_SECONDS if plan.analysis is None else float(plan.analysis.interval_seconds)


def _next_look(plan: Plan, step: Step) -> float:
    """Return after how long what was counted may decide something."""
    return look_seconds(plan) if plan.analysis or step.until.decisions else float("inf")


def has_cohorts(plan: Plan, state: State, routed: Exposure) -> bool:
    """Say whether a step so far, or the route, lets chance decide which side judges, so that they can be compared."""
    weights = (each.weight_basis_points for each in plan.steps[: _index(plan, state) + 1])
    return any(0 < weight < FULL for weight in (routed.weight_basis_points, *weights))


def is_exposed(plan: Plan, state: State, routed: Exposure) -> bool:
    """Say whether in this step, or by the route, the candidate's verdict counts for some content."""
    exposures = (routed, exposure_of(plan, _index(plan, state)))
    return any(each.tenants or each.weight_basis_points for each in exposures)


def exposure_of(plan: Plan, index: int) -> Exposure:
    """Return whom a candidate is exposed to in a step; while it awaits approval, to whom it was before."""
    while index >= 0 and plan.steps[index].type is StepType.APPROVAL:
        index -= 1
    if index < 0 or plan.steps[index].type is StepType.SHADOW:
        return NOBODY
    step = plan.steps[index]
    return Exposure(weight_basis_points=step.weight_basis_points, tenants=step.tenants)


def _unpaused(state: State, now: datetime) -> State:
    """Leave out of all times the one for which it was paused."""
    if state.pause_time is None:
        return state
    spent = max(timedelta(0), now - state.pause_time)
    step_time = None if state.step_time is None else state.step_time + spent
    return replace(state, start_time=state.start_time + spent, step_time=step_time, pause_time=None)


def _index(plan: Plan, state: State) -> int:
    return next((index for index, step in enumerate(plan.steps) if step.name == state.step), 0)


def _current_exposure(plan: Plan, state: State, index: int) -> Exposure:
    return NOBODY if state.step_time is None else exposure_of(plan, index)


def _at_deadline(plan: Plan, state: State, index: int) -> Progress:
    message = f"has not gone through its steps in {plan.progress_deadline_seconds} seconds"
    if plan.on_deadline is OnDeadline.HOLD:
        message += "; approve it to have it go on all the same, or write other content"
    stayed = _stay(plan, state, DEADLINE_EXCEEDED, message, exposure=_current_exposure(plan, state, index))
    outcome = Outcome.ROLLED_BACK if plan.on_deadline is OnDeadline.ROLL_BACK else Outcome.STUCK
    return replace(stayed, outcome=outcome)


def _is_over(step: Step, index: int, plan: Plan, state: State, facts: Facts) -> bool:
    if not _time_is_over(step, index, plan, state, facts.now, facts.approved):
        return False
    return state.decisions >= step.until.decisions or _is_timed_out(step, state, facts.now)


def _time_is_over(step: Step, index: int, plan: Plan, state: State, now: datetime, approved: str | None) -> bool:
    """Say whether a step may end, as far as that is for the time and for people to say."""
    if step.type is StepType.APPROVAL:
        return _is_approved(plan, index, approved)
    return _spent(state, now) >= step.until.seconds or _is_timed_out(step, state, now)


def _is_timed_out(step: Step, state: State, now: datetime) -> bool:
    return step.until.timeout_seconds is not None and _spent(state, now) >= step.until.timeout_seconds


def _spent(state: State, now: datetime) -> float:
    assert state.step_time is not None, "the step has begun"
    return (now - state.step_time).total_seconds()


def _is_approved(plan: Plan, index: int, approved: str | None) -> bool:
    if not approved:
        return approved is not None
    names = [step.name for step in plan.steps]
    return approved in names and names.index(approved) >= index


def _covers_approval(plan: Plan, approved: str) -> bool:
    approvals = (index for index, step in enumerate(plan.steps) if step.type is StepType.APPROVAL)
    return any(_is_approved(plan, index, approved) for index in approvals)


def _remaining(step: Step, state: State, now: datetime) -> float:
    """Return after how many seconds a step may be over by time alone."""
    if step.type is StepType.APPROVAL or state.step_time is None:
        return float("inf")
    spent = (now - state.step_time).total_seconds()
    ends = [] if step.until.timeout_seconds is None else [step.until.timeout_seconds]
    if state.decisions >= step.until.decisions:
        ends.append(step.until.seconds)
    return max(0.0, min(ends, default=float("inf")) - spent)


def _waiting(step: Step, state: State) -> tuple[str, str]:
    if step.type is StepType.APPROVAL:
        return AWAITING_APPROVAL, "waits for somebody to approve it"
    assert state.step_time is not None, "the step has begun"
    needed = []
    if step.until.seconds:
        # A moment, and not how much has passed: that would be another status each time.
        needed.append(f"until {write_time(state.step_time + timedelta(seconds=step.until.seconds))}")
    if step.until.decisions:
        needed.append(f"{min(state.decisions, step.until.decisions)} of {step.until.decisions} decisions")
    reason = SHADOW if step.type is StepType.SHADOW else HOLDING
    return reason, " and ".join(needed) if needed else "has nothing to wait for"


def _stay(plan: Plan, state: State, reason: str, message: str, *, exposure: Exposure) -> Progress:
    index = _index(plan, state)
    where = f"step {state.step} ({index + 1} of {len(plan.steps)}), judging {say_exposure(exposure)}"
    return Progress(
        state=state,
        outcome=Outcome.GOES_ON,
        exposure=exposure,
        reason=reason,
        message=f"{where}: {message}",
    )
