"""Calls of many callers go to a model together, and each gets its own answer, or its own failure."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from baleen_core.errors import DeadlineExceeded, ModelUnavailable, Overloaded
from baleen_core.model.schema import Batching, Instances, Tensor
from baleen_core.priority import Priority
from baleen_sidecar.adapters.batched import BatchedInference, join, read_padding, read_shape
from baleen_sidecar.ports import ANYONE, Lane, QueueTotals, Work
from served_models import IMAGE_MODEL, TEXT_MODEL
from tiny_models import make_model

MODEL = make_model("looks", recipe="owen-s/1", batch=32)
POISON = 666.0


class Device:
    """Answers each row with its own number, once it is let; what is poisoned fails with all that it came with."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.works: list[Work] = []
        self.was_asked = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.is_down = False

    async def infer(self, model, inputs, work=ANYONE):
        rows = [float(row[0]) for row in inputs["image"]]
        self.calls.append(rows)
        self.works.append(work)
        self.was_asked.set()
        await self.free.wait()
        if self.is_down or POISON in rows:
            raise ModelUnavailable(f"failed with {len(rows)} rows")
        return {"probabilities": inputs["image"] / 1000}

    async def is_ready(self, model):
        return True


class Setting:
    def __init__(self, **changes) -> None:
        self.device = Device()
        self.registry = CollectorRegistry()
        self.now: float = 100.0
        given = {"queue_rows": 64, "queue_bytes": 1 << 20, "batches_in_flight": 1} | changes
        self.batched = BatchedInference(
            self.device, self.registry, monotonic_seconds=lambda: self.now, chance=lambda: 0.5, **given
        )

    async def ask(self, *numbers: float, work: Work = ANYONE, model=MODEL) -> list[float]:
        answer = await self.batched.infer(model, {"image": np.array(numbers, np.float32)[:, np.newaxis]}, work)
        return [round(float(row[0]) * 1000, 3) for row in answer["probabilities"]]

    async def learn(self) -> None:
        """Let the device show that it answers 32 rows as quickly as one."""
        for size in (1, 32):
            await self.ask(*range(size))
        self.device.calls.clear()
        self.device.works.clear()

    def start(self, *numbers: float, work: Work = ANYONE) -> asyncio.Task[list[float]]:
        return asyncio.create_task(self.ask(*numbers, work=work))

    async def occupied(self) -> asyncio.Task[list[float]]:
        """Keep the device busy until it is set free."""
        await self.learn()
        self.device.free.clear()
        first = self.start(0)
        await until_idle()
        return first

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"model": "looks"} | labels)


async def until_idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def setting():
    setting = Setting()
    yield setting
    await setting.batched.close()


async def test_a_call_that_comes_alone_goes_alone_and_at_once(setting):
    assert await setting.ask(7) == [7]
    assert setting.device.calls == [[7]]


async def test_what_comes_while_the_model_is_busy_goes_together_and_each_gets_its_own(setting):
    first = await setting.occupied()
    others = [setting.start(number, number + 0.5) for number in range(1, 6)]
    await until_idle()
    assert len(setting.device.calls) == 1
    setting.device.free.set()

    assert await asyncio.gather(*others) == [[number, number + 0.5] for number in range(1, 6)]
    assert await first == [0]
    assert [len(rows) for rows in setting.device.calls] == [1, 10]
    assert setting.sample("baleen_inference_batch_size_sum") == 33 + 1 + 10


async def test_who_comes_in_the_same_moment_goes_together(setting):
    await setting.learn()
    await asyncio.gather(*(setting.ask(number) for number in range(8)))

    assert [len(rows) for rows in setting.device.calls] == [8]


async def test_so_many_batches_are_under_way_at_each_instance_of_each_replica():
    setting = Setting(batches_in_flight=2, replicas=lambda model: 3)
    model = replace(MODEL, instances=Instances(count=2), batching=Batching(max_batch_size=1))
    setting.device.free.clear()
    calls = [asyncio.create_task(setting.ask(number, model=model)) for number in range(20)]
    await until_idle()

    assert len(setting.device.calls) == 12
    setting.device.free.set()
    await asyncio.gather(*calls)
    await setting.batched.close()


async def test_a_batch_leaves_by_itself_when_the_model_is_about_to_be_free():
    setting = Setting(batches_in_flight=2)
    for size in (1, 32):
        setting.device.free.clear()
        learning = setting.start(*range(size))
        await until_idle()
        setting.now += 0.02
        setting.device.free.set()
        await learning
    setting.device.calls.clear()
    setting.device.free.clear()
    calls = []
    for number in range(3):
        calls.append(setting.start(number))
        await until_idle()
    assert setting.device.calls == [[0]]
    setting.device.was_asked.clear()
    setting.now += 0.0185
    async with asyncio.timeout(5):
        await setting.device.was_asked.wait()

    assert setting.device.calls == [[0], [1, 2]]
    setting.device.free.set()
    assert await asyncio.gather(*calls) == [[0], [1], [2]]
    await setting.batched.close()


async def test_a_caller_that_gives_up_leaves_the_queue_at_once(setting):
    first = await setting.occupied()
    gone, stays = setting.start(1), setting.start(2)
    await until_idle()
    assert setting.sample("baleen_queue_depth") == 2
    gone.cancel()
    await until_idle()

    assert setting.sample("baleen_queue_depth") == 1
    setting.device.free.set()
    assert (await stays, await first) == ([2], [0])
    assert setting.device.calls == [[0], [2]]


async def test_a_batch_goes_on_without_a_caller_that_has_given_up_and_keeps_its_place(setting):
    first = await setting.occupied()
    first.cancel()
    waiting = setting.start(1)
    await until_idle()

    assert first.cancelled()
    assert setting.device.calls == [[0]]
    setting.device.free.set()
    assert await waiting == [1]


async def test_of_a_batch_with_a_poisoned_entry_that_one_fails_alone(setting):
    await setting.occupied()
    calls = [setting.start(number) for number in (1, POISON, 2, 3)]
    await until_idle()
    setting.device.free.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert [ends[0], *ends[2:]] == [[1], [2], [3]]
    assert str(ends[1]) == "failed with 1 rows"
    assert setting.device.calls == [[0], [1, POISON, 2, 3], [1], [POISON], [2], [3]]


async def test_a_model_that_is_down_is_not_asked_for_each_entry(setting):
    first = await setting.occupied()
    calls = [setting.start(number) for number in range(1, 20)]
    await until_idle()
    setting.device.is_down = True
    setting.device.free.set()
    ends = await asyncio.gather(first, *calls, return_exceptions=True)

    assert {type(end) for end in ends} == {ModelUnavailable}
    assert [len(rows) for rows in setting.device.calls] == [1, 19, 1, 1]


async def test_a_failure_that_took_long_is_not_tried_again(setting):
    await setting.occupied()
    calls = [setting.start(number) for number in (1, POISON)]
    await until_idle()
    setting.device.free.set()
    setting.device.free.clear()
    await until_idle()
    setting.now += 2
    setting.device.free.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(end) for end in ends} == {ModelUnavailable}
    assert setting.device.calls[1:] == [[1, POISON]]


async def test_an_error_of_our_own_reaches_every_caller(setting):
    async def broken(model, inputs, work):
        raise KeyError("image")

    setting.device.infer = broken
    ends = await asyncio.gather(setting.ask(1), setting.ask(2), return_exceptions=True)

    assert {type(end) for end in ends} == {KeyError}


async def test_a_full_queue_says_its_limits_and_when_to_come_again():
    setting = Setting(queue_rows=2)
    await setting.occupied()
    calls = [setting.start(number) for number in range(2)]
    await until_idle()
    with pytest.raises(Overloaded, match=r"model looks: 2 rows with 8 bytes wait; .*batch_queue_rows, 2,") as refused:
        await setting.ask(9)
    urgent = setting.start(10, work=Work(priority=Priority.CRITICAL))
    await until_idle()
    setting.device.free.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert refused.value.retry_after_seconds >= 1
    assert ends[0] == [0]
    assert isinstance(ends[1], Overloaded)
    assert await urgent == [10]
    assert setting.sample("baleen_inference_shed_total", reason="QueueFull", priority="Normal") == 2
    await setting.batched.close()


async def test_what_cannot_be_done_in_time_is_refused_with_both_times(setting):
    setting.device.free.clear()
    setting.start(0)
    await until_idle()
    setting.now += 3
    setting.device.free.set()
    await until_idle()
    setting.device.free.clear()
    setting.start(1)
    await until_idle()
    with pytest.raises(Overloaded, match=r"would take about 3 s, and the deadline is in 2 s"):
        await setting.ask(2, work=Work(deadline=setting.now + 2))
    setting.device.free.set()


async def test_what_is_too_late_in_the_queue_is_never_done(setting):
    await setting.occupied()
    late = setting.start(1, work=Work(deadline=setting.now + 1))
    await until_idle()
    setting.now += 1
    setting.device.free.set()

    with pytest.raises(DeadlineExceeded, match="model looks: the deadline passed before it was asked"):
        await late
    assert setting.device.calls == [[0]]


async def test_how_long_a_call_waited_is_said_and_counted(setting):
    waits: list[float] = []
    await setting.occupied()
    call = setting.start(1, work=Work(on_wait=waits.append, lane=Lane.VIDEO))
    await until_idle()
    setting.now += 0.25
    setting.device.free.set()
    await call

    assert waits == [0.25]
    assert setting.sample("baleen_queue_wait_seconds_sum", lane="Video") == 0.25
    assert setting.sample("baleen_queue_wait_seconds_count", lane="Interactive") == 3


async def test_a_batch_is_as_urgent_and_as_patient_as_any_of_its_entries(setting):
    await setting.occupied()
    pressed = setting.start(1, work=Work(priority=Priority.HIGH, deadline=110, tenant="a"))
    patient = setting.start(2, work=Work(deadline=200, tenant="b"))
    await until_idle()
    setting.device.free.set()
    await asyncio.gather(pressed, patient)
    work = setting.device.works[1]

    assert (work.priority, work.deadline) == (Priority.HIGH, 200)


async def test_on_closing_whoever_waits_hears_that_the_model_is_asked_no_more(setting):
    under_way = await setting.occupied()
    waits = setting.start(1)
    await until_idle()
    await setting.batched.close()
    ends = await asyncio.gather(under_way, waits, return_exceptions=True)

    assert [str(end) for end in ends] == ["model looks 3 is asked no more"] * 2
    assert setting.sample("baleen_queue_depth") == 0


async def test_a_model_of_the_same_name_takes_the_place_of_one_that_is_asked_no_more(setting):
    await setting.ask(1)
    await until_idle()
    await setting.ask(1, model=replace(MODEL, version="4"))

    assert len(setting.batched._lines) == 1


def texts(*lengths: int) -> dict[str, np.ndarray]:
    width = max(lengths)
    mask = np.array([[1] * length + [0] * (width - length) for length in lengths], np.int64)
    return {"input_ids": mask * 7 + (1 - mask), "attention_mask": mask}


def test_texts_of_like_length_are_made_as_long_as_the_longest_as_the_recipe_does():
    joined = join([texts(3), texts(5, 2)], read_padding(TEXT_MODEL))

    assert joined["input_ids"].tolist() == [[7, 7, 7, 1, 1], [7, 7, 7, 7, 7], [7, 7, 1, 1, 1]]
    assert joined["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]


def test_only_rows_of_like_length_or_of_one_shape_are_of_one_kind():
    padding = read_padding(TEXT_MODEL)
    kinds = [read_shape(TEXT_MODEL, texts(length), padding).kind for length in (2, 16, 17, 32, 33)]

    assert kinds[0] == kinds[1] != kinds[2] == kinds[3] != kinds[4]
    shape = read_shape(TEXT_MODEL, texts(40, 3), padding)
    assert (shape.rows, shape.row_units, shape.size_bytes) == (2, 40, 2 * 2 * 40 * 8)
    images = [read_shape(IMAGE_MODEL, {"image": np.zeros((2, 3, side, 224), np.float32)}, {}) for side in (224, 112)]
    assert images[0].row_units == 1
    assert images[0].kind != images[1].kind


def test_rows_of_a_model_that_answers_for_each_token_are_not_made_longer():
    each_token = Tensor(name="tokens", data_type=TEXT_MODEL.outputs[0].data_type, dims=(-1, 2))

    assert read_padding(TEXT_MODEL) == {"input_ids": 1, "attention_mask": 0}
    assert read_padding(replace(TEXT_MODEL, outputs=(each_token,))) == {}
    assert read_padding(IMAGE_MODEL) == {}


async def test_the_report_says_what_waits_for_whom_and_what_was_refused():
    setting = Setting()
    before = setting.batched.reports()
    first = await setting.occupied()
    setting.now += 1
    urgent = setting.start(1, 2, work=Work(priority=Priority.HIGH))
    frame = setting.start(3, work=Work(lane=Lane.VIDEO, priority=Priority.LOW))
    await until_idle()
    with pytest.raises(DeadlineExceeded):
        await setting.ask(4, work=Work(deadline=setting.now - 1))
    (busy,) = setting.batched.reports()
    setting.device.free.set()
    await asyncio.gather(first, urgent, frame)
    (done,) = setting.batched.reports()

    assert before == ()
    assert (busy.model, busy.batches_under_way, busy.waiting_rows) == ("looks", 1, 3)
    assert busy.waiting == {Lane.INTERACTIVE: {Priority.HIGH: 2}, Lane.VIDEO: {Priority.LOW: 1}}
    assert busy.rejected == {"QueueFull": 0, "PredictedLate": 0, "DeadlinePassed": 1}
    assert (done.batches_under_way, done.waiting_rows, done.waiting) == (0, 0, {})
    # 1 and 32 rows to learn from, then 1, 2 and 1.
    assert done.mean_batch_rows == 37 / 5


async def test_each_model_has_its_own_report_and_all_have_their_totals_together():
    setting = Setting()
    another = make_model("another", recipe="owen-s/1", batch=32)
    held = [await setting.occupied(), asyncio.create_task(setting.ask(1, 2, model=another))]
    await until_idle()
    held += [setting.start(3, 4), asyncio.create_task(setting.ask(5, model=another))]
    await until_idle()
    with pytest.raises(DeadlineExceeded):
        await setting.ask(6, work=Work(deadline=setting.now - 1), model=another)
    busy, totals = setting.batched.reports(), setting.batched.totals()
    setting.device.free.set()
    await asyncio.gather(*held)

    assert [(each.model, each.waiting_rows, each.batches_under_way) for each in busy] == [
        ("another", 1, 1),
        ("looks", 2, 1),
    ]
    assert [each.rejected["DeadlinePassed"] for each in busy] == [1, 0]
    assert [each.mean_batch_rows for each in busy] == [2, 34 / 3]
    assert totals == QueueTotals(waiting_rows=3, batches_under_way=2)
    assert setting.batched.totals() == QueueTotals()


async def test_a_call_alone_is_a_part_of_its_trace_and_a_batch_of_several_is_of_none():
    setting = Setting()
    first = await setting.occupied()
    alone = setting.device.works[0].traceparent
    calls = [setting.start(number, work=Work(traceparent=f"trace-{number}")) for number in (1, 2)]
    await until_idle()
    setting.device.free.set()
    await asyncio.gather(first, *calls)
    await setting.ask(3, work=Work(traceparent="trace-3"))

    assert alone == ""
    assert [work.traceparent for work in setting.device.works[1:]] == ["", "trace-3"]
    assert setting.device.calls[1] == [1, 2]
