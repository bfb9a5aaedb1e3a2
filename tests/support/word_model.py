"""A text model that is quick to load and says what a test wants to hear: each word has its score.

It is served like any model of a user's own: an ONNX file and a vocabulary beside it, named by a ModelDeployment.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WORDS: Final[Mapping[str, int]] = {"kind": 1, "rude": 70, "vile": 95}
"""Words with their scores in percent; any other word scores 0."""
NONSENSE: Final = "nonsense"
"""A word that the model answers with NaN."""
SLOW: Final = "sleepy"
"""A word that the model takes most of a second for, at the least."""

_WINDOW: Final = 100
_NONSENSE_ID, _SLOW_ID = 101, 102
_SIDE: Final = 128
_SLOW_ROUNDS: Final = 8_000


def write_word_model(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write the model's files below `folder`, and return the ModelDeployment that serves them.

    Its one signal is `words.score`; `changes` are of the model's entry.
    """
    home = folder / "words"
    home.mkdir(parents=True, exist_ok=True)
    vocabulary = json.dumps(
        {
            "word_index": {**WORDS, NONSENSE: _NONSENSE_ID, SLOW: _SLOW_ID},
            "num_words": None,
            "filters": ".,!?",
            "lower": True,
        }
    ).encode()
    (home / "vocab.json").write_bytes(vocabulary)
    graph = make_graph().SerializeToString()
    (home / "model.onnx").write_bytes(graph)
    entry = {
        "name": "words",
        "version": "1",
        "source": {"type": "File", "uri": "words/model.onnx", "sha256": hashlib.sha256(graph).hexdigest()},
        "inputs": [{"name": "input_ids", "dataType": "INT64", "dims": [_WINDOW]}],
        "outputs": [{"name": "score", "dataType": "FP32", "dims": [1]}],
        "signals": [{"name": "score", "output": "score", "index": 0}],
        "preprocessing": {
            "recipe": "tox-block/1",
            "assets": [{"name": "vocab.json", "sha256": hashlib.sha256(vocabulary).hexdigest()}],
        },
        "golden": [
            {
                "input": {"text": f"a {word} word"},
                "expect": [{"signal": "score", "value": f"{score}%", "tolerance": "0.1%"}],
            }
            for word, score in WORDS.items()
        ],
    }
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "words", "namespace": "trust-safety"},
        "spec": {"runtime": {"backend": "Python"}, "models": [{**entry, **changes}]},
    }


def make_graph() -> onnx.ModelProto:
    """Return the graph: the highest id of each row as percent, NaN for `NONSENSE`, many idle products for `SLOW`."""
    constants = {
        "hundred": np.float32(100),
        "zero": np.float32(0),
        "nonsense": np.float32(_NONSENSE_ID),
        "slow": np.int64(_SLOW_ID),
        "rounds": np.int64(_SLOW_ROUNDS),
        "yes": np.bool_(True),
        "state": np.eye(_SIDE, dtype=np.float32),
        "axis": np.array([1], np.int64),
        "all": np.array([0, 1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMax", ["input_ids", "axis"], ["highest"], keepdims=1),
        helper.make_node("Cast", ["highest"], ["percent"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["percent", "hundred"], ["ratio"]),
        # 0 / 0 where the highest word is the one of nonsense.
        helper.make_node("Sub", ["nonsense", "percent"], ["from_nonsense"]),
        helper.make_node("Div", ["from_nonsense", "from_nonsense"], ["one_or_nan"]),
        helper.make_node("ReduceMax", ["input_ids", "all"], ["highest_of_all"], keepdims=0),
        helper.make_node("Equal", ["highest_of_all", "slow"], ["is_slow"]),
        helper.make_node("Cast", ["is_slow"], ["is_slow_number"], to=TensorProto.INT64),
        helper.make_node("Mul", ["is_slow_number", "rounds"], ["trips"]),
        helper.make_node("Loop", ["trips", "yes", "state"], ["worked"], body=_round()),
        # The work must count for something, or it would be left out.
        helper.make_node("ReduceMax", ["worked", "all"], ["worked_number"], keepdims=0),
        helper.make_node("Mul", ["worked_number", "zero"], ["nothing"]),
        helper.make_node("Mul", ["ratio", "one_or_nan"], ["judged"]),
        helper.make_node("Add", ["judged", "nothing"], ["unbounded"]),
        helper.make_node("Min", ["unbounded", "one"], ["score"]),
    ]
    constants["one"] = np.float32(1)
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", _WINDOW])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    # The versions that every onnxruntime from 1.23 on reads.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _round() -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "state_in"], ["state_out"]),
            helper.make_node("Identity", ["go_on"], ["go_on_too"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [_SIDE, _SIDE]),
        ],
        [
            helper.make_tensor_value_info("go_on_too", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [_SIDE, _SIDE]),
        ],
    )
