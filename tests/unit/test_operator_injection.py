"""What is put into pods: laws of the patch, and what is refused."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ContentError
from baleen_operator.plan.injection import CONTAINER, INJECTED_ANNOTATION, InjectionRules, inject
from baleen_sidecar.settings import ClusterSettings, is_loopback

RULES = InjectionRules(image="registry.example/baleen-sidecar:0.1.0", versions={"0.0.9": "old:0.0.9"})
PREFIX = "moderation.baleen.dev/"

names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
ports = st.lists(st.fixed_dictionaries({"containerPort": st.integers(9000, 9999)}), max_size=2)
containers = st.fixed_dictionaries({"name": names, "image": names}, optional={"ports": ports, "env": st.just([])})
annotations = st.dictionaries(st.sampled_from(["example.com/a", "b~c", f"{PREFIX}injected"]), names)
wishes = st.fixed_dictionaries(
    {},
    optional={
        f"{PREFIX}port": st.sampled_from(["8080", "8123"]),
        f"{PREFIX}cpu": st.sampled_from(["250m", "1.5", "3"]),
        f"{PREFIX}memory": st.sampled_from(["128Mi", "2Gi", "3G"]),
        f"{PREFIX}memory-limit": st.sampled_from(["4Gi"]),
        f"{PREFIX}tenant": st.just("acme"),
        f"{PREFIX}source": st.just("site-7/camera-3"),
        f"{PREFIX}version": st.just("0.0.9"),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    metadata: dict[str, Any] = {"generateName": "shop-", "labels": {"moderation.baleen.dev/inject": "true"}}
    said = draw(annotations) | draw(wishes)
    if said or draw(st.booleans()):
        metadata["annotations"] = said
    spec: dict[str, Any] = {"containers": draw(st.lists(containers, min_size=1, max_size=3))}
    if draw(st.booleans()):
        spec["initContainers"] = draw(st.lists(containers, max_size=2))
    if draw(st.booleans()):
        spec["volumes"] = draw(st.lists(st.fixed_dictionaries({"name": names, "emptyDir": st.just({})}), max_size=2))
    return {"metadata": metadata, "spec": spec}


def patched(document: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Apply additions as RFC 6902 says."""
    whole = copy.deepcopy(dict(document))
    for each in json.loads(json.dumps(list(patch))):
        assert each["op"] == "add"
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
        place: Any = whole
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), each["value"])
        else:
            place[last] = each["value"]
    return whole


def pod(said: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {} if said is None else {"annotations": {PREFIX + name: text for name, text in said.items()}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "app"}], **spec}}


def sidecar_of(whole: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in whole["spec"]["initContainers"] if each["name"] == CONTAINER]
    return found


@given(pods())
def test_the_sidecar_comes_first_and_all_else_stays_as_it_is(before: dict[str, Any]):
    untouched = copy.deepcopy(before)
    after = patched(before, inject(before, RULES))

    assert before == untouched
    assert after["spec"]["containers"] == before["spec"]["containers"]
    old, new = before["spec"].get("initContainers", []), after["spec"]["initContainers"]
    assert new[len(new) - len(old) :] == old
    added = new[: len(new) - len(old)]
    assert [each["name"] for each in added] == [CONTAINER]
    assert added[-1]["restartPolicy"] == "Always"
    volumes = before["spec"].get("volumes", [])
    assert after["spec"]["volumes"][: len(volumes)] == volumes
    mounted = {mount["name"] for each in added for mount in each["volumeMounts"]}
    assert mounted == {each["name"] for each in after["spec"]["volumes"][len(volumes) :]}
    marked = after["metadata"]["annotations"].pop(INJECTED_ANNOTATION)
    assert marked == added[-1]["image"]
    said = dict(before["metadata"].get("annotations", {}))
    said.pop(INJECTED_ANNOTATION, None)
    assert after["metadata"]["annotations"] == said
    assert {name: value for name, value in after["spec"].items() if name not in ("initContainers", "volumes")} == {
        "containers": before["spec"]["containers"]
    }


@given(pods())
def test_what_has_a_sidecar_is_left_alone(before: dict[str, Any]):
    after = patched(before, inject(before, RULES))

    assert inject(after, replace(RULES, image="newer")) == ()
    # Another webhook's container may stand before it.
    after["spec"]["initContainers"].insert(0, {"name": "mesh", "image": "mesh", "restartPolicy": "Always"})
    assert inject(after, RULES) == ()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_what_is_no_pod_is_refused(value: Any):
    for wrong in (
        {"metadata": value, "spec": {"containers": []}},
        {"metadata": {}, "spec": value},
        {"metadata": {}, "spec": {"containers": value}},
        {"metadata": {"annotations": {"a": [value]}}, "spec": {"containers": []}},
    ):
        if value == [] and wrong["spec"] == {"containers": []} and wrong["metadata"] == {}:
            continue
        with pytest.raises(ContentError, match="this is no pod"):
            inject(wrong, RULES)


def test_annotations_say_port_resources_and_where_content_comes_from():
    said = {"port": "8123", "cpu": "2", "memory": "2Gi", "tenant": "acme", "surface": "chat", "source": "site-7/a"}
    found = sidecar_of(patched(pod(said), inject(pod(said), RULES)))
    environment = {each["name"]: each.get("value") for each in found["env"]}

    assert environment["BALEEN_PORT"] == "8123"
    assert (environment["BALEEN_DEFAULT_TENANT"], environment["BALEEN_DEFAULT_SURFACE"]) == ("acme", "chat")
    assert environment["BALEEN_DEFAULT_SOURCE"] == "site-7/a"
    assert "BALEEN_HOST" not in environment
    # The usual limit is below what is asked for, so that it follows.
    assert found["resources"] == {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}


@pytest.mark.parametrize(
    ("before", "said"),
    [
        pytest.param(pod({"port": "80"}), "[moderation.baleen.dev/port]: '80' is not a port", id="low port"),
        pytest.param(pod({"port": "８０８０"}), "is not a port", id="digits of another script"),
        pytest.param(pod({"cpu": "fast"}), "[moderation.baleen.dev/cpu]: 'fast' is not an amount", id="amount"),
        pytest.param(pod({"memory": "0"}), "'0' is not an amount", id="nothing"),
        pytest.param(
            pod({"memory": "2Gi", "memory-limit": "1Gi"}),
            "[moderation.baleen.dev/memory-limit]: 1Gi is less than the 2Gi",
            id="limit below request",
        ),
        pytest.param(pod({"memroy": "1Gi"}), "did you mean 'moderation.baleen.dev/memory'?", id="typo"),
        pytest.param(pod({"tenant": "a/b"}), "[moderation.baleen.dev/tenant]: 'a/b' is not a name", id="tenant"),
        pytest.param(pod({"source": "site-7/*"}), "'site-7/*' is not a path such as", id="source"),
        pytest.param(
            pod({"version": "0.2"}), "unknown version of the sidecar here '0.2'; known are 0.0.9", id="version"
        ),
        pytest.param(pod(hostNetwork=True), "spec.hostNetwork: the sidecar would answer the whole node", id="host"),
        pytest.param(pod(os={"name": "windows"}), "spec.os.name", id="windows"),
        pytest.param(
            pod(containers=[{"name": "app", "ports": [{"containerPort": 8080}]}]),
            "[moderation.baleen.dev/port]: 8080 is a port of container 'app', too",
            id="port taken",
        ),
        pytest.param(
            pod(initContainers=[{"name": CONTAINER}]), "spec.initContainers[0].name: 'baleen-sidecar' is", id="name"
        ),
        pytest.param(pod(volumes=[{"name": "baleen-token"}]), "spec.volumes[0].name: 'baleen-token'", id="volume"),
    ],
)
def test_a_pod_that_cannot_have_a_sidecar_is_refused_with_the_field(before: dict[str, Any], said: str):
    with pytest.raises(ContentError) as refused:
        inject(before, RULES)

    assert said in str(refused.value)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ContentError) as refused:
        inject(pod({"port": "x", "cpu": "x", "surface": "x y"}, hostNetwork=True), RULES)

    assert len(refused.value.problems) == 4


def test_another_version_is_one_that_the_installation_names():
    found = patched(pod({"version": "0.0.9"}), inject(pod({"version": "0.0.9"}), RULES))

    assert sidecar_of(found)["image"] == found["metadata"]["annotations"][INJECTED_ANNOTATION] == "old:0.0.9"


def test_without_an_image_pods_are_refused():
    with pytest.raises(ContentError, match="names no image of the sidecar"):
        inject(pod(), InjectionRules())


def test_a_port_of_udp_or_of_another_number_is_no_obstacle():
    taken = [{"name": "app", "ports": [{"containerPort": 8080, "protocol": "UDP"}, {"containerPort": 80}]}]

    assert inject(pod(containers=taken), RULES)


def test_a_platform_may_give_the_user():
    found = sidecar_of(patched(pod(), inject(pod(), replace(RULES, user=0))))

    assert found["securityContext"].keys().isdisjoint({"runAsUser", "runAsGroup"})
    assert found["securityContext"]["runAsNonRoot"] is True


def test_a_sidecar_takes_its_environment():
    said = pod({"tenant": "acme", "surface": "chat", "source": "site-7/a", "port": "8123"})
    rules = replace(RULES, environment={"BALEEN_DURABILITY": "Interval"})
    environment = {
        each["name"]: each.get("value", "shop-1") for each in sidecar_of(patched(said, inject(said, rules)))["env"]
    }
    settings, cluster = ClusterSettings.from_env(environment)

    assert (settings.port, settings.durability, settings.default_source) == (8123, "Interval", "site-7/a")
    assert is_loopback(settings.host)
    assert (cluster.is_gateway, cluster.gateway_url, cluster.replica) == (False, RULES.gateway_url, "shop-1")
