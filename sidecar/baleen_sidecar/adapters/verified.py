"""Let nobody ask a model that has not given its golden answers: readiness alone is not to be believed."""

from typing import Protocol

from baleen_core.errors import ModelUnavailable
from baleen_core.model.schema import Model
from baleen_sidecar.ports import ANYONE, Inference, Tensors, Work


class Confirmed(Protocol):
    """Knows which models gave their golden answers."""

    def is_confirmed(self, model: Model) -> bool:
        """Say so, at once and without asking the server."""


class VerifiedInference:
    """The Inference port, closed for models whose answers are not known to be right."""

    def __init__(self, inner: Inference, confirmed: Confirmed) -> None:
        self._inner = inner
        self._confirmed = confirmed

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        if not self._confirmed.is_confirmed(model):
            raise ModelUnavailable(f"model {model.name} {model.version} has not given its golden answers")
        return await self._inner.infer(model, inputs, work)

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        return await self._inner.is_ready(model)
