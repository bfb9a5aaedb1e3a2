"""ModelDeployments served over gRPC: what a server says again after it was away is verified again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from baleen_core.errors import ModelUnavailable
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.testing import FixedImages
from baleen_sidecar.usecases.serve_models import ServeModels
from fake_triton import FakeTriton, fake_triton
from model_servers import PICTURE, load_recipe, served_entry
from served_models import make_manifest
from waiting import until

ROW = {"image": np.ones((1, 3, 224, 224), np.float32)}


def answer(fake: FakeTriton, score: float) -> None:
    fake.outputs.clear()
    fake.answer("probabilities", np.array([[0, score, 0]], np.float32))


def deployment(*endpoints: str) -> dict[str, object]:
    return make_manifest(models=[served_entry()], runtime={"external": {"endpoints": list(endpoints)}})


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[ServeModels, RoutedInference]]:
    inference = RoutedInference(lambda endpoint: TritonInference(endpoint, timeout_seconds=2))
    serve_models = ServeModels(
        inference,
        load=load_recipe,
        images=FixedImages(),
        golden_file=lambda model, name: PICTURE,
        interval_seconds=30,
        retry_seconds=0.1,
    )
    running = asyncio.create_task(serve_models.run())
    try:
        yield serve_models, inference
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await inference.close()


async def test_a_server_that_comes_back_with_other_answers_serves_no_more_until_they_are_right():
    async with serving() as (serve_models, inference), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(fake_triton())
        answer(first, 0.9)
        await serve_models.serve([deployment(first.endpoint)])
        await until(lambda: len(serve_models.current().models) == 1)
        model = serve_models.current().models[0].model
        await until(lambda: inference.is_ready(model))
        await stack.aclose()
        with pytest.raises(ModelUnavailable):
            await inference.infer(model, ROW)
        async with fake_triton(port=int(first.endpoint.rpartition(":")[2])) as second:
            answer(second, 0.5)
            await until(lambda: bool(second.requests) and not inference.server(first.endpoint).is_confirmed(model))

            with pytest.raises(ModelUnavailable, match="golden answers at no server"):
                await inference.infer(model, ROW)

            answer(second, 0.9)
            await until(lambda: inference.is_ready(model))


async def test_calls_go_to_both_servers_and_to_one_when_the_other_is_taken_out():
    async with fake_triton() as one, fake_triton() as other, serving() as (serve_models, inference):
        for fake in (one, other):
            answer(fake, 0.9)
        await serve_models.serve([deployment(one.endpoint, other.endpoint)])
        await until(lambda: len(serve_models.current().models) == 1)
        model = serve_models.current().models[0].model
        replicas = [inference.server(each.endpoint) for each in (one, other)]
        await until(lambda: all(replica.is_confirmed(model) for replica in replicas))
        before = [len(each.requests) for each in (one, other)]
        for _ in range(6):
            await inference.infer(model, ROW)

        assert [len(each.requests) - asked for each, asked in zip((one, other), before, strict=True)] == [3, 3]

        await serve_models.serve([deployment(other.endpoint)])
        before = [len(one.requests), len(other.requests)]
        for _ in range(6):
            await inference.infer(model, ROW)

        assert [len(one.requests) - before[0], len(other.requests) - before[1]] == [0, 6]
