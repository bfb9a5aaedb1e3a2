"""A queue in front of each model, out of which calls of many callers go together: see flow.batching."""

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.samples import Sample

from baleen_core.errors import BaleenError, DeadlineExceeded, ModelUnavailable, Overloaded
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model
from baleen_core.priority import Priority
from baleen_sidecar.flow.batching import Batch, Dropped, Entry, Gate, Limits, Reason, Refused, retry_after_seconds
from baleen_sidecar.ports import ANYONE, Inference, Lane, QueueReport, QueueTotals, Tensors, Work

WAIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a turn of the event loop to a queue that only patient callers bear."""
SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORT_UNITS: Final = 16
"""Rows of up to so many tokens are of one kind; longer ones are of like length, within a factor of 2."""
SPLIT_WITHIN_SECONDS: Final = 1.0
"""A batch that failed later than this is not tried entry by entry: what else waits would be held up too long."""
TIMER_SECONDS: Final = 0.0005
"""By how much uvloop rounds timers, to whole milliseconds: what fires so much earlier would find nothing due."""
TRIED_APART: Final = 2
"""So many entries of a batch that failed are tried apart while none is answered."""
_NONE_REJECTED: Final = {reason.value: 0 for reason in Reason}


class BatchedInference:
    """The Inference port, with a bounded, fair queue for each model; at most so many batches of a model are under way.

    A batch goes on when its callers have given up, and keeps its place until it ends: calls of models are not cancelled
    (docs/adr/0014-calls-of-models-are-not-cancelled.md).
    """

    def __init__(
        self,
        inner: Inference,
        registry: CollectorRegistry,
        *,
        queue_rows: int,
        queue_bytes: int,
        batches_in_flight: int,
        replicas: Callable[[Model], int] = lambda model: 1,
        monotonic_seconds: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`queue_rows` and `queue_bytes` may wait for each model, in each lane.

        `batches_in_flight` may be under way for each instance of it at each of its `replicas`.
        """
        self._inner = inner
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._batches_in_flight = batches_in_flight
        self._replicas = replicas
        self._monotonic_seconds = monotonic_seconds
        self._chance = chance
        self._metrics = _Metrics(registry)
        self._lines: dict[int, _Line] = {}

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        line = self._lines.get(id(model)) or self._open(model)
        return await line.ask(inputs, work)

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        return await self._inner.is_ready(model)

    async def close(self) -> None:
        """Give up what waits and what is under way."""
        for line in self._lines.values():
            await line.close()

    def reports(self) -> tuple[QueueReport, ...]:
        """Say what waits for each model that was asked yet, and what it was not asked."""
        rejected, mean_batch_rows = self._metrics.rejected(), self._metrics.mean_batch_rows()
        by_name: dict[str, list[_Line]] = {}
        for line in self._lines.values():
            by_name.setdefault(line.model.name, []).append(line)
        return tuple(
            QueueReport(
                model=name,
                waiting=_waiting(lines),
                batches_under_way=sum(line.batches_under_way for line in lines),
                rejected=_NONE_REJECTED | rejected.get(name, {}),
                mean_batch_rows=mean_batch_rows.get(name),
            )
            for name, lines in sorted(by_name.items())
        )

    def totals(self) -> QueueTotals:
        """Say how much waits for all models together, and is under way."""
        return QueueTotals(
            waiting_rows=sum(line.waiting_rows for line in self._lines.values()),
            batches_under_way=sum(line.batches_under_way for line in self._lines.values()),
        )

    def _open(self, model: Model) -> "_Line":
        # What had this name before and is asked no more has been replaced.
        replaced = [key for key, line in self._lines.items() if line.model.name == model.name and line.is_idle]
        for key in replaced:
            del self._lines[key]
        self._metrics.depth.labels(model.name).set_function(partial(self._waiting_rows, model.name))
        line = self._lines[id(model)] = _Line(
            model,
            self._inner,
            Limits(
                batch_rows=model.batching.max_batch_size,
                queue_rows=self._queue_rows,
                queue_bytes=self._queue_bytes,
                batches_in_flight=self._batches_in_flight,
            ),
            workers=lambda: model.instances.count * max(1, self._replicas(model)),
            metrics=self._metrics,
            monotonic_seconds=self._monotonic_seconds,
            chance=self._chance,
        )
        return line

    def _waiting_rows(self, name: str) -> float:
        return float(sum(line.waiting_rows for line in self._lines.values() if line.model.name == name))


class _Metrics:
    """What is to be seen of all queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        wait = Histogram(
            "baleen_queue_wait_seconds",
            "Seconds that calls waited for their turn at a model",
            ["model", "lane"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.depth = Gauge("baleen_queue_depth", "Rows that wait for a model", ["model"], registry=registry)
        size = Histogram(
            "baleen_inference_batch_size",
            "Rows that went to a model together",
            ["model"],
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        shed = Counter(
            "baleen_inference_shed",
            "Calls that a model was not asked, by why and how urgent they were",
            ["model", "reason", "priority"],
            registry=registry,
        )
        self.wait, self.size, self.shed = cache(wait.labels), cache(size.labels), cache(shed.labels)
        self._size, self._shed = size, shed

    def rejected(self) -> dict[str, dict[str, int]]:
        """Return how many calls each model was not asked, by why, for whatever there was."""
        found: dict[str, dict[str, int]] = {}
        for sample in _samples(self._shed, "_total"):
            counts = found.setdefault(sample.labels["model"], {})
            reason = sample.labels["reason"]
            counts[reason] = counts.get(reason, 0) + int(sample.value)
        return found

    def mean_batch_rows(self) -> dict[str, float]:
        """Return how many rows went to each model together that had a batch."""
        samples = list(_samples(self._size, "_sum", "_count"))
        rows = {each.labels["model"]: each.value for each in samples if each.name.endswith("_sum")}
        batches = {each.labels["model"]: each.value for each in samples if each.name.endswith("_count")}
        return {model: rows[model] / count for model, count in batches.items() if count}


def _samples(metric: Counter | Histogram, *endings: str) -> Iterator[Sample]:
    return (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(endings))


class _Call:
    """What a caller waits for."""

    __slots__ = ("answer", "inputs", "work")

    def __init__(self, inputs: Tensors, work: Work, answer: asyncio.Future[Tensors]) -> None:
        self.inputs = inputs
        self.work = work
        self.answer = answer


class _Line:
    """The queue of one model, and its batches."""

    def __init__(
        self,
        model: Model,
        inner: Inference,
        limits: Limits,
        *,
        workers: Callable[[], int],
        metrics: _Metrics,
        monotonic_seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.model = model
        self._inner = inner
        self._limits = limits
        self._workers = workers
        self._metrics = metrics
        self._now = monotonic_seconds
        self._chance = chance
        self._gate: Gate[_Call] = Gate(limits)
        self._numbers = count()
        self._padding = read_padding(model)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._size = metrics.size(model.name)

    @property
    def is_idle(self) -> bool:
        """Say whether nobody waits and nothing is under way."""
        return not self._tasks and not self._gate.waiting_rows

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return self._gate.waiting_rows

    @property
    def batches_under_way(self) -> int:
        """How many batches have begun and not ended."""
        return self._gate.under_way

    def waiting(self) -> Iterator[Entry[_Call]]:
        """Yield what waits, in no order."""
        return self._gate.waiting()

    async def ask(self, inputs: Tensors, work: Work) -> Tensors:
        """Wait for a turn and an answer; raises what Inference.infer does."""
        loop = asyncio.get_running_loop()
        call = _Call(inputs, work, loop.create_future())
        entry = self._enter(call)
        try:
            dropped = self._gate.offer(entry, now=entry.since, workers=self._workers())
        except Refused as exc:
            raise self._refusal(entry, exc.reason, exc.wait_seconds) from None
        self._turn_away(dropped)
        if not self._is_due:
            # Once all callers that are awake now have come: that costs no time, and saves calls.
            self._is_due = True
            loop.call_soon(self._begin)
        try:
            return await call.answer
        finally:
            # Of a caller that has given up: what is under way goes on without it.
            self._gate.leave(entry)

    async def close(self) -> None:
        """Give up what waits and what is under way."""
        waiting = list(self._gate.waiting())
        for entry in waiting:
            self._gate.leave(entry)
        _fail(waiting, self._closed())
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _closed(self) -> ModelUnavailable:
        return ModelUnavailable(f"model {self.model.name} {self.model.version} is asked no more")

    def _enter(self, call: _Call) -> Entry[_Call]:
        work, shape = call.work, read_shape(self.model, call.inputs, self._padding)
        return Entry(
            number=next(self._numbers),
            rows=shape.rows,
            row_units=shape.row_units,
            kind=shape.kind,
            size_bytes=shape.size_bytes,
            tenant=work.tenant,
            priority=work.priority,
            deadline=work.deadline,
            is_video=work.lane is Lane.VIDEO,
            since=self._now(),
            content=call,
        )

    def _begin(self) -> None:
        self._is_due = False
        while True:
            now = self._now()
            turn = self._gate.next_batch(now=now, workers=self._workers())
            self._turn_away(turn.dropped)
            batch = turn.batch
            if batch is None:
                self._begin_at(turn.due_at, now)
                return
            self._size.observe(sum(entry.rows for entry in batch.entries))
            for entry in batch.entries:
                work, wait = entry.content.work, now - entry.since
                work.on_wait(wait)
                self._metrics.wait(self.model.name, work.lane.value).observe(wait)
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _begin_at(self, due: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max(0.0, due - now) + TIMER_SECONDS
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    async def _run(self, batch: Batch[_Call]) -> None:
        answered = False
        try:
            answered = await self._answer(batch)
        except asyncio.CancelledError:
            _fail(batch.entries, self._closed())
            raise
        except Exception as exc:  # each caller has to hear of it, whatever it is
            _fail(batch.entries, exc)
        finally:
            self._gate.end(batch, now=self._now(), workers=self._workers(), answered=answered)
            self._begin()

    async def _answer(self, batch: Batch[_Call]) -> bool:
        """Ask for all together, or else for each apart; say whether they were answered together."""
        entries = batch.entries
        try:
            await self._ask(entries)
        except ModelUnavailable as exc:
            took = self._now() - batch.begun
            if len(entries) == 1 or took > max(SPLIT_WITHIN_SECONDS, 2 * batch.expected_seconds):
                raise
            await self._ask_apart(entries, exc)
            return False
        return True

    async def _ask_apart(self, entries: Sequence[Entry[_Call]], failure: ModelUnavailable) -> None:
        """Ask for one after the other, so that one of them whose fault it is fails alone.

        When the first ones fail, too, it is the model's fault, and the others are not tried.
        """
        answered = failed = 0
        for entry in entries:
            if entry.content.answer.done():
                continue
            if entry.deadline <= self._now():
                self._turn_away([Dropped(entry=entry, reason=Reason.DEADLINE_PASSED, wait_seconds=0.0)])
                continue
            if failed >= TRIED_APART and not answered:
                break
            try:
                await self._ask([entry])
                answered += 1
            except ModelUnavailable as exc:
                failed, failure = failed + 1, exc
                _fail([entry], exc)
        _fail(entries, failure)

    async def _ask(self, entries: Sequence[Entry[_Call]]) -> None:
        works = [entry.content.work for entry in entries]
        work = Work(
            priority=max(each.priority for each in works),
            tenant=works[0].tenant,
            deadline=max(each.deadline for each in works),
            lane=works[0].lane,
            # Of several traces, none is that of the batch.
            traceparent=works[0].traceparent if len(works) == 1 else "",
        )
        inputs = join([entry.content.inputs for entry in entries], self._padding)
        outputs = await self._inner.infer(self.model, inputs, work)
        if len(entries) == 1:
            _answer(entries[0], outputs)
            return
        start = 0
        for entry in entries:
            part = slice(start, start := start + entry.rows)
            _answer(entry, {name: rows[part] for name, rows in outputs.items()})

    def _turn_away(self, dropped: Sequence[Dropped[_Call]]) -> None:
        for each in dropped:
            _fail([each.entry], self._refusal(each.entry, each.reason, each.wait_seconds))

    def _refusal(self, entry: Entry[_Call], reason: Reason, wait_seconds: float) -> BaleenError:
        """Count a refusal, and say it."""
        self._metrics.shed(self.model.name, reason.value, entry.priority.title).inc()
        who = f"model {self.model.name}"
        if reason is Reason.DEADLINE_PASSED:
            return DeadlineExceeded(f"{who}: the deadline passed before it was asked")
        if reason is Reason.PREDICTED_LATE:
            left = entry.deadline - self._now()
            said = f"{who}: the answer would take about {wait_seconds:.3g} s, and the deadline is in {left:.3g} s"
        else:
            said = (
                f"{who}: {self._gate.waiting_rows} rows with {self._gate.waiting_bytes} bytes wait; the limits are"
                f" batch_queue_rows, {self._limits.queue_rows}, and batch_queue_bytes, {self._limits.queue_bytes}"
            )
        return Overloaded(said, retry_after_seconds=retry_after_seconds(wait_seconds, self._chance()))


def _waiting(lines: Iterable[_Line]) -> dict[Lane, dict[Priority, int]]:
    """Count the rows that wait, by lane and priority."""
    found: dict[Lane, dict[Priority, int]] = {}
    for line in lines:
        for entry in line.waiting():
            rows = found.setdefault(entry.content.work.lane, {})
            rows[entry.priority] = rows.get(entry.priority, 0) + entry.rows
    return found


def _answer(entry: Entry[_Call], outputs: Tensors) -> None:
    if not entry.content.answer.done():
        entry.content.answer.set_result(outputs)


def _fail(entries: Sequence[Entry[_Call]], error: Exception) -> None:
    """Tell whoever has no answer yet and has not given up."""
    for entry in entries:
        if not entry.content.answer.done():
            entry.content.answer.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much work some rows are, and what they may share a batch with."""

    rows: int
    row_units: int
    kind: Hashable
    size_bytes: int


def read_padding(model: Model) -> Mapping[str, int]:
    """Return by which value each input may be made longer, if rows of different lengths may share a batch."""
    padding = find_recipe(model.preprocessing.recipe).padding
    is_padded = {tensor.name for tensor in model.inputs if tensor.dims == (-1,)} == set(padding)
    # What comes out for each token would be longer, too.
    is_fixed = all(size >= 0 for tensor in model.outputs for size in tensor.dims)
    return padding if is_padded and is_fixed and len(padding) == len(model.inputs) else {}


def read_shape(model: Model, inputs: Tensors, padding: Mapping[str, int]) -> Shape:
    """Say what rows of inputs are; a unit of work is a row, or a token where rows differ in length."""
    arrays = [inputs[tensor.name] for tensor in model.inputs]
    first = arrays[0]
    units = first.shape[1] if -1 in model.inputs[0].dims and first.ndim > 1 else 1
    if padding and all(array.shape == first.shape for array in arrays):
        kind: Hashable = (max(units, SHORT_UNITS) - 1).bit_length()
    else:
        kind = tuple((array.dtype.str, array.shape[1:]) for array in arrays)
    return Shape(
        rows=len(first),
        row_units=max(1, units),
        kind=kind,
        size_bytes=sum(array.nbytes for array in arrays),
    )


def join(parts: Sequence[Tensors], padding: Mapping[str, int]) -> Tensors:
    """Put rows of several calls into one batch, each as long as the longest."""
    if len(parts) == 1:
        return parts[0]
    return {name: _join([part[name] for part in parts], padding.get(name)) for name in parts[0]}


def _join(arrays: Sequence[NDArray[np.generic]], padding: int | None) -> NDArray[np.generic]:
    if padding is None or len({array.shape[1] for array in arrays}) == 1:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    joined = np.full((sum(map(len, arrays)), width), padding, arrays[0].dtype)
    start = 0
    for array in arrays:
        joined[start : start + len(array), : array.shape[1]] = array
        start += len(array)
    return joined
