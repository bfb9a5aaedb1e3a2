"""Scores and thresholds are the same integers wherever they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.ratio import MILLION, format_ratio, parse_ratio, to_millionths

millionths = st.integers(0, MILLION)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("85%", 850_000, id="percentage"),
        pytest.param("0.85", 850_000, id="quoted decimal"),
        pytest.param("97.3142%", 973_142, id="all six places"),
        pytest.param(" 70 % ", 700_000, id="spaces"),
        pytest.param("100%", MILLION, id="all"),
        pytest.param("1", MILLION, id="one"),
        pytest.param("0%", 0, id="nothing"),
    ],
)
def test_a_ratio_is_read_in_both_notations(written, expected):
    assert parse_ratio(written) == expected


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param(0.85, "unquoted", id="a float, which YAML reads inexactly"),
        pytest.param(85, "unquoted", id="a number without its unit"),
        pytest.param(True, "True is not a ratio", id="a boolean"),
        pytest.param(None, "None is not a ratio", id="nothing"),
        pytest.param("85", "write a percentage", id="text without its unit"),
        pytest.param("101%", "above 100%", id="more than all"),
        pytest.param("1.5", "above 100%", id="more than one"),
        pytest.param("-1%", "write a percentage", id="negative"),
        pytest.param("0.1234567", "write a percentage", id="more places than are kept"),
        pytest.param("٨٥%", "write a percentage", id="digits of another script"),
        pytest.param("9" * 10_000 + "%", "write a percentage", id="endless"),
    ],
)
def test_what_is_no_ratio_is_refused_with_the_right_form(written, why):
    with pytest.raises(ValueError, match=why):
        parse_ratio(written)


@given(millionths)
def test_a_ratio_that_was_written_reads_back_the_same(number):
    assert parse_ratio(format_ratio(number)) == number


@given(millionths)
def test_a_float32_score_reaches_the_threshold_that_it_was_meant_to(number):
    """float32 0.7 is 0.69999998..., which a comparison of floats puts below 70 %."""
    score = float(np.float32(number / MILLION))

    assert abs(to_millionths(score) - number) <= 0


@given(st.floats(0, 1), st.floats(0, 1))
def test_rounding_keeps_the_order_of_scores(one, other):
    low, high = sorted((one, other))

    assert to_millionths(low) <= to_millionths(high)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.5, 1.5])
def test_what_is_no_score_is_refused(score):
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        to_millionths(score)


@pytest.mark.parametrize(
    ("score", "expected"), [(-1e-7, 0), (1 + 1e-7, MILLION), (0.5000005, 500_000), (0.5000015, 500_002)]
)
def test_a_hair_of_rounding_error_is_clipped_and_halves_go_to_even(score, expected):
    assert to_millionths(score) == expected
