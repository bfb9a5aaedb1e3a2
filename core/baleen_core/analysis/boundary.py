"""How far a mean may stray from the truth at any look: closed forms, for numbers and arrays of them.

Sources: S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49 (2021), section 3.2; I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy,
A. Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52 (2024);
D. L. Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", Annals of
Mathematical Statistics 30 (1959).
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_MAX_EXPONENT: Final = 700.0
"""Of what a double can hold."""


def normal_mixture_bound(variance: ArrayLike, *, alpha: float, rho: ArrayLike) -> Floats:
    """Return what a centred sum of so much variance stays below at every time, with probability 1 - alpha.

    This is the closed form above the one-sided normal mixture (Howard et al., equation 14):
    `sqrt(2 (v + rho) ln(sqrt((v + rho) / rho) / (2 alpha) + 1))`. `variance` and `rho` are above 0, in the square of
    the sum's unit; it is tightest where the variance is about 12 times rho.
    """
    start = np.asarray(rho, dtype=np.float64)
    total = np.asarray(variance, dtype=np.float64) + start
    return np.asarray(np.sqrt(2 * total * np.log(np.sqrt(total / start) / (2 * alpha) + 1)))


def deviations(variance: ArrayLike, *, alpha: float, scale: float) -> Floats:
    """Return how many standard errors an estimate may be above (or below) the truth at any look.

    The estimate over its `variance`, which falls as traffic comes, is taken for the sum of `normal_mixture_bound`; the
    variance of that is 1 / `variance`. This is an asymptotic confidence sequence (Waudby-Smith et al.). `scale`, in the
    estimate's unit, is the size of the differences that are to be found soonest. It must not depend on the counts.
    """
    information = 1 / np.asarray(variance, dtype=np.float64)
    return normal_mixture_bound(information, alpha=alpha, rho=scale**-2) / np.sqrt(information)


def student_deviations(normal: ArrayLike, freedom: ArrayLike) -> Floats:
    """Return the quantile of Student's t, with 1 or more degrees of freedom, at the level of a quantile of the normal.

    Wallace's approximation, `z = (8 n + 1) / (8 n + 3) sqrt(n ln(1 + t² / n))`, is up to 4 % too large with 3 degrees
    of freedom, and 0.1 % with 30.
    """
    n = np.asarray(freedom, dtype=np.float64)
    stretched = np.asarray(normal, dtype=np.float64) * (8 * n + 3) / (8 * n + 1)
    return np.asarray(np.sqrt(n * np.expm1(np.minimum(stretched**2 / n, _MAX_EXPONENT))))


def share_bounds(share: ArrayLike, slack: ArrayLike) -> tuple[Floats, Floats]:
    """Return the least and most t with `(share - t)² <= slack t (1 - t)`; nan where there is none.

    With the square of `deviations` over the number of trials as slack, these are E. B. Wilson's limits of a
    probability ("Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927). `share` may be below 0; then no t above 0 may do.
    """
    p, b = np.asarray(share, dtype=np.float64), np.asarray(slack, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(b * b + 4 * b * p * (1 - p))
    return np.asarray((2 * p + b - root) / (2 * (1 + b))), np.asarray((2 * p + b + root) / (2 * (1 + b)))
