"""Calls of many callers on a real Triton: fewer go there than were made, and each has the answer that it has alone."""

import asyncio

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from baleen_sidecar.adapters.batched import BatchedInference, join, read_padding
from baleen_sidecar.adapters.triton import TritonInference
from triton import make_rows, shipped_models

pytestmark = pytest.mark.triton

MODELS = {model.name: model for model in shipped_models()}
CALLERS = 50


@pytest.fixture
async def triton(shared_triton):
    adapter = TritonInference(shared_triton, timeout_seconds=60)
    yield adapter
    await adapter.close()


@pytest.fixture
async def batched(triton):
    batched = BatchedInference(triton, CollectorRegistry(), queue_rows=1024, queue_bytes=1 << 28, batches_in_flight=2)
    yield batched
    await batched.close()


async def test_fifty_callers_at_once_are_fewer_calls_of_the_model(triton, batched):
    model = MODELS["toxicity"]
    rows = [make_rows(model, 1, seed=seed) for seed in range(CALLERS)]
    alone = [await triton.infer(model, row) for row in rows]
    before = triton.answered(model)
    # Twice: of the first calls it is learnt how long they take.
    for _ in range(2):
        together = await asyncio.gather(*(batched.infer(model, row) for row in rows))

    assert triton.answered(model) - before < 2 * CALLERS
    for one, other in zip(alone, together, strict=True):
        for name, scores in one.items():
            np.testing.assert_allclose(other[name], scores, atol=1e-5, rtol=0)


async def test_texts_of_different_length_have_the_same_scores_together_as_alone(triton):
    model = MODELS["text-safety"]
    calls = [make_rows(model, 1, seed=seed, size=5 + 9 * seed) for seed in range(model.batching.max_batch_size)]
    together = await triton.infer(model, join(calls, read_padding(model)))

    for place, call in enumerate(calls):
        alone = await triton.infer(model, call)
        np.testing.assert_allclose(together["probabilities"][place], alone["probabilities"][0], atol=1e-5, rtol=0)
