"""Known inputs and the answers to them: a model serves only after it gave these."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from baleen_core.errors import Problem
from baleen_core.model.schema import Expectation, Model
from baleen_core.model.signals import read_signals
from baleen_core.ratio import format_ratio

Tensors = Mapping[str, NDArray[np.generic]]


def highest_scores(model: Model, batches: Iterable[tuple[Tensors, Tensors]]) -> dict[str, int]:
    """Return the highest score (millionths by `<model>.<signal>`) over all rows of what was asked and answered.

    Raises:
        ModelUnavailable: an output is missing or is no score from 0 to 1.
    """
    highest: dict[str, int] = {}
    for inputs, outputs in batches:
        for row in range(len(next(iter(inputs.values())))):
            for signal, score in read_signals(model, outputs, row).items():
                highest[signal] = max(score, highest.get(signal, 0))
    return highest


def compare_golden(model: Model, index: int, scores: Mapping[str, int]) -> tuple[Problem, ...]:
    """Compare the scores (millionths by `<model>.<signal>`) of the model's golden input `index` with its answers."""
    return tuple(_differences(model, index, scores))


def _differences(model: Model, index: int, scores: Mapping[str, int]) -> Iterator[Problem]:
    for number, expected in enumerate(model.golden[index].expect):
        field = f"models[{model.name}].golden[{index}].expect[{number}]"
        found = scores.get(f"{model.name}.{expected.signal}")
        if found is None:
            yield Problem(field=field, message=f"signal {expected.signal!r} has no score; expected {_shown(expected)}")
        elif abs(found - expected.value) > expected.tolerance:
            message = f"signal {expected.signal!r} is {format_ratio(found)}; expected {_shown(expected)}"
            yield Problem(field=field, message=message)


def _shown(expected: Expectation) -> str:
    return f"{format_ratio(expected.value)} within {format_ratio(expected.tolerance)}"
