"""What API servers are told about policies, and what becomes of questions that are none."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ContentError
from baleen_core.policy.grants import Grants
from baleen_operator.plan.acceptance import Refused, judge_policy
from baleen_operator.plan.admission import (
    MAX_WARNING,
    Answer,
    Asked,
    admit_pod,
    admit_policy,
    names_backtest,
    read_edit,
    read_review,
    say_in_parts,
    write_review,
)
from baleen_operator.plan.injection import InjectionRules
from policies import policy_manifests
from served_models import IMAGE_MODEL, TEXT_MODEL

MODELS = (IMAGE_MODEL, TEXT_MODEL)
OPEN = Grants()


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": "community", "namespace": "safety", "uid": "u", "managedFields": [{}]},
        "spec": spec,
    }


def asked(found: Any, **more: Any) -> Asked:
    request = {"uid": "1", "namespace": "safety", "object": found, **more}
    return read_review(
        json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    )


def rules(when: str) -> dict[str, Any]:
    return {"rules": [{"name": "links", "when": when, "action": "Review"}]}


@given(policy_manifests())
def test_whatever_is_refused_here_the_operator_refuses_in_the_same_words(manifest: dict[str, Any]):
    manifest["metadata"]["namespace"] = "safety"
    told = admit_policy(asked(manifest), MODELS, OPEN)
    verdict, _ = judge_policy(manifest, {}, (), MODELS, OPEN)

    if not told.allowed:
        assert isinstance(verdict, Refused)
        # Lists that are missing, as all are here, the operator names alone.
        assert verdict.reason == "ListMissing" or told.message == f"{verdict.reason}: {verdict.message}"
    elif isinstance(verdict, Refused):
        # What is not of the policy's own making.
        assert verdict.reason == "ListMissing"
        assert told.warnings


def test_every_problem_is_named():
    found = policy(policy=rules("content.linkz > 2") | {"onModelFailure": "Maybe"}, tests=[{"name": "t"}], version=7)
    told = admit_policy(asked(found), MODELS, OPEN)

    assert not told.allowed
    assert told.message.startswith("Invalid: ")
    for field in ("spec.version", "spec.policy.onModelFailure", "spec.tests[0].expect"):
        assert field in told.message


def test_a_failed_test_a_typo_and_a_missing_grant_have_the_operators_reasons():
    test = {"name": "links", "text": "http://a.example", "expect": "Block"}
    failed = admit_policy(asked(policy(policy=rules("content.links > 0"), tests=[test])), MODELS, OPEN)
    typo = admit_policy(asked(policy(policy=rules("content.linkz > 0"))), MODELS, OPEN)
    stranger = admit_policy(
        asked(policy(policy=rules("content.links > 0"))), MODELS, Grants(policy_namespaces=frozenset({"other"}))
    )

    assert failed.message.startswith("TestsFailed: spec.tests[0]: test 'links': expected Block, got Review")
    assert "spec.policy.rules[0].when" in typo.message
    assert stranger.message.startswith("NotGranted: metadata.namespace")


def test_a_query_is_refused_before_it_is_stored_where_nobody_could_answer_it():
    metric = {"name": "refunds", "type": "PromQL", "query": "sum(refunds)", "max": "2%"}
    found = asked(policy(policy=rules("content.links > 0"), rollout={"analysis": {"metrics": [metric]}}))
    told = admit_policy(found, MODELS, Grants(has_provider=False))

    assert admit_policy(found, MODELS, OPEN).allowed
    assert not told.allowed
    assert told.message.startswith("NoProvider: spec.rollout.analysis.metrics[0].type: ")
    assert "analysis.prometheus.url" in told.message


def test_the_namespace_is_that_of_the_address_whatever_the_policy_says():
    granted = Grants(policy_namespaces=frozenset({"safety"}))
    found = asked(policy(policy=rules("content.links > 0")), namespace="other")

    assert not admit_policy(found, MODELS, granted).allowed


def test_a_namespace_that_nobody_looks_after_is_said():
    told = admit_policy(asked(policy(policy=rules("nonsense"))), MODELS, OPEN, frozenset({"other"}))

    assert told == Answer(allowed=True, warnings=("no operator looks after namespace safety",))


@pytest.mark.parametrize("models", [(), None])
def test_a_policy_may_come_before_its_models(models: tuple[()] | None):
    category = {"name": "sexual", "signals": [{"name": "image-safety.sexual", "review": "50%"}]}
    told = admit_policy(asked(policy(policy={"categories": [category]})), models, OPEN)

    assert told.allowed
    assert told.warnings[0].startswith("the policy waits for models that are not served: ")


def test_a_policy_may_come_before_its_lists_whose_content_no_answer_tells():
    source = {"type": "Secret", "name": "passwords", "key": "a"}
    content = {"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": source}]}
    tests = [{"name": "guess", "text": "hunter2", "expect": "Block"}]
    told = admit_policy(asked(policy(policy=content, tests=tests)), MODELS, OPEN)

    assert told.allowed
    assert told.warnings == ("the policy's lists and tests are checked once it is applied: see its condition Accepted",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "1"}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 1}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1", "object": []}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": ' + b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_question_is_refused(data: bytes):
    with pytest.raises(ContentError):
        read_review(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "kind"]), anything, max_size=3))
def test_no_object_is_too_odd_to_be_answered(found: dict[str, Any]):
    for judge in (
        lambda: admit_pod(asked(found), InjectionRules(image="x")),
        lambda: admit_policy(asked(found), (), OPEN),
    ):
        try:
            assert write_review(asked(found), judge())
        except ContentError:
            continue


def test_a_question_without_an_object_is_none():
    with pytest.raises(ContentError, match=r"request\.object is missing"):
        admit_pod(asked(None), InjectionRules())


def test_the_answer_is_what_api_servers_read():
    patch = ({"op": "add", "path": "/a", "value": 1},)
    written = json.loads(write_review(asked({}), Answer(allowed=True, patch=patch, warnings=("w" * 1000,))))
    refused = json.loads(write_review(asked({}), Answer(allowed=False, message="spec.x: no")))

    assert written["response"]["uid"] == "1"
    assert json.loads(base64.b64decode(written["response"]["patch"])) == list(patch)
    assert len(written["response"]["warnings"][0]) == MAX_WARNING
    assert refused["response"] == {
        "uid": "1",
        "allowed": False,
        "status": {"code": 422, "reason": "Invalid", "message": "spec.x: no"},
    }


def edited(before: dict[str, Any], after: dict[str, Any], **more: Any) -> Asked:
    """Ask about an edit: what was said and is to be said beside the rules."""
    old, new = (policy(policy=rules("content.links > 3") | each) for each in (before, after))
    return asked(new, oldObject=old, **more)


TOXIC, SOFTER = (
    {"name": "toxicity", "signals": [{"name": "toxicity.toxic", "block": block}], "onSignalMissing": "Ignore"}
    for block in ("80%", "90%")
)


def test_whoever_only_tries_is_told_what_changes_and_others_are_not():
    edit = {"categories": [TOXIC]}, {"categories": [SOFTER]}

    assert admit_policy(edited(*edit), MODELS, OPEN).warnings == ()
    assert admit_policy(edited(*edit, dryRun=False), MODELS, OPEN).warnings == ()
    assert admit_policy(edited(*edit, dryRun=True), MODELS, OPEN).warnings == (
        "changes categories[toxicity].signals[toxicity.toxic].block: 80% → 90%",
    )


def test_of_many_changes_some_are_told_and_the_others_counted():
    many = {"parameters": {f"p{number}": "1" for number in range(15)}}
    told = admit_policy(edited({}, many, dryRun=True), MODELS, OPEN)

    assert len(told.warnings) == 11
    assert told.warnings[-1] == "and 5 more changes"


@pytest.mark.parametrize("keeps", [True, False], ids=["the gate stays", "the edit takes it out"])
def test_an_edit_that_may_loosen_what_is_protected_is_told_so_and_left_to_the_operator(keeps):
    asking = edited({"categories": [TOXIC]}, {"categories": [SOFTER]})
    assert asking.old_object is not None
    assert asking.object is not None
    asking.old_object["spec"]["gates"] = {"neverLoosen": ["toxicity"]}
    if keeps:
        asking.object["spec"]["gates"] = {"neverLoosen": ["toxicity"]}
    told = admit_policy(asking, MODELS, OPEN)

    assert told.allowed
    (warning,) = told.warnings
    assert warning.startswith("by gates.neverLoosen this may be refused: spec.policy.categories[0].signals[0].block")


def test_a_floor_of_what_is_protected_that_is_to_be_a_policy_is_told_so():
    asking = edited({"categories": [TOXIC]}, {"categories": [TOXIC]})
    assert asking.old_object is not None
    asking.old_object["spec"] |= {"role": "Floor", "gates": {"neverLoosen": ["toxicity"]}}
    told = admit_policy(asking, MODELS, OPEN)

    assert told.allowed
    (warning,) = told.warnings
    assert warning.startswith("by gates.neverLoosen this may be refused: spec.role: Unproven: it was Floor")


@given(
    st.dictionaries(st.sampled_from(["metadata", "spec", "kind"]), anything, max_size=3),
    st.dictionaries(st.sampled_from(["metadata", "spec", "kind"]), anything, max_size=3),
)
def test_no_edit_is_too_odd_to_be_looked_at(before: dict[str, Any], after: dict[str, Any]):
    asking = asked(after, oldObject=before, dryRun=True)

    assert read_edit(asking) is None or asking.object is not None
    assert names_backtest(asking) in (True, False)
    assert read_edit(asked(policy(policy=rules("content.links > 3")), oldObject=before)) is None


@given(st.text(alphabet="ab ", max_size=900))
def test_a_long_message_is_told_in_parts_of_which_nothing_is_lost(message: str):
    parts = say_in_parts(message)

    assert max(map(len, parts)) <= MAX_WARNING
    assert "".join(parts).replace(" ", "") == message.replace(" ", "")
