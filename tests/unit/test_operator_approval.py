"""Who applied and who approved: what the webhook stamps, which approvals count, and what the history says of them."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ContentError
from baleen_core.policy.in_force import Approval, parse_override
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import name_text
from baleen_core.resources import (
    APPLIED_BY_ANNOTATION,
    APPROVED_BY_ANNOTATION,
    OVERRIDE_KIND,
    POLICY_KIND,
    REVISION_KIND,
)
from baleen_operator.plan.admission import Answer, Asked, User, read_review, write_review
from baleen_operator.plan.approval import weigh
from baleen_operator.plan.stamping import find_stamp, stamp_override, stamp_policy
from baleen_operator.resources.stamps import Stamp, name_approval, read_stamp, write_stamp
from memory_cluster import FixedBacktests
from policies import override_manifest
from policy_site import SPACE, Site, pass_time, policy, with_list

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
STEPS = [{"name": "shadow", "type": "Shadow"}, {"name": "sign-off", "type": "Approval"}]
STAMPED = {POLICY_KIND: APPLIED_BY_ANNOTATION, OVERRIDE_KIND: APPROVED_BY_ANNOTATION}


def ask(user: str, found: Any, before: Any = None) -> Asked:
    return Asked(uid="1", namespace=SPACE, object=found, old_object=before, user_info=User(username=user))


def patched(found: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Do what the API server does with an answer."""
    found, review = copy.deepcopy(found), json.loads(write_review(ask("", None), answer))["response"]
    for each in json.loads(base64.b64decode(review["patch"])) if "patch" in review else ():
        *parents, last = (part.replace("~1", "/") for part in each["path"].split("/")[1:])
        node = found
        for parent in parents:
            node = node[parent]
        if each["op"] == "remove":
            del node[last]
        else:
            node[last] = each["value"]
    return found


def judge(found: dict[str, Any]) -> Any:
    return {POLICY_KIND: stamp_policy, OVERRIDE_KIND: stamp_override}[found["kind"]]


def stamped(user: str, found: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    return patched(found, judge(found)(ask(user, found, before)))


def stamp_of(found: dict[str, Any]) -> Stamp:
    return read_stamp(found, STAMPED[found["kind"]])


def annotated(found: dict[str, Any], value: str | None) -> dict[str, Any]:
    """Return a resource as somebody sends it who says this stamp."""
    found = copy.deepcopy(found)
    annotations = {**(found["metadata"].get("annotations") or {})}
    annotations.pop(STAMPED[found["kind"]], None)
    if value is not None:
        annotations[STAMPED[found["kind"]]] = value
    found["metadata"]["annotations"] = annotations
    return found


@pytest.mark.parametrize(
    ("first", "second", "touched"),
    [
        pytest.param(policy("92%"), policy("80%"), policy("92%", paused=True, rollout={"steps": STEPS}), id="policy"),
        pytest.param(
            override_manifest(approve={"digest": DIGEST}),
            override_manifest(approve={"digest": DIGEST, "throughStep": "sign-off"}),
            override_manifest(approve={"digest": DIGEST}, paused=True, reject=[OTHER]),
            id="override",
        ),
    ],
)
def test_whoever_changes_it_is_named_whatever_they_send(first: Any, second: Any, touched: Any):
    alice = stamped("alice", annotated(first, "sha256:00 mallory"))
    by_bob = stamped("bob", second, alice)
    stays = [stamped("bob", annotated(touched, said), alice) for said in (None, "x mallory", "bob", "")]
    other_words = stamp_of(alice).what

    assert stamp_of(alice).user == "alice"
    assert stamp_of(by_bob).user == "bob"
    assert stamp_of(by_bob).what != other_words
    assert [stamp_of(each) for each in stays] == [stamp_of(alice)] * 4
    # Standing for what somebody else is known to have written is not possible, either.
    assert stamp_of(stamped("bob", annotated(touched, write_stamp(other_words, "bob")), alice)) == stamp_of(alice)


def test_the_same_content_in_other_words_keeps_who_applied_it():
    alice = stamped("alice", policy("92%", version="v1"))
    respelt = stamped("bob", policy("0.92", version="v2", description="the same"), alice)

    assert stamp_of(respelt) == stamp_of(alice)


def test_what_nobody_is_known_to_have_applied_somebody_can_stand_for():
    unknown = policy("92%")
    what = name_text(parse_policy(unknown))
    by_label = stamped("bob", unknown | {"spec": unknown["spec"] | {"paused": True}}, unknown)
    left_over = annotated(unknown, f"{name_text(parse_policy(policy('80%')))} alice")
    taken = [stamped("bob", annotated(unknown, f"{what} bob"), each) for each in (unknown, left_over)]
    for_another = stamped("bob", annotated(unknown, f"{what} alice"), unknown)

    assert stamp_of(by_label) == stamp_of(for_another) == Stamp()
    assert [stamp_of(each) for each in taken] == [Stamp(what=what, user="bob")] * 2
    # Where nothing changes nothing is written, so that a diff of it is empty.
    assert stamped("bob", left_over, left_over) == left_over


def test_what_has_no_approval_and_what_is_no_policy_has_no_stamp():
    approved = stamped("alice", override_manifest(approve={"digest": DIGEST}))
    taken_back = stamped("alice", annotated(override_manifest(), "x bob"), approved)
    broken = stamped("alice", annotated(policy("920%"), "x bob"))

    assert APPROVED_BY_ANNOTATION not in taken_back["metadata"]["annotations"]
    assert stamp_of(broken) == Stamp()


@pytest.mark.parametrize("found", [None, {}, {"metadata": 1}, {"metadata": None}])
@pytest.mark.parametrize("stamp", [stamp_policy, stamp_override])
def test_what_cannot_be_stamped_is_said(found: Any, stamp: Any):
    with pytest.raises(ContentError, match=r"request\.object"):
        stamp(ask("alice", found))


@pytest.mark.parametrize(
    "spec", [None, 1, {"approve": 1}, {"approve": {"digest": 1}}, {"approve": {"throughStep": []}}]
)
@pytest.mark.parametrize("annotations", [None, 1, {APPROVED_BY_ANNOTATION: 1}])
def test_what_is_none_of_the_schema_is_left_to_it(spec: Any, annotations: Any):
    found = {"kind": OVERRIDE_KIND, "metadata": {"annotations": annotations}, "spec": spec}

    assert stamp_override(ask("alice", found)) == Answer(allowed=True)


def test_who_asks_is_read_from_the_question():
    request = {"uid": "1", "namespace": SPACE, "object": policy(), "userInfo": {"username": "alice", "groups": ["a"]}}
    asked = read_review(
        json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    )

    assert stamp_of(patched(policy(), stamp_policy(asked))).user == "alice"


# Who may let what through


@dataclass
class Stored:
    """A policy and its override as an API server keeps them, with the webhook and the admission policies in between."""

    policy: dict[str, Any] | None = None
    override: dict[str, Any] | None = None
    applied: set[tuple[str, str]] = field(default_factory=set)
    """Which user ever wrote, or stood for, which content."""
    author: str = ""
    """Who wrote the content that is there."""
    approved: set[tuple[str, str]] = field(default_factory=set)
    """The same of the approval that is there."""

    def write(self, user: str, found: dict[str, Any], *, answers: bool) -> None:
        before = self.policy if found["kind"] == POLICY_KIND else self.override
        if before is None:
            sent = found
        else:
            # A patch leaves what it does not name; what it names of annotations counts.
            kept = {**(before["metadata"].get("annotations") or {})}
            sent = copy.deepcopy(found)
            sent["metadata"]["annotations"] = kept | (found["metadata"].get("annotations") or {})
        stored = stamped(user, sent, before) if answers else sent
        if not may_be_stored(user, stored, before):
            assert not answers, "what the webhook writes is always right"
            return
        self.take(user, found, stored, before)

    def take(self, user: str, found: Any, stored: Any, before: Any) -> None:
        sent = (found["metadata"].get("annotations") or {}).get(STAMPED[found["kind"]], "")
        claims = sent.endswith(f" {user}") and sent == write_stamp(stamp_of(stored).what, stamp_of(stored).user)
        what, was = name_of(stored), name_of(before) if before else ""
        if found["kind"] == POLICY_KIND:
            self.policy = stored
            self.author = user if what != was else self.author
            self.applied |= {(user, what)} if what != was or claims else set()
            return
        self.override = stored
        kept = self.approved if what == was else set()
        self.approved = kept | ({(user, what)} if what != was or claims else set())


def name_of(found: dict[str, Any]) -> str:
    if found["kind"] == POLICY_KIND:
        return name_text(parse_policy(found))
    approve = parse_override(found).approve
    return name_approval(approve.digest, approve.through_step) if approve else ""


def may_be_stored(user: str, found: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Say what the ValidatingAdmissionPolicies say; tests/cluster/test_webhooks.py holds them to it."""
    key = STAMPED[found["kind"]]
    stamp = (found["metadata"].get("annotations") or {}).get(key, "")
    old = ((before or {"metadata": {}})["metadata"].get("annotations") or {}).get(key, "")
    if found["kind"] == POLICY_KIND:
        return stamp in ("", old) or (stamp.startswith("sha256:") and stamp[72:] == user)
    what = name_of(found)
    is_new = before is None or what != name_of(before)
    comes_again = is_new and bool(what) and stamp.startswith(what + " ")
    return not stamp or (stamp == old and not comes_again) or (bool(what) and stamp == f"{what} {user}")


USERS = ("alice", "bob", "carol")
users = st.sampled_from(USERS)
contents = st.sampled_from(["92%", "0.92", "80%"])
claims = st.sampled_from([None, None, None, *USERS])
acts = st.one_of(
    st.tuples(st.just("apply"), users, contents, st.booleans(), claims),
    st.tuples(st.just("apply"), users, contents, st.booleans(), claims),
    st.tuples(st.just("approve"), users, contents, st.sampled_from(["", "sign-off"]), claims),
    st.tuples(st.just("approve"), users, contents, st.sampled_from(["", "sign-off"]), claims),
    st.tuples(st.just("take back"), users),
    st.tuples(st.just("pause"), users),
    st.tuples(st.just("delete policy"), users),
    st.tuples(st.just("delete override"), users),
)


def digest_of(block: str) -> str:
    """Name a revision as short as its content: here each text is one."""
    return name_text(parse_policy(policy(block)))


def play(stored: Stored, act: tuple[Any, ...], *, answers: bool) -> None:
    match act:
        case ("apply", user, block, paused, claim):
            found = policy(block, paused=paused, rollout={"steps": STEPS} if paused else {})
            stored.write(user, claimed(found, claim), answers=answers)
        case ("approve", user, block, step, claim):
            approve = {"digest": digest_of(block)} | ({"throughStep": step} if step else {})
            stored.write(user, claimed(override_manifest(approve=approve), claim), answers=answers)
        case ("take back", user) if stored.override:
            stored.write(user, override_manifest(), answers=answers)
        case ("pause", user) if stored.override:
            spec = stored.override["spec"] | {"paused": True}
            stored.write(user, override_manifest(**spec), answers=answers)
        case ("delete policy", _):
            stored.policy = None
        case ("delete override", _):
            stored.override, stored.approved = None, set()


def claimed(found: dict[str, Any], user: str | None) -> dict[str, Any]:
    return found if user is None else annotated(found, f"{name_of(found)} {user}")


def counts(stored: Stored) -> tuple[str, str] | None:
    """Return who applied and who approved where the approval counts."""
    if stored.policy is None or stored.override is None:
        return None
    text = name_text(parse_policy(stored.policy))
    said = parse_override(stored.override).approve
    applied, approved = stamp_of(stored.policy), stamp_of(stored.override)
    weighed = weigh(said, digest=text, text=text, applied=applied, approved=approved, by_another=True)
    return (applied.user, weighed.by) if weighed.approval else None


def lives(story: list[tuple[Any, bool]]) -> Iterator[Stored]:
    stored = Stored()
    for act, answers in story:
        play(stored, act, answers=answers)
        yield stored


@given(st.lists(st.tuples(acts, st.just(True)), max_size=20))
def test_while_the_webhook_answers_an_approval_counts_if_another_than_the_applier_wrote_it(story):
    for stored in lives(story):
        if stored.policy is None or stored.override is None:
            continue
        named = parse_override(stored.override).approve
        is_of_it = named is not None and named.digest == name_of(stored.policy)
        (approver,) = {user for user, _ in stored.approved} or {""}

        assert (counts(stored) is not None) == (is_of_it and approver != stored.author)


@given(st.lists(st.tuples(acts, st.booleans()), max_size=20))
def test_whatever_is_tried_while_it_does_not_answer_nobody_lets_anything_through_alone(story):
    for stored in lives(story):
        if (both := counts(stored)) is not None:
            applier, approver = both
            assert stored.policy is not None
            assert stored.override is not None
            assert applier != approver
            assert (applier, name_of(stored.policy)) in stored.applied
            assert (approver, name_of(stored.override)) in stored.approved


@given(st.lists(st.tuples(acts, st.booleans()), max_size=20), acts)
def test_people_can_always_write_who_name_nobody(story, act):
    stored = Stored()
    for each, answers in story:
        play(stored, each, answers=answers)
    before = stored.override
    match act:
        case ("apply", user, block, _, _):
            play(stored, ("apply", user, block, False, None), answers=False)
            assert stored.policy is not None
            assert stored.policy["spec"] == policy(block)["spec"] | {"paused": False, "rollout": {}}
        case ("approve", user, block, step, _):
            play(stored, ("approve", user, block, step, None), answers=False)
            what = name_approval(digest_of(block), step)
            # Only an approval that was taken back waits until the name of somebody else that is left of it is gone.
            left = stamp_of(before) if before else Stamp()
            waits = left.what == what != name_of(before or override_manifest()) and left.user != user
            assert name_of(stored.override or override_manifest()) == (name_of(before) if before and waits else what)
        case ("take back" | "pause", _) if before is not None:
            play(stored, act, answers=False)
            assert stored.override is not None
            spec = before["spec"] | {"paused": True} if act[0] == "pause" else override_manifest()["spec"]
            assert stored.override["spec"] == spec


@given(what=st.sampled_from([DIGEST, OTHER]), was=st.sampled_from([None, DIGEST, OTHER, ""]), user=st.text(max_size=9))
def test_a_stamp_names_what_it_is_of_and_nobody_but_its_writer(what, was, user):
    stamp = find_stamp(what=what, was=was, before=f"{was} alice", sent="x mallory", user=user)

    assert stamp == (f"{was} alice" if what == was else f"{what} {user}" if user else "")


@pytest.mark.parametrize(
    ("applied", "approved", "words"),
    [
        pytest.param("alice", "alice", "alice applied this content and approved it, too", id="both"),
        pytest.param("alice", "", "it is not known who wrote it", id="approver unknown"),
        pytest.param("", "bob", "not known who applied the content", id="applier unknown"),
        pytest.param("x" * 300, "x" * 290, "applied this content and approved it", id="too long to be told apart"),
    ],
)
def test_an_approval_that_does_not_count_says_why(applied: str, approved: str, words: str):
    said = Approval(digest=DIGEST, through_step="sign-off")
    stamps = [
        read_stamp({"metadata": {"annotations": {"a": write_stamp(what, user)}}}, "a")
        for what, user in ((OTHER, applied), (name_approval(DIGEST, "sign-off"), approved))
    ]
    facts: dict[str, Any] = {"digest": DIGEST, "text": OTHER, "applied": stamps[0], "approved": stamps[1]}
    weighed = weigh(said, **facts, by_another=True)

    assert (weighed.approval, weighed.by) == (None, "")
    assert words in weighed.why_not
    assert weigh(said, **facts, by_another=False).approval == said


# In a cluster


@pytest.fixture
def site() -> Site:
    site = Site()
    site.restart(approval_by_another=True)
    return site


async def write(site: Site, user: str, found: dict[str, Any]) -> None:
    """Write as a user, with the webhook in between."""
    before = site.cluster.find(found["kind"], SPACE, "community")
    await site.apply(stamped(user, found, before))


def digests(site: Site) -> list[str]:
    return [each["spec"]["digest"] for each in site.cluster.all(REVISION_KIND)]


async def test_an_applier_cannot_approve_and_somebody_else_can_and_both_are_in_the_history(site: Site):
    steps = {"rollout": {"steps": STEPS}}
    await write(site, "alice", policy("92%", version="v1", **steps))
    by = {"moderation.baleen.dev/by": "al", "moderation.baleen.dev/commit": "3f2a"}
    await write(site, "alice", policy("80%", version="v2", annotations=by, **steps))
    await site.reconcile()
    second = site.route["candidate"]["digest"]
    await write(site, "alice", override_manifest(approve={"digest": second}))
    own = site.condition("Reconciling"), site.message("Ready")
    events = site.cluster.events()
    # Whose content it is no edit of its steps changes.
    steps["rollout"]["steps"].append({"name": "again", "type": "Approval"})
    await write(site, "bob", policy("80%", version="v2", annotations=by, **steps))
    await site.reconcile()
    still = site.condition("Reconciling")
    await write(site, "bob", override_manifest(approve={"digest": second, "throughStep": "sign-off"}))
    await site.reconcile()
    later = site.status["candidate"]
    await write(site, "carol", override_manifest(approve={"digest": second}))

    assert own[0] == still == ("True", "AwaitingApproval")
    assert "spec.approve: does not count, since alice applied this content and approved it, too" in own[1]
    assert "NoEffect" in events
    assert (later["step"], later["approvedBy"]) == ("again", "bob")
    assert site.stable == second
    assert "ModerationOverride" not in site.message("Ready")
    newest, oldest = site.status["history"]
    assert {name: newest[name] for name in ("reason", "by", "commit", "approvedBy")} == {
        "reason": "Promoted",
        "by": "alice, for al",
        "commit": "3f2a",
        "approvedBy": "carol",
    }
    assert (oldest["by"], "approvedBy" in oldest) == ("alice", False)


async def test_an_approval_that_was_taken_back_after_it_had_its_effect_stays_in_the_history(site: Site):
    steps = {
        "rollout": {"steps": [*STEPS, {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 60}}]}
    }
    await write(site, "alice", policy("92%", **steps))
    await write(site, "alice", policy("80%", **steps))
    await site.reconcile()
    second = site.route["candidate"]["digest"]
    await write(site, "bob", override_manifest(approve={"digest": second}))
    site.cluster.remove(OVERRIDE_KIND, SPACE, "community")
    await site.reconcile()
    site.restart(approval_by_another=True)
    await pass_time(site, 61)

    assert site.stable == second
    assert site.status["history"][0]["approvedBy"] == "bob"
    await write(site, "carol", policy("70%"))
    # It moves with its row.
    assert [row.get("approvedBy") for row in site.revision(second)["status"]["activations"]] == ["bob"]
    assert "approvedBy" not in site.route


APPROVALS = [{"name": "one", "type": "Approval"}, {"name": "two", "type": "Approval"}]
HOLD = [{"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 60}}]
GATE = {"backtest": {"decisions": 100, "maxFlipRate": "10%", "maxNewBlocks": "5%"}}


async def begin(site: Site, **spec: Any) -> str:
    """Have alice write one content and then another one that does not go live at once; return its digest."""
    await write(site, "alice", policy("92%"))
    await write(site, "alice", policy("80%", **spec))
    await site.reconcile()
    return next(each for each in digests(site) if each != site.stable)


async def test_an_approver_who_is_not_known_takes_the_name_of_whoever_approved_before(site: Site):
    site.restart()
    second = await begin(site, rollout={"steps": APPROVALS})
    await write(site, "bob", override_manifest(approve={"digest": second, "throughStep": "one"}))
    before = site.status["candidate"]
    # No operator answers the API server.
    await site.apply(override_manifest(approve={"digest": second}))

    assert (before["step"], before["approvedBy"]) == ("two", "bob")
    assert site.stable == second
    assert "approvedBy" not in site.status["history"][0]


async def test_an_approval_that_lets_nothing_through_names_nobody(site: Site):
    second = await begin(site, rollout={"steps": HOLD + APPROVALS})
    await write(site, "bob", override_manifest(approve={"digest": second, "throughStep": "elsewhere"}))
    under_way = site.status["candidate"]
    await write(site, "alice", policy("80%"))

    assert (under_way["step"], "approvedBy" in under_way) == ("half", False)
    assert site.stable == second
    assert "approvedBy" not in site.status["history"][0]


@pytest.mark.parametrize("steps", [[], HOLD], ids=["at once", "by steps"])
async def test_who_let_content_through_its_gate_is_named(steps: list[Any], site: Site):
    site.restart(approval_by_another=True, backtests=FixedBacktests())
    await write(site, "alice", policy("92%"))
    await write(site, "alice", policy("80%", gates=GATE, rollout={"steps": steps}))
    second = site.status["candidate"]["digest"]
    held = site.condition("Reconciling")
    await write(site, "bob", override_manifest(approve={"digest": second, "throughStep": "elsewhere"}))
    await write(site, "carol", override_manifest())
    await pass_time(site, 61)

    assert held == ("True", "Backtesting")
    assert (site.stable, site.status["history"][0]["approvedBy"]) == (second, "bob")


@pytest.mark.parametrize("at_deadline", ["Hold", "RollBack"])
async def test_who_let_content_go_on_after_its_deadline_is_named(at_deadline: str, site: Site):
    late = {"progressDeadlineSeconds": 30, "onDeadline": at_deadline}
    second = await begin(site, rollout={"steps": HOLD, **late})
    await pass_time(site, 31)
    stalled = site.condition("Stalled")
    await write(site, "bob", override_manifest(approve={"digest": second}))
    named = site.status["candidate"].get("approvedBy")

    assert stalled == ("True", "DeadlineExceeded")
    assert named == "bob"


@pytest.mark.parametrize("else_said", [policy, with_list], ids=["valid", "its list is missing"])
async def test_what_failed_needs_another_too_and_is_not_freed_while_the_policy_says_something_else(
    else_said: Callable[..., dict[str, Any]], site: Site
):
    slow = {"rollout": {"steps": STEPS, "progressDeadlineSeconds": 100, "onDeadline": "RollBack"}}
    await write(site, "bob", policy("92%", **slow))
    await write(site, "alice", policy("80%", **slow))
    await site.reconcile()
    second = site.route["candidate"]["digest"]
    await pass_time(site, 101)
    await write(site, "alice", override_manifest(approve={"digest": second}))
    assert site.condition("Stalled") == ("True", "DeadlineExceeded")
    await write(site, "bob", else_said(**slow))
    await write(site, "alice", policy("80%", **slow))
    assert site.condition("Stalled") == ("True", "DeadlineExceeded")
    await write(site, "carol", override_manifest())
    first = site.stable
    await write(site, "carol", override_manifest(approve={"digest": second}))

    assert first != second
    assert site.stable == second


async def test_who_applied_is_not_known_and_somebody_stands_for_it_by_the_words_that_the_condition_gives(site: Site):
    steps = {"rollout": {"steps": STEPS}}
    await site.apply(policy("92%", **steps))
    await site.apply(policy("80%", **steps))
    second = site.route["candidate"]["digest"]
    await write(site, "alice", override_manifest(approve={"digest": second}))
    said = site.message("Ready")
    command = said.partition(f'{APPLIED_BY_ANNOTATION}="')[2].partition(" $(")[0]
    before = site.find(POLICY_KIND)
    stand = annotated(before, f"{command} bob")
    await site.apply({**stamped("bob", stand, before), "status": before["status"]})

    assert "not known who applied the content" in said
    assert f"kubectl -n {SPACE} annotate modpol community --overwrite" in said
    assert site.stable == second
    assert site.status["history"][0]["by"] == "bob"


async def test_without_the_setting_an_approval_counts_whoever_wrote_it(site: Site):
    site.restart()
    steps = {"rollout": {"steps": STEPS}}
    await write(site, "alice", policy("92%", **steps))
    await write(site, "alice", policy("80%", **steps))
    await site.reconcile()
    second = site.route["candidate"]["digest"]
    await write(site, "alice", override_manifest(approve={"digest": second}))

    assert (site.stable, site.status["history"][0]["approvedBy"]) == (second, "alice")
