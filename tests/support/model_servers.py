"""Model servers in memory, behind the addresses that ModelDeployments name."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from baleen_core.errors import ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model
from baleen_sidecar.ports import ANYONE, Tensors, Work
from served_models import make_entry

PICTURE = b"a red square"


class MemoryServer:
    """Gives the score that `scores` has for a version of a model, and does not answer for what is not there.

    While `holds` is set, calls wait for it.
    """

    def __init__(self, scores: Mapping[tuple[str, str], float] | None = None) -> None:
        self.scores = dict(scores or {})
        self.is_silent = self.is_closed = False
        self.calls: list[str] = []
        self.holds: asyncio.Event | None = None

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        self.calls.append(model.name)
        if self.holds is not None:
            await self.holds.wait()
        score = self.scores.get((model.name, model.version))
        if self.is_silent or self.is_closed or score is None:
            raise ModelUnavailable("no answer")
        rows = len(next(iter(inputs.values())))
        return {"probabilities": np.tile(np.array([0, score, 0], np.float32), (rows, 1))}

    async def is_loaded(self, model: Model) -> bool:
        return not self.is_silent and (model.name, model.version) in self.scores

    async def load(self, model: Model) -> None:
        raise AssertionError("nobody loads models at a server that is not ours")

    def answered(self, model: Model) -> int:
        return 0

    async def close(self) -> None:
        self.is_closed = True


class MemoryServers(dict[str, MemoryServer]):
    """Makes a server for each address when it is first connected to, with what `scores` has by then."""

    def __init__(self, scores: Mapping[tuple[str, str], float]) -> None:
        super().__init__()
        self.scores = dict(scores)

    def connect(self, endpoint: str) -> MemoryServer:
        self[endpoint] = MemoryServer(self.scores)
        return self[endpoint]


def served_entry(name: str = "looks", version: str = "1", **changes: Any) -> dict[str, Any]:
    """Return an entry of a manifest whose golden picture scores 90% in `sexual`."""
    golden = {
        "input": {"name": "red.png", "sha256": hashlib.sha256(PICTURE).hexdigest()},
        "expect": [{"signal": "sexual", "value": "90%", "tolerance": "1%"}],
    }
    return make_entry(name=name, version=version, golden=[golden], **changes)


def load_recipe(model: Model) -> LoadedModel:
    """Load a model whose tensors are always the same."""
    return LoadedModel(model=model, sha256="", image=lambda picture: np.ones((3, 224, 224), np.float32))
