"""The models that benchmarks ask: shipped ones, and stand-ins.

`accelerator` costs time and no processor, `echo` nothing but the call; `stub` can be given too much.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from baleen_bench.texts import messages
from baleen_cli.model_files import ModelLocator
from baleen_cli.models.catalog import choose
from baleen_cli.models.progress import SilentProgress
from baleen_cli.models.store import ModelStore
from baleen_cli.triton.repository import write_repository as write_shipped
from baleen_core.errors import NotFound
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.parse import parse_model
from baleen_core.model.recipes import text_recipe
from baleen_core.model.rendering import render_model
from baleen_core.model.schema import (
    Backend,
    Batching,
    DataType,
    Expectation,
    Golden,
    GoldenInput,
    Model,
    ModelSignal,
    Preprocessing,
    Source,
    SourceType,
    Tensor,
)

ACCELERATOR: Final = Model(
    name="accelerator",
    version="1",
    source=Source(type=SourceType.FILE, uri="accelerator"),
    inputs=(Tensor(name="input_ids", data_type=DataType.INT64, dims=(100,)),),
    outputs=(Tensor(name="probabilities", data_type=DataType.FP32, dims=(1,)),),
    preprocessing=Preprocessing(recipe="tox-block/1"),
    signals=(ModelSignal(name="toxic", output="probabilities", index=0),),
    batching=Batching(max_batch_size=32),
)
"""The shape of a GPU: a batch takes 4 ms and 0.1 ms more for each row."""
ECHO: Final = replace(ACCELERATOR, name="echo", source=Source(type=SourceType.FILE, uri="echo"))
"""One copy of what it is given."""

STUB: Final = replace(ACCELERATOR, name="stub", source=Source(type=SourceType.FILE, uri="stub"))
"""A server that saturates: 2.5 ms a row, however many come together, and no more than one batch at a time."""
STUB_PER_SECOND: Final = 400
"""Rows that `stub` answers for whoever keeps it busy."""

_ECHO_PY: Final = """\
import os
import sys

sys.path.insert(0, os.environ["BALEEN_TRITON_SITE"])

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        given = [pb.get_input_tensor_by_name(request, "input_ids").as_numpy() for request in requests]
        return [
            pb.InferenceResponse([pb.Tensor("probabilities", (rows[:, :1] > 0).astype(np.float32) / 100)])
            for rows in given
        ]
"""

_ACCELERATOR_PY: Final = """\
import os
import sys
import time

sys.path.insert(0, os.environ["BALEEN_TRITON_SITE"])

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        rows = [len(pb.get_input_tensor_by_name(request, "input_ids").as_numpy()) for request in requests]
        time.sleep(0.004 + 0.0001 * sum(rows))
        return [
            pb.InferenceResponse([pb.Tensor("probabilities", np.full((count, 1), 0.01, np.float32))])
            for count in rows
        ]
"""

_STUB_PY: Final = """\
import os
import sys
import time

sys.path.insert(0, os.environ["BALEEN_TRITON_SITE"])

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, arguments):
        self.ended = self.woken = 0.0

    def execute(self, requests):
        rows = [len(pb.get_input_tensor_by_name(request, "input_ids").as_numpy()) for request in requests]
        now = time.monotonic()
        # What lies between two batches of a busy server is of the call, and takes nothing from what it can do. Nor does
        # being woken late: the load generator is on the same core.
        begun = self.ended if now - self.woken < 0.001 else now
        self.ended = begun + 0.0025 * sum(rows)
        time.sleep(max(0.0, self.ended - now))
        self.woken = time.monotonic()
        return [
            pb.InferenceResponse([pb.Tensor("probabilities", np.full((count, 1), 0.01, np.float32))])
            for count in rows
        ]
"""

STAND_INS: Final[Mapping[str, tuple[Model, str]]] = {
    ACCELERATOR.name: (ACCELERATOR, _ACCELERATOR_PY),
    ECHO.name: (ECHO, _ECHO_PY),
    STUB.name: (STUB, _STUB_PY),
}
"""Each with the `model.py` of Triton's Python backend."""
_UNKNOWN_SHA256: Final = "0" * 64


def load(name: str) -> LoadedModel:
    """Make a model's recipe ready; a shipped one is fetched first, if it is not there.

    Raises:
        NotFound: no shipped model has that name.
        IntegrityError, UpstreamError: it cannot be fetched as promised.
    """
    if name in STAND_INS:
        model, _ = STAND_INS[name]
        recipe = text_recipe(model.preprocessing.recipe, _stand_in_assets())
        return LoadedModel(model=model, sha256=_UNKNOWN_SHA256, text=recipe)
    model, locator = _shipped(name)
    return locator.load(model)


def with_golden(loaded: LoadedModel) -> LoadedModel:
    """Give a stand-in that says 1 % to everything a golden question, by which it is found out that it is back."""
    (signal,) = loaded.model.signals
    expected = Expectation(signal=signal.name, value=10_000, tolerance=1_000)
    golden = Golden(input=GoldenInput(text="hello"), expect=(expected,))
    return replace(loaded, model=replace(loaded.model, golden=(golden,)))


def write_repository(name: str, folder: Path) -> None:
    """Write the model for Triton, as `load` describes it."""
    if name not in STAND_INS:
        model, locator = _shipped(name)
        write_shipped(folder, [model], lambda model: locator.locate(model).onnx)
        return
    stand_in, program = STAND_INS[name]
    for path, text in render_model(stand_in, Backend.PYTHON).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(program if file.name == "model.py" else text, encoding="utf-8", newline="")


def write_files(name: str, folder: Path) -> Model:
    """Write for a server that runs the model itself its assets, by their names, and `model.onnx`; return what it is.

    Raises:
        NotFound: it is a stand-in without an ONNX model, or no shipped model has that name.
        IntegrityError, UpstreamError: it cannot be fetched as promised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name not in STAND_INS:
        model, locator = _shipped(name)
        files = locator.locate(model)
        shutil.copyfile(files.onnx, folder / "model.onnx")
        for asset, path in files.assets.items():
            shutil.copyfile(path, folder / asset)
        return model
    if name != ECHO.name:
        raise NotFound(f"stand-in {name} has no ONNX model; {ECHO.name} has")
    for asset, data in _stand_in_assets().items():
        (folder / asset).write_bytes(data)
    _write_echo(folder / "model.onnx")
    return ECHO


def _write_echo(path: Path) -> None:
    """Write what `_ECHO_PY` does."""
    import onnx  # not at the top: servers that are measured import this module, and do not need it
    from onnx import TensorProto, helper, numpy_helper

    constants = {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1]), "part": np.float32(0.01)}
    (given,), (made,) = ECHO.inputs, ECHO.outputs
    nodes = [
        helper.make_node("Slice", [given.name, "from", "to", "axis"], ["first"]),
        helper.make_node("Greater", ["first", "from"], ["some"]),
        helper.make_node("Cast", ["some"], ["one"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["one", "part"], [made.name]),
    ]
    graph = helper.make_graph(
        nodes,
        ECHO.name,
        [helper.make_tensor_value_info(given.name, TensorProto.INT64, [None, *given.dims])],
        [helper.make_tensor_value_info(made.name, TensorProto.FLOAT, [None, *made.dims])],
        initializer=[numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def _stand_in_assets() -> dict[str, bytes]:
    words = sorted({word.strip(".!?") for text in messages() for word in text.lower().split()})
    vocabulary = {
        "word_index": {word: place for place, word in enumerate(words, start=1)},
        "num_words": None,
        "filters": ".!?",
        "lower": True,
    }
    return {"vocab.json": json.dumps(vocabulary).encode()}


def _shipped(name: str) -> tuple[Model, ModelLocator]:
    store = ModelStore()
    (source,) = choose([name], store.catalog)
    model = parse_model(source.entry)
    locator = ModelLocator(store, Path())
    locator.fetch([model], SilentProgress())
    return model, locator
