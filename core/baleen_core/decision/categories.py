"""Categories: scores against thresholds, one picture at a time, and how near they came to a block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from baleen_core.policy.schema import Category, OnLanguageUnsupported, OnSignalMissing, Require, Threshold, Verdict
from baleen_core.records import Evidence, Missing, Risk

ALLOW: Final = Verdict.ALLOW.severity
REVIEW: Final = Verdict.REVIEW.severity
BLOCK: Final = Verdict.BLOCK.severity

VERDICTS: Final = tuple(sorted(Verdict, key=lambda verdict: verdict.severity))
RISKS: Final = (Risk.LOW, Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL)
_LOW, _MEDIUM, _HIGH, _CRITICAL = range(len(RISKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The signals that have a threshold (millionths) for one verdict, and whether all of them must reach it."""

    thresholds: tuple[tuple[str, int], ...]
    needs_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCategory:
    """A category that is ready to be judged. No `languages` means all."""

    name: str
    signals: tuple[str, ...]
    review: Vote
    block: Vote
    ignores_unserved: bool
    languages: frozenset[str]
    reviews_other_languages: bool

    def speaks(self, language: str | None) -> bool:
        """Say whether the category is made for text in that language; one that could not be told may be any."""
        return not self.languages or language is None or language in self.languages


class Sighting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The scores of one moment: of a text, a still image, or one frame of a video.

    A signal may have a score and be missing as Failed: it was seen in a part, and the rest is not known.
    """

    at_milliseconds: int | None
    scores: Mapping[str, int]
    missing: Mapping[str, Missing]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one sighting proves about a category: a severity, the risk (an index of RISKS), and who did not answer."""

    severity: int
    risk: int
    score: int | None
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryJudgement:
    """What a category leads to: the strictest and highest of its findings, one a sighting.

    `severity` includes what the policy says about failed signals and unsupported languages.
    """

    category: CompiledCategory
    severity: int
    risk: int
    score: int | None
    signals: dict[str, int]
    failed: tuple[str, ...]
    language_unsupported: bool
    findings: tuple[Finding, ...]


def compile_category(category: Category) -> CompiledCategory:
    """Prepare a category, so that judging it is one pass over its signals."""
    signals = tuple(sorted(category.signals, key=lambda threshold: threshold.signal))
    return CompiledCategory(
        name=category.name,
        signals=tuple(threshold.signal for threshold in signals),
        review=_compile_vote(signals, "review", category.require.review),
        block=_compile_vote(signals, "block", category.require.block),
        ignores_unserved=category.on_signal_missing is OnSignalMissing.IGNORE,
        languages=frozenset(category.languages),
        reviews_other_languages=category.on_language_unsupported is OnLanguageUnsupported.REVIEW,
    )


def _compile_vote(signals: Sequence[Threshold], verdict: Literal["review", "block"], require: Require) -> Vote:
    levels = [(each.signal, each.review if verdict == "review" else each.block) for each in signals]
    return Vote(
        thresholds=tuple((signal, level) for signal, level in levels if level is not None),
        needs_all=require is Require.ALL,
    )


def list_sightings(evidence: Evidence) -> tuple[Sighting, ...]:
    """Take evidence apart into the moments that are judged one by one."""
    if not evidence.frames:
        return (Sighting(at_milliseconds=None, scores=evidence.signals, missing=evidence.missing),)
    # A score that other frames have and this one has not was asked for and not answered.
    unanswered = evidence.missing | dict.fromkeys(evidence.signals, Missing.FAILED)
    return tuple(
        Sighting(
            at_milliseconds=frame.at_milliseconds,
            scores=frame.signals,
            missing={signal: why for signal, why in unanswered.items() if signal not in frame.signals},
        )
        for frame in evidence.frames
    )


def is_unseen(evidence: Evidence) -> bool:
    """Say whether it is of a video of which not one frame could be judged: then no model was asked, and none failed."""
    return evidence.video is not None and not evidence.frames


def judge_category(
    category: CompiledCategory, evidence: Evidence, sightings: Sequence[Sighting], *, on_failure: int
) -> CategoryJudgement | None:
    """Judge a category; None when it has nothing to say about this content.

    `on_failure` is the severity of the policy's onModelFailure.
    """
    if is_unseen(evidence):
        return None
    if evidence.content.type == "text" and not category.speaks(evidence.language):
        return _judge_other_language(category)
    findings = tuple([find(category, sighting) for sighting in sightings])
    signals = {signal: evidence.signals[signal] for signal in category.signals if signal in evidence.signals}
    failed = _union(category, findings, evidence) if evidence.frames else findings[0].failed
    if not signals and not failed:
        return None
    severity = max([finding.severity for finding in findings])
    return CategoryJudgement(
        category=category,
        severity=max(severity, on_failure) if failed else severity,
        risk=max([finding.risk for finding in findings]),
        score=max(signals.values(), default=None),
        signals=signals,
        failed=failed,
        language_unsupported=False,
        findings=findings,
    )


def find(category: CompiledCategory, sighting: Sighting) -> Finding:
    """Judge one sighting by its scores alone, also those of a signal that failed after a part.

    A signal that no model serves (and that must be served) counts as failed; one that does not apply is left out.
    """
    scores, score = sighting.scores, None
    failed: tuple[str, ...] = ()
    for signal in category.signals:
        value = scores.get(signal)
        if value is None:
            failed += _failure(category, signal, sighting.missing)
            continue
        if sighting.missing.get(signal) is Missing.FAILED:
            failed += (signal,)
        if score is None or value > score:
            score = value
    risk = nearness(category.block, scores, failed)
    if risk == _CRITICAL:
        severity = BLOCK
    else:
        severity = REVIEW if nearness(category.review, scores, failed) == _CRITICAL else ALLOW
    return Finding(severity=severity, risk=risk, score=score, failed=failed)


def nearness(vote: Vote, scores: Mapping[str, int], failed: Sequence[str]) -> int:
    """Say how near the scores came to a verdict, as an index of RISKS: Critical exactly if they reached it.

    It is the ratio of score to threshold: the highest of the signals, or the lowest when all must reach theirs (which
    one that failed without any score does not).
    """
    risks = [_risk_of(scores[signal], threshold) for signal, threshold in vote.thresholds if signal in scores]
    if not risks:
        return _LOW
    if not vote.needs_all:
        return max(risks)
    unknown = failed and any(signal in failed and signal not in scores for signal, _ in vote.thresholds)
    return _LOW if unknown else min(risks)


def _risk_of(score: int, threshold: int) -> int:
    if score >= threshold:
        return _CRITICAL
    if score * 5 >= threshold * 4:
        return _HIGH
    return _MEDIUM if score * 2 >= threshold else _LOW


def _failure(category: CompiledCategory, signal: str, missing: Mapping[str, Missing]) -> tuple[str, ...]:
    reason = missing.get(signal, Missing.NOT_SERVED)
    if reason is Missing.NOT_APPLICABLE or (reason is Missing.NOT_SERVED and category.ignores_unserved):
        return ()
    return (signal,)


def _union(category: CompiledCategory, findings: Sequence[Finding], evidence: Evidence) -> tuple[str, ...]:
    anywhere = {signal for signal in category.signals if evidence.missing.get(signal) is Missing.FAILED}
    return tuple(sorted(anywhere.union(*[finding.failed for finding in findings])))


def _judge_other_language(category: CompiledCategory) -> CategoryJudgement | None:
    if not category.reviews_other_languages:
        return None
    return CategoryJudgement(
        category=category,
        severity=REVIEW,
        risk=_LOW,
        score=None,
        signals={},
        failed=(),
        language_unsupported=True,
        findings=(),
    )
