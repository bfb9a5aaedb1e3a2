"""Asking twice never multiplies the load: the budget is a share of the calls, and a few before there were any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.retry import (
    HedgeRules,
    RetryRules,
    after_first,
    after_spent,
    hedge_seconds,
    may_spend,
    new_budget,
)

ratios = st.integers(0, 1_000_000)


@given(ratios, st.lists(st.booleans(), max_size=500))
def test_calls_made_twice_are_never_more_than_their_share_and_the_reserve(ratio, wishes):
    rules = RetryRules(ratio=ratio)
    budget, twice = new_budget(rules), 0
    for first, wants_twice in enumerate(wishes, start=1):
        budget = after_first(budget, rules)
        while wants_twice and may_spend(budget):
            budget = after_spent(budget)
            twice += 1

        assert twice * 1_000_000 <= first * ratio + rules.reserve * 1_000_000
        assert budget.balance >= 0


@given(ratios, st.integers(0, 5000))
def test_no_more_is_saved_up_than_the_limit(ratio, calls):
    rules = RetryRules(ratio=ratio)
    budget = new_budget(rules)
    for _ in range(calls):
        budget = after_first(budget, rules)
    twice = 0
    while may_spend(budget):
        budget = after_spent(budget)
        twice += 1

    assert twice <= rules.highest


def test_of_a_thousand_failing_calls_no_more_than_a_tenth_and_ten_are_made_again():
    rules = RetryRules()
    budget, twice = new_budget(rules), 0
    for _ in range(1000):
        budget = after_first(budget, rules)
        if may_spend(budget):
            budget = after_spent(budget)
            twice += 1

    assert twice == 110


def test_without_a_budget_nothing_is_made_again():
    rules = RetryRules(ratio=0)

    assert not may_spend(after_first(new_budget(rules), rules))


def test_a_hedge_leaves_retries_for_what_fails():
    budget = new_budget(RetryRules(reserve=5))

    assert may_spend(budget)
    assert not may_spend(budget, keeping=5)


@pytest.mark.parametrize(
    ("durations", "seconds"),
    [
        pytest.param([0.1] * 19, None, id="too few to compare with"),
        pytest.param([0.1] * 20, 0.1, id="all alike"),
        pytest.param([0.1] * 95 + [2.0] * 5, 2.0, id="the slowest twentieth"),
        pytest.param([0.1] * 96 + [2.0] * 4, 0.1, id="fewer slow ones"),
        pytest.param([0.001] * 50, 0.01, id="never at once"),
    ],
)
def test_a_call_hangs_when_it_takes_longer_than_nearly_all_did(durations, seconds):
    assert hedge_seconds(durations, HedgeRules()) == seconds
