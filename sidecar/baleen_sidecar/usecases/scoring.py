"""Ask every model whose signals are wanted; what failed, is not served or does not apply is said, never guessed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from baleen_core.decision.engine import model_of
from baleen_core.errors import ModelUnavailable
from baleen_core.model.fallback import fallbacks_of
from baleen_core.model.loaded import ImageRecipe, LoadedModel
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model
from baleen_core.model.signals import read_signals
from baleen_core.records import Missing, ModelIdentity
from baleen_sidecar.ports import ANYONE, Inference, Work
from baleen_sidecar.usecases.serve_models import ModelSet, signals_of

log = logging.getLogger(__name__)
T = TypeVar("T")

BeforeModels = Callable[[], Awaitable[None]]
"""What is awaited once it is known that a model has to be asked; it may refuse."""

TEXT_TOO_LONG = "TextTooLong"
INLINE_TEXT_LENGTH = 8 * 1024
"""Text up to here is prepared on the event loop: handing it to a thread costs more than it saves."""


async def nothing_before() -> None:
    """Let everything through to the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the models said: a dictionary of millionths for each row (picture or text), and what is missing for all.

    `limited` names for each of the limits that were hit the models which it kept from seeing everything. `seconds` says
    after how long each model had answered, or failed. `fallbacks` names for signals whose models failed the ones whose
    scores stand in.
    """

    rows: tuple[Mapping[str, int], ...]
    missing: Mapping[str, Missing]
    models: tuple[ModelIdentity, ...]
    limited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    fallbacks: Mapping[str, str] = field(default_factory=dict)

    def seconds_apart(self, models: Collection[str]) -> float:
        """Return for how long other models than these were waited for once all of these had answered."""
        last = max((each for name, each in self.seconds.items() if name in models), default=0.0)
        return max(self.seconds.values(), default=last) - last

    def highest(self) -> dict[str, int]:
        """Return each signal's highest score over all rows."""
        best: dict[str, int] = {}
        for row in self.rows:
            for signal, score in row.items():
                best[signal] = max(score, best.get(signal, 0))
        return best


_UNASKED: Final = Scores(rows=(MappingProxyType({}),), missing=MappingProxyType({}), models=())
"""Of a text about which no model is asked."""


@dataclass(slots=True)
class _Answers:
    """Collects what the models say while they are asked at the same time."""

    rows: list[dict[str, int]]
    begun: float
    missing: dict[str, Missing] = field(default_factory=dict)
    models: list[ModelIdentity] = field(default_factory=list)
    limited: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)

    def freeze(self) -> Scores:
        self.models.sort(key=lambda identity: identity.name)
        return Scores(
            rows=tuple(self.rows),
            missing=self.missing,
            models=tuple(self.models),
            limited={limit: tuple(sorted(models)) for limit, models in sorted(self.limited.items())},
            seconds=self.seconds,
            fallbacks=self.fallbacks,
        )


_Ask = Callable[[LoadedModel, _Answers], Coroutine[None, None, None]]
"""Asks one model about the content, and collects what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Who gives a signal, for which content; `loaded` is None while the model is declared and cannot be asked."""

    accepts: str
    loaded: LoadedModel | None


class Scoring:
    """Score text and pictures by the models at hand."""

    def __init__(
        self, models: Callable[[], ModelSet], inference: Inference, *, executor: Executor, text_limit_windows: int
    ) -> None:
        """`models` returns the same object until something about them changes."""
        self._models = models
        self._known: ModelSet | None = None
        self._offers: Mapping[str, _Offer] = {}
        self._fallbacks: Mapping[str, str] = {}
        self._inference = inference
        self._executor = executor
        self._text_limit_windows = text_limit_windows
        self._failed: dict[str, str] = {}

    async def text(
        self,
        variants: Sequence[str],
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
    ) -> Scores:
        """Score one text, given as it stands and with disguises undone: in overlapping windows; the highest counts.

        What `before_models` raises is raised, and no model was asked then.
        """
        if not wanted:
            return _UNASKED
        answers = _Answers(rows=[{}], begun=_now())

        async def ask(loaded: LoadedModel, to: _Answers) -> None:
            await self._text(loaded, variants, to, work)

        await self._ask(wanted, "text", ask, answers, before_models)
        return answers.freeze()

    async def pictures(
        self,
        pictures: Sequence[Image.Image],
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
    ) -> Scores:
        """Score pictures (RGB), a row each; see `text`."""
        answers = _Answers(rows=[{} for _ in pictures], begun=_now())

        async def ask(loaded: LoadedModel, to: _Answers) -> None:
            await self._pictures(loaded, pictures, to, work)

        await self._ask(wanted, "image", ask, answers, before_models)
        return answers.freeze()

    async def _ask(
        self, wanted: Collection[str], accepts: str, ask: _Ask, answers: _Answers, before_models: BeforeModels
    ) -> None:
        if chosen := self._choose(wanted, accepts, answers):
            await before_models()
            await _ask_all(chosen, ask, answers)
        if answers.missing and self._fallbacks:
            before = nothing_before if chosen else before_models
            await self._fall_back(wanted, accepts, ask, answers, before)

    async def _fall_back(
        self, wanted: Collection[str], accepts: str, ask: _Ask, answers: _Answers, before_models: BeforeModels
    ) -> None:
        """Let others stand in for wanted signals that failed; who was asked already is not asked again."""
        standing = {
            signal: self._fallbacks[signal]
            for signal in wanted
            if answers.missing.get(signal) is Missing.FAILED and signal in self._fallbacks
        }
        if not standing:
            return
        asked = {identity.name for identity in answers.models}
        found = _Answers(rows=[{} for _ in answers.rows], begun=answers.begun)
        others = self._choose(standing.values(), accepts, found)
        if chosen := [loaded for loaded in others if loaded.model.name not in asked]:
            await before_models()
            await _ask_all(chosen, ask, found)
        failed = answers.missing | found.missing
        for signal, other in standing.items():
            rows = answers.rows if model_of(other) in asked else found.rows
            if other in failed or any(other not in row for row in rows):
                continue
            for row, stand_in in zip(answers.rows, rows, strict=True):
                _raise_to(row, {signal: stand_in[other]})
            answers.fallbacks[signal] = other
            del answers.missing[signal]
        answers.models += found.models
        answers.seconds |= found.seconds
        for limit, models in found.limited.items():
            answers.limited.setdefault(limit, set()).update(models)
        # Policies know the model that failed: what its stand-in did not see, it did not see.
        for models in answers.limited.values():
            models.update([model_of(each) for each, other in answers.fallbacks.items() if model_of(other) in models])

    def _choose(self, wanted: Collection[str], accepts: str, answers: _Answers) -> list[LoadedModel]:
        chosen: dict[str, LoadedModel] = {}
        offers = self._find_offers()
        for signal in wanted:
            offer = offers.get(signal)
            if offer is None:
                answers.missing[signal] = Missing.NOT_SERVED
            elif offer.accepts != accepts:
                answers.missing[signal] = Missing.NOT_APPLICABLE
            elif offer.loaded is None:
                answers.missing[signal] = Missing.FAILED
            else:
                chosen[offer.loaded.model.name] = offer.loaded
        return list(chosen.values())

    def _find_offers(self) -> Mapping[str, _Offer]:
        current = self._models()
        if current is not self._known:
            waiting = {signal: _offer(model, None) for model in current.waiting for signal in signals_of([model])}
            served = {
                signal: _offer(loaded.model, loaded) for loaded in current.models for signal in loaded.signal_names()
            }
            declared = {model.name: model for model in (*current.waiting, *(each.model for each in current.models))}
            self._fallbacks = fallbacks_of(list(declared.values()))
            self._known, self._offers = current, waiting | served
        return self._offers

    async def _text(self, loaded: LoadedModel, variants: Sequence[str], answers: _Answers, work: Work) -> None:
        recipe = loaded.text
        assert recipe is not None, "a model that accepts text has a text recipe"
        rows: dict[tuple[int, ...], None] = {}
        for variant in variants:
            if len(variant) <= INLINE_TEXT_LENGTH:
                windows = recipe.windows(variant, limit=self._text_limit_windows)
            else:
                windows = await self._off_loop(partial(recipe.windows, variant, limit=self._text_limit_windows))
            rows.update(dict.fromkeys(windows.rows))
            if windows.truncated:
                answers.limited.setdefault(TEXT_TOO_LONG, set()).add(loaded.model.name)
        # Rows of like length share a batch: padding is computed like any other token.
        ordered = sorted(rows, key=len)
        with self._failing(loaded, answers):
            answers.models.append(loaded.identity)
            for batch in _batches(ordered, loaded.model.batching.max_batch_size):
                outputs = await self._inference.infer(loaded.model, recipe.collate(batch), work)
                for row in range(len(batch)):
                    _raise_to(answers.rows[0], read_signals(loaded.model, outputs, row))

    async def _pictures(
        self, loaded: LoadedModel, pictures: Sequence[Image.Image], answers: _Answers, work: Work
    ) -> None:
        prepare = loaded.image
        assert prepare is not None, "a model that accepts images has an image recipe"
        name = loaded.model.inputs[0].name
        with self._failing(loaded, answers):
            answers.models.append(loaded.identity)
            places = range(len(pictures))
            for batch in _batches(places, loaded.model.batching.max_batch_size):
                tensors = await self._off_loop(partial(_stack, prepare, [pictures[place] for place in batch]))
                outputs = await self._inference.infer(loaded.model, {name: tensors}, work)
                for row, place in enumerate(batch):
                    _raise_to(answers.rows[place], read_signals(loaded.model, outputs, row))

    @contextmanager
    def _failing(self, loaded: LoadedModel, answers: _Answers) -> Iterator[None]:
        """A model that fails has its signals missing, also those that it gave for a part; other models go on."""
        try:
            yield
        except ModelUnavailable as exc:
            # Once, and not for each request: metrics count those.
            if self._failed.get(loaded.model.name) != str(exc):
                self._failed[loaded.model.name] = str(exc)
                log.warning("model failed", extra={"model": loaded.model.name, "cause": str(exc)})
            for signal in loaded.signal_names():
                answers.missing[signal] = Missing.FAILED
        else:
            if self._failed and self._failed.pop(loaded.model.name, None) is not None:
                log.info("model answers again", extra={"model": loaded.model.name})
        finally:
            answers.seconds[loaded.model.name] = _now() - answers.begun

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


async def _ask_all(models: Sequence[LoadedModel], ask: _Ask, answers: _Answers) -> None:
    async with asyncio.TaskGroup() as group:
        for loaded in models:
            group.create_task(ask(loaded, answers))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _offer(model: Model, loaded: LoadedModel | None) -> _Offer:
    return _Offer(accepts=find_recipe(model.preprocessing.recipe).accepts, loaded=loaded)


def _batches(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _raise_to(row: dict[str, int], scores: Mapping[str, int]) -> None:
    for signal, score in scores.items():
        row[signal] = max(score, row.get(signal, 0))


def _stack(prepare: ImageRecipe, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    return np.stack([prepare(picture) for picture in pictures])
