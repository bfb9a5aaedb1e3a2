"""Explanations: what was decided and why, in sentences for people, thresholds and list entries included.

They are for those who may see a policy: reviewers and its authors, not the callers whose content is judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from baleen_core.decision.categories import (
    BLOCK,
    REVIEW,
    VERDICTS,
    CategoryJudgement,
    CompiledCategory,
    Vote,
    is_unseen,
    list_sightings,
)
from baleen_core.decision.engine import CompiledPolicy, Judgement, judge, list_matches, model_of
from baleen_core.decision.replay import recorded_policies
from baleen_core.decision.rules import CompiledRule, RuleStatus, apply_rule
from baleen_core.policy.schema import Verdict
from baleen_core.ratio import format_ratio
from baleen_core.records import (
    POLICY_SOURCE,
    RESCAN_DEBT,
    DecisionRecord,
    Evidence,
    Missing,
    PolicyRole,
    Trial,
    side_of,
)

_SHORT_DIGEST: Final = len("sha256:") + 10


def explain(record: DecisionRecord, policies: Mapping[str, CompiledPolicy]) -> tuple[str, ...]:
    """Tell a recorded decision; `policies` holds the revisions at hand by their digest. Equal records, equal sentences.

    Raises:
        NotFound: a revision that judged is not at hand.
    """
    asked = recorded_policies(record, policies)
    evidence, decision = record.evidence, record.decision
    sentences = [f"The decision is {decision.decision} with {decision.risk} risk."]
    sentences += _explain_content(evidence)
    for role, members in (
        (PolicyRole.WINNER, asked.winners),
        (PolicyRole.FLOOR, asked.floors),
        (PolicyRole.DRY_RUN, asked.dry_runs),
    ):
        for policy in members:
            sentences += _explain_policy(role, policy, evidence)
    if RESCAN_DEBT in decision.degraded:
        sentences.append("It holds until the models that failed are back; then the content is looked at again.")
    if record.rescan_of:
        sentences.append(f"This is the second look at what decision {record.rescan_of} allowed for now.")
    for trial in decision.trials:
        sentences.append(_explain_trial(trial))
    if decision.would_be is not None:
        sentences.append(f"With the policies that are only tried out, the decision would be {decision.would_be}.")
    return tuple(sentences)


def _explain_content(evidence: Evidence) -> Iterator[str]:
    kind = evidence.content.type
    if kind == "text":
        yield f"The language of the text is {evidence.language or 'not known'}."
    if evidence.models:
        models = ", ".join(sorted(f"{model.name} {model.version}" for model in evidence.models))
        yield f"These models answered: {models}."
    for signal, other in sorted(evidence.fallbacks.items()):
        yield f"The model {model_of(signal)} failed; {other} stands in for {signal}."
    if POLICY_SOURCE in evidence.degraded:
        yield "The source of policies was lost then, so newer ones may not have been in force yet."
    if evidence.video is not None:
        coverage = evidence.video.coverage
        stopped = "; it was stopped early, at a block" if coverage.early_exit else ""
        yield (
            f"{coverage.frames_judged} of {coverage.frames_expected} frames of the video were judged "
            f"({format_ratio(coverage.ratio)}){stopped}."
        )


def _explain_policy(role: PolicyRole, policy: CompiledPolicy, evidence: Evidence) -> Iterator[str]:
    judgement = judge(policy, evidence)
    yield f"{_introduce(role, policy)} says {judgement.verdict}."
    if judgement.cleared:
        cleared_by = judgement.reasons[0][1].name
        yield f"The list {cleared_by} knows the content to be good, so what follows does not count."
    judged = {each.category.name: each for each in judgement.categories}
    for category in policy.categories:
        yield from _explain_category(category, judged.get(category.name), policy, evidence)
    for each, hit in list_matches(policy, evidence.lists):
        distance = "" if hit.distance is None else f" at a distance of {hit.distance} bits"
        yield f"The list {each.name} has {hit.entry!r}{distance}, which means {each.action}."
    for rule in policy.rules:
        yield _explain_rule(rule, policy, evidence)
    yield from _explain_limits(judgement)


def _explain_trial(trial: Trial) -> str:
    return (
        f"A candidate of {trial.name} was being rolled out: Stable ({trial.stable[:_SHORT_DIGEST]}) says "
        f"{trial.stable_verdict}, Candidate ({trial.candidate[:_SHORT_DIGEST]}) says {trial.candidate_verdict}; "
        f"this content was judged for {side_of(trial)}."
    )


def _introduce(role: PolicyRole, policy: CompiledPolicy) -> str:
    version = f" {policy.version}" if policy.version else ""
    name = f"{policy.name}{version} ({policy.revision.digest[:_SHORT_DIGEST]}, {policy.cohort})"
    match role:
        case PolicyRole.WINNER:
            return f"The {policy.revision.type} policy {name}"
        case PolicyRole.FLOOR:
            return f"The floor {name}, which no narrower policy can undercut,"
        case PolicyRole.DRY_RUN:
            return f"The policy {name}, which is only tried out,"


def _explain_category(
    category: CompiledCategory, judgement: CategoryJudgement | None, policy: CompiledPolicy, evidence: Evidence
) -> Iterator[str]:
    if judgement is None or judgement.language_unsupported:
        yield f"{category.name} was not judged: {_why_unjudged(category, judgement, evidence)}."
        return
    scores = "; ".join(_explain_signal(category, signal, score) for signal, score in judgement.signals.items())
    led_to = max((finding.severity for finding in judgement.findings), default=0)
    if scores:
        required = _explain_requirement(category, led_to)
        frames = _explain_frames(judgement, led_to, evidence)
        yield f"{category.name} led to {VERDICTS[led_to]}: {scores}{required}.{frames}"
    means = _on_failure(policy, evidence)
    for signal in judgement.failed:
        why = _why_missing(signal, evidence)
        lacks = "has only a part of" if signal in evidence.signals else "is without"
        yield f"{category.name} {lacks} {signal}: {why}, which means {means} (onModelFailure)."


def _why_unjudged(category: CompiledCategory, judgement: CategoryJudgement | None, evidence: Evidence) -> str:
    if evidence.content.type == "text" and not category.speaks(evidence.language):
        means = VERDICTS[REVIEW] if judgement is not None else "that it is skipped"
        languages = ", ".join(sorted(category.languages))
        return f"it is made for text in {languages} and this is {evidence.language}, which means {means}"
    if is_unseen(evidence):
        return "no frame of the video could be judged"
    return f"no model that is served offers its signals for {evidence.content.type}"


def _explain_signal(category: CompiledCategory, signal: str, score: int) -> str:
    thresholds = [
        f"{verdict} at {format_ratio(threshold)}"
        for verdict, vote in (("review", category.review), ("block", category.block))
        for name, threshold in vote.thresholds
        if name == signal
    ]
    return f"{signal} is {format_ratio(score)} ({', '.join(thresholds) or 'no threshold'})"


def _explain_requirement(category: CompiledCategory, led_to: int) -> str:
    def needs_all(vote: Vote) -> bool:
        return vote.needs_all and len(vote.thresholds) > 1

    strict = [name for name, vote in (("review", category.review), ("block", category.block)) if needs_all(vote)]
    return f"; all must agree to {' and to '.join(strict)}" if strict and led_to != BLOCK else ""


def _explain_frames(judgement: CategoryJudgement, led_to: int, evidence: Evidence) -> str:
    if not evidence.frames or not led_to:
        return ""
    at = [
        sighting.at_milliseconds or 0
        for sighting, finding in zip(list_sightings(evidence), judgement.findings, strict=True)
        if finding.severity == led_to
    ]
    return f" That is so in {len(at)} of {len(evidence.frames)} frames, first at {at[0] // 1000}.{at[0] % 1000:03d} s."


def _why_missing(signal: str, evidence: Evidence) -> str:
    if evidence.missing.get(signal) is Missing.FAILED or signal in evidence.signals:
        return f"the model {model_of(signal)} failed"
    return "no model that is served offers it"


def _on_failure(policy: CompiledPolicy, evidence: Evidence) -> str:
    verdict = VERDICTS[policy.on_failure_of(evidence)]
    return f"{verdict} for now, and another look later" if policy.rescans and evidence.rescannable else verdict.value


def _explain_rule(rule: CompiledRule, policy: CompiledPolicy, evidence: Evidence) -> str:
    outcome = apply_rule(rule, evidence)
    match outcome.status:
        case RuleStatus.MATCHED:
            reason = f" ({rule.reason})" if rule.reason else ""
            unknown = f"; its model failed too, which means {_on_failure(policy, evidence)} (onModelFailure)"
            return f"The rule {rule.name} matched{reason}, which means {rule.action}{unknown if outcome.waits else ''}."
        case RuleStatus.NOT_MATCHED:
            return f"The rule {rule.name} did not match."
        case RuleStatus.NOT_APPLIED:
            return f"The rule {rule.name} could not be applied and does not count: {outcome.why}."
        case RuleStatus.FAILED:
            means = _on_failure(policy, evidence)
            return f"The rule {rule.name} could not be applied: {outcome.why}, which means {means} (onModelFailure)."
        case RuleStatus.ERROR:
            return f"The rule {rule.name} could not be evaluated: {outcome.why}, which means {Verdict.REVIEW}."


def _explain_limits(judgement: Judgement) -> Sequence[str]:
    told = {"Category", "Language", "List", "ModelFailure", "Rule", "RuleError"}
    return [
        f"{reason.type}: {reason.text}, which means {VERDICTS[severity]}."
        for severity, reason in sorted(judgement.reasons, key=lambda each: (each[1].type, each[1].text))
        if reason.type not in told
    ]
