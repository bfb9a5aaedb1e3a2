"""clp_det: say the shapes of its outputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx.tools.update_model_dims import update_inputs_outputs_dims

from baleen_cli.models.progress import FetchProgress


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Declare loc `[B,N,4]`, conf `[B,N,2]` and landms `[B,N,8]`, N priors a picture.

    The graph itself handles batches (its reshapes take the batch from the input), but the exporter left all three axes
    of each output nameless, so that a server could check nothing.
    """
    (source,) = inputs.values()
    outputs = {"loc": ["B", "N", 4], "conf": ["B", "N", 2], "landms": ["B", "N", 8]}
    model = onnx.load(source)
    for value in model.graph.output:
        del value.type.tensor_type.shape.dim[:]
        for _ in outputs[value.name]:
            value.type.tensor_type.shape.dim.add()
    model = update_inputs_outputs_dims(model, {"image": ["B", 3, "H", "W"]}, outputs)
    onnx.checker.check_model(model)
    onnx.save(model, into / "model.onnx")
    return {}
