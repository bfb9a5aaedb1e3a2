"""Every shipped model, on the real server: what it answers is what its ONNX file says, whatever shares its batch."""

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from baleen_core.model.rendering import check_graph, render_config
from baleen_core.model.schema import Backend, DataType, Tensor
from baleen_sidecar.adapters.triton import TritonInference
from triton import locate, make_rows, shipped_models, take_row

pytestmark = pytest.mark.triton

MODELS = pytest.mark.parametrize("model", shipped_models(), ids=lambda model: model.name)
TYPES = {
    "tensor(float)": DataType.FP32,
    "tensor(int64)": DataType.INT64,
    "tensor(int32)": DataType.INT32,
    "tensor(uint8)": DataType.UINT8,
}


@pytest.fixture
async def inference(shared_triton):
    adapter = TritonInference(shared_triton, timeout_seconds=60)
    yield adapter
    await adapter.close()


def open_graph(model):
    return onnxruntime.InferenceSession(str(locate(model)), providers=["CPUExecutionProvider"])


def read_tensors(nodes):
    return [
        Tensor(
            name=node.name,
            data_type=TYPES[node.type],
            dims=tuple(size if isinstance(size, int) else -1 for size in node.shape),
        )
        for node in nodes
    ]


def read_config_tensors(tensors):
    names = {value.number: name for name, value in model_config_pb2.DataType.DESCRIPTOR.values_by_name.items()}
    return tuple(
        Tensor(name=one.name, data_type=DataType(names[one.data_type].removeprefix("TYPE_")), dims=tuple(one.dims))
        for one in tensors
    )


@MODELS
async def test_the_server_answers_what_the_graph_answers(model, inference):
    inputs = make_rows(model, 2)
    answers = await inference.infer(model, inputs)
    expected = open_graph(model).run([tensor.name for tensor in model.outputs], inputs)

    for tensor, own in zip(model.outputs, expected, strict=True):
        np.testing.assert_allclose(answers[tensor.name], own, atol=1e-5, rtol=1e-5)


@MODELS
async def test_a_row_alone_is_answered_as_in_a_batch(model, inference):
    rows = model.batching.max_batch_size
    inputs = make_rows(model, rows, seed=1)
    batch = await inference.infer(model, inputs)

    for row in {0, rows // 2, rows - 1}:
        single = await inference.infer(model, take_row(inputs, row))
        for tensor in model.outputs:
            np.testing.assert_allclose(single[tensor.name][0], batch[tensor.name][row], atol=1e-5, rtol=1e-5)


@MODELS
@pytest.mark.parametrize("backend", list(Backend))
def test_names_types_and_shapes_of_both_forms_fit_the_graph(model, backend):
    graph = open_graph(model)
    config = text_format.Parse(render_config(model, backend), model_config_pb2.ModelConfig())

    assert (read_config_tensors(config.input), read_config_tensors(config.output)) == (model.inputs, model.outputs)
    assert check_graph(model, inputs=read_tensors(graph.get_inputs()), outputs=read_tensors(graph.get_outputs())) == ()
