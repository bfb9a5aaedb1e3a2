"""Changes of rates out of groups: laws, and what clustered or uneven traffic does to them."""

from math import sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baleen_core.analysis.counts import GROUPS, CohortCounts, PairedCounts
from baleen_core.analysis.estimate import cohorts, cohorts_change, interval, light, paired, paired_change
from counted import cohort_counts, column, columns, make_paired, paired_counts

populated = paired_counts().filter(lambda counts: any(counts.decisions))
both_cohorts = cohort_counts().filter(lambda one: any(one.stable_decisions) and any(one.candidate_decisions))
alphas = st.floats(1e-6, 0.2)
scales = st.floats(1e-3, 0.5)
ALPHA, SCALE = 0.005, 0.02


def change(counts: PairedCounts, *, alpha=ALPHA, scale=SCALE):
    return paired_change(*columns_of(counts), alpha=alpha, scale=scale)


def columns_of(counts: PairedCounts):
    return counts.decisions, counts.stable, counts.candidate, counts.differing


def between_cohorts(*counts: CohortCounts, alpha=ALPHA, scale=SCALE):
    return cohorts_change(*cohort_columns(*counts), alpha=alpha, scale=scale)


def cohort_columns(*counts: CohortCounts):
    names = ("stable_decisions", "stable_events", "candidate_decisions", "candidate_events")
    return tuple([getattr(one, name) for one in counts] for name in names)


def bounds(found):
    return np.array([found.lower, found.upper])


@given(populated, alphas, scales)
def test_the_interval_has_the_estimate_in_it(counts, alpha, scale):
    found = change(counts, alpha=alpha, scale=scale)

    assert found.lower <= found.estimate.change <= found.upper
    assert -1 <= found.lower < found.upper <= 1


@given(populated, alphas, st.floats(0.01, 0.99), scales)
def test_more_confidence_makes_the_interval_wider(counts, alpha, smaller, scale):
    usual, wide = (change(counts, alpha=each, scale=scale) for each in (alpha, alpha * smaller))

    assert wide.lower <= usual.lower
    assert wide.upper >= usual.upper


@given(populated, alphas, scales)
def test_with_both_revisions_exchanged_the_interval_is_mirrored(counts, alpha, scale):
    decisions, stable, candidate, differing = columns_of(counts)
    one = paired_change(decisions, stable, candidate, differing, alpha=alpha, scale=scale)
    other = paired_change(decisions, candidate, stable, differing, alpha=alpha, scale=scale)

    assert bounds(other)[::-1] == pytest.approx(-bounds(one), abs=1e-12)


@given(both_cohorts, cohort_counts())
def test_with_both_cohorts_exchanged_the_interval_is_mirrored(first, second):
    stable, stable_events, candidate, candidate_events = cohort_columns(first, second)
    one = cohorts_change(stable, stable_events, candidate, candidate_events, alpha=ALPHA, scale=SCALE)
    other = cohorts_change(candidate, candidate_events, stable, stable_events, alpha=ALPHA, scale=SCALE)

    assert bounds(other)[::-1] == pytest.approx(-bounds(one), abs=1e-12)


@given(populated, st.integers(0, 10_000))
def test_which_group_is_which_makes_no_difference(counts, seed):
    order = Random(seed).sample(range(GROUPS), k=GROUPS)
    shuffled = [np.array(each)[order] for each in columns_of(counts)]

    assert bounds(paired_change(*shuffled, alpha=ALPHA, scale=SCALE)) == pytest.approx(bounds(change(counts)))


@given(populated)
def test_the_variance_is_that_of_leaving_out_each_group(counts):
    estimate = paired(*columns_of(counts))
    columns = np.array(columns_of(counts))
    populated = [group for group in range(GROUPS) if columns[0, group]]
    without = [float(paired(*np.delete(columns, group, axis=1)).change) for group in populated]
    deviations = np.array(without) - float(estimate.change)

    expected = (len(populated) - 1) / len(populated) * (deviations**2).sum()
    assert estimate.clustered == pytest.approx(expected, rel=1e-9, abs=1e-18)


@given(st.integers(0, 10_000), st.integers(1, GROUPS), st.integers(1, 4))
def test_the_same_changes_in_fewer_groups_are_less_sure(seed, groups, each):
    gained = np.bincount(Random(seed).choices(range(groups), k=GROUPS), minlength=GROUPS) * each
    same = column(GROUPS * each)
    even = change(make_paired(same, column(0), column(each), column(0)))
    # As many decisions in each group, wherever the changes are.
    uneven = change(
        make_paired(tuple(int(n) for n in GROUPS * each + each - gained), column(0), tuple(map(int, gained)), column(0))
    )

    assert uneven.lower <= even.lower + 1e-12
    assert uneven.upper >= even.upper - 1e-12


def test_where_authors_are_all_or_nothing_the_design_effect_is_how_much_each_decides():
    """Kish: with m alike in each group, variance is m times that of independent decisions."""
    gained = tuple(50 if group % 4 == 0 else 0 for group in range(GROUPS))
    same = tuple(50 - each for each in gained)
    estimate = paired(*columns_of(make_paired(same, column(0), gained, column(0))))

    assert estimate.design_effect == pytest.approx(50, rel=0.02)
    assert sqrt(estimate.independent) == pytest.approx(sqrt(0.25 * 0.75 / (50 * GROUPS)))


@given(st.integers(1, 2000), st.integers(0, GROUPS - 1))
def test_one_author_cannot_change_what_is_concluded(size, place):
    """However much it posts, and whatever the candidate does to it, some of the interval is what the others say."""
    crowd = (column(97), column(1), column(1), column(1))
    bot = tuple(
        tuple(number + (size if group == place and index == 2 else 0) for group, number in enumerate(each))
        for index, each in enumerate(crowd)
    )
    found = change(make_paired(*bot))

    assert found.lower <= 0


def test_without_the_bot_half_of_the_traffic_is_enough_to_conclude():
    crowd = (column(930), column(10), column(50), column(10))
    bot = tuple(tuple(number * (GROUPS if group == 5 else 1) for group, number in enumerate(each)) for each in crowd)
    found = change(make_paired(*bot))

    assert found.lower > 0.02
    assert found.groups == GROUPS - 1


@given(columns(most=1000))
def test_all_heavy_groups_are_larger_than_all_light_ones(sizes):
    kept = light(sizes)
    heavy = [size for size, is_light in zip(sizes, kept, strict=True) if not is_light]
    rest = [size for size, is_light in zip(sizes, kept, strict=True) if is_light]

    assert not heavy or not rest or min(heavy) > max(rest)
    assert not rest or max(rest) <= 0.1 * sum(rest)


@pytest.mark.parametrize("decisions", [1, 20, 300])
def test_where_nothing_differs_a_small_change_is_still_possible(decisions):
    """At 99.5 %, a change of ln(200) / n may show in none of n decisions; the interval has room for it."""
    found = change(make_paired(column(decisions), column(0), column(0), column(0)))

    assert found.upper > 5.3 / (decisions * GROUPS)
    assert found.lower == -found.upper


@given(populated, populated)
def test_many_comparisons_at_once_are_what_each_is_alone(one, other):
    together = paired_change(*np.array([columns_of(one), columns_of(other)]).swapaxes(0, 1), alpha=ALPHA, scale=SCALE)

    assert together.lower == pytest.approx([change(one).lower, change(other).lower])
    assert together.upper == pytest.approx([change(one).upper, change(other).upper])


def test_a_busier_night_is_not_taken_for_the_candidates_fault():
    """Errors rise fourfold for all just when the candidate gets half of the traffic; the sums say +0.9 points."""
    day = CohortCounts(
        stable_decisions=column(1900),
        stable_events=column(9),
        candidate_decisions=column(100),
        candidate_events=column(0),
    )
    night = CohortCounts(
        stable_decisions=column(1000),
        stable_events=column(20),
        candidate_decisions=column(1000),
        candidate_events=column(20),
    )
    whole = CohortCounts.merged([day, night])
    apart, together = between_cohorts(day, night), between_cohorts(whole)

    assert together.lower > 0.005
    assert apart.lower < 0 < apart.upper


def test_a_period_in_which_the_candidate_has_no_traffic_says_nothing():
    shadow = CohortCounts(
        stable_decisions=column(500),
        stable_events=column(50),
        candidate_decisions=column(0),
        candidate_events=column(0),
    )
    canary = CohortCounts(
        stable_decisions=column(500),
        stable_events=column(5),
        candidate_decisions=column(50),
        candidate_events=column(1),
    )

    assert bounds(between_cohorts(shadow, canary)) == pytest.approx(bounds(between_cohorts(canary)))


@given(both_cohorts)
def test_a_small_cohort_without_an_event_has_not_shown_that_it_has_none(counts):
    """Its variance is at least that of the rate of both; else 0 of 10 would be certainly less than 1 %."""
    silent = CohortCounts(
        stable_decisions=counts.stable_decisions,
        stable_events=counts.stable_events,
        candidate_decisions=counts.candidate_decisions,
        candidate_events=column(0),
    )
    estimate = cohorts(*cohort_columns(silent))
    events, decisions = sum(counts.stable_events), sum(counts.candidate_decisions)
    assume(events and decisions)
    pooled = events / (decisions + sum(counts.stable_decisions))

    assert estimate.independent >= pooled * (1 - pooled) / decisions * (1 - 1e-9)


def test_of_nothing_there_is_no_interval():
    found = change(PairedCounts.none())

    assert found.groups == 0
    assert np.isnan(bounds(found)).all()
    assert np.isnan(interval(cohorts(*cohort_columns(CohortCounts.none())), alpha=ALPHA, scale=SCALE)).all()
