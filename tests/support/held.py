"""A model that keeps whoever asks it waiting, for as long as a test wants."""

import asyncio
from collections.abc import Collection, Mapping

from baleen_core.model.schema import Model
from baleen_sidecar.ports import ANYONE, Tensors, Work
from baleen_sidecar.testing import FixedInference, Score


class HeldInference(FixedInference):
    """Answers no call while `released` is not set, which is for the loop of who asks; `works` has for whom it is asked.

    With `only`, models of other names answer at once.
    """

    def __init__(self, scores: Mapping[str, Score] | None = None, *, only: Collection[str] = ()) -> None:
        super().__init__(scores)
        self.released = asyncio.Event()
        self.works: list[Work] = []
        self._only = only

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See FixedInference."""
        self.works.append(work)
        if not self._only or model.name in self._only:
            await self.released.wait()
        return await super().infer(model, inputs, work)
