"""Let a graph take pictures as they are decoded: UINT8, channels last, RGB; scaling and order are its first nodes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from baleen_cli.models.catalog import Channels, Layout, Levels
from baleen_core.errors import ModelError

_SPACE = "levels"
"""Before the names of what is put in front, so that none is a name of the graph's own."""


def take_levels(path: Path, levels: Levels) -> None:
    """Rewrite an ONNX file in place: its one FP32 input becomes UINT8 `[batch, height, width, 3]` of the same name.

    What follows sees the numbers that it saw before: whole levels are exact in FP32, and so is a mean of whole numbers
    taken off them.

    Raises:
        ModelError: the graph has not one FP32 input of three channels in the layout that `levels` names.
    """
    model = onnx.load(path)
    graph = model.graph
    if len(graph.input) != 1 or graph.input[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelError(f"only a graph with one FP32 input can take levels; it has {_described(graph.input)}")
    (taken,) = graph.input
    dims = list(taken.type.tensor_type.shape.dim)
    channel = 1 if levels.layout is Layout.NCHW else 3
    if len(dims) != 4 or dims[channel].dim_value != 3:
        raise ModelError(f"the graph is not {levels.layout} with 3 channels; it has {_described(graph.input)}")
    nodes = list(_front(taken.name, f"{_SPACE}/floats", levels))
    for node in graph.node:
        node.input[:] = [f"{_SPACE}/floats" if name == taken.name else name for name in node.input]
    batch, *sides = (_size(dim) for axis, dim in enumerate(dims) if axis != channel)
    graph.input[0].CopyFrom(helper.make_tensor_value_info(taken.name, TensorProto.UINT8, [batch, *sides, 3]))
    behind = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *behind])
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _front(name: str, into: str, levels: Levels) -> Iterator[onnx.NodeProto]:
    """Order comes before the type, since bytes are moved faster than floats, and planes faster than single bytes."""
    reorders = levels.channels is Channels.BGR
    planes = levels.layout is Layout.NCHW
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if planes or reorders:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if reorders:
        yield _constant("order", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", [f"{_SPACE}/order"], {"axis": 1}))
    if reorders and not planes:
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if any(levels.mean):
        # As nodes, not initializers: those must be inputs too in the oldest graphs.
        yield _constant("mean", np.array(levels.mean, np.float32).reshape((3, 1, 1) if planes else (3,)))
        steps.append(("Sub", [f"{_SPACE}/mean"], {}))
    for number, (operator, others, attributes) in enumerate(steps, start=1):
        output = into if number == len(steps) else f"{_SPACE}/{operator.lower()}_{number}"
        yield helper.make_node(operator, [name, *others], [output], **attributes)
        name = output


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [f"{_SPACE}/{name}"], value=numpy_helper.from_array(array))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    return dim.dim_param or dim.dim_value


def _described(inputs: object) -> str:
    found = [helper.printable_value_info(value) for value in inputs]  # type: ignore[attr-defined]
    return ", ".join(found) or "none"
