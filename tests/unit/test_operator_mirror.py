"""What was seen: always the newest, never what is gone, and indexed as reconciling asks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.policy.schema import ListSourceType, Scope
from baleen_core.resources import (
    API_VERSION,
    DEPLOYMENT_KIND,
    OVERRIDE_KIND,
    POLICY_KIND,
    POLICY_LABEL,
    REVISION_KIND,
    ROUTE_KIND,
)
from baleen_operator.adapters.mirror import MAX_REMEMBERED_DELETIONS, Change, Mirror
from baleen_operator.main import new_mirror
from baleen_operator.settings import Settings


def manifest(kind: str, name: str, version: int, *, namespace: str = "n", spec: Any = None, **meta: Any) -> Any:
    """Write a resource as the API server gives it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version), **meta},
        "spec": spec or {},
    }


def policy(name: str, version: int, *, scope: Any = None, type: str | None = None, lists: Any = ()) -> Any:
    spec: dict[str, Any] = {"policy": {"lists": list(lists)}}
    spec |= {"scope": scope} if scope is not None else {}
    spec |= {"type": type} if type is not None else {}
    return manifest(POLICY_KIND, name, version, spec=spec)


def source(kind: str, name: str) -> Any:
    return {"name": name, "type": "Terms", "source": {"type": kind, "name": name, "key": "k"}}


def deployment(
    name: str,
    version: int,
    *models: str,
    created: str = "2026-01-01T00:00:00Z",
    generation: int = 1,
    uid: str = "1",
    runtime: Any = None,
) -> Any:
    return manifest(
        DEPLOYMENT_KIND,
        name,
        version,
        spec={"runtime": runtime or {"backend": "Python"}, "models": [model(each) for each in models]},
        creationTimestamp=created,
        generation=generation,
        uid=uid,
    )


def model(name: str) -> Any:
    return {
        "name": name,
        "version": "1",
        "source": {"type": "Package", "uri": "pkg:pypi/words@1.0", "sha256": "0" * 64},
        "inputs": [{"name": "input_ids", "dataType": "INT64", "dims": [100]}],
        "outputs": [{"name": "score", "dataType": "FP32", "dims": [1]}],
        "signals": [{"name": "score", "output": "score", "index": 0}],
        "preprocessing": {"recipe": "tox-block/1", "assets": [{"name": "vocab.json", "sha256": "0" * 64}]},
        "golden": [{"input": {"text": "a"}, "expect": [{"signal": "score", "value": "1%", "tolerance": "0.1%"}]}],
    }


def test_what_was_put_is_given_back_without_the_managed_fields():
    mirror = Mirror()
    mirror.put(POLICY_KIND, {**policy("p", 1), "metadata": {**policy("p", 1)["metadata"], "managedFields": [{}]}})

    assert mirror.get(POLICY_KIND, ("n", "p")) == policy("p", 1)
    assert mirror.keys(POLICY_KIND) == (("n", "p"),)
    assert mirror.get(POLICY_KIND, ("n", "q")) is None


@given(versions=st.lists(st.integers(1, 50), min_size=1))
def test_the_newest_version_counts_in_whatever_order_they_come(versions: list[int]):
    mirror = Mirror()
    for version in versions:
        mirror.put(POLICY_KIND, policy("p", version))
    found = mirror.get(POLICY_KIND, ("n", "p"))

    assert found is not None
    assert found["metadata"]["resourceVersion"] == str(max(versions))


def test_versions_are_numbers_and_not_words():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("p", 9))

    assert mirror.put(POLICY_KIND, policy("p", 10))
    assert not mirror.put(POLICY_KIND, policy("p", 9))


def test_what_is_gone_does_not_come_back_by_a_late_report_and_does_by_a_new_object():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("p", 5))
    mirror.remove(POLICY_KIND, ("n", "p"), "8")

    assert not mirror.put(POLICY_KIND, policy("p", 7))
    assert mirror.get(POLICY_KIND, ("n", "p")) is None
    assert mirror.put(POLICY_KIND, policy("p", 9))


def test_a_late_report_of_a_deletion_does_not_remove_the_next_object_of_that_name():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("p", 9))

    assert not mirror.remove(POLICY_KIND, ("n", "p"), "8")
    assert mirror.get(POLICY_KIND, ("n", "p")) is not None


def test_only_so_many_deletions_are_remembered():
    mirror = Mirror()
    for number in range(MAX_REMEMBERED_DELETIONS + 10):
        mirror.remove(POLICY_KIND, ("n", f"p{number}"), "5")

    assert len(mirror._gone) == MAX_REMEMBERED_DELETIONS


def test_a_list_tells_what_is_gone_but_not_of_what_came_after_it():
    mirror = Mirror()
    for name, version in (("kept", 1), ("gone", 2), ("newer", 12)):
        mirror.put(POLICY_KIND, policy(name, version))
    mirror.put(POLICY_KIND, manifest(POLICY_KIND, "elsewhere", 3, namespace="m"))
    mirror.keep_only(POLICY_KIND, {("n", "kept")}, "10", "n")

    assert set(mirror.keys(POLICY_KIND)) == {("n", "kept"), ("n", "newer"), ("m", "elsewhere")}


def test_revisions_are_found_by_their_label_also_when_their_policy_is_gone():
    mirror = Mirror()
    for name, version in (("p-2", 1), ("p-1", 2)):
        mirror.put(REVISION_KIND, manifest(REVISION_KIND, name, version, labels={POLICY_LABEL: "p"}))
    mirror.put(REVISION_KIND, manifest(REVISION_KIND, "q-1", 3, labels={POLICY_LABEL: "q"}))

    assert [each["metadata"]["name"] for each in mirror.revisions(("n", "p"))] == ["p-1", "p-2"]
    assert mirror.revisions(("m", "p")) == ()


def test_a_revision_whose_label_was_changed_by_hand_is_of_interest_to_both_policies():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    mirror.put(REVISION_KIND, manifest(REVISION_KIND, "p-1", 1, labels={POLICY_LABEL: "p"}))
    mirror.put(REVISION_KIND, manifest(REVISION_KIND, "p-1", 2, labels={POLICY_LABEL: "q"}))

    assert changes[-1].policies == {("n", "p"), ("n", "q")}
    assert mirror.revisions(("n", "p")) == ()
    assert len(mirror.revisions(("n", "q"))) == 1


def test_policies_of_one_type_and_scope_are_found_together_in_the_order_of_their_keys():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("b", 1, scope={"surface": "chat"}))
    mirror.put(POLICY_KIND, policy("a", 2, scope={"surface": "chat"}, type="Moderation"))
    mirror.put(POLICY_KIND, policy("c", 3, scope={"surface": "chat"}, type="Privacy"))
    mirror.put(POLICY_KIND, policy("d", 4))
    chat = Scope(surface="chat")

    assert mirror.sharing_scope("Moderation", chat) == (("n", "a"), ("n", "b"))
    mirror.put(POLICY_KIND, policy("a", 5, scope={"surface": "voice"}))
    mirror.remove(POLICY_KIND, ("n", "b"), 6)
    assert mirror.sharing_scope("Moderation", chat) == ()
    assert mirror.sharing_scope("Moderation", Scope()) == (("n", "d"),)


def test_a_route_that_outlives_its_policy_still_shares_its_scope():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("p", 1, scope={"tenant": "t"}))
    mirror.put(
        ROUTE_KIND, manifest(ROUTE_KIND, "p", 2, spec={"type": "Moderation", "scope": {"tenant": "t"}, "policy": "p"})
    )
    mirror.remove(POLICY_KIND, ("n", "p"), 3)

    assert mirror.sharing_scope("Moderation", Scope(tenant="t")) == (("n", "p"),)
    mirror.remove(ROUTE_KIND, ("n", "p"), 4)
    assert mirror.sharing_scope("Moderation", Scope(tenant="t")) == ()


def test_the_readers_of_a_config_map_are_known_and_whether_a_policy_reads_secrets():
    mirror = Mirror()
    mirror.put(POLICY_KIND, policy("a", 1, lists=[source("ConfigMap", "slurs"), source("Secret", "hashes")]))
    mirror.put(POLICY_KIND, policy("b", 2, lists=[source("ConfigMap", "slurs")]))

    assert mirror.reading((ListSourceType.CONFIG_MAP, "n", "slurs")) == (("n", "a"), ("n", "b"))
    assert mirror.reading((ListSourceType.CONFIG_MAP, "m", "slurs")) == ()
    assert (mirror.reads_secrets(("n", "a")), mirror.reads_secrets(("n", "b"))) == (True, False)
    assert mirror.with_lists() == (("n", "a"), ("n", "b"))
    mirror.put(POLICY_KIND, policy("a", 3))
    assert mirror.reading((ListSourceType.CONFIG_MAP, "n", "slurs")) == (("n", "b"),)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"scope": "all", "policy": []}, id="no mappings"),
        pytest.param({"type": 3, "scope": {"tenant": 4}}, id="no words"),
        pytest.param({"policy": {"lists": [1, {"source": 2}, {"source": {"type": "Store", "name": "x"}}]}}, id="lists"),
    ],
)
def test_a_policy_that_is_wrong_in_any_way_is_kept_all_the_same(spec: Any):
    mirror = Mirror()

    assert mirror.put(POLICY_KIND, manifest(POLICY_KIND, "p", 1, spec=spec))
    assert mirror.with_lists() == ()


def test_what_was_written_by_oneself_is_no_news():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 4), own=True)
    mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 4))

    assert changes == []


def test_what_the_watch_reports_of_a_write_before_its_answer_comes_is_no_news():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    with mirror.writing(ROUTE_KIND, ("n", "p")) as tell_version:
        mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 4))
        mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "q", 5))
        tell_version("4")

    assert [change.key for change in changes] == [("n", "q")]


@pytest.mark.parametrize(
    "answers", [pytest.param(["4"], id="the write was done"), pytest.param([], id="the write failed")]
)
def test_what_somebody_else_wrote_during_a_write_is_told_once_that_is_over(answers: list[str]):
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    with mirror.writing(ROUTE_KIND, ("n", "p")) as tell_version:
        mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 6))
        for version in answers:
            tell_version(version)
        assert changes == []

    assert [change.key for change in changes] == [("n", "p")]


def test_an_override_is_of_interest_to_the_policy_of_its_name():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    mirror.put(OVERRIDE_KIND, manifest(OVERRIDE_KIND, "p", 4))
    mirror.remove(OVERRIDE_KIND, ("n", "p"), 5)

    assert [change.policies for change in changes] == [{("n", "p")}] * 2


def test_models_are_those_of_the_oldest_deployment_that_claims_their_names():
    mirror = Mirror()
    mirror.put(DEPLOYMENT_KIND, deployment("young", 1, "words", "more", created="2026-02-01T00:00:00Z"))
    mirror.put(DEPLOYMENT_KIND, deployment("old", 2, "words"))
    mirror.put(DEPLOYMENT_KIND, deployment("other", 3, "others"))

    assert [model.name for model in mirror.models()] == ["words", "others"]
    assert (mirror.claimant("words"), mirror.claimant("none")) == (("n", "old"), None)
    mirror.remove(DEPLOYMENT_KIND, ("n", "old"), 4)
    assert [model.name for model in mirror.models()] == ["others", "words", "more"]


def test_a_deployment_that_is_not_valid_serves_and_claims_nothing():
    mirror = Mirror()
    mirror.put(DEPLOYMENT_KIND, {**deployment("broken", 1, "words"), "spec": {"models": [{"name": "words"}]}})

    assert mirror.models() == ()
    assert mirror.claimant("words") is None


def test_a_status_of_a_deployment_is_no_reason_to_look_at_all_policies():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    mirror.put(DEPLOYMENT_KIND, deployment("d", 1, "words"))
    mirror.put(DEPLOYMENT_KIND, {**deployment("d", 2, "words"), "status": {"observedGeneration": 1}})
    mirror.put(DEPLOYMENT_KIND, deployment("d", 3, "words", generation=2))

    assert [change.models_changed for change in changes] == [True, False, True]


def test_a_deployment_that_was_made_again_between_two_lists_serves_what_the_new_one_says():
    changes: list[Change] = []
    mirror = Mirror(changes.append)
    mirror.put(DEPLOYMENT_KIND, deployment("again", 1, "words", "old"))
    mirror.put(DEPLOYMENT_KIND, deployment("other", 2, "others", created="2026-02-01T00:00:00Z"))
    again = deployment("again", 3, "words", "others", created="2026-03-01T00:00:00Z", uid="2")
    mirror.put(DEPLOYMENT_KIND, again)

    assert changes[-1].models_changed
    assert [model.name for model in mirror.models()] == ["others"]
    assert (mirror.claimant("others"), mirror.claimant("words")) == (("n", "other"), ("n", "again"))
    mirror.remove(DEPLOYMENT_KIND, ("n", "other"), 4)
    assert [model.name for model in mirror.models()] == ["words", "others"]


ALLOWING = Settings(fetch_image="baleen:1", allowed_images=("registry.example/triton",))
ALLOWED = {"backend": "Python", "image": "registry.example/triton:1"}
NOT_ALLOWED = {"backend": "Python", "image": "evil.example/triton:1"}
EXTERNAL = {"external": {"endpoints": ["triton.example:8001"]}}


@pytest.mark.parametrize(
    ("settings", "runtime", "served"),
    [
        pytest.param(ALLOWING, ALLOWED, ["words"], id="allowed"),
        pytest.param(ALLOWING, NOT_ALLOWED, [], id="an image that is not allowed"),
        pytest.param(ALLOWING, {"backend": "Python"}, [], id="no image for its backend"),
        pytest.param(replace(ALLOWING, allowed_sources=()), ALLOWED, [], id="a source that is not allowed"),
        pytest.param(replace(ALLOWING, fetch_image=""), ALLOWED, [], id="no image that fetches"),
        pytest.param(Settings(allowed_images=(), allowed_sources=()), EXTERNAL, ["words"], id="someone else's Triton"),
    ],
)
def test_a_deployment_that_the_installation_does_not_allow_serves_nothing(
    settings: Settings, runtime: Any, served: list[str]
):
    mirror = new_mirror(settings)
    mirror.put(DEPLOYMENT_KIND, deployment("d", 1, "words", runtime=runtime))

    assert [model.name for model in mirror.models()] == served


def test_a_deployment_serves_once_an_edit_made_it_allowed():
    changes: list[Change] = []
    mirror = new_mirror(ALLOWING)
    mirror.on_change = changes.append
    mirror.put(DEPLOYMENT_KIND, deployment("d", 1, "words", runtime=NOT_ALLOWED))
    mirror.put(DEPLOYMENT_KIND, deployment("d", 2, "words", runtime=ALLOWED, generation=2))

    assert changes[-1].models_changed
    assert [model.name for model in mirror.models()] == ["words"]


def test_a_deployment_that_is_not_allowed_keeps_its_names_since_gateways_give_them_to_the_oldest():
    mirror = new_mirror(ALLOWING)
    mirror.put(DEPLOYMENT_KIND, deployment("old", 1, "words", runtime=NOT_ALLOWED))
    mirror.put(DEPLOYMENT_KIND, deployment("young", 2, "words", created="2026-02-01T00:00:00Z", runtime=EXTERNAL))

    assert mirror.claimant("words") == ("n", "old")
    assert mirror.models() == ()
