"""Ask every model whose signals are wanted; what failed, is not served or does not apply is said, never guessed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from baleen_core.decision.engine import model_of
from baleen_core.errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded
from baleen_core.model.fallback import fallbacks_of
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model
from baleen_core.model.signals import read_signals
from baleen_core.records import Missing, ModelIdentity
from baleen_sidecar.flow.score_keys import digest_of_file, digest_of_model, digest_of_text, key_of
from baleen_sidecar.ports import ANYONE, Inference, ModelScores, ScoreCache, Work
from baleen_sidecar.usecases.flights import Flights
from baleen_sidecar.usecases.serve_models import ModelSet, signals_of

log = logging.getLogger(__name__)
T = TypeVar("T")

BeforeModels = Callable[[], Awaitable[None]]
"""What is awaited once it is known that a model has to be asked; it may refuse."""

TEXT_TOO_LONG = "TextTooLong"
INLINE_TEXT_LENGTH = 8 * 1024
"""Text up to here is prepared on the event loop: handing it to a thread costs more than it saves."""

OpenPicture = Callable[[], AbstractAsyncContextManager[Image.Image]]
"""Decodes a picture (RGB), and holds it until models have what they need of it, and not while they are waited for."""


async def nothing_before() -> None:
    """Let everything through to the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the models said: a dictionary of millionths for each row (picture or text), and what is missing for all.

    `limited` names for each of the limits that were hit the models which it kept from seeing everything. `seconds` says
    after how long each model had answered, or failed, `queue_seconds` how long the one that had to wait longest waited
    for its turns. `fallbacks` names for signals whose models failed the ones whose
    scores stand in. `cached` names the models that were not asked: what they say is what they had said of this content
    before.
    """

    rows: tuple[Mapping[str, int], ...]
    missing: Mapping[str, Missing]
    models: tuple[ModelIdentity, ...]
    limited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    queue_seconds: float = 0.0

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
    cached: set[str] = field(default_factory=set)
    waited: dict[str, float] = field(default_factory=dict)

    def add(self, loaded: LoadedModel, said: "_Said") -> None:
        """Take what a model said of the first row."""
        name = loaded.model.name
        self.models.append(loaded.identity)
        self.seconds[name] = max(0.0, said.at - self.begun)
        self.waited[name] = said.waited
        _raise_to(self.rows[0], said.signals)
        for limit in said.limits:
            self.limited.setdefault(limit, set()).add(name)
        if said.has_failed:
            self.missing |= dict.fromkeys(loaded.signal_names(), Missing.FAILED)

    def recall(self, loaded: LoadedModel, scores: ModelScores) -> None:
        """Take what a model said of the same content before."""
        self.cached.add(loaded.model.name)
        self.add(loaded, _Said(signals=dict(scores.signals), limits=set(scores.limits), at=self.begun))

    def freeze(self) -> Scores:
        self.models.sort(key=lambda identity: identity.name)
        return Scores(
            rows=tuple(self.rows),
            missing=self.missing,
            models=tuple(self.models),
            limited={limit: tuple(sorted(models)) for limit, models in sorted(self.limited.items())},
            seconds=self.seconds,
            fallbacks=self.fallbacks,
            cached=tuple(sorted(self.cached)),
            queue_seconds=max(self.waited.values(), default=0.0),
        )


@dataclass(slots=True, kw_only=True)
class _Said:
    """What one model says of one content; `at` is when it had answered, or failed (seconds of the event loop)."""

    signals: dict[str, int] = field(default_factory=dict)
    limits: set[str] = field(default_factory=set)
    has_failed: bool = False
    at: float = 0.0
    waited: float = 0.0

    def work(self, work: Work) -> Work:
        """Return the same work, which adds up for how long the model has it wait."""

        def add(seconds: float) -> None:
            self.waited += seconds
            work.on_wait(seconds)

        return replace(work, on_wait=add)

    def scores(self, loaded: LoadedModel) -> ModelScores:
        return ModelScores(model=loaded.identity, signals=self.signals, limits=tuple(sorted(self.limits)))


_Answered = Mapping[str, _Said]
"""What the models that were asked together say, by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A model that can be asked, and the digest of what its scores follow from beside the content."""

    loaded: LoadedModel
    digest: bytes


_Ask = Callable[[Sequence[_Served], _Answers], Coroutine[None, None, None]]
"""Asks models about the content, and collects what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Who gives a signal, for which content; `served` is None while the model is declared and cannot be asked."""

    accepts: str
    served: _Served | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """One text or picture: its digest, how models are asked for it, and what is done if somebody asks them already."""

    digest: bytes
    ask: Callable[[Sequence[LoadedModel], Work], Awaitable[_Answered]]
    on_join: Callable[[], None] = lambda: None


class Scoring:
    """Score text and pictures by the models at hand."""

    def __init__(
        self,
        models: Callable[[], ModelSet],
        inference: Inference,
        *,
        executor: Executor,
        text_limit_windows: int,
        cache: ScoreCache | None = None,
        is_cached_by_tenant: bool = False,
    ) -> None:
        """`models` returns the same object until something about them changes.

        With `is_cached_by_tenant` no tenant gets what was scored for another.
        """
        self._models = models
        self._known: ModelSet | None = None
        self._offers: Mapping[str, _Offer] = {}
        self._fallbacks: Mapping[str, str] = {}
        self._inference = inference
        self._executor = executor
        self._text_limit_windows = text_limit_windows
        self._cache = cache
        self._is_cached_by_tenant = is_cached_by_tenant
        self._flights: Flights[_Answered] = Flights()
        self._failed: dict[str, str] = {}

    @property
    def joined(self) -> int:
        """How many contents were scored by waiting for an equal one that was being scored already."""
        return self._flights.joined

    @property
    def under_way(self) -> int:
        """How many contents are being scored."""
        return self._flights.under_way

    async def text(
        self,
        variants: Sequence[str],
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
    ) -> Scores:
        """Score one text, given as it stands and with disguises undone: in overlapping windows; the highest counts.

        What `before_models` raises is raised, and no model was asked then; it may be called more than once, and is not
        where nobody has to be asked.

        Raises:
            Overloaded, DeadlineExceeded: a model that is wanted cannot be asked in time.
        """
        if not wanted:
            return _UNASKED
        answers = _Answers(rows=[{}], begun=_now())

        async def ask(chosen: Sequence[_Served], to: _Answers) -> None:
            digest = partial(digest_of_text, variants)
            is_short = sum(map(len, variants)) <= INLINE_TEXT_LENGTH
            content = _Content(
                digest=digest() if is_short else await self._off_loop(digest),
                ask=partial(self._ask_of_text, variants),
            )
            await self._answer(chosen, content, to, work, before_models)

        await self._ask(wanted, "text", ask, answers)
        return answers.freeze()

    async def picture(
        self,
        digest: str,
        opened: OpenPicture,
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
        on_join: Callable[[], None] = lambda: None,
    ) -> Scores:
        """Score the picture in a file, by the file's SHA-256 in hexadecimal digits; it is opened if it has to be seen.

        `on_join` is called when it is waited for an equal one that was opened already.

        Raises what opening it raises, such as ContentError. See `text`.
        """
        answers = _Answers(rows=[{}], begun=_now())
        content = _Content(digest=digest_of_file(digest), ask=partial(self._ask_of_picture, opened), on_join=on_join)

        async def ask(chosen: Sequence[_Served], to: _Answers) -> None:
            await self._answer(chosen, content, to, work, before_models)

        await self._ask(wanted, "image", ask, answers)
        if not answers.models:
            # Whether it is one at all has to be found out all the same.
            async with opened():
                pass
        return answers.freeze()

    async def pictures(
        self,
        pictures: Sequence[Image.Image],
        wanted: Collection[str],
        work: Work = ANYONE,
        *,
        before_models: BeforeModels = nothing_before,
    ) -> Scores:
        """Score pictures (RGB), a row each; those of films are neither looked up nor remembered. See `text`."""
        answers = _Answers(rows=[{} for _ in pictures], begun=_now())

        async def ask(chosen: Sequence[_Served], to: _Answers) -> None:
            await before_models()
            loaded = [each.loaded for each in chosen]
            await _each(loaded, lambda each: self._pictures(each, pictures, to, work))

        await self._ask(wanted, "image", ask, answers)
        return answers.freeze()

    async def _ask(self, wanted: Collection[str], accepts: str, ask: _Ask, answers: _Answers) -> None:
        if chosen := self._choose(wanted, accepts, answers):
            await ask(chosen, answers)
        if answers.missing and self._fallbacks:
            await self._fall_back(wanted, accepts, ask, answers)

    async def _fall_back(self, wanted: Collection[str], accepts: str, ask: _Ask, answers: _Answers) -> None:
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
        if chosen := [each for each in others if each.loaded.model.name not in asked]:
            await ask(chosen, found)
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
        answers.cached |= found.cached
        answers.seconds |= found.seconds
        for limit, models in found.limited.items():
            answers.limited.setdefault(limit, set()).update(models)
        # Policies know the model that failed: what its stand-in did not see, it did not see.
        for models in answers.limited.values():
            models.update([model_of(each) for each, other in answers.fallbacks.items() if model_of(other) in models])

    def _choose(self, wanted: Collection[str], accepts: str, answers: _Answers) -> list[_Served]:
        chosen: dict[str, _Served] = {}
        offers = self._find_offers()
        for signal in wanted:
            offer = offers.get(signal)
            if offer is None:
                answers.missing[signal] = Missing.NOT_SERVED
            elif offer.accepts != accepts:
                answers.missing[signal] = Missing.NOT_APPLICABLE
            elif offer.served is None:
                answers.missing[signal] = Missing.FAILED
            else:
                chosen[offer.served.loaded.model.name] = offer.served
        return list(chosen.values())

    def _find_offers(self) -> Mapping[str, _Offer]:
        current = self._models()
        if current is not self._known:
            waiting = {signal: _offer(model, None) for model in current.waiting for signal in signals_of([model])}
            served = {
                signal: _offer(each.loaded.model, each)
                for each in map(self._serve, current.models)
                for signal in each.loaded.signal_names()
            }
            declared = {model.name: model for model in (*current.waiting, *(each.model for each in current.models))}
            self._fallbacks = fallbacks_of(list(declared.values()))
            self._known, self._offers = current, waiting | served
        return self._offers

    def _serve(self, loaded: LoadedModel) -> _Served:
        return _Served(loaded=loaded, digest=digest_of_model(loaded, limit_windows=self._text_limit_windows))

    async def _answer(
        self,
        chosen: Sequence[_Served],
        content: _Content,
        answers: _Answers,
        work: Work,
        before_models: BeforeModels,
    ) -> None:
        """Recall what models said of this content before, and ask those that are left."""
        owner = work.tenant if self._is_cached_by_tenant else ""
        keys = {key_of([each.digest], content.digest, tenant=owner): each for each in chosen}
        found = {} if self._cache is None else await self._cache.get(list(keys), tenant=work.tenant)
        asked: dict[bytes, LoadedModel] = {}
        for key, each in keys.items():
            scores = found.get(key)
            if scores is not None and _is_whole(scores, each.loaded):
                answers.recall(each.loaded, scores)
            else:
                asked[key] = each.loaded
        if not asked:
            return
        await before_models()
        answered = await self._flights.ask(
            # In one order, whatever the order in which signals are wanted.
            key_of(sorted(keys[key].digest for key in asked), content.digest, tenant=owner),
            work,
            partial(content.ask, tuple(asked.values())),
            then=partial(self._remember, asked, work.tenant),
            on_join=content.on_join,
        )
        for loaded in asked.values():
            answers.add(loaded, answered[loaded.model.name])

    async def _remember(self, asked: Mapping[bytes, LoadedModel], tenant: str, answered: _Answered) -> None:
        if self._cache is None:
            return
        scores: dict[bytes, ModelScores] = {}
        for key, loaded in asked.items():
            said = answered[loaded.model.name]
            # A failure may be over in a moment; and where there was nothing to score there is nothing to remember.
            if not said.has_failed and said.signals:
                scores[key] = said.scores(loaded)
        if scores:
            await self._cache.put(scores, tenant=tenant)

    async def _ask_of_text(self, variants: Sequence[str], asked: Sequence[LoadedModel], work: Work) -> _Answered:
        return await _each(asked, lambda loaded: self._text(loaded, variants, work))

    async def _ask_of_picture(self, opened: OpenPicture, asked: Sequence[LoadedModel], work: Work) -> _Answered:
        # The queues of models bound the bytes of tensors that wait, and nothing bounds those of pictures.
        tensors = await self._tensors(opened, asked)
        return await _each(asked, lambda loaded: self._prepared_picture(loaded, tensors.pop(loaded.model.name), work))

    async def _tensors(self, opened: OpenPicture, asked: Sequence[LoadedModel]) -> dict[str, NDArray[np.generic]]:
        async with opened() as picture:
            return await _each(asked, lambda loaded: self._off_loop(partial(_prepare, loaded, [picture])))

    async def _text(self, loaded: LoadedModel, variants: Sequence[str], work: Work) -> _Said:
        recipe = loaded.text
        assert recipe is not None, "a model that accepts text has a text recipe"
        said = _Said()
        rows: dict[tuple[int, ...], None] = {}
        with self._saying(loaded, said):
            for variant in variants:
                if len(variant) <= INLINE_TEXT_LENGTH:
                    windows = recipe.windows(variant, limit=self._text_limit_windows)
                else:
                    windows = await self._off_loop(partial(recipe.windows, variant, limit=self._text_limit_windows))
                rows.update(dict.fromkeys(windows.rows))
                if windows.truncated:
                    said.limits.add(TEXT_TOO_LONG)
            # Rows of like length share a batch: padding is computed like any other token.
            ordered = sorted(rows, key=len)
            for batch in _batches(ordered, loaded.model.batching.max_batch_size):
                outputs = await self._inference.infer(loaded.model, recipe.collate(batch), said.work(work))
                for row in range(len(batch)):
                    _raise_to(said.signals, read_signals(loaded.model, outputs, row))
        return said

    async def _prepared_picture(self, loaded: LoadedModel, tensors: NDArray[np.generic], work: Work) -> _Said:
        said = _Said()
        with self._saying(loaded, said):
            outputs = await self._inference.infer(loaded.model, {loaded.model.inputs[0].name: tensors}, said.work(work))
            _raise_to(said.signals, read_signals(loaded.model, outputs, 0))
        return said

    async def _pictures(
        self, loaded: LoadedModel, pictures: Sequence[Image.Image], answers: _Answers, work: Work
    ) -> None:
        name = loaded.model.inputs[0].name
        with self._failing(loaded, answers) as said:
            answers.models.append(loaded.identity)
            places = range(len(pictures))
            for batch in _batches(places, loaded.model.batching.max_batch_size):
                tensors = await self._off_loop(partial(_prepare, loaded, [pictures[place] for place in batch]))
                outputs = await self._inference.infer(loaded.model, {name: tensors}, said.work(work))
                for row, place in enumerate(batch):
                    _raise_to(answers.rows[place], read_signals(loaded.model, outputs, row))

    @contextmanager
    def _failing(self, loaded: LoadedModel, answers: _Answers) -> Iterator[_Said]:
        """A model that fails has its signals missing, also those that it gave for a part; other models go on."""
        said = _Said()
        with self._saying(loaded, said):
            yield said
        answers.waited[loaded.model.name] = said.waited
        answers.seconds[loaded.model.name] = said.at - answers.begun
        if said.has_failed:
            answers.missing |= dict.fromkeys(loaded.signal_names(), Missing.FAILED)

    @contextmanager
    def _saying(self, loaded: LoadedModel, said: _Said) -> Iterator[None]:
        """Take note of when a model has answered, and of whether it failed."""
        try:
            yield
        except (ModelError, ModelUnavailable) as exc:
            said.has_failed = True
            # Once, and not for each request: metrics count those.
            if self._failed.get(loaded.model.name) != str(exc):
                self._failed[loaded.model.name] = str(exc)
                log.warning("model failed", extra={"model": loaded.model.name, "cause": str(exc)})
        else:
            if self._failed and self._failed.pop(loaded.model.name, None) is not None:
                log.info("model answers again", extra={"model": loaded.model.name})
        finally:
            said.at = _now()

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _offer(model: Model, served: _Served | None) -> _Offer:
    return _Offer(accepts=find_recipe(model.preprocessing.recipe).accepts, served=served)


async def _each(asked: Sequence[LoadedModel], ask: Callable[[LoadedModel], Coroutine[Any, Any, T]]) -> dict[str, T]:
    """Ask several models at the same time; what one of them raises ends the others.

    Raises:
        Overloaded, DeadlineExceeded: one of them cannot be asked in time.
    """
    if len(asked) == 1:
        return {asked[0].model.name: await ask(asked[0])}
    async with _asking_together() as group:
        tasks = {loaded.model.name: group.create_task(ask(loaded)) for loaded in asked}
    return {name: task.result() for name, task in tasks.items()}


@asynccontextmanager
async def _asking_together() -> AsyncIterator[asyncio.TaskGroup]:
    """Ask several models; one that refuses ends it for all, and its refusal is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        refused, others = failed.split((Overloaded, DeadlineExceeded))
        if refused is None or others is not None:
            raise
        raise refused.exceptions[0] from None


def _is_whole(scores: ModelScores, loaded: LoadedModel) -> bool:
    """Say whether this is what the model would say: it may come from where others write."""
    return (
        scores.model == loaded.identity
        and scores.signals.keys() == set(loaded.signal_names())
        and set(scores.limits) <= {TEXT_TOO_LONG}
    )


def _batches(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _raise_to(row: dict[str, int], scores: Mapping[str, int]) -> None:
    for signal, score in scores.items():
        row[signal] = max(score, row.get(signal, 0))


def _prepare(loaded: LoadedModel, pictures: Sequence[Image.Image]) -> NDArray[np.generic]:
    prepare = loaded.image
    assert prepare is not None, "a model that accepts images has an image recipe"
    return np.stack([prepare(picture) for picture in pictures])
