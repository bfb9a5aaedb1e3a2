"""Take the time of what a request waits for, for traces: calls of models, and the decision log."""

import asyncio
from dataclasses import replace

from baleen_core.model.schema import Model
from baleen_core.records import DecisionRecord
from baleen_sidecar.ports import ANYONE, Beside, DecisionLog, Inference, KnownKey, Tensors, Tracing, Work


class TracedInference:
    """The Inference port, with a span for each call, which the model's server can go on with."""

    def __init__(self, inner: Inference, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        with self._tracing.span(f"model {model.name}") as span:
            span.note("baleen.model.name", model.name)
            span.note("baleen.model.version", model.version)
            span.note("baleen.model.rows", len(next(iter(inputs.values()))))
            return await self._inner.infer(model, inputs, replace(work, traceparent=self._tracing.traceparent()))

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        return await self._inner.is_ready(model)


class TracedLog:
    """The DecisionLog port, with a span for what is put on record."""

    def __init__(self, inner: DecisionLog, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """See ports.DecisionLog."""
        with self._tracing.span("decision log") as span:
            span.note("baleen.decision.id", record.id)
            return await self._inner.append(record, beside)

    def begin(self, record: DecisionRecord, beside: Beside | None = None) -> asyncio.Future[bool]:
        """See ports.DecisionLog."""
        return asyncio.ensure_future(self.append(record, beside))

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """See ports.DecisionLog."""
        return await self._inner.get(decision_id)

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """See ports.DecisionLog."""
        return await self._inner.find_key(key_id, now_seconds=now_seconds)
