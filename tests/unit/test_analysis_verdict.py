"""The verdict of a rollout's analysis."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.counts import CohortCounts, LatencyCounts, PairedCounts
from baleen_core.analysis.metrics import Interval, Metric, MetricType, Mode
from baleen_core.analysis.verdict import AnalysisVerdict, Coverage, Reason, analyse
from baleen_core.analysis.words import figure, interval_text
from counted import BOUNDS, column, make_paired

BLOCKS = Metric(name="block-rate", type=MetricType.BLOCK_RATE, max_increase=10_000, max_decrease=10_000)
FLIPS = Metric(name="flips", type=MetricType.FLIP_RATE, max_increase=20_000)
ERRORS = Metric(name="errors", type=MetricType.ERROR_RATE, max_increase=1_000)
LATENCY = Metric(name="latency", type=MetricType.LATENCY_P99, max_increase_milliseconds=20)
ALL_COUNTED = Coverage(stable_made=1000, stable_counted=1000, candidate_made=100, candidate_counted=100)
SAME = make_paired(column(980), column(10), column(5), column(5))
MORE = make_paired(column(930), column(10), column(50), column(10))
LESS = make_paired(column(930), column(10), column(10), column(50))
FEW = make_paired(column(10), column(1), column(0), column(0))


def errors(candidate: int) -> list[CohortCounts]:
    return [
        CohortCounts(
            stable_decisions=column(1000),
            stable_events=column(1),
            candidate_decisions=column(1000),
            candidate_events=column(candidate),
        )
    ]


def run(*metrics: Metric, coverage=ALL_COUNTED, earlier=None, confidence=990_000, has_cohorts=True, **counts):
    named = {name.replace("_", "-"): each for name, each in counts.items()}
    return analyse(metrics, named, coverage=coverage, confidence=confidence, earlier=earlier, has_cohorts=has_cohorts)


@pytest.mark.parametrize(
    ("counts", "verdict", "reason"),
    [
        pytest.param(SAME, AnalysisVerdict.PASS, Reason.WITHIN_LIMITS, id="as many either way"),
        pytest.param(MORE, AnalysisVerdict.FAIL, Reason.INCREASED, id="blocks much more"),
        pytest.param(LESS, AnalysisVerdict.FAIL, Reason.DECREASED, id="blocks much less"),
        pytest.param(FEW, AnalysisVerdict.INCONCLUSIVE, Reason.NOT_SURE_YET, id="too early to say"),
        pytest.param(PairedCounts.none(), AnalysisVerdict.ERROR, Reason.NO_DATA, id="nothing counted"),
    ],
)
def test_a_change_beyond_a_limit_in_either_direction_fails(counts, verdict, reason):
    found = run(BLOCKS, block_rate=counts)

    assert (found.verdict, found.metrics[0].verdict, found.metrics[0].reason) == (verdict, verdict, reason)


def test_a_metric_that_is_only_reported_never_fails_a_rollout():
    reported = Metric(name="errors", type=MetricType.ERROR_RATE, mode=Mode.REPORT, max_increase=1_000)
    found = run(BLOCKS, reported, block_rate=SAME, errors=errors(30))

    assert [each.verdict for each in found.metrics] == [AnalysisVerdict.PASS, AnalysisVerdict.FAIL]
    assert found.verdict is AnalysisVerdict.PASS


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        pytest.param({"block_rate": MORE}, AnalysisVerdict.FAIL, id="a failure outweighs what is not measured"),
        pytest.param({"block_rate": SAME}, AnalysisVerdict.ERROR, id="what is not measured outweighs a pass"),
        pytest.param({"block_rate": FEW, "errors": errors(30)}, AnalysisVerdict.FAIL, id="and what is not known yet"),
        pytest.param({"block_rate": SAME, "errors": errors(2)}, AnalysisVerdict.INCONCLUSIVE, id="one not known yet"),
    ],
)
def test_the_whole_is_as_bad_as_its_worst_metric(counts, verdict):
    assert run(BLOCKS, ERRORS, **counts).verdict is verdict


@pytest.mark.parametrize(
    ("coverage", "verdict", "reason"),
    [
        pytest.param((1000, 960, 100, 96), AnalysisVerdict.PASS, Reason.WITHIN_LIMITS, id="4 % missing"),
        pytest.param((1000, 940, 100, 94), AnalysisVerdict.INCONCLUSIVE, Reason.COUNTS_MISSING, id="6 % missing"),
        pytest.param((1000, 1060, 1000, 1060), AnalysisVerdict.INCONCLUSIVE, Reason.COUNTS_MISSING, id="6 % too many"),
        pytest.param((100_000, 100_000, 5000, 4900), AnalysisVerdict.ERROR, Reason.COUNTS_UNEQUAL, id="2 % of one arm"),
        pytest.param((1000, 1000, 30, 29), AnalysisVerdict.PASS, Reason.WITHIN_LIMITS, id="one of few is chance"),
        pytest.param((1000, 1000, 0, 0), AnalysisVerdict.PASS, Reason.WITHIN_LIMITS, id="no candidate yet"),
    ],
)
def test_with_counts_missing_nothing_else_is_judged(coverage, verdict, reason):
    names = ("stable_made", "stable_counted", "candidate_made", "candidate_counted")
    found = run(BLOCKS, block_rate=SAME, coverage=Coverage(**dict(zip(names, coverage, strict=True))))

    assert (found.verdict, found.metrics[0].reason) == (verdict, reason)
    assert (found.metrics[0].interval is None) == (reason is not Reason.WITHIN_LIMITS)


def test_fewer_than_thirty_groups_are_too_few_however_much_they_decide():
    enough, few = (
        make_paired(*(tuple(number if group < groups else 0 for group, number in enumerate(each)) for each in columns))
        for groups, columns in ((30, _columns_of(MORE)), (29, _columns_of(MORE)))
    )

    assert run(BLOCKS, block_rate=enough).metrics[0].reason is Reason.INCREASED
    (found,) = run(BLOCKS, block_rate=few).metrics
    assert (found.verdict, found.reason) == (AnalysisVerdict.INCONCLUSIVE, Reason.TOO_FEW_UNITS)
    assert found.interval is None
    assert "only 29 of 64 groups" in found.sentence
    assert "30 (MIN_GROUPS)" in found.sentence


def _columns_of(counts: PairedCounts):
    gained = tuple((d + y - x) // 2 for d, x, y in zip(counts.differing, counts.stable, counts.candidate, strict=True))
    lost = tuple(d - g for d, g in zip(counts.differing, gained, strict=True))
    both = tuple(x - n for x, n in zip(counts.stable, lost, strict=True))
    same = tuple(n - g - b - k for n, g, b, k in zip(counts.decisions, gained, lost, both, strict=True))
    return same, both, gained, lost


@given(st.integers(1, 15))
def test_confidence_is_divided_among_all_metrics(others):
    alone = run(BLOCKS, block_rate=MORE).metrics[0].interval
    among = run(BLOCKS, *[FLIPS] * others, block_rate=MORE, flips=SAME).metrics[0].interval

    assert alone is not None
    assert among is not None
    assert among.lower < alone.lower
    assert among.upper > alone.upper


intervals = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda pair: Interval(lower=min(pair), upper=max(pair)))


@given(intervals, intervals)
def test_what_was_known_stays_known_unless_it_is_contradicted(now, earlier):
    found = now.within(earlier)
    apart = now.upper < earlier.lower or earlier.upper < now.lower

    assert now.lower <= found.lower <= found.upper <= now.upper
    assert found == now if apart else earlier.lower <= found.lower <= found.upper <= earlier.upper


def test_an_interval_of_the_look_before_counts():
    known = Interval(lower=-0.005, upper=0.005)
    found = run(BLOCKS, block_rate=FEW, earlier={"block-rate": known})

    assert found.verdict is AnalysisVerdict.PASS
    assert found.metrics[0].interval == known


def test_a_sentence_has_the_numbers():
    found = run(BLOCKS, FLIPS, ERRORS, LATENCY, block_rate=MORE, flips=PairedCounts.none(), errors=errors(2))
    blocks, flips, few_errors, latency = (each.sentence for each in found.metrics)

    assert blocks.startswith("block-rate: 6% with the candidate, 2% with stable; the change is +")
    assert blocks.endswith(
        "with 99% confidence; allowed is at most +1% and at most -1%: it has increased by more than that."
    )
    assert flips == "flips: no decisions of both arms are counted, so nothing can be compared."
    assert few_errors.endswith("allowed is at most +0.1%: more traffic will tell.")
    assert latency.startswith("latency: no decisions of both arms")


def test_a_slower_candidate_fails_by_its_limit_in_milliseconds():
    slow = BOUNDS.index(0.3)
    histograms = [
        tuple(column({1: 1000, slow: number}.get(bucket, 0)) for bucket in range(len(BOUNDS))) for number in (1, 100)
    ]
    counts = [LatencyCounts(bounds=BOUNDS, stable=histograms[0], candidate=histograms[1])]
    (found,) = run(LATENCY, latency=counts).metrics

    assert found.reason is Reason.INCREASED
    assert "allowed is at most +20 ms" in found.sentence


def test_flips_cannot_be_fewer_than_none():
    (found,) = run(FLIPS, flips=FEW).metrics

    assert found.interval is not None
    assert found.interval.lower == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        pytest.param({"type": MetricType.BLOCK_RATE}, "has maxIncrease, maxDecrease or both", id="no limit"),
        pytest.param(
            {"type": MetricType.LATENCY_P99, "max_increase": 1}, "maxIncreaseMilliseconds", id="a rate of time"
        ),
        pytest.param(
            {"type": MetricType.ERROR_RATE, "max_increase_milliseconds": 1}, "and no other limit", id="time of a rate"
        ),
        pytest.param(
            {"type": MetricType.FLIP_RATE, "max_increase": 1, "max_decrease": 1}, "maxIncrease only", id="fewer flips"
        ),
        pytest.param({"type": MetricType.BLOCK_RATE, "max_increase": 1_000_001}, "from 0% to 100%", id="above 100 %"),
        pytest.param(
            {"type": MetricType.LATENCY_P99, "max_increase_milliseconds": -1}, "not be below 0", id="below 0 ms"
        ),
    ],
)
def test_a_limit_that_does_not_fit_is_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Metric(name="a", **limits)


@pytest.mark.parametrize(
    ("metric", "counts"),
    [(BLOCKS, errors(1)), (ERRORS, SAME), (LATENCY, errors(1))],
    ids=["cohorts for blocks", "pairs for errors", "events for latencies"],
)
def test_counts_of_another_kind_are_refused(metric, counts):
    with pytest.raises(ValueError, match=f"{metric.name}: {metric.type} wants"):
        run(metric, **{metric.name.replace("-", "_"): counts})


@pytest.mark.parametrize("confidence", [0, 1_000_000])
def test_a_confidence_is_neither_none_nor_certainty(confidence):
    with pytest.raises(ValueError, match="above 0% and below 100%"):
        run(BLOCKS, block_rate=SAME, confidence=confidence)


@pytest.mark.parametrize(
    ("metric", "interval", "text"),
    [
        (BLOCKS, Interval(lower=-0.00123, upper=0.0281), "-0.123% to +2.81%"),
        (LATENCY, Interval(lower=0.0031, upper=inf), "at least +3.1 ms"),
        (LATENCY, Interval(lower=-inf, upper=1.2345), "at most +1,234 ms"),
        (LATENCY, Interval(lower=-inf, upper=inf), "unknown"),
    ],
)
def test_an_interval_in_words(metric, interval, text):
    assert interval_text(metric, interval) == text
    assert len(text) <= 63


def test_figures_in_words():
    assert (figure(BLOCKS, 0.031234), figure(LATENCY, 0.12)) == ("3.12%", "120 ms")


@pytest.mark.parametrize("blocks", [MORE, SAME])
def test_before_there_are_cohorts_metrics_that_compare_them_have_no_say(blocks):
    found = run(BLOCKS, ERRORS, block_rate=blocks, has_cohorts=False)
    alone = run(ERRORS, has_cohorts=False)

    assert found.verdict is run(BLOCKS, block_rate=blocks).verdict
    assert [each.has_say for each in found.metrics] == [True, False]
    assert (alone.verdict, alone.metrics[0].verdict) == (AnalysisVerdict.PASS, AnalysisVerdict.INCONCLUSIVE)
    assert (alone.metrics[0].reason, alone.metrics[0].interval) == (Reason.NO_COHORTS, None)
    assert run(ERRORS).verdict is AnalysisVerdict.ERROR, "once there are, no data is an error"


def test_missing_counts_do_not_make_metrics_speak_that_have_no_say():
    lost = Coverage(stable_made=1000, stable_counted=900, candidate_made=1000, candidate_counted=900)
    found = run(BLOCKS, ERRORS, block_rate=SAME, has_cohorts=False, coverage=lost)

    assert found.verdict is AnalysisVerdict.INCONCLUSIVE
    assert [each.reason for each in found.metrics] == [Reason.COUNTS_MISSING, Reason.NO_COHORTS]
    assert run(ERRORS, has_cohorts=False, coverage=lost).verdict is AnalysisVerdict.PASS


def test_counts_that_cannot_be_true_are_an_error_that_names_who_said_them():
    names = ("gw-1", "x" * 5000, "gw-3", "gw-4", "gw-5")
    found = run(BLOCKS, block_rate=MORE, coverage=replace(ALL_COUNTED, doubted=names))

    assert (found.verdict, found.metrics[0].reason) == (AnalysisVerdict.ERROR, Reason.COUNTS_DOUBTED)
    assert found.metrics[0].sentence == (
        f"block-rate: what gw-1, {'x' * 63}, gw-3 and 2 more counted cannot be true, so that nothing is judged."
    )
