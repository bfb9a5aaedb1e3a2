"""What the metrics of a rollout say together, at any look: pass, fail, not known yet, or not measurable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import isnan, sqrt
from typing import Final, TypeVar

from baleen_core.analysis.counts import GROUPS, CohortCounts, LatencyCounts, PairedCounts
from baleen_core.analysis.estimate import Change, cohorts_change, paired_change
from baleen_core.analysis.latency import latency_change
from baleen_core.analysis.looks import Streak, describe_looks
from baleen_core.analysis.metrics import PAIRED, Interval, Metric, MetricType, Mode
from baleen_core.analysis.words import figure, interval_text, limits_text
from baleen_core.ratio import MILLION, format_ratio

MIN_GROUPS: Final = 30
"""With fewer groups that have decisions, in either arm, how much groups differ by chance is not known."""
MAX_MISSING: Final = 50_000
"""Millionths of an arm's decisions that the counters may lack, or have too many of."""
MAX_UNEQUAL: Final = 10_000
"""Millionths by which what is missing may differ between the arms, and more where chance explains it."""
CHANCE: Final = 4.0
"""Standard errors by which chance explains that more is missing in one arm: it does at 1 of 16,000 looks."""

_NAMED: Final = 3
_NAME_LENGTH: Final = 63

Counts = PairedCounts | Sequence[CohortCounts] | Sequence[LatencyCounts]
"""Of a metric; of cohorts, one for each weight that the candidate has had, in any order."""
_T = TypeVar("_T", CohortCounts, LatencyCounts)


class AnalysisVerdict(StrEnum):
    """Inconclusive: more traffic may tell. Error: it could not be measured."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


class Reason(StrEnum):
    """Why a metric's verdict is what it is."""

    WITHIN_LIMITS = "WithinLimits"
    INCREASED = "Increased"
    DECREASED = "Decreased"
    NOT_SURE_YET = "NotSureYet"
    TOO_FEW_UNITS = "TooFewUnits"
    NO_DATA = "NoData"
    NO_COHORTS = "NoCohorts"
    COUNTS_MISSING = "CountsMissing"
    COUNTS_UNEQUAL = "CountsUnequal"
    COUNTS_DOUBTED = "CountsDoubted"
    BEYOND_LIMITS = "BeyondLimits"
    TOO_FEW_LOOKS = "TooFewLooks"
    NO_NUMBER = "NoNumber"
    NOT_EXPOSED = "NotExposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many decisions each arm is known to have made since the start, and how many of those the counters have.

    `doubted` names those who count, but say what cannot be true.
    """

    stable_made: int
    stable_counted: int
    candidate_made: int
    candidate_counted: int
    doubted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """A metric's figures (rates, or seconds), where its change lies, and what that means, in a sentence for people.

    Figures are None without data. The interval is None where it is not to be trusted, and else what the next look wants
    as `earlier`. A PromQL metric has one figure, the `candidate`'s, and its `looks` instead.
    """

    metric: Metric
    stable: float | None = None
    candidate: float | None = None
    interval: Interval | None = None
    looks: Streak | None = None
    verdict: AnalysisVerdict
    reason: Reason
    sentence: str

    @property
    def has_say(self) -> bool:
        """Whether it counts for the verdict of the whole."""
        return self.metric.mode is Mode.ENFORCE and self.reason not in (Reason.NO_COHORTS, Reason.NOT_EXPOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The verdict of all metrics that have a say, and each metric's own."""

    verdict: AnalysisVerdict
    metrics: tuple[MetricResult, ...]

    @property
    def awaited(self) -> str:
        """The sentence of a metric that had too few looks in this step to decide, if more may; else empty."""
        if self.verdict is not AnalysisVerdict.INCONCLUSIVE:
            return ""
        few = (each for each in self.metrics if each.has_say and each.reason is Reason.TOO_FEW_LOOKS)
        return next((each.sentence for each in few), "")


def analyse(
    metrics: Sequence[Metric],
    counts: Mapping[str, Counts],
    *,
    coverage: Coverage,
    confidence: int,
    earlier: Mapping[str, Interval] | None = None,
    has_cohorts: bool = True,
    looks: Mapping[str, Streak] | None = None,
    is_exposed: bool = True,
) -> Analysis:
    """Compare a candidate with what is stable, by all that was counted since the rollout's start.

    `counts` has those of each metric by its name. `confidence` is in millionths, above 0 and below 1,000,000: with that
    probability all intervals hold the truth at every look, however many there are and whatever is done about them. What
    is left of it is divided among metrics and their two sides. `earlier` has intervals of the last look that was to be
    trusted, by metric; those of this one lie within. Until chance has decided for some content which side judges it
    (not `has_cohorts`), metrics that compare cohorts are Inconclusive and have no say.

    PromQL metrics go by the `looks` of this step, see `looks.py`, and have no part in the confidence. Those that ask by
    the candidate's digest have no say while it judges nobody (not `is_exposed`).

    It fails when an enforced metric's change is certainly beyond a limit, is an error when one cannot be measured,
    passes when all are certainly within their limits, and is inconclusive otherwise. With counts missing, nothing else
    that is counted is judged.

    Raises:
        ValueError: the confidence is out of its range, or counts are not of their metric's kind.
    """
    if not 0 < confidence < MILLION:
        raise ValueError(f"confidence must be above 0% and below 100%, not {confidence / MILLION:.4%}")
    counted = [each for each in metrics if each.type is not MetricType.PROMQL]
    alpha = (1 - confidence / MILLION) / (2 * max(1, len(counted)))
    before, streaks = earlier or {}, looks or {}
    results = tuple(
        _judge_looks(each, streaks.get(each.name), is_exposed=is_exposed)
        if each.type is MetricType.PROMQL
        else _judge(each, counts.get(each.name), alpha=alpha, confidence=confidence, earlier=before.get(each.name))
        if has_cohorts or each.type in PAIRED
        else _wait_for_cohorts(each)
        for each in metrics
    )
    if problem := _find_missing(coverage):
        verdict, reason, words = problem
        results = tuple(
            each
            if each.reason is Reason.NO_COHORTS or each.metric.type is MetricType.PROMQL
            else replace(each, interval=None, verdict=verdict, reason=reason, sentence=f"{each.metric.name}: {words}")
            for each in results
        )
    return Analysis(verdict=_overall(results), metrics=results)


def _overall(results: Sequence[MetricResult]) -> AnalysisVerdict:
    found = {result.verdict for result in results if result.has_say}
    for verdict in (AnalysisVerdict.FAIL, AnalysisVerdict.ERROR, AnalysisVerdict.INCONCLUSIVE):
        if verdict in found:
            return verdict
    return AnalysisVerdict.PASS


def _wait_for_cohorts(metric: Metric) -> MetricResult:
    return MetricResult(
        metric=metric,
        verdict=AnalysisVerdict.INCONCLUSIVE,
        reason=Reason.NO_COHORTS,
        sentence=f"{metric.name}: no content was given to the candidate by weight yet, so that nothing is compared.",
    )


def _judge_looks(metric: Metric, streak: Streak | None, *, is_exposed: bool) -> MetricResult:
    has_say = is_exposed or not metric.is_about_candidate
    needed = metric.needed_looks
    if not has_say:
        verdict, reason = AnalysisVerdict.INCONCLUSIVE, Reason.NOT_EXPOSED
    elif streak is not None and streak.problem:
        verdict, reason = AnalysisVerdict.ERROR, Reason.NO_NUMBER
    elif streak is not None and streak.beyond >= needed:
        verdict, reason = AnalysisVerdict.FAIL, Reason.BEYOND_LIMITS
    elif streak is not None and streak.within >= needed:
        verdict, reason = AnalysisVerdict.PASS, Reason.WITHIN_LIMITS
    elif streak is None or streak.numbers < needed:
        verdict, reason = AnalysisVerdict.INCONCLUSIVE, Reason.TOO_FEW_LOOKS
    else:
        verdict, reason = AnalysisVerdict.INCONCLUSIVE, Reason.NOT_SURE_YET
    return MetricResult(
        metric=metric,
        candidate=streak.value if streak else None,
        looks=streak,
        verdict=verdict,
        reason=reason,
        sentence=describe_looks(metric, streak, has_say=has_say),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Figures of a metric, where its change lies, and of how many groups that is."""

    stable: float
    candidate: float
    interval: Interval
    groups: int


def _judge(
    metric: Metric, counts: Counts | None, *, alpha: float, confidence: int, earlier: Interval | None
) -> MetricResult:
    measured = None if counts is None else _measure(metric, counts, alpha=alpha)
    if measured is None:
        return MetricResult(
            metric=metric,
            verdict=AnalysisVerdict.ERROR,
            reason=Reason.NO_DATA,
            sentence=f"{metric.name}: no decisions of both arms are counted, so nothing can be compared.",
        )
    found = measured.interval if earlier is None else measured.interval.within(earlier)
    few = measured.groups < MIN_GROUPS
    verdict, reason = (AnalysisVerdict.INCONCLUSIVE, Reason.TOO_FEW_UNITS) if few else _compare(found, metric.bounds)
    return MetricResult(
        metric=metric,
        stable=measured.stable,
        candidate=measured.candidate,
        interval=None if few else found,
        verdict=verdict,
        reason=reason,
        sentence=_describe(metric, measured, found, reason, confidence=confidence),
    )


def _measure(metric: Metric, counts: Counts, *, alpha: float) -> _Measured | None:
    """Return what the counts say; None where there are none.

    Raises:
        ValueError: they are not of the metric's kind.
    """
    change: Change
    if metric.type in PAIRED:
        if not isinstance(counts, PairedCounts):
            raise ValueError(f"{metric.name}: {metric.type} wants {PairedCounts.__name__}")
        paired = (counts.decisions, counts.stable, counts.candidate, counts.differing)
        change = paired_change(*paired, alpha=alpha, scale=metric.scale)
    elif metric.type is MetricType.LATENCY_P99:
        found = latency_change(_all_of(counts, LatencyCounts, metric), alpha=alpha)
        if isnan(found.stable):
            return None
        bounds = Interval(lower=found.lower, upper=found.upper)
        return _Measured(stable=found.stable, candidate=found.candidate, interval=bounds, groups=found.groups)
    else:
        each = _all_of(counts, CohortCounts, metric)
        columns = ([getattr(one, field.name) for one in each] for field in fields(CohortCounts))
        if not each:
            return None
        change = cohorts_change(*columns, alpha=alpha, scale=metric.scale)
    if not change.estimate.groups:
        return None
    # Stable does not flip its own decisions, so the candidate cannot flip fewer.
    least = 0.0 if metric.type is MetricType.FLIP_RATE else -1.0
    return _Measured(
        stable=float(change.estimate.stable),
        candidate=float(change.estimate.candidate),
        interval=Interval(lower=max(least, float(change.lower)), upper=float(change.upper)),
        groups=int(change.groups),
    )


def _all_of(counts: Counts, kind: type[_T], metric: Metric) -> list[_T]:
    found = [] if isinstance(counts, PairedCounts) else [one for one in counts if isinstance(one, kind)]
    if isinstance(counts, PairedCounts) or len(found) != len(counts):
        raise ValueError(f"{metric.name}: {metric.type} wants {kind.__name__} for each weight")
    return found


def _compare(found: Interval, allowed: Interval) -> tuple[AnalysisVerdict, Reason]:
    if found.lower > allowed.upper:
        return AnalysisVerdict.FAIL, Reason.INCREASED
    if found.upper < allowed.lower:
        return AnalysisVerdict.FAIL, Reason.DECREASED
    if allowed.lower <= found.lower and found.upper <= allowed.upper:
        return AnalysisVerdict.PASS, Reason.WITHIN_LIMITS
    return AnalysisVerdict.INCONCLUSIVE, Reason.NOT_SURE_YET


def _find_missing(coverage: Coverage) -> tuple[AnalysisVerdict, Reason, str] | None:
    """Return what is wrong with the counters, if anything is."""
    if coverage.doubted:
        named = ", ".join(name[:_NAME_LENGTH] for name in coverage.doubted[:_NAMED])
        more = f" and {len(coverage.doubted) - _NAMED} more" if len(coverage.doubted) > _NAMED else ""
        words = f"what {named}{more} counted cannot be true, so that nothing is judged."
        return AnalysisVerdict.ERROR, Reason.COUNTS_DOUBTED, words
    made = (coverage.stable_made, coverage.candidate_made)
    counted = (coverage.stable_counted, coverage.candidate_counted)
    lost = [abs(all_of_them - those) for all_of_them, those in zip(made, counted, strict=True)]
    shares = [missing / max(1, all_of_them) for missing, all_of_them in zip(lost, made, strict=True)]
    told = ", ".join(
        f"{those} of {all_of_them} decisions by {arm} are counted"
        for arm, those, all_of_them in zip(("stable", "the candidate"), counted, made, strict=True)
    )
    # One more is counted in each arm: that none is missing of a few says little.
    chance = CHANCE * sqrt(sum((lack + 1) / max(1, each) ** 2 for lack, each in zip(lost, made, strict=True)))
    if all(made) and abs(shares[0] - shares[1]) > max(MAX_UNEQUAL / MILLION, chance):
        limit = format_ratio(MAX_UNEQUAL)
        words = f"{told}: what is missing differs by more than {limit} (MAX_UNEQUAL), so nothing can be compared."
        return AnalysisVerdict.ERROR, Reason.COUNTS_UNEQUAL, words
    if max(shares) > MAX_MISSING / MILLION:
        limit = format_ratio(MAX_MISSING)
        words = f"{told}: that is off by more than {limit} (MAX_MISSING), so nothing is judged."
        return AnalysisVerdict.INCONCLUSIVE, Reason.COUNTS_MISSING, words
    return None


def _describe(metric: Metric, measured: _Measured, found: Interval, reason: Reason, *, confidence: int) -> str:
    candidate, stable = figure(metric, measured.candidate), figure(metric, measured.stable)
    figures = f"{metric.name}: {candidate} with the candidate, {stable} with stable"
    if reason is Reason.TOO_FEW_UNITS:
        few = (
            f"only {measured.groups} of {GROUPS} groups of authors, without the heavy ones, have decisions in both arms"
        )
        return f"{figures}; {few}, and {MIN_GROUPS} (MIN_GROUPS) are needed to judge."
    change = f"the change is {interval_text(metric, found)} with {format_ratio(confidence)} confidence"
    limits = f"allowed is {limits_text(metric)}"
    match reason:
        case Reason.INCREASED:
            tail = "it has increased by more than that"
        case Reason.DECREASED:
            tail = "it has decreased by more than that"
        case Reason.WITHIN_LIMITS:
            tail = "it is within that"
        case _:
            tail = "more traffic will tell"
    return f"{figures}; {change}; {limits}: {tail}."
