"""The decision engine: signals and policies in, a decision out, and nothing else.

A policy's verdict is the strictest of its categories, lists and rules, of what it says about models that failed, and of
the limits that were hit. A decision is the strictest of the winner of each type and of every floor. Risk is the highest
ratio of score to block threshold (below 0.5 Low, 0.8 Medium, 1 High), at least Medium with Review, and Critical exactly
with Block, whatever caused it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec import UNSET

from baleen_core.decision.categories import (
    ALLOW,
    BLOCK,
    REVIEW,
    RISKS,
    VERDICTS,
    CategoryJudgement,
    CompiledCategory,
    Sighting,
    compile_category,
    is_unseen,
    judge_category,
    list_sightings,
)
from baleen_core.decision.rules import NOT_MATCHED, CompiledRule, RuleStatus, apply_rule, compile_stored_rule
from baleen_core.decision.segments import find_segments
from baleen_core.errors import NoPolicy
from baleen_core.policy.parse import DEFAULT_MAX_DISTANCE
from baleen_core.policy.schema import ListType, OnModelFailure, PolicyList, RevisionContent, Verdict
from baleen_core.ratio import format_ratio
from baleen_core.records import (
    RESCAN_DEBT,
    CategoryResult,
    Cohort,
    ContentType,
    Decision,
    Evidence,
    ListHit,
    Missing,
    PolicyRef,
    PolicyRole,
    Reason,
    Trial,
)

_ROLES: Final = tuple(PolicyRole)
_RULE_ERROR: Final = "RuleError"
_LIMITS: Final = {
    "AnimationTooLong": "the animation has more frames than are judged",
    "TextTooLong": "the text is longer than what is judged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """A revision that is ready to judge; `cohort` is the side of a rollout that it judges for.

    It is a policy's of this `name`, in this `namespace`; that is empty where nobody needs to know it. `on_failure` is
    the severity of a failed model; one that `rescans` allows what can be looked at again.
    """

    name: str
    version: str
    revision: RevisionContent
    cohort: Cohort
    categories: tuple[CompiledCategory, ...]
    lists: Mapping[str, tuple[PolicyList, ...]]
    rules: tuple[CompiledRule, ...]
    rule_signals: frozenset[str]
    on_failure: int
    namespace: str = ""
    rescans: bool = False

    def on_failure_of(self, evidence: Evidence) -> int:
        """Return the severity that a failed model means for this content: less where it can be looked at again."""
        return ALLOW if self.rescans and evidence.rescannable else self.on_failure

    def looks_at(self, signal: str) -> bool:
        """Say whether any category or rule of it reads a signal."""
        return signal in self.rule_signals or any(signal in category.signals for category in self.categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both revisions of a policy in a rollout, for one piece of content; which one counts is among the policies.

    The other fields are those of `Trial`.
    """

    stable: CompiledPolicy
    candidate: CompiledPolicy
    group: int
    rollout: str = ""
    exposed: bool = False
    weight: int = 0


class Effective(Protocol):
    """The policies that judge one piece of content: the winner of each type, every wider floor, every dry run.

    `trials` are those of them that are in a rollout, each with the side that does not count.
    """

    @property
    def winners(self) -> Sequence[CompiledPolicy]: ...
    @property
    def floors(self) -> Sequence[CompiledPolicy]: ...
    @property
    def dry_runs(self) -> Sequence[CompiledPolicy]: ...
    @property
    def trials(self) -> Sequence[Sides]: ...


class Judgement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one policy says: severity and risk (indices of VERDICTS and RISKS), and why, each reason with its severity.

    A list of the known good makes a policy `cleared`: no severity and no risk, whatever its categories scored.
    """

    severity: int
    risk: int
    cleared: bool
    categories: tuple[CategoryJudgement, ...]
    reasons: tuple[tuple[int, Reason], ...]
    failed: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return VERDICTS[self.severity]

    @property
    def has_failed(self) -> bool:
        """Say whether it was made without something that the policy looks at."""
        if self.cleared:
            return False
        return bool(self.failed) or any(reason.type == _RULE_ERROR for _, reason in self.reasons)


_SILENT: Final = Judgement(severity=0, risk=0, cleared=False, categories=(), reasons=(), failed=())
"""Of most content most policies say nothing: one object for all of it."""


def compile_policy(
    name: str, version: str, content: RevisionContent, signals: Collection[str], *, namespace: str = ""
) -> CompiledPolicy:
    """Make a revision ready to judge; `signals` are all that models offer now (`<model>.<signal>`).

    A revision that wants other signals compiles too: they count as not served.

    Raises:
        PolicyError: a rule is wrong.
    """
    policy = content.policy
    lists: dict[str, tuple[PolicyList, ...]] = {}
    for each in sorted(policy.lists, key=lambda each: each.name):
        lists[each.digest or ""] = (*lists.get(each.digest or "", ()), each)
    rules = sorted(policy.rules, key=lambda rule: rule.name)
    compiled = tuple(compile_stored_rule(rule, signals, policy.parameters) for rule in rules)
    return CompiledPolicy(
        name=name,
        version=version,
        revision=content,
        cohort=Cohort.STABLE,
        categories=tuple(map(compile_category, sorted(policy.categories, key=lambda category: category.name))),
        lists=lists,
        rules=compiled,
        rule_signals=frozenset(signal for rule in compiled for _, signal in rule.signals),
        on_failure=BLOCK if policy.on_model_failure is OnModelFailure.BLOCK else REVIEW,
        namespace=namespace,
        rescans=policy.on_model_failure is OnModelFailure.ALLOW_AND_RESCAN,
    )


def wanted_signals(
    policies: Iterable[CompiledPolicy], content_type: ContentType, language: str | None
) -> frozenset[str]:
    """Name every signal that the policies would look at, for content of that type and detected language."""
    wanted: set[str] = set()
    for policy in policies:
        wanted |= policy.rule_signals
        for category in policy.categories:
            if content_type != "text" or category.speaks(language):
                wanted.update(category.signals)
    return frozenset(wanted)


def judge(policy: CompiledPolicy, evidence: Evidence) -> Judgement:
    """Say what one policy says of the evidence."""
    return _judge(policy, evidence, list_sightings(evidence))


def decide(effective: Effective, evidence: Evidence) -> Decision:
    """Decide: the strictest of all winners and floors; dry runs only say what they would have done.

    Raises:
        NoPolicy: there is no winner; a floor alone allows nothing.
    """
    if not effective.winners:
        raise NoPolicy("no policy covers this content")
    enforced = (*effective.winners, *effective.floors)
    sightings = list_sightings(evidence)
    judgements = [_judge(policy, evidence, sightings) for policy in enforced]
    if not effective.dry_runs and not effective.trials and judgements.count(_SILENT) == len(judgements):
        return _decide_nothing(effective, evidence)
    severity = max([judgement.severity for judgement in judgements])
    dry = [_judge(policy, evidence, sightings) for policy in effective.dry_runs]
    would_be = [judgement.severity for judgement in dry]
    categories = _merge_categories(judgements)
    return Decision(
        decision=VERDICTS[severity],
        would_be=VERDICTS[max(severity, *would_be)] if would_be else None,
        risk=RISKS[_rate_risk(severity, judgements)],
        score=max([category.score or 0 for category in categories], default=0),
        categories=categories,
        reasons=_merge_reasons(judgements),
        policies=_list_policies(effective),
        degraded=_list_degraded(enforced, judgements, evidence, severity),
        segments=find_segments(
            [judgement.categories for judgement in judgements if not judgement.cleared], evidence.frames
        )
        if evidence.frames
        else (),
        trials=_try_all(effective, evidence, sightings, (*judgements, *dry)) if effective.trials else (),
    )


def _decide_nothing(effective: Effective, evidence: Evidence) -> Decision:
    """Say what most decisions say: no policy had anything to say."""
    return Decision(
        decision=Verdict.ALLOW,
        would_be=None,
        risk=RISKS[0],
        score=0,
        categories=(),
        reasons=(),
        policies=_list_policies(effective),
        degraded=_list_degraded((*effective.winners, *effective.floors), (), evidence, ALLOW),
        segments=(),
    )


def find_limits(policy: CompiledPolicy, evidence: Evidence) -> tuple[str, ...]:
    """Return the limits that were hit and concern a policy: what only others look at is nothing to it."""
    models = {model_of(signal) for signal in wanted_signals((policy,), evidence.content.type, evidence.language)}
    about = ((limit, evidence.limited.get(limit, ())) for limit in evidence.limits)
    return tuple(limit for limit, those in about if not those or models.intersection(those))


def model_of(signal: str) -> str:
    """Name the model of a signal."""
    return signal.partition(".")[0]


def list_matches(policy: CompiledPolicy, hits: Iterable[ListHit]) -> tuple[tuple[PolicyList, ListHit], ...]:
    """Return the lists of a policy that were hit, each with its hits, within the distance that it allows."""
    return tuple(
        (each, hit)
        for hit in hits
        for each in policy.lists.get(hit.list_digest, ())
        if hit.distance is None or hit.distance <= max_distance_of(each)
    )


def max_distance_of(each: PolicyList) -> int:
    """Return in how many bits a perceptual hash may differ from an entry of the list."""
    return DEFAULT_MAX_DISTANCE if each.max_distance is None else each.max_distance


def _judge(policy: CompiledPolicy, evidence: Evidence, sightings: Sequence[Sighting]) -> Judgement:
    on_failure = policy.on_failure_of(evidence)
    found = [judge_category(each, evidence, sightings, on_failure=on_failure) for each in policy.categories]
    categories = tuple([category for category in found if category is not None])
    reasons: list[tuple[int, Reason]] = []
    failed: list[str] = []
    for category in categories:
        if category.severity or category.failed:
            reasons += _explain_category(category, evidence, sightings, on_failure=on_failure)
            failed += category.failed
    if policy.rules:
        _judge_rules(policy, evidence, reasons, failed)
    if evidence.limits:
        reasons += _judge_limits(policy, evidence)
    clearing = None
    if evidence.lists and policy.lists:
        hits, clearing = _judge_lists(policy, evidence)
        reasons += hits
    # The known good is known as a whole: neither a model that failed nor a frame that was not seen takes that back.
    if clearing is not None:
        return Judgement(
            severity=0, risk=0, cleared=True, categories=categories, reasons=(clearing,), failed=tuple(failed)
        )
    if evidence.video is None and not categories and not reasons and not failed:
        return _SILENT
    if evidence.video is not None:
        blocks = any(severity == BLOCK for severity, _ in reasons)
        reasons += _judge_coverage(policy, evidence, blocks=blocks)
    return Judgement(
        severity=max([severity for severity, _ in reasons], default=0),
        risk=max([category.risk for category in categories], default=0),
        cleared=False,
        categories=categories,
        reasons=tuple(reasons),
        failed=tuple(failed),
    )


def _try_all(
    effective: Effective, evidence: Evidence, sightings: Sequence[Sighting], judgements: Sequence[Judgement]
) -> tuple[Trial, ...]:
    judged = (*effective.winners, *effective.floors, *effective.dry_runs)
    known = dict(zip(map(id, judged), judgements, strict=True))
    found = [_try(sides, evidence, sightings, known) for sides in effective.trials]
    return tuple(sorted(found, key=_trial_order))


def _trial_order(trial: Trial) -> tuple[str, str, str, str]:
    return trial.name, trial.stable, trial.candidate, trial.namespace or ""


def _try(sides: Sides, evidence: Evidence, sightings: Sequence[Sighting], known: Mapping[int, Judgement]) -> Trial:
    """Judge by the side that does not count, too; the one that does has judged already."""
    stable, candidate = (
        known.get(id(policy)) or _judge(policy, evidence, sightings) for policy in (sides.stable, sides.candidate)
    )
    return Trial(
        name=sides.stable.name,
        stable=sides.stable.revision.digest,
        candidate=sides.candidate.revision.digest,
        stable_verdict=stable.verdict,
        candidate_verdict=candidate.verdict,
        group=sides.group,
        rollout=sides.rollout,
        exposed=sides.exposed,
        weight=sides.weight,
        failed=(candidate if sides.exposed else stable).has_failed,
        namespace=sides.stable.namespace or UNSET,
    )


def _explain_category(
    judgement: CategoryJudgement, evidence: Evidence, sightings: Sequence[Sighting], *, on_failure: int
) -> list[tuple[int, Reason]]:
    name = judgement.category.name
    if judgement.language_unsupported:
        text = f"{name} is not made for text in {evidence.language}"
        return [(REVIEW, Reason(type="Language", name=name, text=text))]
    reasons = [_explain_failure(signal, evidence, on_failure) for signal in judgement.failed]
    if proven := max(finding.severity for finding in judgement.findings):
        # The first of the strictest sightings stands for all of them.
        at = next(index for index, finding in enumerate(judgement.findings) if finding.severity == proven)
        text = _explain_scores(judgement.category, sightings[at], proven)
        reasons.append((proven, Reason(type="Category", name=name, text=text)))
    return reasons


def _explain_scores(category: CompiledCategory, sighting: Sighting, severity: int) -> str:
    """Name the scores that reached their threshold, but not the threshold: that is for those who may ask for more."""
    vote, name = (category.block, "block") if severity == BLOCK else (category.review, "review")
    reached = [
        f"{signal} ({format_ratio(sighting.scores[signal])})"
        for signal, threshold in vote.thresholds
        if sighting.scores.get(signal, -1) >= threshold
    ]
    at = sighting.at_milliseconds
    moment = "" if at is None else f" at {at // 1000}.{at % 1000:03d} s"
    return f"{name} threshold reached by {' and '.join(reached)}{moment}"


def _explain_failure(signal: str, evidence: Evidence, on_failure: int) -> tuple[int, Reason]:
    model = model_of(signal)
    if signal in evidence.signals:
        text = f"{model} did not answer for all of the content"
    elif evidence.missing.get(signal) is Missing.FAILED:
        text = f"{model} did not answer"
    else:
        text = f"no model that is served offers {signal}"
    return on_failure, Reason(type="ModelFailure", name=model, text=text)


def _judge_rules(
    policy: CompiledPolicy, evidence: Evidence, reasons: list[tuple[int, Reason]], failed: list[str]
) -> None:
    for rule in policy.rules:
        outcome = apply_rule(rule, evidence)
        if outcome is NOT_MATCHED:
            continue
        failed += outcome.failed
        match outcome.status:
            case RuleStatus.MATCHED if rule.action is not Verdict.ALLOW:
                text = rule.reason or f"the rule {rule.name} matches"
                reasons.append((rule.action.severity, Reason(type="Rule", name=rule.name, text=text)))
            case RuleStatus.ERROR:
                reasons.append((REVIEW, Reason(type=_RULE_ERROR, name=rule.name, text=outcome.why)))
        if outcome.waits:
            on_failure = policy.on_failure_of(evidence)
            reasons += [_explain_failure(signal, evidence, on_failure) for signal in outcome.failed]


def _judge_limits(policy: CompiledPolicy, evidence: Evidence) -> list[tuple[int, Reason]]:
    """What was not looked at may be anything, so a person looks at it, for policies that would have looked."""
    kind = evidence.content.type
    return [
        (REVIEW, Reason(type=limit, name=kind, text=_LIMITS.get(limit, "a limit of what is judged was hit")))
        for limit in find_limits(policy, evidence)
    ]


def _judge_coverage(policy: CompiledPolicy, evidence: Evidence, *, blocks: bool) -> list[tuple[int, Reason]]:
    """Say whether enough of a video was seen; an early exit is enough only for the policies that block."""
    assert evidence.video is not None, "only a video has a coverage"
    coverage, least = evidence.video.coverage, policy.revision.policy.video.min_coverage
    if is_unseen(evidence):
        text = "no frame of the video could be judged"
    elif coverage.ratio < least and not (coverage.early_exit and blocks):
        text = f"{format_ratio(coverage.ratio)} of the video was judged; it must be {format_ratio(least)}"
    else:
        return []
    return [(REVIEW, Reason(type="Coverage", name=evidence.content.type, text=text))]


def _judge_lists(
    policy: CompiledPolicy, evidence: Evidence
) -> tuple[list[tuple[int, Reason]], tuple[int, Reason] | None]:
    """Return the reasons of all hits, and the one that clears the content of this policy, if any does."""
    matched = {each.name: each for each, _ in list_matches(policy, evidence.lists)}
    reasons = [
        (each.action.severity, Reason(type="List", name=name, text=f"the content matches the list {name}"))
        for name, each in sorted(matched.items())
        if each.action is not Verdict.ALLOW
    ]
    # Only a digest says that the whole content is known; a term or a likeness would let anything through.
    clearing = [name for name, each in matched.items() if _may_clear(each)]
    if not clearing or any(severity == BLOCK for severity, _ in reasons):
        return reasons, None
    name = min(clearing)
    return reasons, (0, Reason(type="List", name=name, text=f"the content is known to be good by the list {name}"))


def _may_clear(each: PolicyList) -> bool:
    return each.action is Verdict.ALLOW and each.type is ListType.DIGEST


def _rate_risk(severity: int, judgements: Sequence[Judgement]) -> int:
    if severity == BLOCK:
        return len(RISKS) - 1
    highest = max([judgement.risk for judgement in judgements])
    return max(highest, 1) if severity == REVIEW else highest


def _merge_categories(judgements: Sequence[Judgement]) -> tuple[CategoryResult, ...]:
    """Return one result a name, the strictest and highest, by name."""
    merged: dict[str, CategoryResult] = {}
    for judgement in judgements:
        for each in judgement.categories:
            name, severity = each.category.name, 0 if judgement.cleared else each.severity
            result = CategoryResult(name=name, score=each.score, decision=VERDICTS[severity], signals=each.signals)
            other = merged.get(name)
            merged[name] = result if other is None else _merge_results(other, result)
    if len(judgements) == 1:
        return tuple(merged.values())
    return tuple(result for _, result in sorted(merged.items()))


def _merge_results(one: CategoryResult, other: CategoryResult) -> CategoryResult:
    scores = [result.score for result in (one, other) if result.score is not None]
    return CategoryResult(
        name=one.name,
        score=max(scores, default=None),
        decision=max(one.decision, other.decision, key=lambda verdict: verdict.severity),
        signals=dict(sorted({**one.signals, **other.signals}.items())),
    )


def _merge_reasons(judgements: Sequence[Judgement]) -> tuple[Reason, ...]:
    if not any(judgement.reasons for judgement in judgements):
        return ()
    unique = {
        (-severity, reason.type, reason.name, reason.text): reason
        for judgement in judgements
        for severity, reason in judgement.reasons
    }
    # The same reason may come from two policies with different severities: it is told once, as the stricter.
    return tuple(dict.fromkeys(unique[key] for key in sorted(unique)))


def _list_policies(effective: Effective) -> tuple[PolicyRef, ...]:
    asked = [_refer(policy, PolicyRole.WINNER) for policy in effective.winners]
    if effective.floors:
        asked += [_refer(policy, PolicyRole.FLOOR) for policy in effective.floors]
    if effective.dry_runs:
        asked += [_refer(policy, PolicyRole.DRY_RUN) for policy in effective.dry_runs]
    return tuple(asked) if len(asked) == 1 else tuple(sorted(asked, key=_policy_order))


def _refer(policy: CompiledPolicy, role: PolicyRole) -> PolicyRef:
    return PolicyRef(
        role,
        policy.name,
        policy.revision.type,
        policy.version,
        policy.revision.digest,
        policy.cohort,
        policy.namespace or UNSET,
    )


def _policy_order(ref: PolicyRef) -> tuple[int, str, str, str, str, str, str]:
    return _ROLES.index(ref.role), ref.type, ref.name, ref.version, ref.digest, ref.cohort, ref.namespace or ""


def _list_degraded(
    policies: Sequence[CompiledPolicy], judgements: Sequence[Judgement], evidence: Evidence, severity: int
) -> tuple[str, ...]:
    if not evidence.fallbacks and not any(judgement.failed for judgement in judgements):
        return evidence.degraded
    failed = {model_of(signal) for judgement in judgements for signal in judgement.failed}
    failed.update(
        model_of(signal) for signal in evidence.fallbacks if any(policy.looks_at(signal) for policy in policies)
    )
    owed = severity == ALLOW and any(map(partial(_owes_rescan, evidence=evidence), policies, judgements))
    return (*sorted(failed), *((RESCAN_DEBT,) if owed else ()), *evidence.degraded)


def _owes_rescan(policy: CompiledPolicy, judgement: Judgement, evidence: Evidence) -> bool:
    return policy.rescans and evidence.rescannable and bool(judgement.failed) and not judgement.cleared
