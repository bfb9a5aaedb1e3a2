"""Percentiles out of a histogram are Prometheus' own."""

from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.percentiles import percentile

BOUNDS = (0.1, 0.5, 1.0, inf)


@pytest.mark.parametrize(
    ("counts", "ratio", "expected"),
    [
        pytest.param((10, 0, 0, 0), 0.5, 0.05, id="half way into the first bucket"),
        pytest.param((5, 5, 0, 0), 0.75, 0.3, id="half way into the second"),
        pytest.param((0, 0, 10, 0), 1.0, 1.0, id="the end of a bucket"),
        pytest.param((0, 0, 0, 10), 0.5, 1.0, id="beyond the last bound is its lower bound"),
        pytest.param((0, 0, 0, 0), 0.5, None, id="no observation is no percentile"),
    ],
)
def test_a_percentile_is_interpolated_within_its_bucket(counts, ratio, expected):
    found = percentile(BOUNDS, tuple(accumulate(counts)), ratio)

    assert found == (expected if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_higher_ratio_is_never_a_shorter_time(counts, one, other):
    cumulative = tuple(accumulate(counts))
    low, high = (percentile(BOUNDS, cumulative, ratio) for ratio in sorted((one, other)))

    assert (low is None and high is None) or low <= high
