"""Changes of the 99th percentile out of histograms."""

from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.counts import GROUPS, LatencyCounts
from baleen_core.analysis.latency import latency_change
from counted import BOUNDS, column, latency_counts

ALPHA = 0.005
QUICK, SLOW, LAST = BOUNDS.index(0.03), BOUNDS.index(0.3), len(BOUNDS) - 1


def histogram(each: dict[int, int]):
    """Return so many of each group in each bucket that is named."""
    return tuple(column(each.get(bucket, 0)) for bucket in range(len(BOUNDS)))


def make(stable: dict[int, int], candidate: dict[int, int]) -> LatencyCounts:
    return LatencyCounts(bounds=BOUNDS, stable=histogram(stable), candidate=histogram(candidate))


@given(latency_counts(), st.floats(1e-5, 0.1), st.floats(0.05, 0.95))
def test_the_interval_has_the_difference_in_it_and_widens_with_confidence(counts, alpha, smaller):
    usual, wide = (latency_change([counts], alpha=each) for each in (alpha, alpha * smaller))
    if isnan(usual.stable):
        return

    assert usual.lower - 1e-9 <= usual.candidate - usual.stable <= usual.upper + 1e-9
    assert wide.lower <= usual.lower + 1e-9
    assert wide.upper >= usual.upper - 1e-9


def test_equal_arms_are_certainly_not_far_apart_with_enough_decisions():
    few, many = (
        latency_change(
            [make({QUICK: 985 * times, SLOW: 15 * times}, {QUICK: 985 * times, SLOW: 15 * times})], alpha=ALPHA
        )
        for times in (1, 20)
    )

    assert few.lower < many.lower <= 0 <= many.upper < few.upper
    assert many.stable == many.candidate == pytest.approx(0.2 + 0.1 / 3)
    assert many.upper < 0.1


def test_a_slow_candidate_is_found_and_a_slow_stable_is_none():
    slow, quick = {QUICK: 900, SLOW: 100}, {QUICK: 999, SLOW: 1}

    assert latency_change([make(quick, slow)], alpha=ALPHA).lower > 0.15
    assert latency_change([make(slow, quick)], alpha=ALPHA).upper < -0.1


def test_with_few_decisions_how_much_slower_it_may_be_is_not_known():
    found = latency_change([make({QUICK: 1000}, {QUICK: 2})], alpha=ALPHA)

    assert found.upper == inf
    assert found.lower <= 0


def test_above_all_bounds_a_percentile_is_only_known_to_be_there():
    slow = latency_change([make({QUICK: 1000}, {QUICK: 900, LAST: 100})], alpha=ALPHA)
    both = latency_change([make({QUICK: 900, LAST: 100}, {QUICK: 900, LAST: 100})], alpha=ALPHA)

    assert (slow.candidate, slow.upper) == (1.0, inf)
    assert slow.lower == pytest.approx(1.0 - slow.stable)
    assert (both.lower, both.upper) == (-inf, inf)


def test_one_slow_author_is_not_the_candidates_fault():
    """One author has half of the candidate's decisions, all slow; without it both arms are alike."""
    quick = histogram({QUICK: 990, SLOW: 5})
    bot = tuple(
        tuple(number + (990 * GROUPS if bucket == SLOW and group == 3 else 0) for group, number in enumerate(each))
        for bucket, each in enumerate(quick)
    )
    found = latency_change([LatencyCounts(bounds=BOUNDS, stable=quick, candidate=bot)], alpha=ALPHA)

    assert found.candidate > 0.2
    assert found.lower <= 0
    assert found.groups == GROUPS - 1


def test_a_slow_night_in_which_the_candidate_has_more_traffic_is_not_its_fault():
    day = make({QUICK: 1900}, {QUICK: 100})
    night = make({QUICK: 950, SLOW: 50}, {QUICK: 950, SLOW: 50})
    together = latency_change([LatencyCounts.merged([day, night])], alpha=ALPHA)
    assert together.candidate > together.stable + 0.01

    found = latency_change([day, night], alpha=ALPHA)
    assert found.lower <= 0 <= found.upper
    assert found.candidate == pytest.approx(found.stable)


@pytest.mark.parametrize(
    "counts",
    [[], [LatencyCounts.none(BOUNDS)], [make({QUICK: 10}, {})], [make({}, {QUICK: 10})]],
    ids=["no weight", "nothing counted", "stable alone", "candidate alone"],
)
def test_without_both_arms_there_is_no_data(counts):
    found = latency_change(counts, alpha=ALPHA)

    assert isnan(found.stable)
    assert found.groups == 0


def test_periods_with_other_bounds_are_not_compared():
    with pytest.raises(ValueError, match="same bounds at every weight"):
        latency_change([LatencyCounts.none(BOUNDS), LatencyCounts.none(BOUNDS[1:])], alpha=ALPHA)
