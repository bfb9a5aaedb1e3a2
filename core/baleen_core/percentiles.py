"""Percentiles of values; or out of a histogram's cumulative counts, as Prometheus' `histogram_quantile` has them."""

from collections.abc import Iterable, Sequence
from math import inf


def percentile(bounds: Sequence[float], cumulative: Sequence[float], ratio: float) -> float | None:
    """Interpolate within the bucket that holds the `ratio` (0 to 1) of all observations; None without any.

    `bounds` are upper bounds, rising, the last one infinite; what lies in the last bucket counts as its lower bound.
    """
    total = cumulative[-1] if cumulative else 0
    if not total:
        return None
    rank = ratio * total
    index = next(place for place, count in enumerate(cumulative) if count >= rank)
    low = bounds[index - 1] if index else 0.0
    if bounds[index] == inf:
        return low
    before = cumulative[index - 1] if index else 0
    inside = cumulative[index] - before
    return low + (bounds[index] - low) * ((rank - before) / inside if inside else 1.0)


def percentile_of(values: Iterable[float], percent: int) -> float:
    """Return the least of values that more than `percent` (0 to 100) of a hundred do not exceed, or else the largest.

    Raises:
        IndexError: there is no value.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
