"""Restarts wait longer each time, up to a limit, and forget after a run that lasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.backoff import BackoffRules, next_failures, wait_seconds

RULES = BackoffRules()
failures = st.integers(1, 10**9)
jitters = st.floats(0, 1)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10**9, 30)]
)
def test_the_wait_doubles_from_half_a_second_to_half_a_minute(count, seconds):
    assert wait_seconds(count, jitter=0, rules=RULES) == seconds


@given(count=failures, jitter=jitters)
def test_jitter_shortens_by_a_fifth_at_most(count, jitter):
    full = wait_seconds(count, jitter=0, rules=RULES)

    assert 0.8 * full - 1e-9 <= wait_seconds(count, jitter=jitter, rules=RULES) <= full


@given(count=failures, jitter=jitters)
def test_another_failure_never_shortens_the_wait(count, jitter):
    assert wait_seconds(count + 1, jitter=jitter, rules=RULES) >= wait_seconds(count, jitter=jitter, rules=RULES)


@pytest.mark.parametrize(
    ("ran_seconds", "count"),
    [
        pytest.param(59.9, 4, id="a short run counts on"),
        pytest.param(60.0, 1, id="a run that lasted starts again"),
    ],
)
def test_a_run_that_lasted_is_a_success(ran_seconds, count):
    assert next_failures(3, ran_seconds=ran_seconds, rules=RULES) == count
