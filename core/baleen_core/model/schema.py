"""A ModelDeployment as typed, frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Backend(StrEnum):
    """Triton's backend: its own ONNX Runtime, or our `model.py` on the Python backend (the wheel has only that)."""

    ONNXRUNTIME = "Onnxruntime"
    PYTHON = "Python"


class SourceType(StrEnum):
    """Where a model's file comes from. `Package`: a package of a language's registry; `File`: local mode only."""

    PACKAGE = "Package"
    FILE = "File"


class DataType(StrEnum):
    """Tensor element types, in Triton's words without `TYPE_`."""

    FP32 = "FP32"
    INT64 = "INT64"
    INT32 = "INT32"
    UINT8 = "UINT8"


class Device(StrEnum):
    """Where an instance of a model runs."""

    CPU = "CPU"
    GPU = "GPU"


class Precision(StrEnum):
    """The arithmetic that TensorRT may use on a GPU; FP32 leaves the model as it is."""

    FP32 = "FP32"
    FP16 = "FP16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output as the ONNX graph names it; `dims` without the batch axis, -1 where they vary."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignal:
    """A number that policies may read: `index` of the last axis of `output`, and the highest over all other axes.

    Without an index, the highest over the whole output. `fallback` is the signal (`<model>.<signal>`) of another model
    that stands in while this one does not answer.
    """

    name: str
    output: str
    index: int | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The model's file: where it is and the SHA-256 (64 hexadecimal digits) of what Triton loads."""

    type: SourceType
    uri: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that a recipe needs beside the content, such as a tokenizer."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A named, versioned recipe of core and the assets that it needs."""

    recipe: str
    assets: tuple[Asset, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How many rows one call may carry, and how long Triton itself waits for more."""

    max_batch_size: int = 8
    max_queue_delay_microseconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many copies of the model a server runs, and on what."""

    count: int = 1
    kind: Device = Device.CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """Threads within an operator, TensorRT's precision and whether its engines are kept."""

    intra_op_threads: int = 1
    precision: Precision = Precision.FP32
    engine_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenInput:
    """A known input: `text` as it stands, or the file `name` among the model's golden files, by its SHA-256."""

    text: str | None = None
    name: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The signal's score must be `value` within `tolerance` (millionths both)."""

    signal: str
    value: int
    tolerance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A known input and the answers to it; a model serves only after it gave them."""

    input: GoldenInput
    expect: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One served model: where it comes from, how content becomes tensors, and which signals its outputs are."""

    name: str
    version: str
    source: Source
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    preprocessing: Preprocessing
    signals: tuple[ModelSignal, ...] = ()
    batching: Batching = field(default_factory=Batching)
    instances: Instances = field(default_factory=Instances)
    optimization: Optimization = field(default_factory=Optimization)
    warmup_iterations: int = 1
    golden: tuple[Golden, ...] = ()
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPUs that each replica gets, by the name under which the nodes offer them."""

    resource: str = "nvidia.com/gpu"
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """The part of a pod that its author may choose: where it runs, with how much, and as whom.

    Mappings without a type of ours are Kubernetes' own shapes, which the API server checks.
    """

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    affinity: Mapping[str, Any] | None = None
    topology_spread_constraints: tuple[Mapping[str, Any], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    service_account_name: str | None = None
    runtime_class_name: str | None = None
    priority_class_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSpec:
    """When a model that fails at a replica is asked there no more, and when it is again.

    Without `slow_call_milliseconds` no answer is too slow, short of the time that a call may take at all.
    """

    failure_threshold: int = 5
    first_probe_milliseconds: int = 1000
    max_open_seconds: int = 60
    success_threshold: int = 2
    slow_call_milliseconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """How failures of the models are met; `retry_budget` is in millionths of the calls of each model."""

    breaker: BreakerSpec = field(default_factory=BreakerSpec)
    retry_budget: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeployment:
    """Models that one Triton runtime serves together.

    `endpoints` are `host:port` of a Triton that someone else runs; all that is said of pods is for one of ours.
    """

    name: str
    namespace: str
    models: tuple[Model, ...]
    backend: Backend = Backend.PYTHON
    image: str | None = None
    endpoints: tuple[str, ...] = ()
    replicas: int = 1
    gpu: Gpu | None = None
    pod_template: PodTemplate = field(default_factory=PodTemplate)
    verify_interval_seconds: int = 30
    resilience: Resilience = field(default_factory=Resilience)
