"""What should become of a policy's route, its revisions and its history, given all that was seen of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from baleen_core.analysis.verdict import Analysis, AnalysisVerdict
from baleen_core.assignment import Assignment
from baleen_core.policy.gates import stricter_backtest
from baleen_core.policy.in_force import Override, Route, RoutedCandidate, in_force
from baleen_core.policy.schema import Plan, Role
from baleen_core.resources import MAX_RECENT, PublishedRoute
from baleen_operator.plan.acceptance import INVALID, Refused, Valid, Verdict
from baleen_operator.plan.approval import Weighed, weigh
from baleen_operator.plan.conditions import name_revision, shorten, write_time
from baleen_operator.plan.gate import Asked, GateLook, Gating, Question, look, records_after
from baleen_operator.plan.history import (
    APPLIED,
    OVERRIDE_ENDED,
    PINNED,
    PROMOTED,
    REJECTED,
    RESTORED,
    RETURNED,
    ROLLED_BACK,
    UPDATED,
    merge_rows,
    next_epoch,
    owed_rows,
    routed_digests,
    row_of,
)
from baleen_operator.plan.looks import Look, Looked, look_at
from baleen_operator.plan.pruning import find_prunable
from baleen_operator.plan.rollout import (
    ANALYSIS_FAILED,
    NOBODY,
    Facts,
    Outcome,
    Progress,
    State,
    advance,
    has_cohorts,
    is_exposed,
    name_plan,
    resume,
)
from baleen_operator.plan.trial import Tally, compare
from baleen_operator.resources.policy import (
    MAX_FAILED,
    MAX_SAID,
    Backtested,
    Candidate,
    Failed,
    Head,
    KeptRevision,
    Meaning,
    Row,
    Status,
)
from baleen_operator.resources.stamps import Stamp

OVERRIDE_INVALID: Final = "OverrideInvalid"
MODELS_UNAVAILABLE: Final = "ModelsUnavailable"
PAUSED: Final = "Paused"
FAILED: Final = "Failed"
GATED: Final = "Gated"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRoute:
    """A ModerationRoute as it is there; without `published` it cannot be read."""

    uid: str
    resource_version: str
    epoch: int
    published: PublishedRoute | None
    allow_delete: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that was seen of a policy; `revisions` are by digest.

    `whole` are the digests of those revisions whose lists are all there, or at hand to be written again. `is_covered`
    says whether another policy binds the same type and scope. With an `override_problem` its Override says something
    that cannot be read. `salt` is fresh, for a rollout that begins now; `is_adopted` says whether everybody who is
    known enforces the route that is there, and `behind` who does not. `counted` is what gateways counted of the rollout
    that is under way, `news` what of it is new since the last look. `asked` is what came of asking for its backtest,
    `looked` of asking its queries. `approved` is who wrote the Override's approval, and by `needs_another` that must be
    somebody else than who applied the content.
    """

    namespace: str
    name: str
    head: Head | None = None
    status: Status = field(default_factory=Status)
    verdict: Verdict | None = None
    route: SeenRoute | None = None
    override: Override | None = None
    override_problem: str = ""
    revisions: Mapping[str, KeptRevision] = field(default_factory=dict)
    whole: Collection[str] = ()
    is_covered: bool = False
    salt: str = ""
    is_adopted: bool = False
    behind: str = ""
    known_plan: Plan = field(default_factory=Plan)
    counted: Tally = field(default_factory=Tally)
    news: Tally = field(default_factory=Tally)
    asked: Asked = field(default_factory=Asked)
    looked: Looked = field(default_factory=Looked)
    approved: Stamp = field(default_factory=Stamp)
    needs_another: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What should be, and how that differs from what is.

    `route` is what the route should say (None: there is none, or it cannot be put right), `is_new` whether it says
    something else now, and `writes_route` whether anything of it must be written. `held` says why valid content waits,
    `gate` how its gate stands where it has one to pass, and `backtests` are all such results that are to be kept.
    `owed` are the rows of revisions, by digest, that must be written before the route is; `overriding` is the row of
    what an Override brought about, written after it.
    """

    verdict: Verdict | None = None
    held: str = ""
    route: PublishedRoute | None = None
    is_new: bool = False
    writes_route: bool = False
    allow_delete: str = ""
    deletes_route: bool = False
    holds_route: bool = False
    rows: tuple[Row, ...] = ()
    effective: str | None = None
    owed: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    overriding: Row | None = None
    prunable: tuple[KeptRevision, ...] = ()
    progress: Progress | None = None
    state: State | None = None
    """Where the rollout of the candidate in `route` is, whether or not anything is decided of it now."""
    analysis: Analysis | None = None
    failed: tuple[Failed, ...] = ()
    gate: GateLook | None = None
    look: Look | None = None
    backtests: tuple[Backtested, ...] = ()
    again: bool = False
    """Whether more is to be decided once this is done."""


def weigh_approval(seen: Observed) -> Weighed:
    """Judge what the Override approves beside what the policy says."""
    valid = seen.verdict if isinstance(seen.verdict, Valid) else None
    return weigh(
        seen.override.approve if seen.override else None,
        digest=valid.digest if valid else "",
        text=valid.text if valid else "",
        applied=seen.head.applied if seen.head else Stamp(),
        approved=seen.approved,
        by_another=seen.needs_another,
    )


def decide(seen: Observed, now: datetime) -> Decision:
    """Decide, from what was seen alone, so that whoever decides again decides the same."""
    return _Deciding(seen, now).decide()


class _Deciding:
    """One decision in its steps; nothing of it outlives the call."""

    def __init__(self, seen: Observed, now: datetime) -> None:
        self.seen, self.now = seen, now
        self.weighed = weigh_approval(seen)
        self.meanings: dict[str, Meaning] = {
            digest: each.meaning for digest, each in seen.revisions.items() if each.meaning is not None
        }
        route = seen.route.published if seen.route else None
        if isinstance(seen.verdict, Valid) and route is not None and route.route.stable == seen.verdict.digest:
            # Should its revision be gone, it can be written again.
            self.meanings[seen.verdict.digest] = seen.verdict.meaning
        self.base = route if route is not None and route.route.stable in self.meanings else None
        self.rows = merge_rows(
            *(each.rows for each in seen.revisions.values()),
            [self._row_of(self.base)] if self.base else [],
            seen.status.history,
        )

    def _row_of(self, route: PublishedRoute) -> Row:
        """Return the route's row, by the version that its revision was known by if somebody else wrote this one.

        A version names one content for ever: were such a row to count, what the policy says would be refused for it.
        """
        seen, row = self.seen, row_of(route)
        known = merge_rows(*(each.rows for each in seen.revisions.values()), seen.status.history)
        others = [each for each in known if each.identity != row.identity]
        is_taken = any(row.version and each.version == row.version and each.digest != row.digest for each in others)
        verdict = seen.verdict
        is_said = isinstance(verdict, Valid) and (verdict.digest, verdict.version) == (row.digest, row.version)
        if is_said or not (is_taken or self._was_altered()):
            return row
        return replace(row, version=version_of(row.digest, None, others, seen.revisions))

    def decide(self) -> Decision:
        """Decide what to do with a policy that is there, or with what is left of one."""
        seen = self.seen
        if seen.head is None:
            return self._without_policy()
        verdict = self._with_history(seen.verdict)
        held = self._why_held(verdict)
        valid = verdict if isinstance(verdict, Valid) else None
        question = self._question(valid) if valid and not held else None
        gate = look(question, seen.status.backtests, seen.asked, self.now) if question else None
        if gate is not None and gate.gating is not Gating.OPEN:
            held = GATED
        by_steps = valid if valid and not held and self._has_steps(valid) else None
        state = self._state(by_steps) if by_steps else self._state_meanwhile()
        looking, analysis = self._analysis(by_steps.plan if by_steps else seen.known_plan, state)
        progress = self._progress(by_steps, state, analysis) if by_steps and state else None
        last = self._last_good()
        # Where only the route is gone, what was stable is routed first, and the rest begins from there.
        begins_beside = valid is not None and bool(valid.plan.steps or valid.gates.backtest)
        comes_back = bool(
            valid and begins_beside and self.base is None and last is not None and last.digest != valid.digest
        )
        goes_live = valid is not None and not held and (progress is None or progress.outcome is Outcome.PROMOTED)
        goes_live = goes_live and not comes_back
        goal = valid.meaning if valid and goes_live else last
        kept = records_after(seen.status.backtests, gate.record if gate else None)
        if goal is None:
            return replace(self._around(verdict, held, None), backtests=kept)
        candidate = None if goes_live else self._candidate(valid, held, progress)
        route = self._route_to(goal, valid if goes_live else None, candidate, progress)
        decision = self._around(verdict, held, route)
        return replace(
            decision,
            progress=None if goes_live else progress,
            state=None if candidate is None else progress.state if progress else state,
            analysis=None if goes_live or not (progress or candidate) else analysis,
            look=looking if candidate else None,
            failed=self._failed(progress),
            gate=gate,
            backtests=kept,
            # Where nobody is known, nobody will say that they have what was just routed.
            again=decision.again
            or bool(gate and gate.again)
            or (comes_back and decision.is_new)
            or bool(progress and (progress.again or (candidate and decision.is_new))),
        )

    # The rollout of what the policy says

    def _has_steps(self, valid: Valid) -> bool:
        """Say whether content goes live by steps: not the first, nor what is or was stable, nor without a plan."""
        base = self.base
        if base is None or not valid.plan.steps or valid.digest == base.route.stable:
            return False
        return not self._returns(valid, base)

    def _returns(self, valid: Valid, base: PublishedRoute) -> bool:
        """Say whether content was stable a while ago and did not fail, so that it may come back at once."""
        window = base.route.recent_stable[: valid.rollback_window]
        return valid.digest in window and valid.digest not in {each.digest for each in self.seen.status.failed}

    def _question(self, valid: Valid) -> Question | None:
        """Return what must be answered before content begins; what has begun, or is approved, has no gate before it."""
        base = self.base
        if base is None or valid.digest == base.route.stable or self._returns(valid, base):
            return None
        if base.route.candidate is not None and base.route.candidate.digest == valid.digest:
            return None
        if self.weighed.digest == valid.digest:
            return None
        gate = stricter_backtest(valid.gates.backtest, base.backtest)
        return None if gate is None else Question(candidate=valid.digest, stable=base.route.stable, gate=gate)

    def _is_routed(self, valid: Valid) -> bool:
        routed = self.base.route.candidate if self.base else None
        return routed is not None and routed.digest == valid.digest

    def _state(self, valid: Valid) -> State:
        # A status that is of another candidate than the route says nothing of where it is.
        routed = self.base.route.candidate if self.base and self._is_routed(valid) else None
        return resume(
            _read_state(self.seen.status.candidate) if routed else None,
            valid.plan,
            valid.digest,
            valid.version,
            self.now,
            routed=routed.exposure if routed else None,
            approved=self._approved(valid.digest),
        )

    def _state_meanwhile(self) -> State | None:
        """Return where a candidate is that nothing else is decided of now, by the plan that it began by."""
        plan, routed = self.seen.known_plan, self.base.route.candidate if self.base else None
        state = _read_state(self.seen.status.candidate)
        if routed is None or state is None or (state.digest, state.plan) != (routed.digest, name_plan(plan)):
            return None
        approved = self._approved(state.digest)
        state = resume(state, plan, state.digest, state.version, self.now, routed=routed.exposure, approved=approved)
        # Whoever approved this cannot always be told now, and somebody is judged by it all the same.
        has_begun = state.step_time is not None or routed.exposure.is_shadow
        return state if has_begun else replace(state, step_time=self.now)

    def _approved(self, digest: str) -> str | None:
        """Return through which step content is approved; all of them if empty, None if it is not."""
        approval = self.weighed.approval
        return approval.through_step if approval and approval.digest == digest else None

    def _analysis(self, plan: Plan, state: State | None) -> tuple[Look | None, Analysis | None]:
        """Return when its queries are asked again, and what counts and looks say of the candidate."""
        analysis, base = plan.analysis, self.base
        if analysis is None or base is None or state is None:
            return None, None
        said = self.seen.override or Override()
        # Beside anything but what is stable nobody is judged by it.
        is_tried = said.pin_at(self.now) is None and base.route.stable not in said.reject
        look = look_at(
            analysis,
            state,
            self.seen.status.compared,
            self.seen.looked,
            rollout=base.rollout,
            stable=base.route.stable,
            now=self.now,
            may_ask=is_tried,
        )
        there = base.route.candidate
        routed = there.exposure if there and there.digest == state.digest else NOBODY
        found = compare(
            analysis,
            self.seen.counted,
            has_cohorts=has_cohorts(plan, state, routed),
            looks=look.streaks,
            is_exposed=is_exposed(plan, state, routed),
        )
        return look, found

    def _progress(self, valid: Valid, state: State, analysis: Analysis | None) -> Progress:
        seen = self.seen
        facts = Facts(
            now=self.now,
            is_everywhere=self._is_routed(valid) and seen.is_adopted,
            missing_at=seen.behind,
            paused=self._why_paused(valid),
            approved=self._approved(valid.digest),
            approved_by=self.weighed.by,
            is_let_in=self._is_let_in(valid),
            decisions=seen.news.decisions,
            exposed=seen.news.exposed,
            verdict=analysis.verdict if analysis else None,
            finding=_worst(analysis) if analysis else "",
            awaited=analysis.awaited if analysis else "",
        )
        return advance(valid.plan, state, facts)

    def _why_paused(self, valid: Valid) -> str:
        """Say why a rollout must not go on; beside anything but what is stable, a candidate tells nothing."""
        said = self.seen.override or Override()
        if valid.paused:
            return "spec.paused says so"
        if said.paused:
            return "its ModerationOverride says so"
        if said.pin_at(self.now):
            return "its ModerationOverride pins a revision"
        if self.base and self.base.route.stable in said.reject:
            return "its ModerationOverride rejects what is stable; what cannot wait goes live without rollout.steps"
        return ""

    def _candidate(self, valid: Valid | None, held: str, progress: Progress | None) -> RoutedCandidate | None:
        before = self.base.route.candidate if self.base else None
        if valid is None:
            # What is refused changes nothing, so it does not take back what was on its way either.
            before = before if before and before.digest in self.meanings else None
            return None if self._fails_meanwhile(before) else before
        if before and before.digest != valid.digest:
            before = None
        if held in (OVERRIDE_INVALID, MODELS_UNAVAILABLE):
            # What keeps it from going on is no reason to take it back.
            return None if self._fails_meanwhile(before) else before
        if progress is None or progress.outcome is Outcome.ROLLED_BACK:
            return None
        return RoutedCandidate(
            digest=valid.digest,
            exposure=progress.exposure,
            assignment=Assignment(keys=valid.plan.keys, salt=before.assignment.salt if before else self.seen.salt),
        )

    def _fails_meanwhile(self, candidate: RoutedCandidate | None) -> Analysis | None:
        """Return the analysis of a candidate that nothing else is decided of now, if it says that it fails."""
        plan = self.seen.known_plan
        if candidate is None or plan.analysis is None:
            return None
        analysis = self._analysis(plan, self._state_meanwhile())[1] or compare(plan.analysis, self.seen.counted)
        return analysis if analysis.verdict is AnalysisVerdict.FAIL else None

    def _failed(self, progress: Progress | None) -> tuple[Failed, ...]:
        """Return the revisions whose rollout failed, newest first."""
        known, said = self.seen.status.failed, self.seen.override or Override()
        named = said.approve.digest if said.approve else ""
        # Beside what cannot be read an approval cannot be weighed, and then counts as one that was used up.
        approved = self.weighed.digest if isinstance(self.seen.verdict, Valid) else named
        # An approval is for one try: what failed in spite of it waits for another one.
        known = tuple(replace(each, was_approved=each.was_approved and each.digest == named) for each in known)
        known = tuple(each for each in known if each.digest != self.weighed.digest or each.was_approved)
        routed = self.base.route.candidate if self.base else None
        if progress is None and routed is not None and (analysis := self._fails_meanwhile(routed)):
            digest, reason, message = routed.digest, ANALYSIS_FAILED, _worst(analysis)
        elif progress is not None and progress.outcome is Outcome.ROLLED_BACK:
            digest, reason, message = progress.state.digest, progress.reason, progress.message
        else:
            return known
        failed = Failed(
            digest=digest,
            reason=reason,
            message=shorten(message, MAX_SAID),
            time=write_time(self.now),
            was_approved=digest == approved,
        )
        return (failed, *(each for each in known if each.digest != failed.digest))[:MAX_FAILED]

    def _without_policy(self) -> Decision:
        seen = self.seen
        if seen.route is None:
            return Decision(rows=self.rows)
        goal = self._last_good()
        if self._may_go(goal):
            owed = owed_rows(self.rows, {each.digest: each.rows for each in seen.revisions.values() if each.meaning})
            return Decision(rows=self.rows, deletes_route=True, owed=owed)
        decision = self._around(None, "", None if goal is None else self._route_to(goal, None))
        return replace(decision, holds_route=True)

    def _may_go(self, goal: Meaning | None) -> bool:
        """Say whether the route of a policy that is gone may go: by annotation, or since nothing then is unbound."""
        assert self.seen.route is not None, "there is a route"
        if self.seen.route.allow_delete == "true":
            return True
        if goal is None or goal.role is Role.FLOOR:
            return False
        return self.seen.is_covered or not goal.is_enforced

    def _with_history(self, verdict: Verdict | None) -> Verdict | None:
        """Refuse what contradicts what was in force before: a version's meaning, and where the policy binds."""
        if not isinstance(verdict, Valid):
            return verdict
        named = self._named_by(verdict.version) - {verdict.digest}
        if named:
            message = (
                f"spec.version: {verdict.version} already names {name_revision(min(named), '')}; "
                "give the changed content a new version"
            )
            return Refused(reason=INVALID, message=message)
        was = self.meanings[self.base.route.stable] if self.base else None
        changed = [each for each in ("scope", "type") if was and getattr(was, each) != getattr(verdict.meaning, each)]
        if not changed and verdict.plan.steps:
            fields = {"role": "spec.role", "is_enforced": "spec.policy.enforcement", "sampling": "spec.policy.video"}
            bound = [fields[each] for each in fields if was and getattr(was, each) != getattr(verdict.meaning, each)]
            if bound:
                message = (
                    "acts on everybody at once and so cannot go live by steps; for this edit leave rollout.steps out"
                )
                return Refused(reason=INVALID, message="; ".join(f"{each}: {message}" for each in bound))
        if changed:
            message = "cannot be changed while its route is there; write a policy of another name and delete this one"
            return Refused(reason=INVALID, message="; ".join(f"spec.{each}: {message}" for each in changed))
        return verdict

    def _named_by(self, version: str) -> set[str]:
        """Return the digests that this version named while they were in force."""
        if not version:
            return set()
        named = {row.digest for row in self.rows if row.version == version}
        active = {row.digest for row in self.rows}
        return named | {each.digest for each in self.seen.revisions.values() if each.version == version} & active

    def _why_held(self, verdict: Verdict | None) -> str:
        """Say why valid content must wait; what is stable already has nothing to wait for."""
        seen, said = self.seen, self.seen.override or Override()
        if not isinstance(verdict, Valid) or (self.base and self.base.route.stable == verdict.digest):
            return ""
        if seen.override_problem:
            return OVERRIDE_INVALID
        if verdict.digest in said.reject:
            return REJECTED
        if verdict.lacks:
            return MODELS_UNAVAILABLE
        failed = (each for each in seen.status.failed if each.digest == verdict.digest)
        if any(each.was_approved or each.digest != self.weighed.digest for each in failed):
            return FAILED
        under_way = seen.status.candidate
        if self._has_steps(verdict) and under_way and under_way.step and under_way.digest == verdict.digest:
            # What has begun stays as it is, which is for its steps to say.
            return ""
        return PAUSED if verdict.paused or said.paused else ""

    def _last_good(self) -> Meaning | None:
        """Return what is routed, or what was routed last and can be again where the route is broken or gone."""
        if self.base:
            return self.meanings[self.base.route.stable]
        if self.seen.route is None and not self.seen.status.history:
            return None
        usable = (each for each in routed_digests(self.rows) if each in self.meanings and each in self.seen.whole)
        return next((self.meanings[each] for each in usable), None)

    def _route_to(
        self,
        goal: Meaning,
        valid: Valid | None,
        candidate: RoutedCandidate | None = None,
        progress: Progress | None = None,
    ) -> PublishedRoute:
        """Write the route that makes `goal` stable; equal to the one that is there when nothing is to be changed."""
        seen, base = self.seen, self.base
        found = seen.route.published if seen.route else None
        before = (base.route.stable, *base.route.recent_stable) if base else routed_digests(self.rows)
        window = valid.rollback_window if valid else MAX_RECENT
        recent = [each for each in dict.fromkeys(before) if each != goal.digest and self._is_akin(each, goal)]
        stays = base is not None and base.route.stable == goal.digest
        named = valid.version if valid else ""
        wanted = PublishedRoute(
            namespace=seen.namespace,
            name=seen.name,
            epoch=base.epoch if base else 1,
            type=goal.type,
            role=goal.role,
            scope=goal.scope,
            created=seen.head.created if seen.head and (valid or not found) else found.created if found else "",
            route=Route(stable=goal.digest, recent_stable=tuple(recent[:window]), candidate=candidate),
            version=named
            if valid and not stays
            else named or (base.version if stays and base else self._version(goal)),
            time=base.time if base else "",
            reason=base.reason if base else "",
            by=base.by if base else "",
            commit=base.commit if base else "",
            approved_by=base.approved_by if base else "",
            stable_epoch=base.stable_epoch if base else 0,
            never_loosen=valid.gates.never_loosen if valid else base.never_loosen if base else (),
            backtest=valid.gates.backtest if valid else base.backtest if base else None,
        )
        if wanted == base:
            return base
        if base is not None and _with_what_is_beside(wanted, base) == base:
            # What is stable stays since when it was.
            since = base.stable_epoch or base.epoch
            return replace(wanted, epoch=self._next_epoch(self.rows), stable_epoch=since)
        reason = self._why_new(wanted, before[: window + (base is not None)])
        changed = replace(
            wanted,
            epoch=self._next_epoch(self.rows),
            time=write_time(self.now),
            reason=reason,
            stable_epoch=0,
        )
        if stays:
            return changed
        return replace(
            changed,
            by=self._by(valid) if valid else "",
            commit=seen.head.commit if seen.head and valid else "",
            approved_by=self._approved_by(valid, progress) if valid and reason in (APPLIED, PROMOTED) else "",
        )

    def _by(self, valid: Valid) -> str:
        """Say whose edit it is: who applied it, as the API server knows, and for whom, as the tool that did it says."""
        head = self.seen.head
        user = head.applied.user_of(valid.text) if head else ""
        said = head.said_by if head else ""
        claim = f"for {said}" if said and said != user else ""
        return shorten(", ".join(filter(None, [user, claim])), MAX_SAID)

    def _approved_by(self, valid: Valid, progress: Progress | None) -> str:
        if progress is not None:
            return progress.state.approved_by
        begun = _read_state(self.seen.status.candidate)
        if begun is not None and begun.digest == valid.digest:
            return begun.approved_by
        return self.weighed.by if self._is_let_in(valid) else ""

    def _is_let_in(self, valid: Valid) -> bool:
        """Say whether content begins by an approval alone: it failed before, or there is a gate before it."""
        if self.weighed.digest != valid.digest:
            return False
        if valid.digest in {each.digest for each in self.seen.status.failed}:
            return True
        begun, gate = _read_state(self.seen.status.candidate), self.base.backtest if self.base else None
        is_new = begun is None or begun.digest != valid.digest
        return is_new and stricter_backtest(valid.gates.backtest, gate) is not None

    def _why_new(self, wanted: PublishedRoute, before: Collection[str]) -> str:
        seen, base = self.seen, self.base
        if self._was_altered() and wanted.route.stable in routed_digests(seen.status.history or self.rows)[:1]:
            return RESTORED
        if base is None or base.route.stable != wanted.route.stable:
            if wanted.route.stable in before:
                return RETURNED
            tried = base.route.candidate if base else None
            return PROMOTED if tried and tried.digest == wanted.route.stable else APPLIED
        # Another time of creation is that of a policy which was deleted and written again.
        return UPDATED if base.created == wanted.created else APPLIED

    def _was_altered(self) -> bool:
        """Say whether somebody else than the operator wrote or deleted the route."""
        seen, base = self.seen, self.base
        if base is None:
            return seen.route is not None or bool(seen.status.history)
        meaning = self.meanings[base.route.stable]
        if (base.type, base.role, base.scope) != (meaning.type, meaning.role, meaning.scope):
            return True
        if any(each not in self.meanings for each in base.route.recent_stable):
            return True
        # The status names every route that the operator wrote, but for one after which it was killed at once.
        is_told = seen.head is not None and seen.status.observed_generation == seen.head.generation
        return (
            is_told
            and bool(seen.status.history)
            and row_of(base).identity not in {row.identity for row in seen.status.history}
        )

    def _is_akin(self, digest: str, goal: Meaning) -> bool:
        """Say whether a revision can stand in for the goal: it is there, and binds the same place."""
        found = self.meanings.get(digest)
        return found is not None and (found.type, found.scope) == (goal.type, goal.scope)

    def _around(self, verdict: Verdict | None, held: str, route: PublishedRoute | None) -> Decision:
        """Decide all that follows from the route."""
        seen = self.seen
        is_new = route is not None and (seen.route is None or route != seen.route.published)
        published = route or (seen.route.published if seen.route else None)
        rows = merge_rows([row_of(route)] if route and is_new else [], self.rows)
        effective = self._in_force(published, verdict, rows)
        overriding = None
        # The rows that a route's own comes after are written before it, and the ones that come after it, after it.
        if published and effective and not is_new and rows and rows[0].digest != effective:
            overriding = self._overriding_row(published, effective, rows)
        there = seen.route.allow_delete if seen.route else ""
        allow_delete = self._allow_delete(there)
        # What somebody put in a revision's place is replaced, or of no use.
        kept = {digest: each.rows for digest, each in seen.revisions.items() if each.meaning is not None}
        ends = row_of(published).identity if published else None
        prunable = self._prunable(verdict, published, effective, rows)
        gone = {each.digest for each in prunable}
        owed = owed_rows(
            (row for row in rows if row.identity != ends),
            {digest: before for digest, before in kept.items() if digest not in gone},
        )
        is_made_again = published is not None and any(
            row.digest == published.route.stable and row.identity != ends and row.digest not in kept for row in rows
        )
        if overriding:
            rows = merge_rows([overriding], rows)
        return Decision(
            verdict=verdict,
            held=held,
            route=route,
            is_new=is_new,
            writes_route=is_new or (route is not None and allow_delete != there),
            allow_delete=allow_delete,
            rows=rows,
            effective=effective,
            owed=owed,
            overriding=overriding,
            prunable=prunable,
            again=is_made_again or bool(is_new and effective and route and effective != route.route.stable),
        )

    def _in_force(self, route: PublishedRoute | None, verdict: Verdict | None, rows: tuple[Row, ...]) -> str | None:
        if route is None:
            return None
        present = set(self.meanings)
        if isinstance(verdict, Valid) and verdict.digest == route.route.stable:
            present.add(verdict.digest)
        if self.seen.override_problem and rows and rows[0].digest in present:
            # Somebody wrote it in an incident: gateways keep what is in force until they can read it.
            return rows[0].digest
        return in_force(route.route, self.seen.override, present, now=self.now)

    def _overriding_row(self, route: PublishedRoute, effective: str, rows: tuple[Row, ...]) -> Row:
        pin = self.seen.override.pin_at(self.now) if self.seen.override else None
        stable = name_revision(route.route.stable, route.version)
        if pin and pin.digest == effective:
            reason = f"{PINNED}: {pin.reason}" if pin.reason else PINNED
        elif effective == route.route.stable:
            reason = OVERRIDE_ENDED
        elif self.seen.override and route.route.stable in self.seen.override.reject:
            reason = f"{REJECTED}: {stable}"
        else:
            reason = f"{ROLLED_BACK}: {stable} cannot be used"
        return Row(
            epoch=self._next_epoch(rows),
            digest=effective,
            version=version_of(effective, route, rows, self.seen.revisions),
            time=write_time(self.now),
            reason=shorten(reason, MAX_SAID),
        )

    def _next_epoch(self, rows: tuple[Row, ...]) -> int:
        seen = self.seen
        route_epoch = seen.route.epoch if seen.route else None
        return next_epoch(rows, route_epoch=route_epoch, has_past=bool(seen.revisions))

    def _allow_delete(self, there: str) -> str:
        """Return what the route's annotation should say: what the policy says, while there is one."""
        if self.seen.head is None:
            return there
        if self.seen.head.may_be_deleted:
            return "true"
        # Leaving it out would not take away what somebody else wrote.
        return "false" if there == "true" else there

    def _prunable(
        self, verdict: Verdict | None, route: PublishedRoute | None, effective: str | None, rows: tuple[Row, ...]
    ) -> tuple[KeptRevision, ...]:
        said = self.seen.override or Override()
        if not isinstance(verdict, Valid) or route is None or self.seen.override_problem:
            return ()
        needed = {*route.route.recent_stable, *said.reject, verdict.digest}
        needed |= {each for each in (effective, said.pin.digest if said.pin else None) if each}
        return find_prunable(
            self.seen.revisions,
            rows,
            stable=route.route.stable,
            needed=needed,
            limit=verdict.revision_history_limit,
        )

    def _version(self, goal: Meaning) -> str:
        return version_of(goal.digest, None, self.rows, self.seen.revisions)


def version_of(
    digest: str, route: PublishedRoute | None, rows: Collection[Row], revisions: Mapping[str, KeptRevision]
) -> str:
    """Return the version by which people know a revision: the newest that it was in force by, or its first."""
    if route is not None and route.route.stable == digest and route.version:
        return route.version
    named = next((row.version for row in rows if row.digest == digest and row.version), "")
    return named or (revisions[digest].version if digest in revisions else "")


def _read_state(candidate: Candidate | None) -> State | None:
    """Return how far a rollout was when the status was written; None where none had begun, or it cannot be told."""
    if candidate is None or not (candidate.step and candidate.start_time):
        return None
    return State(
        digest=candidate.digest,
        version=candidate.version,
        start_time=datetime.fromisoformat(candidate.start_time),
        plan=candidate.plan,
        step=candidate.step,
        step_time=datetime.fromisoformat(candidate.step_time) if candidate.step_time else None,
        pause_time=datetime.fromisoformat(candidate.pause_time) if candidate.pause_time else None,
        decisions=candidate.decisions,
        approved_by=candidate.approved_by,
    )


def _with_what_is_beside(route: PublishedRoute, other: PublishedRoute) -> PublishedRoute:
    """Return a route with all of another one that says nothing of what is stable."""
    beside = replace(route.route, candidate=other.route.candidate)
    return replace(route, route=beside, never_loosen=other.never_loosen, backtest=other.backtest)


def _worst(analysis: Analysis) -> str:
    """Return the sentence of a metric that made the verdict what it is."""
    heard = [each for each in analysis.metrics if each.has_say]
    return next((each.sentence for each in heard if each.verdict is analysis.verdict), "nothing is enforced yet")
