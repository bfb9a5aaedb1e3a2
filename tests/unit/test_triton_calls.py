"""Tensors are on the wire what Triton's own client makes and reads."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import InferResult, service_pb2

from baleen_core.model.schema import DataType, Tensor
from baleen_core.model.tensors import DTYPES
from baleen_sidecar.adapters.triton_calls import read_output, to_request
from served_models import IMAGE_MODEL


def answer(*outputs):
    found = service_pb2.ModelInferResponse()
    for name, datatype, shape, data in outputs:
        found.outputs.add(name=name, datatype=datatype, shape=shape)
        found.raw_output_contents.append(data)
    return found


def tensors(data_type):
    shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
    return arrays.arrays(DTYPES[data_type], shapes).map(lambda rows: (data_type, rows))


@given(st.sampled_from(DataType).flatmap(tensors), st.booleans())
def test_rows_come_as_they_were_sent_wherever_they_lie_in_memory(given_tensor, is_turned):
    data_type, rows = given_tensor
    rows = rows.T if is_turned else rows
    model = replace(IMAGE_MODEL, inputs=(Tensor(name="rows", data_type=data_type, dims=rows.shape[1:]),))

    request = service_pb2.ModelInferRequest.FromString(to_request(model, {"rows": rows}).SerializeToString())

    assert (request.model_name, request.model_version) == (model.name, model.version)
    (described,), (data,) = request.inputs, request.raw_input_contents
    assert (described.name, described.datatype) == ("rows", data_type.value)
    sent = np.frombuffer(data, DTYPES[data_type]).reshape(tuple(described.shape))
    np.testing.assert_array_equal(sent, rows)


@given(st.sampled_from(DataType).flatmap(tensors))
def test_an_output_is_read_as_tritons_own_client_reads_it(given_tensor):
    data_type, rows = given_tensor
    found = answer(("other", "BYTES", [1], b"...."), ("rows", data_type.value, rows.shape, rows.tobytes()))

    np.testing.assert_array_equal(read_output(found, "rows"), InferResult(found).as_numpy("rows"))
    assert read_output(found, "none") is None


def test_an_input_of_another_type_is_not_sent():
    rows = np.zeros((1, 2), np.int32)
    model = replace(IMAGE_MODEL, inputs=(Tensor(name="rows", data_type=DataType.INT64, dims=(2,)),))

    with pytest.raises(ValueError, match="input 'rows' is int32, not int64"):
        to_request(model, {"rows": rows})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(("rows", "BYTES", [1], b"...."), "output 'rows' is BYTES, not one of FP32, ", id="type"),
        pytest.param(("rows", "FP32", [2], bytes(12)), "cannot reshape", id="more bytes than its shape"),
        pytest.param(("rows", "FP32", [2], bytes(7)), "buffer size must be a multiple", id="half an element"),
        pytest.param(("rows", "FP32", [1 << 40], bytes(8)), "cannot reshape", id="a shape that nobody could hold"),
    ],
)
def test_an_output_that_is_not_what_it_says_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        read_output(answer(output), "rows")


def test_an_output_without_bytes_is_not_there():
    found = service_pb2.ModelInferResponse()
    found.outputs.add(name="rows", datatype="FP32", shape=[1])

    assert read_output(found, "rows") is None
