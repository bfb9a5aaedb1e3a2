"""From a model's tensors to the numbers that policies read."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from baleen_core.errors import ModelUnavailable
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model, ModelSignal
from baleen_core.ratio import to_millionths


def read_signals(model: Model, outputs: Mapping[str, NDArray[np.generic]], row: int) -> dict[str, int]:
    """Return the scores (millionths by `<model>.<signal>`) of one row of a batch.

    Raises:
        ModelUnavailable: an output is missing or is no score from 0 to 1.
    """
    return {f"{model.name}.{signal.name}": _read_signal(model, signal, outputs, row) for signal in model.signals}


def _read_signal(model: Model, signal: ModelSignal, outputs: Mapping[str, NDArray[np.generic]], row: int) -> int:
    try:
        answer = outputs[signal.output][row]
        if signal.index is not None and answer.ndim == 1:
            # As most models answer: to look for the highest of one number costs five times as much.
            return to_millionths(answer.item(signal.index))
        values = answer if signal.index is None else answer[..., signal.index]
        return to_millionths(float(np.max(values)))
    except (KeyError, IndexError, ValueError) as wrong:
        cause = f"no output {wrong}" if isinstance(wrong, KeyError) else str(wrong)
        raise ModelUnavailable(f"model {model.name} {model.version}, signal {signal.name}: {cause}") from wrong


def find_offers(models: Iterable[Model]) -> dict[str, str]:
    """Return every signal that models give (`<model>.<signal>`), and what its model takes: `text` or `image`."""
    return {
        f"{model.name}.{signal.name}": find_recipe(model.preprocessing.recipe).accepts
        for model in models
        for signal in model.signals
    }
