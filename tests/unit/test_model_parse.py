"""ModelDeployments are read whole, or refused with everything that is wrong."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ModelError
from baleen_core.model.fallback import find_fallback_faults
from baleen_core.model.parse import memory_bytes, parse_model, parse_model_deployment
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
from served_models import make_entry, make_manifest
from tiny_models import make_model

TEXT_ENTRY = make_entry(
    name="text-safety",
    inputs=[
        {"name": "input_ids", "dataType": "INT64", "dims": [-1]},
        {"name": "attention_mask", "dataType": "INT64", "dims": [-1]},
    ],
    preprocessing={
        "recipe": "me5/1",
        "assets": [{"name": "tokenizer.json", "sha256": "01" * 32}, {"name": "norm.json", "sha256": "02" * 32}],
    },
    golden=[{"input": {"text": "hello"}, "expect": [{"signal": "gore", "value": "1%", "tolerance": "0.1%"}]}],
)


def problems_of(manifest):
    with pytest.raises(ModelError) as refused:
        parse_model_deployment(manifest)
    return {problem.field: problem.message for problem in refused.value.problems}


def test_a_full_deployment_becomes_typed_data():
    entry = make_entry(
        batching={"maxBatchSize": 16, "maxQueueDelayMicroseconds": 500},
        instances={"count": 2, "kind": "GPU"},
        optimization={"precision": "FP16", "engineCache": True, "intraOpThreads": 4},
        warmup={"iterations": 3},
        memory="900Mi",
    )
    manifest = make_manifest(
        models=[entry], runtime={"image": "triton:25.08", "backend": "Onnxruntime"}, verifyIntervalSeconds=60
    )

    assert parse_model_deployment(manifest) == ModelDeployment(
        name="models",
        namespace="trust-safety",
        backend=Backend.ONNXRUNTIME,
        image="triton:25.08",
        verify_interval_seconds=60,
        models=(
            Model(
                name="image-safety",
                version="3",
                source=Source(type=SourceType.FILE, uri="models/image-safety.onnx", sha256="ab" * 32),
                inputs=(Tensor(name="image", data_type=DataType.FP32, dims=(3, 224, 224)),),
                outputs=(Tensor(name="probabilities", data_type=DataType.FP32, dims=(3,)),),
                preprocessing=Preprocessing(recipe="owen-s/1"),
                signals=(
                    ModelSignal(name="gore", output="probabilities", index=0),
                    ModelSignal(name="sexual", output="probabilities", index=1),
                ),
                batching=Batching(max_batch_size=16, max_queue_delay_microseconds=500),
                instances=Instances(count=2, kind=Device.GPU),
                optimization=Optimization(intra_op_threads=4, precision=Precision.FP16, engine_cache=True),
                golden=(
                    Golden(
                        input=GoldenInput(name="red.png", sha256="cd" * 32),
                        expect=(Expectation(signal="sexual", value=973_100, tolerance=10_000),),
                    ),
                ),
                warmup_iterations=3,
                memory_bytes=900 * 1024 * 1024,
            ),
        ),
    )


def test_what_is_left_out_has_its_default():
    model = parse_model(make_entry())

    assert (model.batching, model.instances, model.optimization) == (Batching(), Instances(), Optimization())
    assert (model.warmup_iterations, model.memory_bytes) == (1, None)


def test_a_text_model_names_the_assets_of_its_recipe():
    model = parse_model(TEXT_ENTRY)

    assert model.preprocessing.assets == (
        Asset(name="tokenizer.json", sha256="01" * 32),
        Asset(name="norm.json", sha256="02" * 32),
    )
    assert model.golden[0].input == GoldenInput(text="hello")


def test_a_triton_that_someone_else_runs_has_endpoints():
    deployment = parse_model_deployment(
        make_manifest(runtime={"external": {"endpoints": ["triton.ml:8001", "[::1]:8001"]}})
    )

    assert deployment.endpoints == ("triton.ml:8001", "[::1]:8001")


def test_every_problem_is_reported_at_once():
    entry = make_entry(
        name="Image Safety",
        version="03",
        inputs=[],
        outputs=[{"name": "probabilities", "dataType": "FP23", "dims": [0, "3"]}],
        batching={"maxBatchSize": 129},
    )

    assert problems_of(make_manifest(models=[entry])).keys() >= {
        "spec.models[0].name",
        "spec.models[0].version",
        "spec.models[0].inputs",
        "spec.models[0].outputs[0].dataType",
        "spec.models[0].outputs[0].dims[0]",
        "spec.models[0].outputs[0].dims[1]",
        "spec.models[0].batching.maxBatchSize",
    }


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        pytest.param(make_manifest(autoscaling={"mode": "Off"}), "spec.autoscaling", id="autoscaling"),
        pytest.param(make_manifest(rollout={}), "spec.rollout", id="rollout"),
        pytest.param(make_manifest(drain={"graceSeconds": 60}), "spec.drain", id="drain"),
        pytest.param(make_manifest(retraining={}), "spec.retraining", id="retraining"),
        pytest.param(
            make_manifest(models=[make_entry(batching={"priorityLevels": 3})]),
            "spec.models[0].batching.priorityLevels",
            id="priority levels",
        ),
        pytest.param(
            make_manifest(models=[make_entry(source={"type": "S3", "uri": "s3://models/a"})]),
            "spec.models[0].source.type",
            id="source in a bucket",
        ),
        pytest.param(
            make_manifest(models=[make_entry(source={"type": "File", "uri": "a", "credentialsSecretRef": {}})]),
            "spec.models[0].source.credentialsSecretRef",
            id="credentials",
        ),
    ],
)
def test_a_field_of_a_later_version_is_refused_by_name_and_never_ignored(manifest, field):
    assert problems_of(manifest)[field].startswith("NotYetSupported: ")


def test_pods_get_what_their_author_chooses_from_what_is_allowed():
    toleration = {"key": "gpu", "operator": "Exists", "tolerationSeconds": 30}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    deployment = parse_model_deployment(
        make_manifest(
            replicas=3,
            gpu={"count": 2},
            podTemplate={
                "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": 4, "memory": "4Gi"}},
                "nodeSelector": {"kubernetes.io/arch": "amd64"},
                "tolerations": [toleration],
                "affinity": affinity,
                "topologySpreadConstraints": [{"maxSkew": 1}],
                "imagePullSecrets": [{"name": "registry"}],
                "serviceAccountName": "models",
                "runtimeClassName": "nvidia",
                "priorityClassName": "high",
            },
        )
    )

    assert (deployment.replicas, deployment.gpu) == (3, Gpu(resource="nvidia.com/gpu", count=2))
    assert deployment.pod_template == PodTemplate(
        requests={"cpu": "500m", "memory": "2Gi"},
        limits={"cpu": "4", "memory": "4Gi"},
        node_selector={"kubernetes.io/arch": "amd64"},
        tolerations=(toleration,),
        affinity=affinity,
        topology_spread_constraints=({"maxSkew": 1},),
        image_pull_secrets=("registry",),
        service_account_name="models",
        runtime_class_name="nvidia",
        priority_class_name="high",
    )


def deep(levels):
    shape = {}
    for _ in range(levels):
        shape = {"in": shape}
    return shape


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        pytest.param({"podTemplate": {"volumes": []}}, "spec.podTemplate.volumes", "NotYetSupported", id="volumes"),
        pytest.param(
            {"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
            "spec.podTemplate.resources.limits['nvidia.com/gpu']",
            "known are cpu, ephemeral-storage, memory",
            id="GPUs in the wrong place",
        ),
        pytest.param(
            {"podTemplate": {"resources": {"requests": {"cpu": 0.5}}}},
            "spec.podTemplate.resources.requests.cpu",
            "0.5 in quotes",
            id="amount without quotes",
        ),
        pytest.param(
            {"podTemplate": {"tolerations": ["all"]}}, "spec.podTemplate.tolerations[0]", "not a mapping", id="shape"
        ),
        pytest.param(
            {"podTemplate": {"affinity": {"a": ["x"] * 600}}},
            "spec.podTemplate.affinity",
            "more than 512",
            id="too many",
        ),
        pytest.param(
            {"podTemplate": {"affinity": deep(40)}}, "spec.podTemplate.affinity", "deeper than", id="too deep"
        ),
        pytest.param(
            {"podTemplate": {"nodeSelector": {"a b": "x"}}},
            "spec.podTemplate.nodeSelector['a b']",
            "is not a label's key",
            id="label key",
        ),
        pytest.param(
            {"podTemplate": {"imagePullSecrets": [{}]}},
            "spec.podTemplate.imagePullSecrets[0].name",
            "required",
            id="secret",
        ),
        pytest.param({"gpu": {"count": 0}}, "spec.gpu.count", "from 1 to 64", id="no GPU"),
        pytest.param({"gpu": {"resource": "gpu"}}, "spec.gpu.resource", "nvidia.com/gpu", id="unknown kind of GPU"),
        pytest.param({"replicas": 1001}, "spec.replicas", "from 0 to 1000", id="too many replicas"),
        pytest.param({"replicas": -1}, "spec.replicas", "from 0 to 1000", id="fewer than none"),
        pytest.param({"runtime": {"image": "a image"}}, "spec.runtime.image", "an image's reference", id="image"),
    ],
)
def test_pods_that_cannot_be_are_refused_with_what_would_be_right(spec, field, says):
    assert says in problems_of(make_manifest(**spec))[field]


def test_models_that_need_more_memory_than_their_pod_has_are_refused_with_the_sum():
    models = [make_entry(memory="900Mi"), make_entry(name="other", memory="1536Mi")]
    limits = {"resources": {"limits": {"memory": "2Gi"}}}
    problems = problems_of(make_manifest(models=models, podTemplate=limits))

    assert problems["spec.podTemplate.resources.limits.memory"] == (
        "is 2048Mi; the models need 2436Mi together (image-safety 900Mi + other 1536Mi)"
    )
    enough = {"resources": {"limits": {"memory": "2436Mi"}}}
    assert len(parse_model_deployment(make_manifest(models=models, podTemplate=enough)).models) == 2


@pytest.mark.parametrize(
    ("entry", "field", "says"),
    [
        pytest.param(
            make_entry(signals=[{"name": "gore", "output": "probabilitis", "index": 0}]),
            "signals[0].output",
            "did you mean 'probabilities'?",
            id="signal of a misspelt output",
        ),
        pytest.param(
            make_entry(signals=[{"name": "gore", "output": "probabilities", "index": 3}]),
            "signals[0].index",
            "its indices are 0 to 2",
            id="index beyond the output",
        ),
        pytest.param(
            make_entry(preprocessing={"recipe": "owen/1"}),
            "preprocessing.recipe",
            "did you mean owen-s/1?",
            id="misspelt recipe",
        ),
        pytest.param(
            make_entry(preprocessing={"recipe": "owen-s/2"}),
            "inputs",
            "'image' is FP32; recipe owen-s/2 makes UINT8",
            id="a model of floats with a recipe of levels",
        ),
        pytest.param(
            make_entry(inputs=[{"name": "image", "dataType": "UINT8", "dims": [224, 224, 3]}]),
            "inputs",
            "'image' is UINT8; recipe owen-s/1 makes FP32",
            id="a model of levels with a recipe of floats",
        ),
        pytest.param(
            make_entry(
                golden=[
                    {
                        "input": {"name": "a.png", "sha256": "00" * 32},
                        "expect": [{"signal": "sexul", "value": "1%", "tolerance": "1%"}],
                    }
                ]
            ),
            "golden[0].expect[0].signal",
            "did you mean 'sexual'?",
            id="golden answer of a misspelt signal",
        ),
        pytest.param(
            TEXT_ENTRY | {"inputs": [{"name": "tokens", "dataType": "INT64", "dims": [-1]}]},
            "inputs",
            "recipe me5/1 fills input_ids, attention_mask; declared are tokens",
            id="inputs that a text recipe does not fill",
        ),
        pytest.param(
            make_entry(inputs=TEXT_ENTRY["inputs"]), "inputs", "fills one input", id="two inputs of an image recipe"
        ),
        pytest.param(
            TEXT_ENTRY | {"preprocessing": {"recipe": "me5/1"}},
            "preprocessing",
            "needs the assets norm.json, tokenizer.json",
            id="assets left out",
        ),
        pytest.param(
            make_entry(golden=TEXT_ENTRY["golden"]),
            "golden[0].input.text",
            "takes images",
            id="text for an image model",
        ),
        pytest.param(
            TEXT_ENTRY | {"golden": make_entry()["golden"]},
            "golden[0].input.name",
            "takes text",
            id="file for a text model",
        ),
        pytest.param(
            make_entry(golden=[{"input": {}, "expect": make_entry()["golden"][0]["expect"]}]),
            "golden[0].input",
            "either text, or a file's name",
            id="golden input without content",
        ),
        pytest.param(
            make_entry(golden=None),
            "golden",
            "must have at least one known input and answer",
            id="nothing to tell a right model by",
        ),
        pytest.param(
            make_entry(golden=[{"input": {"name": "a.png"}, "expect": make_entry()["golden"][0]["expect"]}]),
            "golden[0].input.sha256",
            "every file's name needs it",
            id="golden file without digest",
        ),
        pytest.param(
            make_entry(outputs=[{"name": "probabilities", "dataType": "FP32"}]),
            "outputs[0].dims",
            "must list the size of each axis",
            id="no dims",
        ),
        pytest.param(
            make_entry(signals=[{"name": "a", "output": "probabilities"}] * 2),
            "signals[1].name",
            "twice",
            id="same signal",
        ),
        pytest.param(
            make_entry(optimization={"precision": "FP16"}),
            "optimization",
            "need instances.kind GPU",
            id="FP16 on a CPU",
        ),
        pytest.param(
            make_entry(batching={"maxBatchSize": 1, "maxQueueDelayMicroseconds": 5}),
            "batching.maxQueueDelayMicroseconds",
            "waits for nothing",
            id="delay without batches",
        ),
        pytest.param(make_entry(memory="900Mo"), "memory", "such as 900Mi", id="unknown unit"),
        pytest.param(make_entry(warmup={"iteration": 3}), "warmup.iteration", "did you mean 'iterations'?", id="typo"),
        pytest.param(make_entry(version=3), "version", "write it in quotes", id="version without quotes"),
    ],
)
def test_a_wrong_model_is_refused_with_what_would_be_right(entry, field, says):
    with pytest.raises(ModelError) as refused:
        parse_model(entry)
    messages = [problem.message for problem in refused.value.problems if problem.field == field]

    assert any(says in message for message in messages), refused.value.problems


def test_two_models_of_one_name_are_refused():
    assert "twice" in problems_of(make_manifest(models=[make_entry(), make_entry()]))["spec.models[1].name"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"runtime": {"backend": "Python"}}, "spec.runtime.backend", id="backend"),
        pytest.param({"runtime": {"image": "triton:1"}}, "spec.runtime.image", id="image"),
        pytest.param({"podTemplate": {}}, "spec.podTemplate", id="pod template"),
        pytest.param({"gpu": {"count": 1}}, "spec.gpu", id="gpu"),
    ],
)
def test_what_belongs_to_a_triton_of_ours_cannot_stand_beside_one_of_someone_else(spec, field):
    runtime = {"external": {"endpoints": ["a:8001"]}} | spec.pop("runtime", {})

    assert "belongs to a Triton that Baleen runs" in problems_of(make_manifest(runtime=runtime, **spec))[field]


@pytest.mark.parametrize(
    ("endpoints", "says"),
    [
        pytest.param([], "at least one host:port", id="none"),
        pytest.param(["a:8001", "a:8001"], "names an endpoint twice", id="twice"),
    ],
)
def test_a_triton_of_someone_else_has_endpoints_and_each_once(endpoints, says):
    manifest = make_manifest(runtime={"external": {"endpoints": endpoints}})

    assert says in problems_of(manifest)["spec.runtime.external.endpoints"]


def test_no_models_are_no_deployment():
    assert "at least one" in problems_of(make_manifest(models=[]))["spec.models"]


@pytest.mark.parametrize("kind", ["ModerationPolicy", "modeldeployment", 3])
def test_another_kind_is_refused(kind):
    assert "ModelDeployment" in problems_of(make_manifest() | {"kind": kind})["kind"]


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("900Mi", 900 << 20), ("2Gi", 2 << 30), ("1k", 1000), ("1T", 10**12), ("512", 512), (512, 512), ("1Ki", 1024)],
)
def test_memory_is_read_as_kubernetes_does(quantity, expected):
    assert memory_bytes(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "1.5Gi", "-1Gi", "Gi", "1 Gi", "0", 0, True, None, "2Ti", "1m", "9" * 400])
def test_an_unclear_amount_of_memory_is_refused(quantity):
    with pytest.raises(ValueError, match=r"memory|range"):
        memory_bytes(quantity)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(field=st.sampled_from(sorted(make_entry())), value=json_values)
def test_nothing_that_yaml_can_hold_makes_the_parser_fail_otherwise(field, value):
    with contextlib.suppress(ModelError):
        parse_model(make_entry(**{field: value}))


@given(manifest=json_values)
def test_a_manifest_of_any_shape_is_read_or_refused(manifest):
    with pytest.raises(ModelError):
        parse_model_deployment(manifest)


def test_failures_are_met_by_what_resilience_says_and_by_usual_numbers_where_it_says_nothing():
    breaker = {"failureThreshold": 3, "maxOpenSeconds": 10, "slowCallMilliseconds": 500}
    said = parse_model_deployment(make_manifest(resilience={"breaker": breaker, "retryBudget": "5%"})).resilience
    usual = parse_model_deployment(make_manifest()).resilience

    assert said == Resilience(
        breaker=BreakerSpec(failure_threshold=3, max_open_seconds=10, slow_call_milliseconds=500), retry_budget=50_000
    )
    assert usual == Resilience()


@pytest.mark.parametrize(
    ("resilience", "field"),
    [
        pytest.param({"breaker": {"failureThreshold": 0}}, "breaker.failureThreshold", id="no failure"),
        pytest.param({"breaker": {"successThreshold": 1001}}, "breaker.successThreshold", id="too many successes"),
        pytest.param({"breaker": {"maxOpenSeconds": "60"}}, "breaker.maxOpenSeconds", id="text"),
        pytest.param({"breaker": {"slowCallMilliseconds": True}}, "breaker.slowCallMilliseconds", id="true"),
        pytest.param({"retryBudget": "101%"}, "retryBudget", id="more than all"),
        pytest.param({"retries": 3}, "retries", id="unknown"),
    ],
)
def test_resilience_that_cannot_be_is_refused_by_field(resilience, field):
    assert list(problems_of(make_manifest(resilience=resilience))) == [f"spec.resilience.{field}"]


def falling_back(*fallbacks: str | None, name: str = "image-safety", **fields: object) -> dict[str, object]:
    """Write a model with signals called s0, s1 and so on, which have these fallbacks."""
    signals = [
        {"name": f"s{index}", "output": "probabilities", **({"fallback": each} if each is not None else {})}
        for index, each in enumerate(fallbacks)
    ]
    known = [
        {**each, "expect": [{"signal": "s0", "value": "1%", "tolerance": "1%"}]} for each in make_entry()["golden"]
    ]
    return make_entry(name=name, signals=signals, golden=known, **fields)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        pytest.param([falling_back("image-safety.s1", None)], "is a signal of the same model", id="itself"),
        pytest.param([falling_back("unsafe")], "is not a signal of another model", id="no model"),
        pytest.param(
            [falling_back("other.s9"), falling_back(None, name="other")], "known are s0", id="no signal of it"
        ),
        pytest.param(
            [falling_back("other.s0"), falling_back("image-safety.s1", name="other")],
            "has a fallback itself",
            id="a circle",
        ),
    ],
)
def test_a_fallback_is_a_signal_of_another_model_without_one_itself(models, message):
    found = problems_of(make_manifest(models=models))

    assert message in found["spec.models[0].signals[0].fallback"]


def test_a_fallback_may_be_of_a_model_that_another_deployment_declares():
    deployment = parse_model_deployment(make_manifest(models=[falling_back("open-nsfw.unsafe")]))

    assert deployment.models[0].signals[0].fallback == "open-nsfw.unsafe"


def test_among_all_models_a_fallback_must_be_there_and_be_for_the_same_content():
    picture = make_model("looks", recipe="owen-s/1")
    signal = replace(picture.signals[0], fallback="words.bad")
    looks, words = replace(picture, signals=(signal,)), make_model("words", recipe="tox-block/1")

    assert [each.message for each in find_fallback_faults([looks], is_all=True)] == [
        "'words.bad' is a signal of a model that is not declared"
    ]
    assert list(find_fallback_faults([looks])) == []
    assert [each.message for each in find_fallback_faults([looks, words])] == [
        "'words.bad' is for text, and the signals of looks are for image"
    ]
