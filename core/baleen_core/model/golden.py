"""Known inputs and the answers to them: a model serves only after it gave these."""

from collections.abc import Iterator, Mapping

from baleen_core.errors import Problem
from baleen_core.model.schema import Expectation, Model
from baleen_core.ratio import format_ratio


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
