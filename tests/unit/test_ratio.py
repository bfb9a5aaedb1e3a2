"""Ratios as integer millionths: how they are read, written, and made of a model's floats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.ratio import MILLION, format_ratio, parse_ratio, to_millionths

millionths = st.integers(0, MILLION)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("85%", 850_000, id="whole percents"),
        pytest.param("99.9999%", 999_999, id="the finest percentage"),
        pytest.param("0.5 %", 5_000, id="a space before the sign"),
        pytest.param(" 85% ", 850_000, id="spaces around it"),
        pytest.param("007%", 70_000, id="leading zeros"),
        pytest.param("0.85", 850_000, id="a decimal"),
        pytest.param("0.000001", 1, id="the finest decimal"),
        pytest.param("1", MILLION, id="all"),
        pytest.param("100%", MILLION, id="all in percent"),
        pytest.param("0", 0, id="nothing"),
    ],
)
def test_percentages_and_decimals_become_the_same_millionths(text: str, expected: int) -> None:
    assert parse_ratio(text) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(0.85, "unquoted", id="a float, whose digits are not what was written"),
        pytest.param(85, "unquoted", id="a number without a unit"),
        pytest.param("85", "write a percentage", id="the same in quotes"),
        pytest.param(True, "True is not a ratio", id="true"),
        pytest.param(None, "None is not a ratio", id="nothing"),
        pytest.param(["85%"], "not a ratio", id="a list"),
        pytest.param("100.0001%", "above 100%", id="above all"),
        pytest.param("1.000001", "above 100%", id="above one"),
        pytest.param("-5%", "write a percentage", id="negative"),
        pytest.param("85.00001%", "write a percentage", id="finer than a millionth"),
        pytest.param("0.0000001", "write a percentage", id="a finer decimal"),
        pytest.param("8e-1", "write a percentage", id="with an exponent"),
        pytest.param("٨٥%", "write a percentage", id="digits of another script"),
        pytest.param("85%%", "write a percentage", id="twice the sign"),
        pytest.param("", "write a percentage", id="empty"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_ratio(value)


@given(millionths)
def test_what_is_written_is_read_back(ratio: int) -> None:
    assert parse_ratio(format_ratio(ratio)) == ratio


@given(millionths)
def test_a_decimal_of_six_places_is_exact(ratio: int) -> None:
    assert parse_ratio(f"{ratio // MILLION}.{ratio % MILLION:06d}") == ratio


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(850_000, "85%"), (973_142, "97.3142%"), (MILLION, "100%"), (0, "0%"), (5, "0.0005%"), (100_000, "10%")],
)
def test_a_ratio_is_written_as_the_shortest_percentage(ratio: int, expected: str) -> None:
    assert format_ratio(ratio) == expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(np.float32(0.7), 700_000, id="a float32 that is a hair below what was meant"),
        pytest.param(0.0000005, 0, id="half of a millionth, to even"),
        pytest.param(0.0000015, 2, id="one and a half millionths, to even"),
        pytest.param(1.000009, MILLION, id="a hair above one"),
        pytest.param(-0.000009, 0, id="a hair below zero"),
        pytest.param(-0.0, 0, id="negative zero"),
        pytest.param(1, MILLION, id="an integer"),
    ],
)
def test_a_models_score_is_rounded_half_to_even(score: float, expected: int) -> None:
    assert to_millionths(score) == expected


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), 1.1, -0.1, 100.0])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        to_millionths(score)


@given(millionths)
def test_a_float32_of_a_ratio_becomes_that_ratio_again(ratio: int) -> None:
    assert to_millionths(float(np.float32(ratio / MILLION))) == ratio


@given(st.floats(0, 1), st.floats(0, 1))
def test_rounding_keeps_the_order(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert to_millionths(low) <= to_millionths(high)
