"""Whatever a Triton answers, or does not, the adapter gives right tensors or says ModelUnavailable."""

import asyncio
import time

import numpy as np
import pytest

from baleen_cli.triton.process import free_port
from baleen_core.errors import ModelUnavailable
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.ports import Work
from fake_triton import fake_triton
from served_models import IMAGE_MODEL, TEXT_MODEL
from waiting import until

ROWS = {"image": np.zeros((2, 3, 224, 224), np.float32)}
TOKENS = {"attention_mask": np.ones((2, 3), np.int64), "input_ids": np.arange(6).reshape(2, 3)}
SCORES = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], np.float32)


@pytest.fixture
async def fake():
    async with fake_triton() as server:
        yield server


@pytest.fixture
async def inference(fake):
    adapter = TritonInference(fake.endpoint, timeout_seconds=0.5, probe_timeout_seconds=0.5)
    yield adapter
    await adapter.close()


async def test_a_right_answer_comes_back_as_tensors(fake, inference):
    fake.answer("probabilities", SCORES)
    answer = await inference.infer(IMAGE_MODEL, ROWS)

    np.testing.assert_array_equal(answer["probabilities"], SCORES)


async def test_what_is_sent_names_model_version_types_and_raw_rows(fake, inference):
    fake.answer("probabilities", SCORES)
    await inference.infer(TEXT_MODEL, TOKENS)
    (request,) = fake.requests

    assert (request.model_name, request.model_version) == ("text-safety", "1")
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [
        ("input_ids", "INT64", [2, 3]),
        ("attention_mask", "INT64", [2, 3]),
    ]
    assert request.raw_input_contents[0] == TOKENS["input_ids"].tobytes()


async def test_the_server_is_told_the_trace_that_a_call_is_a_part_of(fake, inference):
    fake.answer("probabilities", SCORES)
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await inference.infer(IMAGE_MODEL, ROWS, Work(traceparent=traceparent))
    await inference.infer(IMAGE_MODEL, ROWS)

    assert [sent.get("traceparent") for sent in fake.metadata] == [traceparent, None]


async def test_rows_that_are_not_contiguous_in_memory_arrive_in_order(fake, inference):
    fake.answer("probabilities", SCORES)
    flipped = np.arange(2 * 3 * 224 * 224, dtype=np.float32).reshape(2, 224, 224, 3).transpose(0, 3, 1, 2)
    await inference.infer(IMAGE_MODEL, {"image": flipped})

    assert fake.requests[0].raw_input_contents[0] == np.ascontiguousarray(flipped).tobytes()


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        pytest.param("other", SCORES, "no output 'probabilities'", id="another output"),
        pytest.param("probabilities", SCORES[:1], r"is float32 \[1, 3\], not float32 \[2, 3\]", id="a row too few"),
        pytest.param("probabilities", SCORES[:, :2], r"is float32 \[2, 2\]", id="a column too few"),
        pytest.param("probabilities", SCORES[..., None], r"is float32 \[2, 3, 1\]", id="another rank"),
        pytest.param("probabilities", SCORES * np.nan, "NaN or infinity", id="NaN"),
        pytest.param("probabilities", SCORES * np.float32(np.inf), "NaN or infinity", id="infinity"),
        pytest.param("probabilities", np.empty((0, 3), np.float32), r"is float32 \[0, 3\]", id="no rows"),
    ],
)
async def test_a_wrong_answer_is_no_answer_and_says_how(fake, inference, name, array, says):
    fake.answer(name, array)

    with pytest.raises(ModelUnavailable, match=f"model image-safety 3 at {fake.endpoint}: .*{says}"):
        await inference.infer(IMAGE_MODEL, ROWS)


async def test_an_answer_of_another_type_is_no_answer(fake, inference):
    fake.answer("probabilities", SCORES.astype(np.float64), data_type="FP64")

    with pytest.raises(ModelUnavailable, match="'probabilities' is FP64, not one of FP32, "):
        await inference.infer(IMAGE_MODEL, ROWS)


async def test_an_answer_without_its_bytes_is_no_answer(fake, inference):
    fake.outputs = [("probabilities", "FP32", (2, 3), b"")]

    with pytest.raises(ModelUnavailable, match="cannot reshape"):
        await inference.infer(IMAGE_MODEL, ROWS)


async def test_a_slow_answer_ends_at_the_time_budget(fake, inference):
    fake.answer("probabilities", SCORES)
    fake.delay_seconds = 30
    begun = time.monotonic()

    with pytest.raises(ModelUnavailable, match="DEADLINE_EXCEEDED"):
        await inference.infer(IMAGE_MODEL, ROWS)
    assert time.monotonic() - begun < 5


async def test_a_caller_that_gives_up_is_cancelled_and_not_told_of_a_failure(fake, inference):
    fake.delay_seconds = 30
    call = asyncio.create_task(inference.infer(IMAGE_MODEL, ROWS))
    await asyncio.sleep(0.1)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_that_nobody_waits_for_is_not_cancelled_at_the_server(fake, inference):
    fake.answer("probabilities", SCORES)
    fake.delay_seconds = 1
    with pytest.raises(ModelUnavailable, match=r"no answer within 0.5 s"):
        await inference.infer(IMAGE_MODEL, ROWS)
    call = asyncio.create_task(inference.infer(IMAGE_MODEL, ROWS))
    await asyncio.sleep(0.1)
    call.cancel()

    await until(lambda: fake.answered == 2)


async def test_a_model_with_too_many_late_calls_is_not_called_again_before_one_has_ended(fake):
    adapter = TritonInference(fake.endpoint, timeout_seconds=0.1)
    fake.answer("probabilities", SCORES)
    fake.delay_seconds = 2
    asked = await asyncio.gather(*(adapter.infer(IMAGE_MODEL, ROWS) for _ in range(64)), return_exceptions=True)
    with pytest.raises(ModelUnavailable, match=r"64 calls have had no answer in time.* after 60 s"):
        await adapter.infer(IMAGE_MODEL, ROWS)
    fake.delay_seconds = 0
    await until(lambda: fake.answered == 64)

    assert {type(each) for each in asked} == {ModelUnavailable}
    assert len(fake.requests) == 64
    assert (await adapter.infer(IMAGE_MODEL, ROWS))["probabilities"].shape == (2, 3)
    await adapter.close()


async def leave_late(fake, adapter):
    """Have a server hold as many calls as may be late; return what they wait for."""
    fake.answer("probabilities", SCORES)
    fake.holds = held = asyncio.Event()
    calls = [asyncio.create_task(adapter.infer(TEXT_MODEL, TOKENS)) for _ in range(64)]
    await until(lambda: len(fake.requests) == 64)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    fake.holds = None
    return held


async def test_where_no_late_call_ever_ends_a_fresh_connection_is_made_and_the_old_one_closed(fake):
    adapter = TritonInference(fake.endpoint, timeout_seconds=2, stuck_seconds=0)
    idle = len(asyncio.all_tasks())
    await leave_late(fake, adapter)

    assert (await adapter.infer(TEXT_MODEL, TOKENS))["probabilities"].shape == (2, 3)

    await until(lambda: fake.abandoned == 64 and len(asyncio.all_tasks()) <= idle)

    assert await adapter.infer(TEXT_MODEL, TOKENS)
    await adapter.close()


async def test_late_calls_on_a_connection_that_was_replaced_may_still_end(fake):
    adapter = TritonInference(fake.endpoint, timeout_seconds=20, stuck_seconds=0)
    held = await leave_late(fake, adapter)
    assert await adapter.infer(TEXT_MODEL, TOKENS)
    held.set()
    await until(lambda: fake.answered == 65)

    assert fake.abandoned == 0
    await adapter.close()


async def test_a_connection_that_was_replaced_is_not_closed_while_a_model_is_loaded_on_it(fake):
    adapter = TritonInference(fake.endpoint, timeout_seconds=20, stuck_seconds=0)
    idle = len(asyncio.all_tasks())
    fake.loads = asyncio.Event()
    load = asyncio.create_task(adapter.load(TEXT_MODEL))
    await until(lambda: fake.loading == 1)
    held = await leave_late(fake, adapter)
    assert await adapter.infer(TEXT_MODEL, TOKENS)
    held.set()
    await until(lambda: fake.answered == 65)
    # So long that the connection, were it closed now, would have ended the call.
    await asyncio.wait({load}, timeout=0.5)
    fake.loads.set()

    assert await load is None
    # The old connection is closed then.
    await until(lambda: len(asyncio.all_tasks()) <= idle)
    await adapter.close()


async def test_calls_under_way_fail_when_the_server_is_exchanged(fake, inference):
    fake.delay_seconds = 30
    call = asyncio.create_task(inference.infer(IMAGE_MODEL, ROWS))
    await asyncio.sleep(0.1)
    async with fake_triton() as other:
        other.answer("probabilities", SCORES)
        await inference.connect(other.endpoint)

        with pytest.raises(ModelUnavailable, match="the connection was closed"):
            await call
        assert (await inference.infer(IMAGE_MODEL, ROWS))["probabilities"].shape == (2, 3)


async def test_a_model_is_ready_only_while_it_is_confirmed(fake, inference):
    assert not await inference.is_ready(IMAGE_MODEL)

    inference.confirm(IMAGE_MODEL)

    assert await inference.is_ready(IMAGE_MODEL)

    inference.doubt(IMAGE_MODEL)

    assert not await inference.is_ready(IMAGE_MODEL)


async def test_another_server_has_everything_to_prove_again(fake, inference):
    inference.confirm(IMAGE_MODEL)
    await inference.connect(fake.endpoint)

    assert not await inference.is_ready(IMAGE_MODEL)


async def test_a_server_that_loads_nothing_on_request_says_so(inference):
    with pytest.raises(ModelUnavailable, match="explicit model load / unload is not allowed"):
        await inference.load(IMAGE_MODEL)


async def test_nobody_there_is_neither_live_nor_ready_and_every_call_says_so():
    inference = TritonInference(f"127.0.0.1:{free_port()}", timeout_seconds=1, probe_timeout_seconds=0.5)
    inference.confirm(IMAGE_MODEL)

    assert not await inference.server_live()
    assert not await inference.is_ready(IMAGE_MODEL)
    with pytest.raises(ModelUnavailable):
        await inference.infer(IMAGE_MODEL, ROWS)
    with pytest.raises(ModelUnavailable):
        await inference.loaded()
    await inference.close()


async def test_a_server_that_comes_back_after_a_long_absence_is_found_within_two_seconds():
    port = free_port()
    inference = TritonInference(f"127.0.0.1:{port}", probe_timeout_seconds=0.2)
    absence = time.monotonic() + 6  # by then gRPC's own back-off would wait for another four
    while time.monotonic() < absence:
        assert not await inference.is_loaded(IMAGE_MODEL)
        await asyncio.sleep(0.1)
    async with fake_triton(port=port):
        await until(lambda: inference.is_loaded(IMAGE_MODEL), seconds=2)
        await inference.close()


async def test_a_proxy_in_the_environment_is_not_asked(fake, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{free_port()}")
    fake.answer("probabilities", SCORES)
    inference = TritonInference(fake.endpoint, timeout_seconds=2)

    assert (await inference.infer(IMAGE_MODEL, ROWS))["probabilities"].shape == (2, 3)
    await inference.close()
