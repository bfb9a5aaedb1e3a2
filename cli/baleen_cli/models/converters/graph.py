"""Writing an ONNX graph node by node; the same calls give the same bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = list[int | str]

# What Triton's ONNX Runtime of any recent release reads.
_OPSET = 18
_IR_VERSION = 8


class Graph:
    """Nodes and weights so far; each call returns the name of the value that it adds."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, array: Array) -> str:
        """Add a constant, once for each name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def integers(self, *values: int) -> str:
        """Add a constant list of integers, such as axes or a shape."""
        return self.weight("int_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        """Add a constant FP32 scalar."""
        return self.weight(name, np.array(value, np.float32))

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator with one output."""
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, name: str, inputs: dict[str, Shape], outputs: dict[str, Shape], kind: int) -> None:
        """Check and write the model; inputs have the element type `kind`, outputs are FP32."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, kind, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
            list(self._weights.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="baleen")
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model)
        onnx.save(model, path)
