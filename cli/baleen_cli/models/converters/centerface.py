"""CenterFace: free the frozen shapes, and drop the initializers from the graph's inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx.tools.update_model_dims import update_inputs_outputs_dims

from baleen_cli.models.progress import FetchProgress

_OUTPUT_CHANNELS = {"537": 1, "538": 2, "539": 2, "540": 10}


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Make batch, height and width free, and leave `input.1` as the only input.

    The exporter listed all 194 weights as inputs: a server would ask its callers for them, and nothing could be folded
    (93 against 52 ms a picture of 640x480).
    """
    (source,) = inputs.values()
    model = onnx.load(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    # The helper wants the shape of every input, the weights among them, which keep theirs.
    shapes: dict[str, list[int | str]] = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input
    }
    shapes["input.1"] = ["B", 3, "H", "W"]
    outputs = {name: ["B", channels, "h", "w"] for name, channels in _OUTPUT_CHANNELS.items()}
    model = update_inputs_outputs_dims(model, shapes, outputs)
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, into / "model.onnx")
    return {}
