"""Models and deployments for tests, as manifests and as typed values."""

from dataclasses import replace
from typing import Any

from baleen_core.model.schema import (
    Batching,
    DataType,
    Model,
    ModelSignal,
    Preprocessing,
    Source,
    SourceType,
    Tensor,
)

IMAGE_MODEL = Model(
    name="image-safety",
    version="3",
    source=Source(type=SourceType.FILE, uri="model.onnx"),
    inputs=(Tensor(name="image", data_type=DataType.FP32, dims=(3, 224, 224)),),
    outputs=(Tensor(name="probabilities", data_type=DataType.FP32, dims=(3,)),),
    preprocessing=Preprocessing(recipe="owen-s/1"),
    signals=(
        ModelSignal(name="gore", output="probabilities", index=0),
        ModelSignal(name="sexual", output="probabilities", index=1),
    ),
    batching=Batching(max_batch_size=4),
)

TEXT_MODEL = replace(
    IMAGE_MODEL,
    name="text-safety",
    version="1",
    inputs=(
        Tensor(name="input_ids", data_type=DataType.INT64, dims=(-1,)),
        Tensor(name="attention_mask", data_type=DataType.INT64, dims=(-1,)),
    ),
    preprocessing=Preprocessing(recipe="me5/1"),
)


def make_entry(**changes: Any) -> dict[str, Any]:
    """Return a model's entry in a manifest; a change to None takes the field out."""
    entry = {
        "name": "image-safety",
        "version": "3",
        "source": {"type": "File", "uri": "models/image-safety.onnx", "sha256": "ab" * 32},
        "inputs": [{"name": "image", "dataType": "FP32", "dims": [3, 224, 224]}],
        "outputs": [{"name": "probabilities", "dataType": "FP32", "dims": [3]}],
        "signals": [
            {"name": "gore", "output": "probabilities", "index": 0},
            {"name": "sexual", "output": "probabilities", "index": 1},
        ],
        "preprocessing": {"recipe": "owen-s/1"},
        "golden": [
            {
                "input": {"name": "red.png", "sha256": "cd" * 32},
                "expect": [{"signal": "sexual", "value": "97.31%", "tolerance": "1%"}],
            }
        ],
    } | changes
    return {key: value for key, value in entry.items() if value is not None}


def make_manifest(*, models: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment's manifest."""
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "models", "namespace": "trust-safety"},
        "spec": {"models": [make_entry()] if models is None else models} | spec,
    }
