"""What a Triton runtime is made of, compared as a whole with files that a person can read."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.model.rendering import render_config
from baleen_core.model.schema import Backend, Batching, PodTemplate
from baleen_operator.plan.manifests import (
    RuntimeRules,
    build_config_maps,
    build_disruption_budget,
    build_network_policy,
    build_runtime,
    build_service,
)
from baleen_operator.plan.refusals import is_within, refuse_runtime
from model_runtimes import FULL, OWNER, PACKAGE, PLAIN, RULES
from served_models import TEXT_MODEL

EXPECTED = Path(__file__).parents[1] / "data" / "manifests"


def build_all(deployment, rules=RULES):
    config_maps = build_config_maps(deployment, OWNER)
    return [
        *config_maps,
        build_runtime(deployment, OWNER, rules, config_maps),
        build_service(OWNER),
        build_disruption_budget(OWNER),
        build_network_policy(deployment, OWNER, rules),
    ]


@pytest.mark.parametrize(
    ("deployment", "file"),
    [pytest.param(PLAIN, "plain.yaml", id="plain"), pytest.param(FULL, "full.yaml", id="everything said")],
)
def test_a_runtime_is_made_of_exactly_these_objects(deployment, file):
    expected = list(yaml.safe_load_all((EXPECTED / file).read_text()))

    assert build_all(deployment) == expected


def pod_of(deployment, rules=RULES):
    (runtime,) = (each for each in build_all(deployment, rules) if each["kind"] == "Deployment")
    return runtime["spec"]["template"]["spec"]


def triton_of(deployment):
    (triton,) = pod_of(deployment)["containers"]
    return triton


@pytest.mark.parametrize("deployment", [PLAIN, FULL], ids=["plain", "everything said"])
def test_every_container_may_do_as_little_as_can_be(deployment):
    pod = pod_of(deployment)

    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["runAsNonRoot"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert all(set(volume) - {"name"} <= {"emptyDir", "projected"} for volume in pod["volumes"])


def test_two_calls_share_nothing():
    first, second = build_all(FULL), build_all(FULL)
    first[1]["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"] = {}
    first[1]["spec"]["template"]["metadata"]["labels"]["mine"] = "yes"

    assert second == build_all(FULL)


def test_models_are_controlled_by_name_and_never_by_watching_a_folder():
    arguments = triton_of(PLAIN)["args"]

    assert "--model-control-mode=explicit" in arguments
    assert [each for each in arguments if "load-model" in each] == [
        "--load-model=image-safety",
        "--load-model=text-safety",
    ]
    assert not any("poll" in each for each in arguments)


def test_the_rendered_text_of_every_model_is_where_its_file_is_put():
    config_maps = build_config_maps(PLAIN, OWNER)
    (rendered,) = (each for each in pod_of(PLAIN)["volumes"] if each["name"] == "rendered")
    paths = {}
    for source in rendered["projected"]["sources"]:
        (config_map,) = (each for each in config_maps if each["metadata"]["name"] == source["configMap"]["name"])
        texts = {**config_map["data"], **config_map.get("binaryData", {})}
        assert texts.keys() == {item["key"] for item in source["configMap"]["items"]}
        paths |= {item["path"]: texts[item["key"]] for item in source["configMap"]["items"]}

    assert paths["image-safety/config.pbtxt"] == render_config(PLAIN.models[0], Backend.PYTHON)
    assert {"image-safety/3/model.py", "text-safety/source.json"} <= paths.keys()
    assert any(path.startswith("text-safety/warmup/ones-int64") for path in paths)


def test_another_content_is_another_config_map_so_that_pods_of_the_version_before_keep_theirs():
    changed = replace(PLAIN.models[0], batching=Batching(max_batch_size=2))
    before = [each["metadata"]["name"] for each in build_config_maps(PLAIN, OWNER)]
    after = [
        each["metadata"]["name"] for each in build_config_maps(replace(PLAIN, models=(changed, PLAIN.models[1])), OWNER)
    ]

    assert (before[0] == after[0], before[1] == after[1]) == (False, True)
    assert all(each["immutable"] for each in build_config_maps(PLAIN, OWNER))


@pytest.mark.parametrize(
    ("template", "requests", "limits"),
    [
        # 512Mi for the server, 200Mi as said, 512Mi for the one that says nothing.
        pytest.param(PodTemplate(), {"cpu": "1", "memory": "1224Mi"}, {"memory": "2448Mi"}, id="nothing said"),
        pytest.param(PodTemplate(requests={"cpu": "3"}), {"cpu": "3"}, None, id="requests"),
        pytest.param(PodTemplate(limits={"memory": "9Gi"}), None, {"memory": "9Gi"}, id="limits"),
    ],
)
def test_resources_are_the_authors_or_follow_from_the_models(template, requests, limits):
    resources = triton_of(replace(PLAIN, pod_template=template))["resources"]

    assert (resources.get("requests"), resources.get("limits")) == (requests, limits)


@pytest.mark.parametrize("deployment", [PLAIN, FULL], ids=["Python", "ONNX Runtime"])
def test_onnx_runtime_tells_its_maker_nothing(deployment):
    assert {"name": "ORT_DISABLE_TELEMETRY", "value": "1"} in triton_of(deployment)["env"]


def test_threads_are_bounded_for_every_library_that_would_take_all_cores():
    environment = {each["name"]: each["value"] for each in triton_of(FULL)["env"]}

    assert (
        environment.items()
        >= {
            "OMP_NUM_THREADS": "4",
            "OPENBLAS_NUM_THREADS": "1",
            "ORT_TENSORRT_FP16_ENABLE": "1",
            "ORT_TENSORRT_ENGINE_CACHE_ENABLE": "1",
            "CUDA_CACHE_MAXSIZE": "2147483648",
        }.items()
    )


def test_only_clients_come_in_and_only_dns_and_package_indexes_are_reached():
    policy = build_network_policy(PLAIN, OWNER, RuntimeRules(system_namespace="safety"))["spec"]
    (ingress,) = policy["ingress"]

    assert {peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in ingress["from"]} == {
        "baleen-operator",
        "baleen-gateway",
    }
    assert all(
        peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "safety"}}
        for peer in ingress["from"]
    )
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]] == [[53], [443]]
    closed = build_network_policy(PLAIN, OWNER, RuntimeRules(fetch_networks=()))["spec"]
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in closed["egress"]] == [[53]]


@pytest.mark.parametrize(
    ("address", "prefixes", "expected"),
    [
        pytest.param("a.example/b", ("a.example/b",), True, id="itself"),
        pytest.param("a.example/b:1", ("a.example/b",), True, id="a tag"),
        pytest.param("a.example/b@sha256:00", ("a.example/b",), True, id="a digest"),
        pytest.param("a.example/b/c:1", ("a.example/b",), True, id="below"),
        pytest.param("a.example/bc:1", ("a.example/b",), False, id="a longer name"),
        pytest.param("a.example/bc:1", ("a.example/",), True, id="whole registry"),
        pytest.param("b.example/a.example/b", ("a.example/b",), False, id="not at the beginning"),
        pytest.param("a.example/b", (), False, id="nothing is allowed"),
        pytest.param("a.example/b", ("",), False, id="an empty prefix allows nothing"),
    ],
)
def test_an_address_is_allowed_only_at_the_end_of_a_part(address, prefixes, expected):
    assert is_within(address, prefixes) is expected


@given(prefix=st.text(min_size=1), rest=st.text(alphabet="abc-._", min_size=1))
def test_a_prefix_never_covers_a_longer_name(prefix, rest):
    name = prefix.rstrip("/:@") or "a"

    assert not is_within(name + rest, [name])


@pytest.mark.parametrize(
    ("change", "rules", "reason", "says"),
    [
        pytest.param(
            {"image": "elsewhere.example/triton:1"},
            RULES,
            "ImageNotAllowed",
            "images must begin with registry.example/triton",
            id="image",
        ),
        pytest.param({"image": None}, RULES, "ImageNotAllowed", "is required for backend Python", id="no image"),
        pytest.param(
            {"models": (replace(PLAIN.models[0], source=replace(PACKAGE, uri="pkg:oci/scores")),)},
            RULES,
            "SourceNotAllowed",
            "sources must begin with pkg:pypi, pkg:npm",
            id="source",
        ),
        pytest.param(
            {"namespace": "baleen-system", "pod_template": PodTemplate(service_account_name="baleen-operator")},
            RULES,
            "NotAllowed",
            "an account of Baleen itself",
            id="the operator's account",
        ),
        pytest.param({"name": "a" * 57}, RULES, "Invalid", "at most 56", id="name too long for a Service"),
        pytest.param(
            {"models": (replace(PLAIN.models[1], inputs=(replace(TEXT_MODEL.inputs[0], dims=(65536, 65536)),)),)},
            RULES,
            "Invalid",
            "make warm-up rows of 137,438,953,472 bytes",
            id="rows that would fill the memory",
        ),
        pytest.param(
            {"models": FULL.models}, RULES, "Invalid", "say how many under spec.gpu", id="GPU model without GPU"
        ),
        pytest.param(
            {}, replace(RULES, fetch_image=""), "NotConfigured", "no image that fetches models", id="no fetch image"
        ),
    ],
)
def test_what_the_installation_does_not_allow_is_refused_with_what_it_does(change, rules, reason, says):
    refusal = refuse_runtime(replace(PLAIN, **change), rules)

    assert refusal.reason == reason
    assert any(says in problem.message for problem in refusal.problems)


def test_what_is_allowed_is_not_refused():
    assert refuse_runtime(PLAIN, RULES) is None
    assert refuse_runtime(FULL, RULES) is None
    assert refuse_runtime(replace(PLAIN, image="evil", endpoints=("a:1",)), RULES) is None
