"""Six linear heads over the encoder's embedding: logistic regression, calibrated on rows that it did not see.

Everything is float64 in a fixed order, and rows are split by the digest of their text, so that the same corpora give
the same heads wherever the embeddings are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from baleen_cli.models.rows import CATEGORIES, Row
from baleen_core.errors import ModelError

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

_HELD_OUT_SHARE: Final = 0.25
_MIN_OF_EACH_KIND: Final = 8
_RIDGE: Final = 30.0
# How much of what is judged is taken to be abuse: less would make the heads timid, more would make them cry wolf.
_PRIOR: Final = 0.33
_NEWTON_STEPS: Final = 50
_CONVERGED: Final = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """`sigmoid(embedding @ weights + bias)` are the probabilities; `auc` was measured on held-out rows.

    `weights` are `[dimensions, categories]`, `bias` is `[categories]`, in the order of `CATEGORIES`.
    """

    weights: Matrix
    bias: Vector
    auc: Mapping[str, float]
    rows: Mapping[str, int]

    def probabilities(self, embeddings: Matrix) -> Matrix:
        """Return `[rows, categories]` for embeddings `[rows, dimensions]`."""
        return _sigmoid(embeddings @ self.weights + self.bias)


def train_heads(rows: Sequence[Row], embeddings: npt.NDArray[np.floating]) -> Heads:
    """Train one head for each category on the rows whose label for it is known.

    Raises:
        ModelError: a category has too few positive or negative rows, in training or held out.
    """
    features = embeddings.astype(np.float64)
    held_out = np.array([is_held_out(row) for row in rows])
    columns, biases, auc, counts = [], [], {}, {}
    for category in CATEGORIES:
        known = np.array([category in row.labels for row in rows])
        labels = np.array([row.labels.get(category, False) for row in rows], np.float64)
        weights = np.array([row.weight for row in rows])
        learn, judge = known & ~held_out, known & held_out
        _check_enough(category, labels[learn], labels[judge])
        column, bias = fit_logistic(features[learn], labels[learn], weights[learn])
        logits = features[judge] @ column + bias
        slope, shift = fit_platt(logits, labels[judge], weights[judge])
        columns.append(column * slope)
        biases.append(bias * slope + shift)
        auc[category] = area_under_curve(logits, labels[judge])
        counts[category] = int(labels[known].sum())
    return Heads(weights=np.stack(columns, axis=1), bias=np.array(biases), auc=auc, rows=counts)


def is_held_out(row: Row) -> bool:
    """Say whether a row judges the heads rather than teaching them; it depends on nothing but its text."""
    # The last byte, since rows of a large corpus are chosen by the first ones.
    return row.digest[-1] < 256 * _HELD_OUT_SHARE


def fit_logistic(features: Matrix, labels: Vector, weights: Vector) -> tuple[Vector, float]:
    """Fit a ridge logistic regression by Newton's method; both kinds of rows count the same in total.

    Features are centred and scaled by one number for the fit, since embeddings of e5 all point in nearly one direction.
    """
    centre = features.mean(axis=0)
    scale = float(np.sqrt(((features - centre) ** 2).mean()))
    centred = np.hstack([(features - centre) / scale, np.ones((len(features), 1))])
    ridge = np.full(centred.shape[1], _RIDGE)
    ridge[-1] = 0.0
    found = _newton(centred, labels, _balanced(labels, weights, 0.5), ridge, np.zeros(centred.shape[1]))
    column = found[:-1] / scale
    return column, float(found[-1] - centre @ column)


def fit_platt(logits: Vector, labels: Vector, weights: Vector) -> tuple[float, float]:
    """Find slope and shift that turn logits into probabilities (Platt 1999, with his softened targets)."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    slope, shift = _newton(
        features, targets, _balanced(labels, weights, _PRIOR), np.full(2, 1e-6), np.array([1.0, 0.0])
    )
    return float(slope), float(shift)


def area_under_curve(logits: Vector, labels: Vector) -> float:
    """Return the share of pairs of a positive and a negative row that are in the right order; a tie is half a pair."""
    positives, negatives = logits[labels > 0], np.sort(logits[labels == 0])
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return float((below + not_above).sum() / (2 * len(positives) * len(negatives)))


def _newton(features: Matrix, targets: Vector, weights: Vector, ridge: Vector, start: Vector) -> Vector:
    """Minimise the weighted, ridged logistic loss; steps are halved until they go down, or it may run away."""

    def loss(at: Vector) -> float:
        logits = features @ at
        return float(weights @ (np.logaddexp(0, logits) - targets * logits) + 0.5 * (ridge * at) @ at)

    found, height = start, loss(start)
    for _ in range(_NEWTON_STEPS):
        predicted = _sigmoid(features @ found)
        gradient = features.T @ (weights * (predicted - targets)) + ridge * found
        curvature = (features * (weights * predicted * (1 - predicted))[:, None]).T @ features + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        while (lower := loss(found - step)) > height and float(np.abs(step).max()) > _CONVERGED:
            step = step / 2
        if float(np.abs(step).max()) <= _CONVERGED:
            break
        found, height = found - step, lower
    return found


def _balanced(labels: Vector, weights: Vector, share: float) -> Vector:
    """Scale weights so that positive rows are `share` of the total."""
    positive, negative = weights[labels > 0].sum(), weights[labels == 0].sum()
    total = positive + negative
    factors: Vector = np.where(labels > 0, share * total / positive, (1 - share) * total / negative)
    return weights * factors


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    return probabilities


def _check_enough(category: str, learned: Vector, judged: Vector) -> None:
    for name, labels in (("training", learned), ("held-out", judged)):
        positives, negatives = int(labels.sum()), int((1 - labels).sum())
        if min(positives, negatives) < _MIN_OF_EACH_KIND:
            raise ModelError(
                f"category {category} has {positives} positive and {negatives} negative {name} rows; "
                f"at least {_MIN_OF_EACH_KIND} of each are needed"
            )
