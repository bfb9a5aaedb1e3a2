"""A model's folder in Triton's repository, as text: `config.pbtxt`, what it needs beside it, and never the weights."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Final

from baleen_core.errors import Problem
from baleen_core.model.python_backend import MODEL_PY, PROVIDERS_PARAMETER, THREADS_PARAMETER
from baleen_core.model.schema import Backend, DataType, Device, Model, Precision, Tensor

MODEL_FILE: Final = "model.onnx"
"""The model's file in its version folder, in both forms."""

SOURCE_FILE: Final = "source.json"
"""Beside a model's rendered text: where its file comes from, for whoever puts it in place."""

ENGINE_CACHE: Final = "/var/cache/baleen/engines"
"""Where a server with GPUs keeps TensorRT's engines; worth a volume, since building one takes minutes."""

_WARMUP_SIZE: Final = 32
"""What a varying dimension is in warm-up inputs: the least that every detector takes (multiples of 32)."""

_TOKEN_WIDTH: Final = {DataType.INT64: 8, DataType.INT32: 4}
"""Bytes of the types that tokens and masks have. They warm up with ones: a mask of zeros has no mean, and a random
token is outside the vocabulary."""

Provider = tuple[str, Mapping[str, str]]


def render_model(model: Model, backend: Backend) -> Mapping[str, str]:
    """Return the text of each file by its path in the repository; `MODEL_FILE` has to be put beside `model.py`."""
    files = {f"{model.name}/config.pbtxt": render_config(model, backend)}
    for tensor in model.inputs:
        if tensor.data_type in _TOKEN_WIDTH:
            files[f"{model.name}/warmup/{_warmup_file(tensor)}"] = _ones(tensor, rows=model.batching.max_batch_size)
    if backend == Backend.PYTHON:
        files[f"{model.name}/{model.version}/model.py"] = MODEL_PY
    return files


def render_source(model: Model) -> str:
    """Write what `SOURCE_FILE` says: version, address and SHA-256 of the model's file."""
    fields = {"version": model.version, "uri": model.source.uri, "sha256": model.source.sha256}
    return json.dumps(fields, indent=2) + "\n"


def render_config(model: Model, backend: Backend) -> str:
    """Write the model's `config.pbtxt` for NVIDIA's ONNX Runtime backend, or for ours on the Python backend."""
    lines = [
        f"name: {_quote(model.name)}",
        f"backend: {_quote(backend.lower())}",
        f"max_batch_size: {model.batching.max_batch_size}",
        f"version_policy {{ specific {{ versions: [ {model.version} ] }} }}",
        *_tensors("input", model.inputs),
        *_tensors("output", model.outputs),
        f"instance_group [ {{ count: {model.instances.count} kind: KIND_{model.instances.kind} }} ]",
        *_batcher(model),
        *_parameters(model, backend),
        *(_accelerator(model) if backend == Backend.ONNXRUNTIME else ()),
        *_warmup(model),
    ]
    return "\n".join(lines) + "\n"


def providers(model: Model) -> tuple[Provider, ...]:
    """Return ONNX Runtime's execution providers for the model, the wanted one first, with the options of each."""
    cpu: Provider = ("CPUExecutionProvider", {})
    if model.instances.kind == Device.CPU:
        return (cpu,)
    cuda: Provider = ("CUDAExecutionProvider", {})
    if not _uses_tensorrt(model):
        return (cuda, cpu)
    options = {"trt_fp16_enable": "1" if model.optimization.precision == Precision.FP16 else "0"}
    return (("TensorrtExecutionProvider", options | _engine_cache(model)), cuda, cpu)


def warmup_bytes(model: Model) -> int:
    """Return how many bytes of warm-up rows `render_model` would return, which grow with every dimension."""
    widths = {tensor: _TOKEN_WIDTH.get(tensor.data_type, 0) for tensor in model.inputs}
    return sum(width * model.batching.max_batch_size * prod(_warmup_dims(each)) for each, width in widths.items())


def check_graph(model: Model, *, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[Problem, ...]:
    """Compare what the model declares with its ONNX graph, whose `dims` begin with the batch axis (-1: any size)."""
    return (
        *_compare(model, "inputs", model.inputs, inputs),
        *_compare(model, "outputs", model.outputs, outputs),
        *_undeclared(model, inputs),
    )


def _batcher(model: Model) -> Iterator[str]:
    # With no delay it waits for nobody, and still joins what is queued already: callers without a batcher profit.
    if model.batching.max_batch_size > 1:
        delay = model.batching.max_queue_delay_microseconds
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}"


def _parameters(model: Model, backend: Backend) -> Iterator[str]:
    yield _parameter(THREADS_PARAMETER, str(model.optimization.intra_op_threads))
    if backend == Backend.PYTHON:
        yield _parameter(PROVIDERS_PARAMETER, json.dumps(providers(model)))
    else:
        yield _parameter("inter_op_thread_count", "1")


def _accelerator(model: Model) -> Iterator[str]:
    if model.instances.kind == Device.GPU and _uses_tensorrt(model):
        options = {"precision_mode": str(model.optimization.precision)} | _engine_cache(model)
        parameters = " ".join(f"parameters {{ key: {_quote(key)} value: {_quote(options[key])} }}" for key in options)
        accelerator = f'gpu_execution_accelerator [ {{ name: "tensorrt" {parameters} }} ]'
        yield f"optimization {{ execution_accelerators {{ {accelerator} }} }}"


def _warmup(model: Model) -> Iterator[str]:
    """Every instance answers one row and a full batch before Triton calls the model ready."""
    if model.warmup_iterations == 0:
        return
    inputs = "\n".join(f"    {_warmup_input(tensor)}" for tensor in model.inputs)
    for rows, name in {1: "one row", model.batching.max_batch_size: "full batch"}.items():
        head = f"name: {_quote(name)} batch_size: {rows} count: {model.warmup_iterations}"
        yield f"model_warmup [ {{ {head}\n{inputs}\n}} ]"


def _warmup_input(tensor: Tensor) -> str:
    dims = ", ".join(map(str, _warmup_dims(tensor)))
    data = f"input_data_file: {_quote(_warmup_file(tensor))}" if tensor.data_type in _TOKEN_WIDTH else "zero_data: true"
    value = f"data_type: TYPE_{tensor.data_type} dims: [ {dims} ] {data}"
    return f"inputs {{ key: {_quote(tensor.name)} value: {{ {value} }} }}"


def _warmup_file(tensor: Tensor) -> str:
    return f"ones-{tensor.data_type.lower()}-{'x'.join(map(str, _warmup_dims(tensor)))}"


def _warmup_dims(tensor: Tensor) -> list[int]:
    return [_WARMUP_SIZE if size == -1 else size for size in tensor.dims]


def _ones(tensor: Tensor, *, rows: int) -> str:
    """Return little-endian integers, each of them 1: Triton reads a warm-up file as raw bytes."""
    one = "\x01" + "\x00" * (_TOKEN_WIDTH[tensor.data_type] - 1)
    return one * (rows * prod(_warmup_dims(tensor)))


def _tensors(what: str, tensors: Sequence[Tensor]) -> Iterator[str]:
    for tensor in tensors:
        dims = ", ".join(map(str, tensor.dims))
        yield f"{what} [ {{ name: {_quote(tensor.name)} data_type: TYPE_{tensor.data_type} dims: [ {dims} ] }} ]"


def _uses_tensorrt(model: Model) -> bool:
    return model.optimization.precision == Precision.FP16 or model.optimization.engine_cache


def _engine_cache(model: Model) -> dict[str, str]:
    if not model.optimization.engine_cache:
        return {}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": f"{ENGINE_CACHE}/{model.name}/{model.version}",
    }


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quote(key)} value: {{ string_value: {_quote(value)} }} }}"


def _quote(text: str) -> str:
    """Quote for protobuf's text format, which knows JSON's escapes of quotes and backslashes."""
    return json.dumps(text, ensure_ascii=False)


def _compare(model: Model, field: str, declared: Sequence[Tensor], graph: Sequence[Tensor]) -> Iterator[Problem]:
    found = {tensor.name: tensor for tensor in graph}
    for index, tensor in enumerate(declared):
        path = f"models[{model.name}].{field}[{index}]"
        if tensor.name not in found:
            names = ", ".join(found) or "none"
            yield Problem(field=f"{path}.name", message=f"the graph has no {tensor.name!r}; its {field} are {names}")
        else:
            yield from _compare_tensor(path, tensor, found[tensor.name], batched=model.batching.max_batch_size > 1)


def _compare_tensor(path: str, declared: Tensor, graph: Tensor, *, batched: bool) -> Iterator[Problem]:
    if declared.data_type != graph.data_type:
        yield Problem(field=f"{path}.dataType", message=f"is {declared.data_type}; the graph has {graph.data_type}")
    rows, *sizes = graph.dims or (0,)
    if batched and rows != -1:
        message = f"the graph's batch axis is fixed at {rows}, so maxBatchSize must be 1"
        yield Problem(field=f"{path}.dims", message=message)
    same_rank = len(sizes) == len(declared.dims)
    # A fixed size may narrow what the graph leaves open, never the other way round.
    if not same_rank or any(real not in (-1, said) for said, real in zip(declared.dims, sizes, strict=True)):
        yield Problem(field=f"{path}.dims", message=f"is {list(declared.dims)}; without batch the graph has {sizes}")


def _undeclared(model: Model, graph: Sequence[Tensor]) -> Iterator[Problem]:
    declared = {tensor.name for tensor in model.inputs}
    for tensor in graph:
        if tensor.name not in declared:
            message = f"the graph wants an input {tensor.name!r} that is not declared"
            yield Problem(field=f"models[{model.name}].inputs", message=message)
