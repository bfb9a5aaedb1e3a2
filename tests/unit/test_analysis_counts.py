"""Counts of a comparison: they add up, start anew, and are refused when they cannot be true."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.counts import GROUPS, MAX_BUCKETS, CohortCounts, LatencyCounts, PairedCounts
from counted import BOUNDS, cohort_counts, column, latency_counts, paired_counts

kinds = st.sampled_from([paired_counts, cohort_counts, latency_counts])


def merged(*counts):
    return type(counts[0]).merged(counts)


@given(st.data(), kinds)
def test_counts_add_up_in_any_order(data, kind):
    one, other, third = (data.draw(kind()) for _ in range(3))

    assert merged(one, other) == merged(other, one)
    assert merged(merged(one, other), third) == merged(one, merged(other, third))


@given(st.data(), kinds)
def test_what_was_there_before_is_left_out(data, kind):
    now, before = data.draw(kind()), data.draw(kind())

    assert merged(now, before).since(before) == now


@pytest.mark.parametrize("kind", [PairedCounts, CohortCounts])
def test_of_no_gateway_there_is_nothing(kind):
    assert kind.merged([]) == kind.none()


def test_a_counter_that_went_back_is_not_subtracted():
    later = PairedCounts(decisions=column(5), stable=column(0), candidate=column(0), differing=column(0))
    earlier = PairedCounts(decisions=column(6), stable=column(0), candidate=column(0), differing=column(0))

    with pytest.raises(ValueError, match="decisions must have no number below 0, as group 0 has"):
        later.since(earlier)


@pytest.mark.parametrize(
    ("decisions", "stable", "candidate", "differing"),
    [
        pytest.param(10, 3, 5, 1, id="fewer differ than the sums"),
        pytest.param(10, 1, 1, 3, id="more differ than there are events"),
        pytest.param(10, 2, 3, 2, id="an odd number cannot be shared by two"),
        pytest.param(10, 8, 8, 10, id="more decisions than there are"),
        pytest.param(4, 5, 5, 0, id="more events than decisions"),
    ],
)
def test_a_gateway_whose_numbers_cannot_be_true_is_refused(decisions, stable, candidate, differing):
    with pytest.raises(ValueError, match="group 7: of"):
        PairedCounts(
            decisions=column(decisions, only=7),
            stable=column(stable, only=7),
            candidate=column(candidate, only=7),
            differing=column(differing, only=7),
        )


def test_a_cohort_has_no_more_events_than_decisions():
    with pytest.raises(ValueError, match="group 2: 4 events of 3 decisions by the candidate"):
        CohortCounts(
            stable_decisions=column(9),
            stable_events=column(9),
            candidate_decisions=column(3, only=2),
            candidate_events=column(4, only=2),
        )


def test_a_column_has_a_number_for_each_group():
    with pytest.raises(ValueError, match=r"64 groups \(GROUPS\), not 63"):
        PairedCounts(decisions=(1,) * (GROUPS - 1), stable=column(0), candidate=column(0), differing=column(0))


@pytest.mark.parametrize(
    "bounds",
    [(inf,), (1.0, 2.0), (2.0, 1.0, inf), (0.0, 1.0, inf), (1.0, inf, inf), (*range(1, MAX_BUCKETS + 1), inf)],
    ids=["one", "finite", "falling", "from 0", "infinite twice", "too many"],
)
def test_bounds_of_a_histogram_rise_to_an_infinite_one(bounds):
    with pytest.raises(ValueError, match="MAX_BUCKETS"):
        LatencyCounts.none(bounds)


def test_histograms_of_other_bounds_do_not_add_up():
    one, other = LatencyCounts.none(BOUNDS), LatencyCounts.none(BOUNDS[1:])

    with pytest.raises(ValueError, match="same bounds"):
        merged(one, other)
    with pytest.raises(ValueError, match="same bounds"):
        one.since(other)
    with pytest.raises(ValueError, match="there must be histograms"):
        LatencyCounts.merged([])
