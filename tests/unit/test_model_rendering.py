"""What is rendered for Triton says what the model says, in both forms."""

import json
from dataclasses import replace

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from baleen_core.model.rendering import check_graph, providers, render_config, render_model
from baleen_core.model.schema import Backend, Batching, DataType, Device, Instances, Optimization, Precision, Tensor
from served_models import IMAGE_MODEL, TEXT_MODEL

GPU_MODEL = replace(
    IMAGE_MODEL,
    instances=Instances(count=2, kind=Device.GPU),
    optimization=Optimization(intra_op_threads=4, precision=Precision.FP16, engine_cache=True),
)
BOTH_FORMS = pytest.mark.parametrize("backend", list(Backend))


def config_of(model, backend):
    """Read a rendered config with Triton's own schema."""
    return text_format.Parse(render_config(model, backend), model_config_pb2.ModelConfig())


@BOTH_FORMS
def test_the_config_declares_every_tensor_by_name_type_and_shape(backend):
    config = config_of(TEXT_MODEL, backend)

    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
        ("input_ids", model_config_pb2.TYPE_INT64, [-1]),
        ("attention_mask", model_config_pb2.TYPE_INT64, [-1]),
    ]
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
        ("probabilities", model_config_pb2.TYPE_FP32, [3])
    ]


@pytest.mark.parametrize(("backend", "name"), [(Backend.PYTHON, "python"), (Backend.ONNXRUNTIME, "onnxruntime")])
def test_the_config_names_triton_s_backend_version_threads_and_instances(backend, name):
    config = config_of(replace(GPU_MODEL, version="42"), backend)

    assert (config.name, config.backend, config.max_batch_size) == ("image-safety", name, 4)
    assert list(config.version_policy.specific.versions) == [42]
    assert config.parameters["intra_op_thread_count"].string_value == "4"
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (2, model_config_pb2.ModelInstanceGroup.KIND_GPU)
    ]


@BOTH_FORMS
@pytest.mark.parametrize(
    ("batching", "delay"),
    [
        pytest.param(Batching(max_batch_size=8), 0, id="joins what is queued without waiting"),
        pytest.param(Batching(max_batch_size=8, max_queue_delay_microseconds=500), 500, id="waits for more"),
        pytest.param(Batching(max_batch_size=1), None, id="one row cannot be joined"),
    ],
)
def test_triton_batches_what_it_may(backend, batching, delay):
    config = config_of(replace(IMAGE_MODEL, batching=batching), backend)

    assert config.HasField("dynamic_batching") == (delay is not None)
    assert config.dynamic_batching.max_queue_delay_microseconds == (delay or 0)


def test_a_python_model_says_its_providers_and_brings_its_code():
    config = config_of(GPU_MODEL, Backend.PYTHON)
    rendered = render_model(GPU_MODEL, Backend.PYTHON)

    assert json.loads(config.parameters["providers"].string_value) == [list(one) for one in providers(GPU_MODEL)]
    assert sorted(rendered) == ["image-safety/3/model.py", "image-safety/config.pbtxt"]
    # It reads its environment once, when it is imported.
    code = rendered["image-safety/3/model.py"]
    assert code.index('os.environ["ORT_DISABLE_TELEMETRY"] = "1"') < code.index("import onnxruntime")


def test_an_onnxruntime_model_on_a_gpu_uses_tensorrt_with_half_precision_and_kept_engines():
    (accelerator,) = config_of(
        GPU_MODEL, Backend.ONNXRUNTIME
    ).optimization.execution_accelerators.gpu_execution_accelerator

    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP16",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/var/cache/baleen/engines/image-safety/3",
    }


@pytest.mark.parametrize(
    ("instances", "optimization", "names"),
    [
        pytest.param(Instances(), Optimization(), ["CPUExecutionProvider"], id="CPU"),
        pytest.param(
            Instances(kind=Device.GPU),
            Optimization(),
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            id="GPU as it is",
        ),
        pytest.param(
            Instances(kind=Device.GPU),
            Optimization(precision=Precision.FP16),
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            id="GPU with TensorRT",
        ),
    ],
)
def test_providers_follow_device_and_precision(instances, optimization, names):
    model = replace(IMAGE_MODEL, instances=instances, optimization=optimization)

    assert [name for name, _ in providers(model)] == names


@BOTH_FORMS
def test_every_instance_warms_up_with_one_row_and_a_full_batch(backend):
    config = config_of(replace(IMAGE_MODEL, warmup_iterations=3), backend)

    assert [(warmup.batch_size, warmup.count) for warmup in config.model_warmup] == [(1, 3), (4, 3)]
    assert all(warmup.inputs["image"].zero_data for warmup in config.model_warmup)
    assert not config_of(replace(IMAGE_MODEL, warmup_iterations=0), backend).model_warmup


def test_tokens_and_masks_warm_up_with_ones_since_an_empty_mask_has_no_mean():
    config = config_of(TEXT_MODEL, Backend.PYTHON)
    warmup = config.model_warmup[1].inputs["attention_mask"]
    data = render_model(TEXT_MODEL, Backend.PYTHON)[f"text-safety/warmup/{warmup.input_data_file}"]

    assert list(warmup.dims) == [32]
    assert data.encode() == (1).to_bytes(8, "little") * 32 * 4


@BOTH_FORMS
def test_names_with_quotes_and_colons_stay_what_they_are(backend):
    odd = Tensor(name='input:0"', data_type=DataType.FP32, dims=(1,))

    assert config_of(replace(IMAGE_MODEL, inputs=(odd,)), backend).input[0].name == 'input:0"'


GRAPH_INPUT = Tensor(name="image", data_type=DataType.FP32, dims=(-1, 3, 224, 224))
GRAPH_OUTPUT = Tensor(name="probabilities", data_type=DataType.FP32, dims=(-1, 3))


def test_a_model_that_says_what_its_graph_says_is_right():
    assert check_graph(IMAGE_MODEL, inputs=[GRAPH_INPUT], outputs=[GRAPH_OUTPUT]) == ()


def test_a_model_may_be_narrower_than_its_graph():
    open_input = replace(GRAPH_INPUT, dims=(-1, 3, -1, -1))

    assert check_graph(IMAGE_MODEL, inputs=[open_input], outputs=[GRAPH_OUTPUT]) == ()


@pytest.mark.parametrize(
    ("inputs", "outputs", "field", "says"),
    [
        pytest.param(
            [replace(GRAPH_INPUT, name="x")], [GRAPH_OUTPUT], "inputs[0].name", "its inputs are x", id="another name"
        ),
        pytest.param(
            [replace(GRAPH_INPUT, data_type=DataType.UINT8)],
            [GRAPH_OUTPUT],
            "inputs[0].dataType",
            "the graph has UINT8",
            id="another type",
        ),
        pytest.param(
            [replace(GRAPH_INPUT, dims=(-1, 224, 224, 3))],
            [GRAPH_OUTPUT],
            "inputs[0].dims",
            "the graph has [224, 224, 3]",
            id="another layout",
        ),
        pytest.param(
            [GRAPH_INPUT],
            [replace(GRAPH_OUTPUT, dims=(-1,))],
            "outputs[0].dims",
            "is [3]; without batch the graph has []",
            id="another rank",
        ),
        pytest.param(
            [replace(GRAPH_INPUT, dims=(10, 3, 224, 224))],
            [GRAPH_OUTPUT],
            "inputs[0].dims",
            "fixed at 10",
            id="a frozen batch axis",
        ),
        pytest.param(
            [GRAPH_INPUT, replace(GRAPH_INPUT, name="weight")],
            [GRAPH_OUTPUT],
            "inputs",
            "'weight' that is not declared",
            id="an input more",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_graph_is_told_where(inputs, outputs, field, says):
    problems = check_graph(IMAGE_MODEL, inputs=inputs, outputs=outputs)

    assert any(one.field == f"models[image-safety].{field}" and says in one.message for one in problems), problems
