"""By how much a rate changed, and how sure that is when one author's decisions are alike.

Every function takes arrays whose last axis is the groups; axes before it are for many comparisons at once. The variance
is that of the jackknife over groups (B. Efron, C. Stein, "The jackknife estimate of variance", Annals of Statistics 9,
1981), in which a group's deviation counts the more the larger it is: one with half of all traffic draws the mean to
itself, and would hide its deviation else. Design effect and effective number: L. Kish, "Survey Sampling" (1965).

One group's variance cannot be known from itself, so no conclusion may hang on it: what is said of all groups must hold
without the heavy ones as well.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baleen_core.analysis.boundary import Floats, deviations, share_bounds, student_deviations

MAX_SHARE: Final = 0.1
"""A group is heavy when it has more than this of its own decisions and those of all smaller groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A change of a rate, candidate minus stable, from -1 to 1, of `stable` and `candidate`, from 0 to 1.

    `clustered` is its variance out of the groups, with so many degrees of `freedom`, one less than the effective number
    of groups; `independent` is the variance it would have if every decision were by somebody else. `per_candidate` and
    `per_stable` are one over the number of decisions of each arm. `groups` counts those with decisions, in the arm that
    has fewer of them. Values of a comparison without decisions are nan.
    """

    stable: Floats
    candidate: Floats
    clustered: Floats
    independent: Floats
    freedom: Floats
    per_stable: Floats
    per_candidate: Floats
    groups: Floats

    @property
    def change(self) -> Floats:
        """Candidate minus stable."""
        return self.candidate - self.stable

    @property
    def design_effect(self) -> Floats:
        """How many decisions tell as much as one would if all were independent: 1 or more (L. Kish, 1965)."""
        return np.maximum(1.0, self.clustered / self.independent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An estimate of all traffic, and bounds of its change, -1 to 1, that hold without the heavy groups as well.

    `groups` counts the light ones with decisions, in the arm that has fewer of them; nan bounds are of no data.
    """

    estimate: Estimate
    lower: Floats
    upper: Floats
    groups: Floats


def paired_change(
    decisions: ArrayLike,
    stable: ArrayLike,
    candidate: ArrayLike,
    differing: ArrayLike,
    *,
    alpha: float,
    scale: float,
) -> Change:
    """Estimate with `paired`; each bound is wrong at any look with probability alpha at most.

    `scale` is that of `deviations`.
    """
    n = _floats(decisions)
    kept = light(n)
    every = paired(n, stable, candidate, differing)
    some = paired(n * kept, _floats(stable) * kept, _floats(candidate) * kept, _floats(differing) * kept)
    return hull(every, some, alpha=alpha, scale=scale)


def cohorts_change(
    stable_decisions: ArrayLike,
    stable_events: ArrayLike,
    candidate_decisions: ArrayLike,
    candidate_events: ArrayLike,
    *,
    alpha: float,
    scale: float,
) -> Change:
    """Estimate with `cohorts`; each bound is wrong at any look with probability alpha at most."""
    columns = [_floats(each) for each in (stable_decisions, stable_events, candidate_decisions, candidate_events)]
    kept = light_in_both(columns[0], columns[2])[..., None, :]
    return hull(cohorts(*columns), cohorts(*(each * kept for each in columns)), alpha=alpha, scale=scale)


def paired(decisions: ArrayLike, stable: ArrayLike, candidate: ArrayLike, differing: ArrayLike) -> Estimate:
    """Estimate from decisions that both revisions judged; shapes `(..., groups)`, as in `PairedCounts`.

    The change is the ratio of sums (candidate - stable) / decisions.
    """
    n, x, y = _floats(decisions), _floats(stable), _floats(candidate)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = n.sum(-1)
        change = (y - x).sum(-1) / total
        influence = _influences(n, y - x)
        groups = (n > 0).sum(-1).astype(np.float64)
        # One differing decision at least: of none it is not known that there never will be any.
        one_sided = np.maximum(_floats(differing).sum(-1), 1.0) / total
        return Estimate(
            stable=x.sum(-1) / total,
            candidate=y.sum(-1) / total,
            clustered=(influence**2).sum(-1) * (groups - 1) / groups,
            independent=np.maximum(one_sided - change**2, 1 / total) / total,
            freedom=_effective(n) - 1,
            per_stable=1 / total,
            per_candidate=1 / total,
            groups=groups,
        )


def cohorts(
    stable_decisions: ArrayLike, stable_events: ArrayLike, candidate_decisions: ArrayLike, candidate_events: ArrayLike
) -> Estimate:
    """Estimate from two cohorts, each judged by its own revision; shapes `(..., weights, groups)`; see `CohortCounts`.

    Each weight's period has its own difference; they are averaged with the weights of W. G. Cochran ("Some methods for
    strengthening the common chi-square tests", Biometrics 10, 1954), n_c n_s / (n_c + n_s), which are 0 for a period
    that only one arm has decisions in. What a group contributes in several periods is added up before it is squared,
    since its authors are the same.
    """
    arms = [
        (_floats(stable_decisions), _floats(stable_events)),
        (_floats(candidate_decisions), _floats(candidate_events)),
    ]
    (n_s, k_s), (n_c, k_c) = [(n.sum(-1), k.sum(-1)) for n, k in arms]
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where((n_s > 0) & (n_c > 0), n_s * n_c / (n_s + n_c), 0.0)
        weight = weight / weight.sum(-1, keepdims=True)
        both = n_s + n_c
        pooled = np.clip(k_s + k_c, 1.0, both - 1) / both
        rates, effective, populated = [], [], []
        clustered, independent = np.zeros(()), np.zeros(())
        for (decisions, events), n, k in zip(arms, (n_s, n_c), (k_s, k_c), strict=True):
            rates.append(_weighted(weight, k / n))
            # The larger of both: a small cohort without any event has not shown that its rate is 0.
            spread = np.maximum(pooled * (1 - pooled), k / n * (1 - k / n))
            independent = independent + _weighted(weight**2, spread / n)
            influence = np.where(weight[..., None] > 0, weight[..., None] * _influences(decisions, events), 0.0).sum(-2)
            groups = ((decisions > 0) & (weight[..., None] > 0)).any(-2).sum(-1).astype(np.float64)
            clustered = clustered + (influence**2).sum(-1) * (groups - 1) / groups
            effective.append(_effective(np.where(weight[..., None] > 0, decisions, 0.0).sum(-2)))
            populated.append(groups)
        return Estimate(
            stable=rates[0],
            candidate=rates[1],
            clustered=clustered,
            independent=independent,
            # The arm with fewer may make up nearly all of the variance.
            freedom=np.minimum(effective[0], effective[1]) - 1,
            per_stable=_weighted(weight**2, 1 / n_s),
            per_candidate=_weighted(weight**2, 1 / n_c),
            groups=np.minimum(populated[0], populated[1]),
        )


def light(decisions: ArrayLike) -> NDArray[np.bool_]:
    """Say of each group whether it is light: not above MAX_SHARE once all that are larger and heavy are left out."""
    n = _floats(decisions)
    rising = np.sort(n, axis=-1)
    falling, rest = rising[..., ::-1], np.cumsum(rising, axis=-1)[..., ::-1]
    heavy = np.logical_and.accumulate(falling > MAX_SHARE * rest, axis=-1)
    smallest_heavy = np.where(heavy, falling, np.inf).min(axis=-1, keepdims=True)
    return np.asarray(n < smallest_heavy)


def light_in_both(stable: Floats, candidate: Floats) -> NDArray[np.bool_]:
    """Say of each group whether it is light in both arms; shapes of decisions are `(..., weights, groups)`."""
    # Before the candidate has any weight, nothing is compared.
    common = (stable.sum(-1, keepdims=True) > 0) & (candidate.sum(-1, keepdims=True) > 0)
    return np.asarray(light((stable * common).sum(-2)) & light((candidate * common).sum(-2)))


def interval(estimate: Estimate, *, alpha: float, scale: float) -> tuple[Floats, Floats]:
    """Return lower and upper bounds of a change, -1 to 1; each is wrong at any look with probability alpha at most.

    A change t is within the bounds when the estimate is no more than `deviations` standard errors from it. Its variance
    is the larger of three: the clustered one, at Student's quantile of its degrees of freedom; the independent one; and
    that of t itself, since a rate cannot change by t with less than the variance of a rate of t. The third keeps bounds
    away from 0 as long as hardly anything has happened.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance = np.maximum(estimate.clustered, estimate.independent)
        sure = deviations(variance, alpha=alpha, scale=scale)
        margin = np.maximum(
            student_deviations(sure, estimate.freedom) * np.sqrt(estimate.clustered),
            sure * np.sqrt(estimate.independent),
        )
        slack = sure**2 * estimate.design_effect
        least_up, most_up = share_bounds(estimate.change, slack * estimate.per_candidate)
        least_down, most_down = share_bounds(-estimate.change, slack * estimate.per_stable)
        lower = np.fmin(np.fmin(estimate.change - margin, -most_down), least_up)
        upper = np.fmax(np.fmax(estimate.change + margin, most_up), -least_down)
    return np.clip(lower, -1.0, 1.0), np.clip(upper, -1.0, 1.0)


def hull(every: Estimate, some: Estimate, *, alpha: float, scale: float) -> Change:
    """Return the bounds of both estimates: of all groups, and of the light ones alone."""
    # The guarantee is that of the light groups; Student's quantile for the heavy ones would rule out any conclusion.
    eased = replace(every, freedom=some.freedom)
    bounds = [interval(each, alpha=alpha, scale=scale) for each in (eased, some)]
    return Change(
        estimate=every,
        lower=np.fmin(bounds[0][0], bounds[1][0]),
        upper=np.fmax(bounds[0][1], bounds[1][1]),
        groups=some.groups,
    )


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _influences(decisions: Floats, events: Floats) -> Floats:
    """Return by how much leaving each group out would change the ratio of sums, events / decisions."""
    total = decisions.sum(-1, keepdims=True)
    residual = events - events.sum(-1, keepdims=True) / total * decisions
    rest = total - decisions
    return np.asarray(np.where(rest > 0, residual / np.where(rest > 0, rest, 1.0), 0.0))


def _weighted(weight: Floats, values: Floats) -> Floats:
    return np.asarray(np.where(weight > 0, weight * values, 0.0).sum(-1))


def _effective(decisions: Floats) -> Floats:
    """Return how many groups of equal size would count as much as these do."""
    return np.asarray(np.fmax(2.0, decisions.sum(-1) ** 2 / (decisions**2).sum(-1)))
