"""Breakers before real Tritons that are killed, or stopped, while callers ask."""

import asyncio
import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry

from baleen_cli.triton.server import WatchRules
from baleen_core.errors import ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Expectation, Golden, GoldenInput, Resilience
from baleen_sidecar.adapters.batched import BatchedInference
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.flow.breaker import State
from baleen_sidecar.flow.hangs import HangRules
from baleen_sidecar.ports import Work
from baleen_sidecar.testing import FixedImages
from baleen_sidecar.usecases.verify_models import VerifyModels
from triton import SQUARE_ROOT, private_triton, write_square_root
from waiting import suspend, until

pytestmark = pytest.mark.triton

MODEL = SQUARE_ROOT
ROW = {"x": np.array([[4.0, 9.0]], np.float32)}
PATIENCE_SECONDS = 3.0
UNWATCHED = WatchRules(probes=10_000)
"""A server that is stopped stays so: nobody replaces it."""


@asynccontextmanager
async def setting(folder, *, servers, patience_seconds=PATIENCE_SECONDS):
    """Give so many real servers, and what asks them."""
    file = write_square_root(folder / "square-root.onnx")
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                private_triton([MODEL], lambda model: file, folder / str(number), rules=UNWATCHED)
            )
            for number in range(servers)
            if not (folder / str(number)).mkdir()
        ]
        inference = RoutedInference(lambda at: TritonInference(at, timeout_seconds=patience_seconds))
        stack.push_async_callback(inference.close)
        endpoints = [each.server.endpoint for each in running]
        inference.route({MODEL.name: endpoints}, {MODEL.name: Resilience()})
        for endpoint in endpoints:
            inference.server(endpoint).confirm(MODEL)
        yield inference, [psutil.Process(each.server.pid) for each in running]


async def test_a_stopped_server_is_found_out_by_callers_who_all_gave_up_and_back_in_use_with_nothing_left(tmp_path):
    async with setting(tmp_path, servers=1) as (inference, (triton,)):
        await inference.infer(MODEL, ROW)
        idle = len(asyncio.all_tasks())
        await suspend(triton)
        callers = [asyncio.create_task(inference.infer(MODEL, ROW)) for _ in range(1000)]
        await asyncio.sleep(0.05)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await until(lambda: inference.reports()[0].state is State.OPEN)
        with pytest.raises(ModelUnavailable, match="its breaker is open"):
            async with asyncio.timeout(0.2):
                await inference.infer(MODEL, ROW)
        triton.resume()
        (replica,) = (inference.server(each.name.rpartition("/")[2]) for each in inference.reports()[1:])

        async def gives_golden_answers() -> bool:
            try:
                await replica.infer(MODEL, ROW)
            except ModelUnavailable:
                return False
            return True

        await until(gives_golden_answers)
        # With more than MAX_ABANDONED of the thousand still under way no call is begun.
        await until(lambda: inference.reports()[0].under_way == 0)
        replica.confirm(MODEL)
        for _ in range(3):
            await inference.infer(MODEL, ROW)
        await until(lambda: inference.reports()[0].under_way == 0)
        await until(lambda: len(asyncio.all_tasks()) <= idle)

        assert inference.reports()[0].state is State.CLOSED


async def test_callers_of_a_lone_server_that_hangs_hear_of_it_long_before_their_calls_run_out_of_time(tmp_path):
    golden = Golden(
        input=GoldenInput(name="two", sha256=hashlib.sha256(b"2").hexdigest()),
        expect=(Expectation(signal="root", value=500_000, tolerance=1_000),),
    )
    model = replace(MODEL, golden=(golden,))
    loaded = LoadedModel(model=model, sha256="", image=lambda picture: np.array([0.25, 0.81], np.float32))
    async with setting(tmp_path, servers=1, patience_seconds=600) as (routed, (triton,)):
        (report,) = routed.reports()[1:]
        replica = routed.server(report.name.rpartition("/")[2])
        verify = VerifyModels([loaded], replica, images=FixedImages(), golden_file=lambda *_: b"2", loads=False)
        await verify.check()
        queue = BatchedInference(routed, CollectorRegistry(), queue_rows=64, queue_bytes=1 << 20, batches_in_flight=2)
        for _ in range(HangRules().calls):
            await queue.infer(model, ROW)
        await suspend(triton)
        work = Work(deadline=asyncio.get_running_loop().time() + 3600)
        callers = [asyncio.create_task(queue.infer(model, ROW, work)) for _ in range(40)]
        await until(lambda: replica.is_late(model))
        await verify.check(limit_seconds=0.5, is_early=True)
        failed = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 5)
        assert {type(each) for each in failed} == {ModelUnavailable}
        (waiting,) = queue.reports()
        assert (waiting.batches_under_way, routed.reports()[0].under_way) == (0, 0)
        assert (routed.reports()[0].state, routed.reports()[1].let_go) == (State.OPEN, 2)
        triton.resume()

        async def is_back() -> bool:
            await verify.check(limit_seconds=0.5)
            return routed.reports()[0].state is State.CLOSED

        await until(is_back)

        assert (await queue.infer(model, ROW))["y"].tolist() == [[2.0, 3.0]]


async def test_callers_in_a_hurry_are_no_fault_of_a_server_that_is_well(tmp_path):
    async with setting(tmp_path, servers=1) as (inference, _):
        for _ in range(20):
            callers = [asyncio.create_task(inference.infer(MODEL, ROW)) for _ in range(50)]
            await asyncio.sleep(0.001)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            await until(lambda: inference.reports()[0].under_way == 0)
        outputs = await inference.infer(MODEL, ROW)
        model, *_ = inference.reports()

    assert outputs["y"].tolist() == [[2.0, 3.0]]
    assert (model.state, model.failures) == (State.CLOSED, 0)


async def test_with_one_of_two_servers_killed_no_call_fails(tmp_path):
    async with setting(tmp_path, servers=2) as (inference, (triton, _)):
        asked = 0

        async def ask() -> None:
            nonlocal asked
            for _ in range(50):
                await inference.infer(MODEL, ROW)
                asked += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask())
            await until(lambda: asked > 40)
            triton.kill()
        model, *_ = inference.reports()

    assert asked == 200
    # Each that failed was made again, or was made twice already.
    assert 1 <= model.failures <= model.retries + model.hedges
