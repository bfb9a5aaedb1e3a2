"""Count and time every call to a model."""

import time
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from baleen_core.errors import ModelUnavailable
from baleen_core.model.schema import Model
from baleen_sidecar.ports import ANYONE, Inference, Tensors, Work

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a small text model on a GPU to a batch of long texts on a CPU."""


class MeasuredInference:
    """The Inference port, with metrics by model; a call that its caller cancelled is neither success nor failure."""

    def __init__(self, inner: Inference, registry: CollectorRegistry) -> None:
        self._inner = inner
        seconds = Histogram(
            "baleen_inference_duration_seconds",
            "Seconds of one call to a model",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        rows = Counter("baleen_inference_rows", "Rows that models answered for", ["model"], registry=registry)
        failures = Counter("baleen_inference_failures", "Calls that a model failed", ["model"], registry=registry)
        self._seconds, self._rows, self._failures = cache(seconds.labels), cache(rows.labels), cache(failures.labels)

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        begun = time.perf_counter()
        try:
            outputs = await self._inner.infer(model, inputs, work)
        except ModelUnavailable:
            self._failures(model.name).inc()
            raise
        self._seconds(model.name).observe(time.perf_counter() - begun)
        self._rows(model.name).inc(len(next(iter(inputs.values()))))
        return outputs

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        return await self._inner.is_ready(model)
