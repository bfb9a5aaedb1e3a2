"""Percentiles out of a histogram, and of values."""

from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.percentiles import percentile, percentile_of

BOUNDS = (0.1, 0.5, 1.0, inf)
counts = st.lists(st.integers(0, 1000), min_size=len(BOUNDS), max_size=len(BOUNDS)).filter(any)
ratios = st.floats(0.01, 1)


@pytest.mark.parametrize(
    ("cumulative", "ratio", "expected"),
    [
        pytest.param((10, 10, 10, 10), 0.5, 0.05, id="half way into the first bucket"),
        pytest.param((0, 10, 10, 10), 0.5, 0.3, id="half way into the second"),
        pytest.param((5, 10, 10, 10), 0.5, 0.1, id="at a bound"),
        pytest.param((0, 0, 0, 10), 0.5, 1.0, id="above the last bound, which is all that is known"),
        pytest.param((90, 100, 100, 100), 0.99, 0.46, id="the tail"),
    ],
)
def test_within_a_bucket_observations_are_taken_as_spread_evenly(
    cumulative: tuple[int, ...], ratio: float, expected: float
) -> None:
    assert percentile(BOUNDS, cumulative, ratio) == pytest.approx(expected)


@pytest.mark.parametrize("cumulative", [(0, 0, 0, 0), ()])
def test_of_nothing_there_is_no_percentile(cumulative: tuple[int, ...]) -> None:
    assert percentile(BOUNDS[: len(cumulative)], cumulative, 0.5) is None


@given(counts, ratios, ratios)
def test_a_higher_ratio_never_gives_a_lower_value(found: list[int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    values = [percentile(BOUNDS, list(accumulate(found)), ratio) for ratio in (low, high)]

    assert values[0] is not None
    assert values[1] is not None
    assert values[0] <= values[1] + 1e-12


@given(counts, ratios)
def test_the_value_lies_within_a_bucket_that_has_observations(found: list[int], ratio: float) -> None:
    value = percentile(BOUNDS, list(accumulate(found)), ratio)

    lower = (0.0, *BOUNDS[:-1])
    assert value is not None
    assert any(
        count and low - 1e-9 <= value <= high + 1e-9 for count, low, high in zip(found, lower, BOUNDS, strict=True)
    )


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(0, 99))
def test_more_than_so_many_percent_of_the_values_do_not_exceed_it_and_of_no_lower_value_that_is_true(
    values: list[int], percent: int
) -> None:
    found = percentile_of(values, percent)
    up_to = {value: 100 * sum(each <= value for each in values) for value in values}

    assert up_to[int(found)] > percent * len(values)
    assert all(up_to[value] <= percent * len(values) for value in values if value < found)
    assert percentile_of(values, 100) == max(values)
