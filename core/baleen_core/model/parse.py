"""From a ModelDeployment as YAML gives it to a typed one, or everything that is wrong with it at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from baleen_core.errors import ModelError, Problem
from baleen_core.model.fallback import find_fallback_faults
from baleen_core.model.recipes import RecipeInfo, find_recipe
from baleen_core.model.schema import (
    Asset,
    Backend,
    Batching,
    BreakerSpec,
    DataType,
    Device,
    Expectation,
    Golden,
    GoldenInput,
    Gpu,
    Instances,
    Model,
    ModelDeployment,
    ModelSignal,
    Optimization,
    PodTemplate,
    Precision,
    Preprocessing,
    Resilience,
    Source,
    SourceType,
    Tensor,
)
from baleen_core.policy.schema import API_VERSION
from baleen_core.reading import (
    Reader,
    boolean,
    integer,
    name,
    one_of,
    pattern,
    ratio,
    report_duplicates,
    show,
    signal_name,
    text,
    unknown_name,
)

KIND: Final = "ModelDeployment"

MAX_MODELS: Final = 32
MAX_TENSORS: Final = 16
MAX_DIMS: Final = 8
MAX_SIGNALS: Final = 64
MAX_ASSETS: Final = 16
MAX_GOLDEN: Final = 32
MAX_ENDPOINTS: Final = 64
MAX_MEMORY_BYTES: Final = 1 << 40
MAX_REPLICAS: Final = 1000
MAX_GPUS: Final = 64
MAX_BREAKER_CALLS: Final = 1000
MAX_BREAKER_MILLISECONDS: Final = 3_600_000
MAX_OPEN_SECONDS: Final = 365 * 86_400
MAX_POD_LIST: Final = 16
"""Entries of each list and mapping of a pod template."""
MAX_POD_VALUES: Final = 512
"""Values within one toleration, affinity or spread constraint."""

_LATER: Final = ("autoscaling", "rollout", "drain", "retraining")
_POD_FIELDS: Final = ("podTemplate", "gpu")
_LATER_SOURCES: Final = ("PVC", "OCI", "S3", "HTTP")
_QUANTITY = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi|Ti|k|M|G|T)?", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,3})?m?", re.ASCII)
_MAX_SHAPE_DEPTH: Final = 16
_UNITS: Final[Mapping[str | None, int]] = {
    None: 1,
    **{unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
    **{unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
}

_sha256 = pattern(r"[0-9a-f]{64}", "a SHA-256: 64 lower-case hexadecimal digits", max_length=64)
_file_name = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a plain file name", max_length=64)
_tensor_name = pattern(r"[A-Za-z0-9_./:-]+", "a tensor's name: letters, digits and _ . / : -", max_length=128)
# Triton names the folder of a version by its number.
_version = pattern(r"[1-9][0-9]{0,8}", 'a version of Triton: a quoted whole number such as "3"', max_length=9)
_dns_name = pattern(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "a resource's name; use lower-case letters, digits, '-' and '.'",
    max_length=253,
)
_fallback = pattern(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.[a-z][a-z0-9_]{0,62}",
    "a signal of another model, such as open-nsfw.unsafe",
    max_length=127,
)
_label_key = pattern(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    "a label's key, such as kubernetes.io/arch",
    max_length=317,
)
_label_value = pattern(
    r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?",
    "a label's value; use letters, digits, '-', '_' and '.'",
    max_length=63,
    min_length=0,
)
_extended_resource = pattern(
    r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    "a resource that nodes offer, such as nvidia.com/gpu",
    max_length=317,
)
_image = pattern(
    r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]*", "an image's reference, such as registry.example/triton:25.08", max_length=512
)
_endpoint = pattern(r"[A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}", "host:port of a Triton", max_length=260)

_shape_text = text(min_length=0, max_length=512)

T = TypeVar("T")


def parse_model_deployment(manifest: Mapping[str, Any]) -> ModelDeployment:
    """Read a ModelDeployment from its whole manifest.

    Raises:
        ModelError: lists every problem, each with its field's path and what would be right.
    """
    problems: list[Problem] = []
    top = Reader(manifest, "", problems)
    top.required("apiVersion", _exactly(API_VERSION), API_VERSION)
    top.required("kind", _exactly(KIND), KIND)
    top.has("status")
    metadata = top.mapping("metadata", required=True)
    spec = top.mapping("spec", required=True)
    top.done()
    deployment = _read_spec(
        spec,
        deployment_name=metadata.required("name", name, ""),
        namespace=metadata.optional("namespace", name, "default"),
    )
    if problems:
        raise ModelError(problems)
    return deployment


def parse_model(entry: Mapping[str, Any]) -> Model:
    """Read one entry of `spec.models`, such as a shipped model's.

    Raises:
        ModelError: lists every problem.
    """
    problems: list[Problem] = []
    model = _read_model(Reader(entry, "", problems))
    if problems:
        raise ModelError(problems)
    return model


def memory_bytes(value: object) -> int:
    """Read a Kubernetes quantity of memory, such as `900Mi` or a number of bytes.

    Raises:
        ValueError: says what was found and what would be right.
    """
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if not match:
        raise ValueError(f"{show(value)} is not an amount of memory; write one such as 900Mi or 2Gi")
    amount = int(match[1]) * _UNITS[match[2]]
    if not 0 < amount <= MAX_MEMORY_BYTES:
        raise ValueError(f"{show(value)} is out of range; give an amount above 0 and up to 1Ti")
    return amount


def _read_spec(spec: Reader, *, deployment_name: str, namespace: str) -> ModelDeployment:
    for field in _LATER:
        _refuse_for_now(spec, field)
    runtime = spec.mapping("runtime")
    readers = _some(spec, "models", limit=MAX_MODELS)
    models = tuple(_read_model(reader) for reader in readers)
    report_duplicates(readers, [model.name for model in models], "name")
    _check_fallbacks(readers, models)
    pod_template = spec.mapping("podTemplate")
    deployment = ModelDeployment(
        name=deployment_name,
        namespace=namespace,
        models=models,
        backend=runtime.optional("backend", one_of(Backend), Backend.PYTHON),
        image=runtime.optional("image", _image, None),
        endpoints=_read_endpoints(spec, runtime),
        replicas=spec.optional("replicas", integer(0, MAX_REPLICAS), 1),
        gpu=_read_gpu(spec.mapping("gpu")) if spec.has("gpu") else None,
        pod_template=_read_pod_template(pod_template),
        verify_interval_seconds=spec.optional("verifyIntervalSeconds", integer(5, 3600), 30),
        resilience=_read_resilience(spec.mapping("resilience")),
    )
    _check_memory(pod_template, deployment)
    for reader in (runtime, spec):
        reader.done()
    return deployment


def _check_fallbacks(readers: Sequence[Reader], models: Sequence[Model]) -> None:
    places = {model.name: reader for model, reader in zip(models, readers, strict=True)}
    for fault in find_fallback_faults(models):
        places[fault.model].mappings("signals", limit=MAX_SIGNALS)[fault.index].report("fallback", fault.message)


def _read_endpoints(spec: Reader, runtime: Reader) -> tuple[str, ...]:
    if not runtime.has("external"):
        return ()
    for field in ("image", "backend"):
        runtime.refuse(field, "belongs to a Triton that Baleen runs; it cannot stand beside external")
    for field in _POD_FIELDS:
        spec.refuse(field, "belongs to a Triton that Baleen runs; it cannot stand beside runtime.external")
    external = runtime.mapping("external")
    endpoints = external.values("endpoints", _endpoint, limit=MAX_ENDPOINTS)
    if not endpoints:
        external.report("endpoints", "must name at least one host:port")
    if len(set(endpoints)) < len(endpoints):
        external.report("endpoints", "names an endpoint twice; each must be there once")
    external.done()
    return endpoints


def _read_resilience(reader: Reader) -> Resilience:
    usual = Resilience()
    breaker = reader.mapping("breaker")
    calls, milliseconds = integer(1, MAX_BREAKER_CALLS), integer(1, MAX_BREAKER_MILLISECONDS)
    resilience = Resilience(
        breaker=BreakerSpec(
            failure_threshold=breaker.optional("failureThreshold", calls, usual.breaker.failure_threshold),
            first_probe_milliseconds=breaker.optional(
                "firstProbeMilliseconds", milliseconds, usual.breaker.first_probe_milliseconds
            ),
            max_open_seconds=breaker.optional(
                "maxOpenSeconds", integer(1, MAX_OPEN_SECONDS), usual.breaker.max_open_seconds
            ),
            success_threshold=breaker.optional("successThreshold", calls, usual.breaker.success_threshold),
            slow_call_milliseconds=breaker.optional("slowCallMilliseconds", milliseconds, None),
        ),
        retry_budget=reader.optional("retryBudget", ratio, usual.retry_budget),
    )
    for one in (breaker, reader):
        one.done()
    return resilience


def _read_gpu(reader: Reader) -> Gpu:
    gpu = Gpu(
        resource=reader.optional("resource", _extended_resource, "nvidia.com/gpu"),
        count=reader.optional("count", integer(1, MAX_GPUS), 1),
    )
    reader.done()
    return gpu


def _read_pod_template(reader: Reader) -> PodTemplate:
    _refuse_for_now(reader, "volumes")
    resources = reader.mapping("resources")
    secrets = reader.mappings("imagePullSecrets", limit=MAX_POD_LIST)
    template = PodTemplate(
        requests=_read_amounts(resources.mapping("requests")),
        limits=_read_amounts(resources.mapping("limits")),
        node_selector=reader.entries("nodeSelector", _label_key, _label_value, limit=MAX_POD_LIST),
        tolerations=reader.values("tolerations", _shape, limit=MAX_POD_LIST),
        affinity=reader.optional("affinity", _shape, None),
        topology_spread_constraints=reader.values("topologySpreadConstraints", _shape, limit=MAX_POD_LIST),
        image_pull_secrets=tuple(_only(secret, "name", _dns_name, "", required=True) for secret in secrets),
        service_account_name=reader.optional("serviceAccountName", _dns_name, None),
        runtime_class_name=reader.optional("runtimeClassName", _dns_name, None),
        priority_class_name=reader.optional("priorityClassName", _dns_name, None),
    )
    for one in (resources, reader):
        one.done()
    return template


def _read_amounts(reader: Reader) -> dict[str, str]:
    found = {
        "cpu": reader.optional("cpu", _amount, None),
        "memory": reader.optional("memory", _memory_amount, None),
        "ephemeral-storage": reader.optional("ephemeral-storage", _memory_amount, None),
    }
    reader.done()
    return {resource: amount for resource, amount in found.items() if amount is not None}


def _memory_amount(value: object) -> str:
    memory_bytes(value)
    return str(value)


def _amount(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not _AMOUNT.fullmatch(str(value)):
        raise ValueError(f"{show(value)} is not an amount; write one such as 2, 500m, or 0.5 in quotes")
    return str(value)


def _shape(value: object) -> Mapping[str, Any]:
    """Read one of Kubernetes' own shapes: plain, and small enough to be passed on."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{show(value)} is not a mapping of fields")
    left = MAX_POD_VALUES

    def copy(part: object, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _MAX_SHAPE_DEPTH:
            raise ValueError(f"has more than {MAX_POD_VALUES} values, or is nested deeper than {_MAX_SHAPE_DEPTH}")
        match part:
            case Mapping():
                return {_shape_text(key): copy(inner, depth + 1) for key, inner in part.items()}
            case list() | tuple():
                return [copy(inner, depth + 1) for inner in part]
            case bool() | None:
                return part
            case int():
                return integer(-(2**31), 2**31 - 1)(part)
            case _:
                return _shape_text(part)

    copied: Mapping[str, Any] = copy(value, 0)
    return copied


def _check_memory(pod_template: Reader, deployment: ModelDeployment) -> None:
    """What the models need must fit what a pod may have, or the kernel ends the server in the middle of its work."""
    try:
        limit = memory_bytes(deployment.pod_template.limits["memory"])
    except (KeyError, ValueError):
        return
    needed = sum(model.memory_bytes or 0 for model in deployment.models)
    if needed > limit:
        parts = " + ".join(f"{m.name} {_mebibytes(m.memory_bytes)}" for m in deployment.models if m.memory_bytes)
        pod_template.mapping("resources").mapping("limits").report(
            "memory", f"is {_mebibytes(limit)}; the models need {_mebibytes(needed)} together ({parts})"
        )


def _mebibytes(amount: int) -> str:
    return f"{amount / 2**20:g}Mi" if amount % 2**20 == 0 else f"{amount / 2**20:.1f}Mi"


def _read_model(reader: Reader) -> Model:
    outputs = _read_tensors(reader, "outputs")
    signals = _read_signals(reader, outputs)
    preprocessing = _read_preprocessing(reader.mapping("preprocessing", required=True))
    recipe = find_recipe(preprocessing.recipe) if preprocessing.recipe else None
    model = Model(
        name=reader.required("name", name, ""),
        version=reader.required("version", _version, "1"),
        source=_read_source(reader.mapping("source", required=True)),
        inputs=_read_tensors(reader, "inputs"),
        outputs=outputs,
        preprocessing=preprocessing,
        signals=signals,
        batching=_read_batching(reader.mapping("batching")),
        instances=_read_instances(reader.mapping("instances")),
        optimization=_read_optimization(reader.mapping("optimization")),
        warmup_iterations=_only(reader.mapping("warmup"), "iterations", integer(0, 100), 1),
        golden=_read_golden(reader, signals, recipe),
        memory_bytes=reader.optional("memory", memory_bytes, None),
    )
    if recipe:
        _check_recipe(reader, model, recipe)
    _check_device(reader, model)
    reader.done()
    return model


def _read_source(reader: Reader) -> Source:
    _refuse_for_now(reader, "credentialsSecretRef")
    source = Source(
        type=reader.required("type", _source_type, SourceType.PACKAGE),
        uri=reader.required("uri", text(max_length=512), ""),
        sha256=reader.optional("sha256", _sha256, None),
    )
    reader.done()
    return source


def _source_type(value: object) -> SourceType:
    if value in _LATER_SOURCES:
        raise ValueError(f"NotYetSupported: {show(value)}; for now a source is one of {', '.join(SourceType)}")
    return one_of(SourceType)(value)


def _read_tensors(reader: Reader, key: str) -> tuple[Tensor, ...]:
    readers = _some(reader, key, limit=MAX_TENSORS)
    tensors = tuple(_read_tensor(tensor) for tensor in readers)
    report_duplicates(readers, [tensor.name for tensor in tensors], "name")
    return tensors


def _read_tensor(reader: Reader) -> Tensor:
    tensor = Tensor(
        name=reader.required("name", _tensor_name, ""),
        data_type=reader.required("dataType", one_of(DataType), DataType.FP32),
        dims=reader.values("dims", _dim, limit=MAX_DIMS),
    )
    if not tensor.dims and reader.is_mapping:
        reader.report("dims", "must list the size of each axis after the batch axis, -1 where it varies")
    reader.done()
    return tensor


def _dim(value: object) -> int:
    try:
        return -1 if value == -1 else integer(1, 65536)(value)
    except ValueError as wrong:
        raise ValueError(f"{wrong}, or -1 where the size varies") from wrong


def _read_signals(reader: Reader, outputs: Sequence[Tensor]) -> tuple[ModelSignal, ...]:
    readers = reader.mappings("signals", limit=MAX_SIGNALS)
    signals = tuple(_read_signal(signal, outputs) for signal in readers)
    report_duplicates(readers, [signal.name for signal in signals], "name")
    return signals


def _read_signal(reader: Reader, outputs: Sequence[Tensor]) -> ModelSignal:
    signal = ModelSignal(
        name=reader.required("name", signal_name, ""),
        output=reader.required("output", _tensor_name, ""),
        index=reader.optional("index", integer(0, 65535), None),
        fallback=reader.optional("fallback", _fallback, None),
    )
    sizes = {tensor.name: tensor.dims[-1] for tensor in outputs if tensor.dims}
    if signal.output and signal.output not in sizes:
        reader.report("output", unknown_name(signal.output, sizes, "output"))
    elif signal.index is not None and 0 < sizes.get(signal.output, 0) <= signal.index:
        size = sizes[signal.output]
        reader.report("index", f"{signal.index} is beyond {signal.output!r}; its indices are 0 to {size - 1}")
    reader.done()
    return signal


def _read_preprocessing(reader: Reader) -> Preprocessing:
    readers = reader.mappings("assets", limit=MAX_ASSETS)
    assets = tuple(_read_asset(asset) for asset in readers)
    report_duplicates(readers, [asset.name for asset in assets], "name")
    preprocessing = Preprocessing(recipe=reader.required("recipe", _recipe, ""), assets=assets)
    reader.done()
    return preprocessing


def _read_asset(reader: Reader) -> Asset:
    asset = Asset(name=reader.required("name", _file_name, ""), sha256=reader.required("sha256", _sha256, ""))
    reader.done()
    return asset


def _recipe(value: object) -> str:
    try:
        return find_recipe(text(max_length=64)(value)).name
    except ModelError as unknown:
        raise ValueError(str(unknown)) from unknown


def _read_batching(reader: Reader) -> Batching:
    _refuse_for_now(reader, "priorityLevels")
    batching = Batching(
        max_batch_size=reader.optional("maxBatchSize", integer(1, 128), 8),
        max_queue_delay_microseconds=reader.optional("maxQueueDelayMicroseconds", integer(0, 1_000_000), 0),
    )
    if batching.max_batch_size == 1 and batching.max_queue_delay_microseconds > 0:
        reader.report("maxQueueDelayMicroseconds", "waits for nothing when maxBatchSize is 1; leave it out")
    reader.done()
    return batching


def _read_instances(reader: Reader) -> Instances:
    instances = Instances(
        count=reader.optional("count", integer(1, 8), 1), kind=reader.optional("kind", one_of(Device), Device.CPU)
    )
    reader.done()
    return instances


def _read_optimization(reader: Reader) -> Optimization:
    optimization = Optimization(
        intra_op_threads=reader.optional("intraOpThreads", integer(1, 64), 1),
        precision=reader.optional("precision", one_of(Precision), Precision.FP32),
        engine_cache=reader.optional("engineCache", boolean, False),
    )
    reader.done()
    return optimization


def _read_golden(reader: Reader, signals: Sequence[ModelSignal], recipe: RecipeInfo | None) -> tuple[Golden, ...]:
    names = [signal.name for signal in signals]
    found = reader.mappings("golden", limit=MAX_GOLDEN)
    if not found and reader.is_mapping:
        reader.report("golden", "must have at least one known input and answer; a model serves only after it gave them")
    return tuple(_read_one_golden(golden, names, recipe) for golden in found)


def _read_one_golden(reader: Reader, signals: Sequence[str], recipe: RecipeInfo | None) -> Golden:
    given = reader.mapping("input", required=True)
    golden = Golden(
        input=GoldenInput(
            text=given.optional("text", text(max_length=4096), None),
            name=given.optional("name", _file_name, None),
            sha256=given.optional("sha256", _sha256, None),
        ),
        expect=tuple(_read_expectation(expected, signals) for expected in _some(reader, "expect", limit=MAX_SIGNALS)),
    )
    if given.is_mapping and given.has("text") == given.has("name"):
        given.report("", "must have either text, or a file's name with its sha256")
    elif recipe and given.has("text") and recipe.accepts != "text":
        given.report("text", f"recipe {recipe.name} takes images; name a file")
    elif recipe and given.has("name") and recipe.accepts == "text":
        given.report("name", f"recipe {recipe.name} takes text; write it under text")
    if given.has("name") != given.has("sha256"):
        given.report("sha256", "belongs to a file's name, and every file's name needs it")
    given.done()
    reader.done()
    return golden


def _read_expectation(reader: Reader, signals: Sequence[str]) -> Expectation:
    expected = Expectation(
        signal=reader.required("signal", signal_name, ""),
        value=reader.required("value", ratio, 0),
        tolerance=reader.required("tolerance", ratio, 0),
    )
    if expected.signal and expected.signal not in signals:
        reader.report("signal", unknown_name(expected.signal, signals, "signal"))
    reader.done()
    return expected


def _check_recipe(reader: Reader, model: Model, recipe: RecipeInfo) -> None:
    """A recipe fills certain inputs and needs certain assets; a model with others could not be asked."""
    declared = {tensor.name for tensor in model.inputs}
    if recipe.accepts == "image" and len(declared) > 1:
        reader.report("inputs", f"recipe {recipe.name} fills one input; {len(declared)} are declared")
    if recipe.accepts == "text" and declared and declared != set(recipe.inputs):
        found = ", ".join(sorted(declared))
        reader.report("inputs", f"recipe {recipe.name} fills {', '.join(recipe.inputs)}; declared are {found}")
    for tensor in model.inputs:
        if tensor.data_type != recipe.data_type:
            reader.report(
                "inputs", f"{tensor.name!r} is {tensor.data_type}; recipe {recipe.name} makes {recipe.data_type}"
            )
    if missing := set(recipe.assets) - {asset.name for asset in model.preprocessing.assets}:
        reader.report("preprocessing", f"recipe {recipe.name} needs the assets {', '.join(sorted(missing))} too")


def _check_device(reader: Reader, model: Model) -> None:
    optimization = model.optimization
    if model.instances.kind == Device.CPU and (optimization.precision != Precision.FP32 or optimization.engine_cache):
        reader.report("optimization", "precision and engineCache are TensorRT's; they need instances.kind GPU")


def _some(reader: Reader, key: str, *, limit: int) -> list[Reader]:
    """Go down into a list that must have an entry."""
    found = reader.mappings(key, limit=limit)
    if not found and reader.is_mapping:
        reader.report(key, "must have at least one entry")
    return found


def _only(reader: Reader, key: str, convert: Callable[[object], T], default: T, *, required: bool = False) -> T:
    """Read a mapping that has one field."""
    value = reader.required(key, convert, default) if required else reader.optional(key, convert, default)
    reader.done()
    return value


def _refuse_for_now(reader: Reader, key: str) -> None:
    reader.refuse(key, f"NotYetSupported: {key} belongs to a later version; leave it out")


def _exactly(expected: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if value != expected:
            raise ValueError(f"{show(value)} must be {expected}")
        return expected

    return convert
