"""Metrics that somebody else's server knows: queries, their limits, and what one look after another comes to."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.looks import Reading, Streak, next_streak
from baleen_core.analysis.metrics import MAX_LOOKS, Metric, MetricType, Mode
from baleen_core.analysis.query import check_query, fill_in
from baleen_core.analysis.verdict import AnalysisVerdict, Coverage, Reason, analyse
from baleen_core.ratio import format_number, parse_number
from counted import column, make_paired

START = datetime(2026, 2, 1, tzinfo=UTC)
CANDIDATE, STABLE = "sha256:" + "c" * 64, "sha256:" + "5" * 64
BLOCKS = Metric(name="blocks", type=MetricType.BLOCK_RATE, max_increase=10_000, max_decrease=10_000)
SAME = make_paired(column(980), column(10), column(5), column(5))
MORE = make_paired(column(930), column(10), column(50), column(10))
ALL_COUNTED = Coverage(stable_made=1000, stable_counted=1000, candidate_made=100, candidate_counted=100)
HALF_COUNTED = Coverage(stable_made=1000, stable_counted=500, candidate_made=100, candidate_counted=50)
GOOD, BAD, NONE = Reading(value=0.01), Reading(value=0.03), Reading(problem="it has no result")


def refunds(**said) -> Metric:
    fields = {"query": 'refunds{revision="$candidate"}', "maximum": 20_000, "looks": 3} | said
    return Metric(name="refunds", type=MetricType.PROMQL, **fields)


def after(metric: Metric, readings) -> Streak | None:
    streak = None
    for number, reading in enumerate(readings):
        streak = next_streak(metric, streak, reading, START + timedelta(seconds=30 * number))
    return streak


def judge(metric: Metric, readings, **said):
    streak = after(metric, readings)
    looks = {} if streak is None else {metric.name: streak}
    return analyse([metric], {}, coverage=ALL_COUNTED, confidence=990_000, looks=looks, **said)


# One look after another

readings = st.lists(st.sampled_from([GOOD, BAD, NONE]), max_size=30)


@given(readings, st.integers(1, MAX_LOOKS))
def test_so_many_looks_in_a_row_decide_and_one_without_a_number_holds(said, needed):
    found = judge(refunds(looks=needed), said).verdict
    numbers = [each for each in reversed(said) if each is not NONE]
    in_a_row = len(list(takewhile(lambda each: each is numbers[0], numbers)))

    if said and said[-1] is NONE:
        assert found is AnalysisVerdict.ERROR
    elif in_a_row < needed:
        assert found is AnalysisVerdict.INCONCLUSIVE
    else:
        assert found is (AnalysisVerdict.PASS if numbers[0] is GOOD else AnalysisVerdict.FAIL)


@given(readings, readings, st.sampled_from([GOOD, BAD]))
def test_looks_without_a_number_count_neither_way(before, between, last):
    silent = [*before, *(NONE for _ in between), last]

    assert judge(refunds(), silent).verdict is judge(refunds(), [*before, last]).verdict


@given(readings, st.integers(1, MAX_LOOKS))
def test_it_is_told_apart_whether_looks_could_have_decided(said, needed):
    found = judge(refunds(looks=needed), said)
    numbers = sum(each is not NONE for each in said)

    if found.verdict is AnalysisVerdict.INCONCLUSIVE:
        assert bool(found.awaited) is (numbers < needed)
    else:
        assert not found.awaited


def test_nothing_is_awaited_of_what_has_no_say():
    reported = refunds(mode=Mode.REPORT)
    counted = analyse([BLOCKS, reported], {"blocks": SAME}, coverage=HALF_COUNTED, confidence=990_000)

    assert counted.verdict is AnalysisVerdict.INCONCLUSIVE
    assert not counted.awaited


@given(readings)
def test_what_is_kept_of_all_looks_is_bounded(said):
    streak = after(refunds(), said)

    assert streak is None or (
        max(streak.within, streak.beyond) <= streak.numbers <= 3 and min(streak.within, streak.beyond) == 0
    )


@given(st.floats(-1e6, 1e6), st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_limits_are_allowed_and_what_is_beyond_either_is_not(value, one, other):
    low, high = sorted((one, other))
    streak = after(refunds(minimum=low, maximum=high), [Reading(value=value)])

    assert streak is not None
    assert bool(streak.within) is (low / 1_000_000 <= value <= high / 1_000_000)


@pytest.mark.parametrize(
    ("said", "verdict", "reason", "sentence"),
    [
        pytest.param([], "Inconclusive", "TooFewLooks", "was not asked in this step yet", id="not asked"),
        pytest.param(
            [BAD, BAD], "Inconclusive", "TooFewLooks", "gave 0.03; allowed is at most 0.02: 2 of the 3", id="two"
        ),
        pytest.param([GOOD, NONE, BAD], "Inconclusive", "TooFewLooks", "1 of the 3 looks in a row", id="two numbers"),
        pytest.param([GOOD, BAD, BAD], "Inconclusive", "NotSureYet", "2 of the 3 looks in a row", id="no row"),
        pytest.param([BAD] * 3, "Fail", "BeyondLimits", "3 of the 3 looks in a row that decide are beyond", id="three"),
        pytest.param([GOOD] * 4, "Pass", "WithinLimits", "3 of the 3 looks in a row that decide are within", id="good"),
        pytest.param([BAD, BAD, NONE], "Error", "NoNumber", "gave no number: it has no result", id="none"),
    ],
)
def test_a_metric_says_in_words_what_its_looks_gave(said, verdict, reason, sentence):
    [found] = judge(refunds(), said).metrics

    assert (found.verdict, found.reason) == (verdict, reason)
    assert sentence in found.sentence


def test_what_a_query_asks_of_a_candidate_that_judges_nobody_has_no_say():
    shadow = judge(refunds(), [BAD] * 3, is_exposed=False)
    of_all = judge(refunds(query="refunds"), [BAD] * 3, is_exposed=False)

    assert (shadow.verdict, shadow.metrics[0].reason) == (AnalysisVerdict.PASS, Reason.NOT_EXPOSED)
    assert shadow.metrics[0].candidate == 0.03
    assert of_all.verdict is AnalysisVerdict.FAIL


def test_a_query_that_is_only_reported_never_fails_a_rollout():
    found = judge(refunds(mode=Mode.REPORT), [BAD] * 3)

    assert (found.verdict, found.metrics[0].verdict) == (AnalysisVerdict.PASS, AnalysisVerdict.FAIL)


def test_looks_take_nothing_of_the_confidence_that_counts_share():
    alone = analyse([BLOCKS], {"blocks": SAME}, coverage=ALL_COUNTED, confidence=990_000)
    beside = analyse([BLOCKS, refunds()], {"blocks": SAME}, coverage=ALL_COUNTED, confidence=990_000)

    assert alone.metrics[0] == beside.metrics[0]
    assert (alone.verdict, beside.verdict) == (AnalysisVerdict.PASS, AnalysisVerdict.INCONCLUSIVE)


def test_missing_counts_say_nothing_of_a_query():
    looks = {"refunds": after(refunds(), [BAD] * 3)}
    found = analyse(
        [BLOCKS, refunds()],
        {"blocks": MORE},
        coverage=HALF_COUNTED,
        confidence=990_000,
        looks=looks,  # type: ignore[arg-type]
    )

    assert [each.reason for each in found.metrics] == [Reason.COUNTS_MISSING, Reason.BEYOND_LIMITS]
    assert found.verdict is AnalysisVerdict.FAIL


# Queries and limits


def test_digests_are_put_where_the_placeholders_are_and_nothing_else_changes():
    query = 'a{r="$candidate"} / a{r="$stable", path=~"x$"} > $candidate'

    filled = fill_in(query, candidate=CANDIDATE, stable=STABLE)

    assert filled == f'a{{r="{CANDIDATE}"}} / a{{r="{STABLE}", path=~"x$"}} > {CANDIDATE}'


@given(st.text(alphabet="$candidtestblxrev{}\"'\\= ", max_size=60), st.text(max_size=80))
def test_nothing_but_a_digest_ever_gets_into_a_query(query, digest):
    if digest != CANDIDATE:
        with pytest.raises(ValueError, match="is no digest"):
            fill_in(query, candidate=digest, stable=STABLE)
    filled = fill_in(query, candidate=CANDIDATE, stable=STABLE)

    assert filled.count('"') == query.count('"')
    assert filled.count("\\") == query.count("\\")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        pytest.param(" \n", "is empty", id="nothing"),
        pytest.param("up\x00", "cannot be printed", id="a character"),
        pytest.param(
            'up{r="$candidat"}', r"\$candidat is no placeholder; there are \$candidate and \$stable", id="a typo"
        ),
        pytest.param('up{r="$candidates"}', r"\$candidates is no placeholder", id="a longer word"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_would_be_right(query, problem):
    with pytest.raises(ValueError, match=problem):
        check_query(query)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        pytest.param({"maximum": None}, "with min, max or both", id="no limit"),
        pytest.param({"query": None}, "has a query", id="no query"),
        pytest.param({"max_increase": 1}, "no other limit", id="a limit of a change"),
        pytest.param({"minimum": 30_000}, "min must not be above max", id="limits in the wrong order"),
        pytest.param({"looks": 0}, "from 1 to 20", id="no looks"),
    ],
)
def test_a_metric_of_a_query_has_limits_of_its_own(said, problem):
    with pytest.raises(ValueError, match=problem):
        refunds(**said)


def test_other_metrics_have_no_query():
    with pytest.raises(ValueError, match="belong to a metric of type PromQL"):
        Metric(name="blocks", type=MetricType.BLOCK_RATE, max_increase=1, query="up")


@pytest.mark.parametrize(
    ("text", "millionths"), [("2%", 20_000), ("0.02", 20_000), ("-3", -3_000_000), ("999999999.999999", 10**15 - 1)]
)
def test_limits_of_numbers_are_read_and_written_the_same(text, millionths):
    assert parse_number(text) == millionths
    assert parse_number(format_number(millionths)) == millionths


@pytest.mark.parametrize("text", ["", "1e3", "NaN", "0.0000001", "1,5", "-2%", "9999999999"])
def test_what_is_no_number_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r'write a quoted decimal such as "0.02"'):
        parse_number(text)


@pytest.mark.parametrize("said", [{}, {"value": 1.0, "problem": "none"}, {"value": float("nan")}])
def test_a_reading_is_a_number_or_a_problem(said):
    with pytest.raises(ValueError, match="a finite number, or a problem"):
        Reading(**said)
