"""Load every model, ask it its golden questions, and let it serve only while the answers are right."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from baleen_core.errors import BaleenError, IntegrityError, ModelUnavailable, Problem
from baleen_core.model.golden import compare_golden, highest_scores
from baleen_core.model.loaded import LoadedModel, golden_rows
from baleen_core.model.schema import GoldenInput, Model
from baleen_sidecar.ports import ImageDecoder, Tensors

log = logging.getLogger(__name__)

SILENT_ROUNDS: Final = 2
"""A model that served keeps serving through one round without an answer: a full queue is no wrong answer."""

_RETRY_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.5
"""How often it is looked whether a model's breaker is open and wants it asked."""
_AT_ONCE: Final = 2


class ModelControl(Protocol):
    """What checking models needs of the server that runs them."""

    async def infer(self, model: Model, inputs: Tensors) -> Tensors:
        """See ports.Inference."""

    async def is_loaded(self, model: Model) -> bool:
        """Say whether the server would answer for the model."""

    async def load(self, model: Model) -> None:
        """Load the model; raises ModelUnavailable when that fails."""

    def answered(self, model: Model) -> int:
        """Return how many calls of anybody's the model has answered."""

    def confirm(self, model: Model) -> None:
        """Let the model serve."""

    def doubt(self, model: Model) -> None:
        """Let the model serve no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a round found out about one model: nothing wrong, wrong answers, or none (`is_silent`).

    One that `is_stuck` gave none although the server has it loaded; one that `is_busy` gave them to others meanwhile.
    """

    model: Model
    problems: tuple[Problem, ...] = ()
    is_silent: bool = False
    is_stuck: bool = False
    is_busy: bool = False


class VerifyModels:
    """Check all models, at start, after every restart of the server, and at an interval."""

    def __init__(
        self,
        models: Sequence[LoadedModel],
        control: ModelControl,
        *,
        images: ImageDecoder,
        golden_file: Callable[[Model, str], bytes],
        loads: bool = True,
        on_stuck: Callable[[], None] = lambda: None,
        probe_at: Callable[[Model], float | None] = lambda model: None,
    ) -> None:
        """`golden_file` reads a model's golden file by name. `loads` is for a server whose models are ours to load.

        `probe_at` says when (monotonic seconds) a model must be asked before the next round is due, if it must.

        `on_stuck` is called when a model was stuck at the end of `SILENT_ROUNDS` silent rounds.
        """
        self._models = models
        self._control = control
        self._images = images
        self._golden_file = golden_file
        self._loads = loads
        self._on_stuck = on_stuck
        self._probe_at = probe_at
        self._one_round = asyncio.Lock()
        self._silent_rounds: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._reported: dict[str, tuple[Problem, ...]] = {}
        self._inputs: dict[tuple[str, GoldenInput], tuple[Tensors, ...]] = {}

    async def run(self, interval_seconds: float) -> None:
        """Check for ever; a stuck model is asked again soon, and one whose breaker is open when that says so."""
        wait = interval_seconds
        while True:
            await self._wait(wait)
            found = await self.check()
            wait = min(_RETRY_SECONDS, interval_seconds) if any(each.is_stuck for each in found) else interval_seconds

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while (now := loop.time()) < due:
            await asyncio.sleep(min(_LOOK_SECONDS, due - now))
            asked = [self._probe_at(loaded.model) for loaded in self._models]
            if any(at is not None and at <= loop.time() for at in asked):
                return

    async def check(self, *, limit_seconds: float | None = None, is_early: bool = False) -> tuple[Verification, ...]:
        """Load what is not loaded, ask every model, and note which may serve. Never raises for a model's sake.

        With a limit, a model that has not given all its answers by then gave none. In a round that `is_early`, since
        its calls take long, that says nothing of a server that is there: it may be at a large batch.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        # The round after a restart and the one at the interval may fall together, and would load everything twice.
        async with self._one_round, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._check(loaded, gate, limit_seconds, is_early)) for loaded in self._models]
        verifications = tuple(task.result() for task in tasks)
        stuck = [found.model.name for found in verifications if found.is_stuck]
        if any(self._silent_rounds[name] >= SILENT_ROUNDS for name in stuck):
            self._silent_rounds.clear()
            self._on_stuck()
        return verifications

    async def _check(
        self, loaded: LoadedModel, gate: asyncio.Semaphore, limit_seconds: float | None, is_early: bool
    ) -> Verification:
        async with gate:
            found = await self._examine(loaded, limit_seconds, is_early)
        if found.is_stuck and is_early:
            found = replace(found, is_silent=False, is_stuck=False, is_busy=True)
        self._note(found)
        return found

    async def _examine(self, loaded: LoadedModel, limit_seconds: float | None, is_early: bool) -> Verification:
        model = loaded.model
        now = self._control.answered(model)
        answered = now if is_early else self._answered.get(model.name, 0)
        self._answered[model.name] = now
        try:
            if self._loads and not await self._control.is_loaded(model):
                await self._control.load(model)
            answers = await self._ask_all(loaded, limit_seconds)
        except ModelUnavailable as failed:
            if self._control.answered(model) > answered:
                # Golden questions wait in one queue with all others: that it is long is no reason to restart a server.
                return Verification(model=model, problems=(_problem(model, str(failed)),), is_busy=True)
            stuck = await self._control.is_loaded(model)
            return Verification(model=model, problems=(_problem(model, str(failed)),), is_silent=True, is_stuck=stuck)
        except BaleenError as failed:
            return Verification(model=model, problems=(_problem(model, str(failed)),))
        except Exception as failed:  # of this model alone: the others are asked all the same
            problem = _problem(model, repr(failed))
            if self._reported.get(model.name) != (problem,):
                log.exception("golden questions failed", extra={"model": model.name})
            return Verification(model=model, problems=(problem,))
        differences = [compare_golden(model, index, scores) for index, scores in enumerate(answers)]
        return Verification(model=model, problems=tuple(problem for some in differences for problem in some))

    def _note(self, found: Verification) -> None:
        model = found.model
        self._silent_rounds[model.name] = self._silent_rounds.get(model.name, 0) + 1 if found.is_silent else 0
        reported = self._reported.pop(model.name, ())
        if not found.problems:
            if reported:
                log.info("model verified", extra={"model": model.name})
            self._control.confirm(model)
            return
        self._reported[model.name] = found.problems
        if found.is_busy:
            log.warning("model too busy to be verified", extra={"model": model.name})
            return
        if found.problems != reported:  # A server that is away may be asked every two seconds.
            log.error("model not verified", extra={"model": model.name, "problems": list(map(str, found.problems))})
        if not found.is_silent or self._silent_rounds[model.name] >= SILENT_ROUNDS:
            self._control.doubt(model)

    async def _ask_all(self, loaded: LoadedModel, limit_seconds: float | None) -> list[Mapping[str, int]]:
        try:
            async with asyncio.timeout(limit_seconds):
                return [await self._ask(loaded, golden.input) for golden in loaded.model.golden]
        except TimeoutError:
            who = f"model {loaded.model.name} {loaded.model.version}"
            raise ModelUnavailable(f"{who}: no golden answers within {limit_seconds:g} s") from None

    async def _ask(self, loaded: LoadedModel, question: GoldenInput) -> Mapping[str, int]:
        """Return the highest score of each signal over the rows that the question becomes."""
        prepared = await self._prepared(loaded, question)
        return highest_scores(
            loaded.model, [(inputs, await self._control.infer(loaded.model, inputs)) for inputs in prepared]
        )

    async def _prepared(self, loaded: LoadedModel, question: GoldenInput) -> tuple[Tensors, ...]:
        key = (loaded.model.name, question)
        if key not in self._inputs:
            self._inputs[key] = await asyncio.to_thread(self._prepare, loaded, question)
        return self._inputs[key]

    def _prepare(self, loaded: LoadedModel, question: GoldenInput) -> tuple[Tensors, ...]:
        picture = None
        if question.name is not None:
            picture = self._images.decode(self._read(loaded.model, question.name, question.sha256))
        return golden_rows(loaded, question, picture)

    def _read(self, model: Model, name: str, sha256: str | None) -> bytes:
        data = self._golden_file(model, name)
        found = hashlib.sha256(data).hexdigest()
        if sha256 != found:
            raise IntegrityError(f"golden file {name}", expected=str(sha256), found=found)
        return data


def _problem(model: Model, message: str) -> Problem:
    return Problem(field=f"models[{model.name}]", message=message)
