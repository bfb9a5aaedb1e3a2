"""By how much the 99th percentile of latencies changed, out of histograms.

A percentile is certainly below what certainly more than 99 % of all are below, so a confidence sequence on a share is
one on a percentile (S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and
best-arm identification", Bernoulli 28, 2022). Here the share is that of the candidate's decisions that are slower than
stable's percentile plus d: where it may be 1 %, d may be the change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, isinf, nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baleen_core.analysis.boundary import Floats, deviations, share_bounds, student_deviations
from baleen_core.analysis.counts import LatencyCounts
from baleen_core.analysis.estimate import Estimate, cohorts, light_in_both
from baleen_core.percentiles import percentile

SLOW: Final = 0.01
"""The share of decisions that are slower than the 99th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyChange:
    """The percentile of both arms and bounds of its change, in seconds; nan without data, infinite where not known.

    A percentile above the last finite bound counts as that. `groups` is that of `Change`.
    """

    stable: float
    candidate: float
    lower: float
    upper: float
    groups: int


_NO_DATA: Final = LatencyChange(stable=nan, candidate=nan, lower=nan, upper=nan, groups=0)


def latency_change(counts: Sequence[LatencyCounts], *, alpha: float) -> LatencyChange:
    """Compare the 99th percentiles of both arms; each bound is wrong at any look with probability alpha at most.

    `counts` has one entry for each weight, all with the same bounds. Stable's histograms are weighted as the
    candidate's decisions are among the periods, so that both percentiles are of the same hours. Latencies in a bucket
    are taken as spread evenly; with both percentiles in one bucket, both have the error of that. As a rate's, bounds
    hold without the heavy groups as well.

    Raises:
        ValueError: the bounds differ.
    """
    if len({one.bounds for one in counts}) > 1:
        raise ValueError("latencies must be counted with the same bounds at every weight")
    if not counts:
        return _NO_DATA
    bounds = counts[0].bounds
    stable = np.array([one.stable for one in counts], dtype=np.float64)
    candidate = np.array([one.candidate for one in counts], dtype=np.float64)
    kept = light_in_both(stable.sum(1), candidate.sum(1))
    every = _compare(bounds, stable, candidate, alpha=alpha)
    some = _compare(bounds, stable * kept, candidate * kept, alpha=alpha)
    return LatencyChange(
        stable=every.stable,
        candidate=every.candidate,
        # Bounds of too few groups to be judged may be nan, and such comparisons are false.
        lower=min(every.lower, some.lower),
        upper=max(every.upper, some.upper),
        groups=some.groups,
    )


def _compare(
    bounds: tuple[float, ...], stable: NDArray[np.float64], candidate: NDArray[np.float64], *, alpha: float
) -> LatencyChange:
    """Compare without regard to heavy groups; shapes are `(weights, buckets, groups)`."""
    both = (stable.sum((1, 2)) > 0) & (candidate.sum((1, 2)) > 0)
    if not both.any():
        return _NO_DATA
    stable, candidate = stable[both], candidate[both]
    size_s, size_c = stable.sum((1, 2)), candidate.sum((1, 2))
    share_s = (stable.sum(2) * (size_c / size_s)[:, None]).sum(0) / size_c.sum()
    share_c = candidate.sum((0, 2)) / size_c.sum()
    estimate = cohorts(*_slow_ones(stable, share_s), *_slow_ones(candidate, share_c))
    trials = float((size_c**2 / size_s).sum() / size_c.sum() ** 2 + 1 / size_c.sum())
    most, least = _slow_shares(estimate, trials=trials, alpha=alpha)
    last = bounds[-2]
    at_stable = _percentile(bounds, share_s, SLOW)
    base = min(at_stable, last)
    return LatencyChange(
        stable=base,
        candidate=min(_percentile(bounds, share_c, SLOW), last),
        # Where stable's is above all finite bounds, it may be above the candidate's by any amount.
        lower=-inf if isinf(at_stable) else min(_percentile(bounds, share_c, most), last) - base,
        upper=_percentile(bounds, share_c, least) - base,
        groups=int(estimate.groups),
    )


def _slow_shares(estimate: Estimate, *, trials: float, alpha: float) -> tuple[float, float]:
    """Return the share of slow ones above which the candidate is certainly slower, and that below which it is not.

    `trials` is the sum over the arms of one over their decisions. With few slow ones found, the variance is taken to be
    that of SLOW, or none at all would prove much; with many, it is theirs, which is larger.
    """
    effective = trials * float(estimate.design_effect)
    spread = SLOW * (1 - SLOW) * effective
    sure = float(deviations(spread, alpha=alpha, scale=SLOW))
    if estimate.clustered > estimate.independent:
        sure = float(student_deviations(sure, estimate.freedom))
    _, most = share_bounds(SLOW, sure**2 * effective)
    return float(most), SLOW - sure * sqrt(spread)


def _slow_ones(columns: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Return decisions and slow ones, `(weights, groups)`: above the bound with the share nearest to SLOW above it."""
    above = 1 - np.cumsum(shares)[:-1]
    bucket = int(np.argmin(np.abs(above - SLOW)))
    return columns.sum(1), columns[:, bucket + 1 :].sum(1)


def _percentile(bounds: tuple[float, ...], shares: Floats, slow: float) -> float:
    """Return what so large a part is slower than: infinite above the finite bounds, or for no part at all."""
    cumulative = list(accumulate(float(share) for share in shares))
    if slow <= 0 or 1 - slow > cumulative[-2]:
        return inf
    found = percentile(bounds, cumulative, max(0.0, 1 - slow) / cumulative[-1])
    assert found is not None, "shares add up to 1"
    return found
