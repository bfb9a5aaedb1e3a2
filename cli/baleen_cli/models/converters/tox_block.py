"""tox-block: a Keras BiLSTM over 100 words in HDF5, and its vocabulary in a pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from onnx import TensorProto

from baleen_cli.models.converters.graph import Array, Graph
from baleen_cli.models.converters.pickles import Record, read_plain_pickle
from baleen_cli.models.progress import FetchProgress
from baleen_core.errors import ModelError

_WORDS: Final = 100
_LABELS: Final = 6
_UNITS: Final = 50
_CLASSES: Final = ("tox_block.data_processing.preprocessors.TokenSequencer", "keras_preprocessing.text.Tokenizer")


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Write the network, input_ids `[-1,100]` to probabilities `[-1,6]`, and its words as `vocab.json`."""
    files = {Path(path).suffix: file for path, file in inputs.items()}
    with h5py.File(files[".h5"], "r") as saved:
        _write_network(saved["model_weights"], into / "model.onnx")
    with files[".pkl"].open("rb") as pickled:
        vocabulary = read_vocabulary(read_plain_pickle(pickled, _CLASSES))
    text = json.dumps(vocabulary, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    (into / "vocab.json").write_text(text, encoding="utf-8")
    return {}


def read_vocabulary(sequencer: object) -> dict[str, Any]:
    """Take out what Keras's tokenizer needs: words with their numbers below `num_words`, and what separates words.

    Rarer words have numbers too, but the tokenizer drops them, so they are left out here.

    Raises:
        ModelError: the pickle held something else.
    """
    tokenizer = getattr(sequencer, "tokenizer", None)
    if not isinstance(tokenizer, Record):
        raise ModelError("the pickle holds no tokenizer")
    fields = vars(tokenizer)
    try:
        limit = int(fields["num_words"])
        words = {str(word): int(number) for word, number in fields["word_index"].items() if number < limit}
        return {"word_index": words, "num_words": limit, "filters": fields["filters"], "lower": fields["lower"]}
    except KeyError as missing:
        raise ModelError(f"the pickled tokenizer has no {missing}") from missing


def _write_network(saved: Any, path: Path) -> None:
    graph = Graph()
    embedded = graph.node(
        "Gather", graph.weight("embedding", _array(saved, "embedding/embedding/embeddings:0")), "input_ids"
    )
    sequence_first = graph.node("Transpose", embedded, perm=[1, 0, 2])
    directions = [_lstm_weights(saved, direction) for direction in ("forward", "backward")]
    kernels = (np.stack([direction[part] for direction in directions]) for part in range(3))
    weights = [graph.weight(name, kernel) for name, kernel in zip(("W", "R", "B"), kernels, strict=True)]
    states = graph.node(
        "LSTM",
        sequence_first,
        *weights,
        hidden_size=_UNITS,
        direction="bidirectional",
        # Old Keras: the gates' sigmoid is a straight line from -2.5 to 2.5.
        activations=["HardSigmoid", "Tanh", "Tanh"] * 2,
        activation_alpha=[0.2, 0.2],
        activation_beta=[0.5, 0.5],
    )
    highest = graph.node("ReduceMax", states, graph.integers(0), keepdims=0)
    features = graph.node("Flatten", graph.node("Transpose", highest, perm=[1, 0, 2]), axis=1)
    hidden = graph.node("Relu", _dense(graph, saved, "dense", features))
    graph.node("Sigmoid", _dense(graph, saved, "dense_1", hidden), output="probabilities")
    graph.save(
        path,
        "tox-block",
        {"input_ids": ["batch", _WORDS]},
        {"probabilities": ["batch", _LABELS]},
        TensorProto.INT64,
    )


def _dense(graph: Graph, saved: Any, layer: str, source: str) -> str:
    names = (f"{layer}/{layer}/kernel:0", f"{layer}/{layer}/bias:0")
    return graph.node("Gemm", source, *(graph.weight(name, _array(saved, name)) for name in names))


def _lstm_weights(saved: Any, direction: str) -> tuple[Array, Array, Array]:
    layer = f"bidirectional/bidirectional/{direction}_lstm"
    kernel, recurrent, bias = (
        _onnx_gates(_array(saved, f"{layer}/{name}:0")) for name in ("kernel", "recurrent_kernel", "bias")
    )
    # Keras has one bias, ONNX one for each kernel.
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])


def _onnx_gates(columns: Array) -> Array:
    """Reorder the gates: Keras has input, forget, cell, output; ONNX input, output, forget, cell."""
    entry, forget, cell, output = np.split(columns, 4, axis=-1)
    return np.concatenate([entry, output, forget, cell], axis=-1)


def _array(saved: Any, name: str) -> Array:
    if name not in saved:
        raise ModelError(f"the weights hold no {name}")
    return np.asarray(saved[name], np.float32)
