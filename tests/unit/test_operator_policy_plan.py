"""The operator's decisions for policies, one by one: plain functions of what was seen and the time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.checking import Place
from baleen_core.errors import Problem
from baleen_core.model.schema import Model, ModelSignal, Preprocessing, Source, SourceType
from baleen_core.policy.grants import Grants
from baleen_core.policy.in_force import Route
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import ListSourceType, Role, Scope
from baleen_core.resources import PublishedRoute
from baleen_operator.plan.acceptance import Refused, Valid, judge_policy
from baleen_operator.plan.conditions import (
    MAX_MESSAGE,
    Finding,
    conditions_after,
    name_revision,
    say_problems,
    write_time,
)
from baleen_operator.plan.history import (
    MAX_ACTIVATIONS,
    PINNED,
    merge_rows,
    next_epoch,
    owed_rows,
    routed_digests,
    row_of,
)
from baleen_operator.plan.list_objects import Shard, make_shards, owner_of, shard_count, write_shard
from baleen_operator.plan.policy import Observed, SeenRoute, decide
from baleen_operator.plan.pruning import find_prunable
from baleen_operator.resources.policy import (
    Head,
    KeptRevision,
    Meaning,
    Row,
    Status,
    list_sources,
    read_head,
    read_rows,
    read_status,
    write_rows,
    write_status,
)
from baleen_operator.resources.stamps import Stamp
from policies import policy_manifest

LATER = {"metrics": [{"name": "overturned", "type": "OverturnRate", "maxIncrease": "1%"}]}

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def row(epoch: int, digest: str = A, reason: str = "Applied") -> Row:
    return Row(epoch=epoch, digest=digest, reason=reason)


def model(version: str = "1") -> Model:
    return Model(
        name="toxicity",
        version=version,
        source=Source(type=SourceType.FILE, uri="model.onnx"),
        inputs=(),
        outputs=(),
        preprocessing=Preprocessing(recipe="tox-block/1"),
        signals=(ModelSignal(name="toxic", output="probabilities", index=0),),
    )


rows = st.lists(st.builds(row, st.integers(1, 30), st.sampled_from([A, B, C])), max_size=30)


# History


def test_rows_from_several_places_are_there_once_newest_first():
    merged = merge_rows([row(1), row(3, B)], [row(3, B, "the same, told otherwise"), row(2, C)])

    assert [(each.epoch, each.reason) for each in merged] == [(3, "Applied"), (2, "Applied"), (1, "Applied")]


@given(rows=rows, others=rows)
def test_what_is_owed_is_owed_once(rows, others):
    kept: dict[str, tuple[Row, ...]] = {A: tuple(others), B: ()}
    after = kept | owed_rows(rows, kept)

    assert owed_rows(rows, after) == {}
    assert all(len(each) <= MAX_ACTIVATIONS for each in after.values() if each)


def test_a_revision_keeps_its_newest_rows_oldest_first():
    (owed,) = owed_rows([row(each) for each in range(1, 15)], {A: ()}).values()

    assert [each.epoch for each in owed] == list(range(5, 15))


@pytest.mark.parametrize(
    ("epochs", "route_epoch", "has_past", "expected"),
    [
        pytest.param([], None, False, 1, id="the first"),
        pytest.param([1, 2], 3, True, 4, id="above the route"),
        pytest.param([1, 7], 3, True, 8, id="above a row that an override brought about"),
        pytest.param([1, 2], None, True, 4, id="a route that is gone may have had the next one"),
    ],
)
def test_an_epoch_is_above_all_that_ever_were(epochs, route_epoch, has_past, expected):
    assert next_epoch([row(each) for each in epochs], route_epoch=route_epoch, has_past=has_past) == expected


def test_what_an_override_brought_about_was_not_routed():
    known = merge_rows([row(1, A), row(2, B), row(3, A, f"{PINNED}: for now"), row(4, C, "Rejected: v2")])

    assert routed_digests(known) == (B, A)


@given(rows=rows)
def test_rows_are_read_as_they_are_written(rows):
    assert read_rows(write_rows(rows)) == tuple(rows)


# Pruning


@pytest.mark.parametrize(
    ("limit", "needed", "gone"),
    [
        pytest.param(3, (), (), id="no more than are kept"),
        pytest.param(1, (), (C, B), id="those that were in force last stay"),
        pytest.param(0, (C,), (D, B), id="what is needed stays"),
    ],
)
def test_old_revisions_go_by_their_newest_activation(limit, needed, gone):
    revisions = {each: KeptRevision(name=each[7:9], uid="", resource_version="", digest=each) for each in (A, B, C, D)}
    known = [row(1, B), row(2, C), row(3, D), row(9, A)]
    found = find_prunable(revisions, known, stable=A, needed=needed, limit=limit)

    assert tuple(each.digest for each in found) == gone


# Conditions


def test_a_condition_keeps_its_time_until_its_status_changes():
    later = NOW + timedelta(hours=1)
    first = conditions_after([], [Finding(type="Ready", holds=True, reason="A", message="a")], generation=1, now=NOW)
    same = conditions_after(
        first, [Finding(type="Ready", holds=True, reason="B", message="b")], generation=2, now=later
    )
    other = conditions_after(
        same, [Finding(type="Ready", holds=False, reason="C", message="")], generation=2, now=later
    )

    assert [each.last_transition_time for each in (*first, *same, *other)] == [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T13:00:00Z",
    ]
    assert (same[0].reason, same[0].observed_generation) == ("B", 2)


@given(st.lists(st.builds(Problem, field=st.text(max_size=600), message=st.text(max_size=600)), max_size=40))
def test_whatever_is_wrong_a_message_is_bounded_and_says_how_much_more_there_is(problems):
    message = say_problems(problems)

    assert len(message) <= MAX_MESSAGE
    assert len(problems) <= 10 or message.endswith(f"and {len(problems) - 10} more")


def test_a_status_is_read_as_it_was_written():
    condition = conditions_after(
        [], [Finding(type="Ready", holds=True, reason="A", message="a")], generation=3, now=NOW
    )
    status = Status(observed_generation=3, history=(row(2), row(1)), conditions=condition)

    assert read_status({"status": write_status(status)}) == status


@pytest.mark.parametrize(
    "status",
    [
        None,
        "x",
        [],
        {"conditions": {}},
        {"conditions": [1, {"type": 1}]},
        {"history": "x", "stable": [], "candidate": 1},
    ],
    ids=str,
)
def test_a_status_that_makes_no_sense_is_an_empty_one(status):
    assert read_status({"status": status}) == Status()


# Acceptance


def judge(manifest: dict[str, Any], *, texts: str | None = None, models: tuple[Model, ...] = ()) -> Any:
    contents: dict[Place, dict[str, Any]] = {}
    if texts is not None:
        contents[ListSourceType.CONFIG_MAP, "trust-safety", "slurs"] = {"terms.txt": texts}
    return judge_policy(manifest, contents, (), models, Grants())


LISTED = {
    "lists": [
        {
            "name": "slurs",
            "type": "Terms",
            "action": "Block",
            "source": {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"},
        }
    ]
}


def test_what_is_valid_comes_with_the_content_of_its_revision():
    verdict, material = judge(policy_manifest(LISTED, version="v1", paused=True), texts="b\na")

    assert (verdict.version, verdict.paused, verdict.meaning.is_enforced) == ("v1", True, True)
    assert read_revision(material.revision).digest == verdict.digest
    ((_, digest),) = verdict.meaning.lists
    assert material.texts == {digest: "a\nb"}
    assert [(each.digest, each.shards) for each in verdict.lists] == [(digest, 1)]


@pytest.mark.parametrize(
    ("manifest", "models", "reason"),
    [
        pytest.param(policy_manifest(), (model(),), "", id="valid"),
        pytest.param(policy_manifest(), (), "waits", id="its model is not served"),
        pytest.param(
            policy_manifest({**policy_manifest()["spec"]["policy"], "models": [{"name": "toxicity", "version": "1"}]}),
            (model("2"),),
            "waits",
            id="another version of its model is served",
        ),
        pytest.param(
            policy_manifest(
                {"categories": [{"name": "x", "signals": [{"name": "toxicity.toxicc", "block": "1%"}]}]},
            ),
            (model(),),
            "Invalid",
            id="a signal that a model which is served does not have",
        ),
        pytest.param(policy_manifest({}), (model(),), "Invalid", id="nothing said"),
        pytest.param(policy_manifest(rollout={"analysis": LATER}), (model(),), "NotYetSupported", id="not built"),
        pytest.param(policy_manifest(LISTED), (model(),), "ListMissing", id="a list"),
        pytest.param({"kind": "ModerationPolicy"}, (), "Invalid", id="no policy at all"),
    ],
)
def test_a_verdict_says_why_in_one_word(manifest, models, reason):
    verdict, _ = judge(manifest, models=models)

    match verdict:
        case Valid(lacks=lacks):
            assert ("waits" if lacks else "") == reason
        case Refused(reason=found):
            assert found == reason


# Resources


def test_the_sources_of_lists_are_found_whatever_else_is_wrong():
    lists = [
        1,
        {"source": {"type": "ConfigMap", "name": "a", "key": 3}},
        {"source": {"type": "Store", "name": "b"}},
        {"source": {"type": "Secret", "name": "../b"}},
        {"source": {"type": ["Secret"], "name": "b"}},
        {"source": {"type": "Secret", "name": "c"}},
        {"source": {"type": "Secret", "name": "c"}},
    ]

    assert list_sources({"spec": {"policy": {"lists": lists}}}) == (
        (ListSourceType.CONFIG_MAP, "a"),
        (ListSourceType.SECRET, "c"),
    )
    assert list_sources({"spec": {"policy": []}}) == ()


def test_whose_edit_it_is_comes_from_annotations_alone():
    metadata = {"name": "a", "namespace": "b", "annotations": {"moderation.baleen.dev/commit": "3f2a"}}

    head, silent = (read_head({"metadata": each}) for each in (metadata, {"name": "a", "namespace": "b"}))
    assert (head.said_by, head.commit) == ("", "3f2a")
    assert (silent.said_by, silent.commit, silent.applied) == ("", "", Stamp())


# Lists


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(ListSourceType.CONFIG_MAP, "a\nb", id="ConfigMap"),
        pytest.param(ListSourceType.SECRET, "YQpi", id="Secret"),
    ],
)
def test_a_list_is_written_with_all_its_owners(kind, value):
    there = {"resourceVersion": "7", "uid": "u", "ownerReferences": [owner_of("older", "1")]}
    (shard,) = make_shards(A, kind, ["a\nb"], [there])
    (apply,) = write_shard(shard, "ns", owner_of("newer", "2"))

    assert apply.resource_version == "7"
    assert apply.body["data"] == {"entries": value}
    assert [each["uid"] for each in apply.body["metadata"]["ownerReferences"]] == ["1", "2"]


def test_an_object_that_holds_something_else_goes_first():
    shard = Shard(
        digest=A,
        kind=ListSourceType.CONFIG_MAP,
        number=0,
        count=1,
        text="a",
        there={"resourceVersion": "7", "uid": "u", "ownerReferences": [owner_of("forged", "1")]},
        is_wrong=True,
    )
    delete, apply = write_shard(shard, "ns", owner_of("newer", "2"))

    assert delete.uid == "u"
    assert apply.resource_version is None
    assert [each["uid"] for each in apply.body["metadata"]["ownerReferences"]] == ["2"]


@pytest.mark.parametrize(("said", "count"), [("3", 3), ("x", 1), ("-1", 1), ("99999999", 1), (None, 1)])
def test_how_many_objects_keep_a_list_is_read_with_care(said, count):
    annotations = {} if said is None else {"moderation.baleen.dev/shards": said}

    assert shard_count({"annotations": annotations}) == count


# Decisions


def meaning(digest: str, **others: Any) -> Meaning:
    known = {"type": "Moderation", "role": Role.POLICY, "scope": Scope(), "is_enforced": True}
    return Meaning(**{"digest": digest, **known, **others})


def revision(digest: str, *rows: Row, **others: Any) -> KeptRevision:
    return KeptRevision(
        name=f"community-{digest[7:17]}",
        uid=digest[7],
        resource_version="1",
        digest=digest,
        rows=rows,
        meaning=meaning(digest, **others),
    )


def observed(stable: str | None = None, *digests: str, wanted: str = "", **others: Any) -> Observed:
    """See a policy whose route says `stable`, with these revisions, and whose content is `wanted`."""
    head = Head(namespace="ns", name="community", uid="1", resource_version="1", generation=1, created="2026")
    published = PublishedRoute(
        namespace="ns",
        name="community",
        epoch=5,
        type="Moderation",
        role=Role.POLICY,
        scope=Scope(),
        created="2026",
        route=Route(stable=stable or "", recent_stable=tuple(each for each in digests if each != stable)),
        reason="Applied",
    )
    valid = Valid(
        meaning=meaning(wanted), version="", paused=False, rollback_window=3, revision_history_limit=10, lists=()
    )
    route = SeenRoute(uid="1", resource_version="1", epoch=5, published=published) if stable else None
    fields: dict[str, Any] = {"head": head, "verdict": valid if wanted else None, "route": route}
    return Observed(
        namespace="ns",
        name="community",
        revisions={each: revision(each) for each in digests},
        whole=frozenset(digests),
        **(fields | others),
    )


def test_a_decision_that_was_carried_out_is_the_same_again():
    first = decide(observed(wanted=A), NOW)
    assert first.route is not None
    route = SeenRoute(uid="1", resource_version="1", epoch=first.route.epoch, published=first.route)
    again = decide(observed(None, A, wanted=A, route=route), NOW + timedelta(hours=1))

    assert (first.is_new, again.is_new, again.owed, again.overriding) == (True, False, {}, None)
    assert again.route == first.route


def test_the_row_of_what_is_superseded_is_owed_before_the_route_is_written():
    decision = decide(observed(A, A, wanted=B), NOW)

    assert decision.is_new
    assert decision.route is not None
    assert decision.route.route == Route(stable=B, recent_stable=(A,))
    assert decision.owed == {A: (row(5, A),)}


def test_a_content_of_another_scope_is_never_what_one_goes_back_to():
    seen = observed(A, A, B, wanted=C)
    elsewhere = {**seen.revisions, B: revision(B, scope=Scope(tenant="acme"))}
    decision = decide(replace(seen, revisions=elsewhere), NOW)

    assert decision.route is not None
    assert decision.route.route.recent_stable == (A,)


@pytest.mark.parametrize(
    ("change", "goes"),
    [
        pytest.param({}, False, id="the last of its scope"),
        pytest.param({"is_covered": True}, True, id="another one binds its scope"),
        pytest.param({"is_covered": True, "revisions": {A: revision(A, role=Role.FLOOR)}}, False, id="a floor"),
        pytest.param({"revisions": {A: revision(A, is_enforced=False)}}, True, id="one that was only tried out"),
        pytest.param({"revisions": {}}, False, id="one whose revision is lost"),
    ],
)
def test_the_route_of_a_policy_that_is_gone(change, goes):
    decision = decide(replace(observed(A, A), head=None, verdict=None, **change), NOW)

    assert (decision.deletes_route, decision.holds_route) == (goes, not goes)


def test_the_row_of_a_route_that_goes_is_kept():
    decision = decide(replace(observed(A, A), head=None, verdict=None, is_covered=True), NOW)

    assert decision.owed == {A: (row_of(decide(observed(A, A, wanted=A), NOW).route),)}  # type: ignore[arg-type]


def test_a_revision_is_named_for_people():
    assert name_revision(A, "v1") == "v1 (sha256:aaaaaaaaaa)"
    assert name_revision(A, "") == "sha256:aaaaaaaaaa"
    assert write_time(NOW) == "2026-01-31T12:00:00Z"
