"""Ratios as integer millionths, the only form in which scores and thresholds are compared.

A float32 0.7 is 0.69999998..., which a threshold of 70 % would miss: see docs/adr/0002-millionths.md.
"""

import math
import re
from decimal import Decimal
from typing import Final

MILLION: Final = 1_000_000

# Nine digits and six, so that millionths fit into the numbers of JSON.
_NUMBER = re.compile(r"(-?\d{1,9}(?:\.\d{1,6})?)", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)\s?%", re.ASCII)
_DECIMAL = re.compile(r"([01](?:\.\d{1,6})?)", re.ASCII)


def parse_ratio(value: object) -> int:
    """Read `85%` or `"0.85"` as millionths, 0 to 1,000,000.

    Raises:
        ValueError: says what was found and what would be right.
    """
    if isinstance(value, str):
        text = value.strip()
        if match := _PERCENT.fullmatch(text):
            number = Decimal(match[1]) * 10_000
        elif match := _DECIMAL.fullmatch(text):
            number = Decimal(match[1]) * MILLION
        else:
            raise ValueError(
                f'{value!r} is not a ratio; write a percentage such as 85% or a quoted decimal such as "0.85"'
            )
        if number > MILLION:
            raise ValueError(f"{value!r} is above 100%")
        return int(number)
    shown = f"{value!r} (unquoted)" if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
    raise ValueError(f'{shown} is not a ratio; write a percentage such as 85% or a quoted decimal such as "0.85"')


def parse_number(value: str) -> int:
    """Read any number, such as `2%`, `"0.02"` or `"-1500"`, as millionths.

    Raises:
        ValueError: says what was found and what would be right.
    """
    if match := _NUMBER.fullmatch(value.strip()):
        return int(Decimal(match[1]) * MILLION)
    if match := _PERCENT.fullmatch(value.strip()):
        return int(Decimal(match[1]) * 10_000)
    raise ValueError(
        f'{value!r} is not a number; write a quoted decimal such as "0.02", "-3" or "1500", with at most 9 digits '
        "before the point and 6 behind it, or a percentage such as 2%"
    )


def format_number(millionths: int) -> str:
    """Write millionths as the shortest decimal: 20000 as `0.02`."""
    return f"{Decimal(millionths) / MILLION:f}"


def format_ratio(millionths: int) -> str:
    """Write millionths as the shortest percentage: 850000 as `85%`, 973142 as `97.3142%`."""
    whole, rest = divmod(millionths, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def to_millionths(score: float) -> int:
    """Round a model's float to integer millionths, half to even.

    Raises:
        ValueError: the score is not a number between 0 and 1 (a hair of rounding error is clipped).
    """
    number = float(score)
    if not math.isfinite(number) or not -1e-5 <= number <= 1 + 1e-5:
        raise ValueError(f"a score must be a number from 0 to 1, not {number!r}")
    return min(MILLION, max(0, round(number * MILLION)))
