"""Signals that stand in for those of a model which does not answer: what one may be, checked among models at hand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackFault:
    """What is wrong with the `fallback` of a model's signal, which stands at `index` among the model's signals."""

    model: str
    index: int
    message: str


def find_fallback_faults(models: Sequence[Model], *, is_all: bool = False) -> Iterator[FallbackFault]:
    """Check every fallback that names a model among these; with `is_all` one that names none of them is a fault, too.

    A fallback is a signal of another model, for the same type of content, and has no fallback of its own: one model
    stands in, never a row of them, and so never a circle.
    """
    by_name = {model.name: model for model in models}
    for model in models:
        for index, signal in enumerate(model.signals):
            if signal.fallback is not None and (message := _find_fault(model, signal.fallback, by_name, is_all)):
                yield FallbackFault(model=model.name, index=index, message=message)


def _find_fault(model: Model, fallback: str, by_name: Mapping[str, Model], is_all: bool) -> str:
    name, _, signal = fallback.partition(".")
    if name == model.name:
        return f"{fallback!r} is a signal of the same model; name one of another, which answers while this one does not"
    other = by_name.get(name)
    if other is None:
        return f"{fallback!r} is a signal of a model that is not declared" if is_all else ""
    found = next((each for each in other.signals if each.name == signal), None)
    if found is None:
        known = ", ".join(sorted(each.name for each in other.signals)) or "none"
        return f"{fallback!r} is no signal of {name}; known are {known}"
    if found.fallback is not None:
        return f"{fallback!r} has a fallback itself; name one that has none, such as {found.fallback!r}"
    if (wants := _accepts(model)) and (has := _accepts(other)) and wants != has:
        return f"{fallback!r} is for {has}, and the signals of {model.name} are for {wants}"
    return ""


def _accepts(model: Model) -> str:
    # A recipe that is not known is reported as such.
    return find_recipe(model.preprocessing.recipe).accepts if model.preprocessing.recipe else ""


def fallbacks_of(models: Sequence[Model]) -> dict[str, str]:
    """Return the signal that stands in for each one that has such, by `<model>.<signal>`."""
    return {
        f"{model.name}.{signal.name}": signal.fallback
        for model in models
        for signal in model.signals
        if signal.fallback is not None
    }
