"""What each peer does with a text: tokenise it, score it in process by ONNX Runtime, and compare with a threshold.

It runs in a peer's own environment, which has of the product only `baleen_core.model.recipes` to import.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime

from baleen_core.model.recipes import text_recipe

BATCH: Final = 32
"""Rows that go together, where a peer batches."""
BATCH_SECONDS: Final = 0.005
"""How long a batch waits for more, where a peer has to be told."""
THRESHOLD: Final = 0.5


class Work:
    """One model out of the folder that `baleen_bench.peers` wrote; one thread computes."""

    def __init__(self, folder: Path) -> None:
        model = json.loads((folder / "model.json").read_bytes())
        self._signals: list[tuple[str, str, int | None]] = [tuple(signal) for signal in model["signals"]]
        self._outputs = list(dict.fromkeys(output for _, output, _ in self._signals))
        assets = {name: (folder / name).read_bytes() for name in model["assets"]}
        self._recipe = text_recipe(model["recipe"], assets)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / model["onnx"], options, ["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def judge(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
        """Answer requests in the shape of POST /v1/moderate, all of them in one call of the model."""
        windows = [self._recipe.windows(request["content"]["text"]).rows for request in requests]
        tensors = self._recipe.collate([row for rows in windows for row in rows])
        answer = self._session.run(self._outputs, {name: tensors[name] for name in self._inputs})
        outputs = dict(zip(self._outputs, answer, strict=True))
        found, start = [], 0
        for rows in windows:
            part = slice(start, start := start + len(rows))
            found.append(_decide({name: _highest(outputs[output][part], at) for name, output, at in self._signals}))
        return found


def _highest(rows: Any, index: int | None) -> float:
    return float((rows if index is None else rows[..., index]).max())


def _decide(scores: dict[str, float]) -> dict[str, Any]:
    score = max(scores.values())
    categories = [name for name, value in scores.items() if value >= THRESHOLD]
    return {"decision": "Block" if categories else "Allow", "score": score, "categories": categories}
