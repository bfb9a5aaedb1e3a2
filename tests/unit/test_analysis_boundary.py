"""How far an estimate may stray: published values, and laws."""

from math import erfc, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.boundary import deviations, normal_mixture_bound, share_bounds, student_deviations

alphas = st.floats(1e-6, 0.2)
variances = st.floats(1e-9, 1.0)
scales = st.floats(1e-3, 0.5)


def best_rho(variance: float, alpha: float) -> float:
    """Howard et al., section 3.5: of the two-sided boundary; with twice the alpha, of the one-sided."""
    return variance / (2 * log(1 / alpha) + log(1 + 2 * log(1 / alpha)))


def log_mixture(total: float, variance: float, rho: float) -> float:
    """Howard et al., proposition 6: the one-sided normal mixture, a martingale that starts at 1."""
    wide = variance + rho
    return 0.5 * log(4 * rho / wide) + total**2 / (2 * wide) + log(erfc(-total / sqrt(2 * wide)) / 2)


# Values of the authors' own software (confseq), computed there with an independent implementation in R.
def test_the_bound_is_just_above_the_one_sided_mixture_as_published():
    rho = best_rho(100, 0.1)

    assert log_mixture(10, 100, rho) == pytest.approx(-0.06502391, abs=1e-7)
    assert 27.66071 < normal_mixture_bound(100, alpha=0.05, rho=rho) < 27.66071 * 1.006


def test_both_sides_together_are_as_wide_as_the_two_sided_mixture_as_published():
    rho = best_rho(100, 0.05)

    assert rho == pytest.approx(12.60056, abs=1e-5)
    assert 30.35209 < normal_mixture_bound(100, alpha=0.025, rho=rho) < 30.35209 * 1.003


@given(variance=st.floats(1e-3, 1e6), alpha=alphas, rho=st.floats(1e-2, 1e4))
def test_where_the_bound_is_crossed_the_mixture_has_reached_one_over_alpha(variance, alpha, rho):
    bound = float(normal_mixture_bound(variance, alpha=alpha, rho=rho))

    assert log_mixture(bound, variance, rho) >= log(1 / alpha) - 1e-9


@given(alpha=alphas, smaller=st.floats(0.01, 0.99), variance=variances, scale=scales)
def test_more_confidence_takes_more_standard_errors(alpha, smaller, variance, scale):
    assert deviations(variance, alpha=alpha * smaller, scale=scale) > deviations(variance, alpha=alpha, scale=scale)


@given(alpha=alphas, less=st.floats(0.01, 0.99), variance=variances, scale=scales)
def test_with_less_variance_the_margin_is_narrower(alpha, less, variance, scale):
    margins = [deviations(v, alpha=alpha, scale=scale) * sqrt(v) for v in (variance * less, variance)]

    assert margins[0] < margins[1]


def test_it_is_tightest_where_the_variance_is_that_of_the_scale():
    """A twelfth of the scale's square: there two sides at 99 % take 3.57 standard errors, and one look 2.58."""
    found = [float(deviations(1e-4 / r, alpha=0.005, scale=0.01)) for r in (1.2, 11.5, 1000)]

    assert found[1] == pytest.approx(3.573, abs=1e-3)
    assert found[0] > found[1] < found[2]


@pytest.mark.parametrize(
    ("normal", "freedom", "quantile", "most"),
    [
        pytest.param(1.959964, 10, 2.228139, 1.003, id="97.5 %, 10"),
        pytest.param(2.575829, 3, 5.840909, 1.04, id="99.5 %, 3"),
        pytest.param(2.575829, 30, 2.749996, 1.001, id="99.5 %, 30"),
        pytest.param(3.290527, 5, 6.868827, 1.03, id="99.95 %, 5"),
        pytest.param(3.290527, 60, 3.460200, 1.001, id="99.95 %, 60"),
    ],
)
def test_quantiles_of_students_t_are_those_of_the_tables_or_a_little_above(normal, freedom, quantile, most):
    assert quantile < student_deviations(normal, freedom) < quantile * most


@given(normal=st.floats(0.1, 6), freedom=st.floats(1, 1e3), more=st.floats(1.01, 10))
def test_with_more_degrees_of_freedom_students_t_comes_down_to_the_normal(normal, freedom, more):
    few, many = (float(student_deviations(normal, n)) for n in (freedom, freedom * more))

    assert normal < many < few
    assert student_deviations(normal, 1e7) == pytest.approx(normal, rel=1e-5)


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I.
@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_bounds_of_a_share_are_wilsons_as_published(events, trials, low, high):
    found = share_bounds(events / trials, 1.959964**2 / trials)

    assert np.asarray(found) == pytest.approx([low, high], abs=6e-5)


def test_no_share_is_near_one_far_below_zero():
    assert np.isnan(share_bounds(-0.5, 0.001)).all()
