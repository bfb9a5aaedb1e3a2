"""`kubectl baleen` during a rollout: what it concludes from what an operator in memory wrote, and what it writes."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from baleen_cli.kubectl_commands.acting import _approve, _find_meant
from baleen_cli.kubectl_commands.comparing import choose_two
from baleen_cli.kubectl_commands.facts import candidates, with_override
from baleen_cli.kubectl_commands.overrides import approved, paused, pinned, rejected, unapproved, unpaused
from baleen_cli.kubectl_commands.rollouts import (
    AT_GATE,
    describe_rollout,
    find_rollout,
    find_rollouts,
    read_plan,
    steps_to_approve,
)
from baleen_cli.kubectl_commands.showing import as_object, show_policies
from baleen_cli.kubectl_commands.watching import View, watch_view
from baleen_cli.kubectl_commands.words import NEXT_BY_REASON, describe_place, explain_digest, explain_policy
from baleen_core.decision.backtest import Backtest
from baleen_core.errors import BaleenError, ClusterError, NotFound
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import name_text
from baleen_core.records import Context
from baleen_core.resources import APPLIED_BY_ANNOTATION, APPROVED_BY_ANNOTATION, POLICY_KIND
from baleen_operator.plan import rollout as machine
from baleen_operator.reconcile.ports import Acknowledged
from baleen_operator.resources.stamps import name_approval, write_stamp
from memory_cluster import FixedBacktests, FixedGateways
from policies import override_manifest
from policy_site import KEY, Site, pass_time, policy
from rolling_site import STEPS, facts_of, rolling, stepped


def rollout_of(site: Site) -> Any:
    return find_rollout(facts_of(site), site.clock.now)


def shown(site: Site) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(show_policies([facts_of(site)], site.clock.now, with_namespaces=False))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "step", "weight", "reason"),
    [
        (0, "shadow", "shadow", "Shadow"),
        (61, "staff", "staff,beta", "Holding"),
        (122, "canary", "5%", "Holding"),
        (183, "sign-off", "5%", "AwaitingApproval"),
    ],
)
async def test_each_step_is_shown_with_whom_it_judges_and_what_it_waits_for(seconds, step, weight, reason):
    site = await rolling(seconds)
    found, facts, table = rollout_of(site), facts_of(site), shown(site)
    machines = as_object(facts, site.clock.now)["candidate"]

    assert (found.version, found.step, found.weight, found.reason) == ("v2", step, weight, reason)
    assert found.is_judging
    assert (machines["step"], machines["weight"], machines["reason"]) == (step, weight, reason)
    assert machines["digest"] == site.route["candidate"]["digest"]
    assert machines["weightBasisPoints"] == site.route["candidate"]["weightBasisPoints"]
    for word in ("CANDIDATE", "STEP", "WEIGHT", "v2", step, weight, reason, "community: v2 (sha256:"):
        assert word in table, table


async def test_without_a_candidate_nothing_is_shown_of_one():
    site = await rolling()
    await site.apply(stepped("92%", "v1"))

    assert rollout_of(site) is None
    assert as_object(facts_of(site), site.clock.now)["candidate"] is None
    assert "CANDIDATE" not in shown(site)


async def test_a_rejection_ends_a_candidate_before_any_operator_looks():
    site = await rolling(122)
    digest = site.route["candidate"]["digest"]
    facts = with_override(facts_of(site), override_manifest(reject=[digest]))

    assert find_rollout(facts, site.clock.now) is None
    assert "is rejected by override" in "\n".join(explain_digest(facts, digest, site.clock.now))
    await site.apply(override_manifest(reject=[digest]))
    # What the policy says is still named by the status, and is no candidate.
    assert site.status["candidate"]["digest"] == digest
    assert rollout_of(site) is None


async def test_beside_a_pin_a_candidate_judges_nobody():
    site = await rolling(122)
    facts = with_override(facts_of(site), override_manifest(pin={"digest": site.stable}))
    found = find_rollout(facts, site.clock.now)

    assert found is not None
    assert (found.is_judging, found.weight, found.judges) == (False, "none", "nobody")
    assert "It judges nobody" in "\n".join(explain_policy(facts, site.clock.now))


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(0, "Shadow"), (61, "Holding"), (122, "Holding"), (183, "AwaitingApproval"), (86_400, "DeadlineExceeded")],
)
async def test_in_every_step_it_is_the_candidate_that_is_gone_back_from(seconds, reason):
    site = await rolling(min(seconds, 183))
    await pass_time(site, max(0, seconds - 183))

    assert site.condition("Ready") == ("False", reason)
    assert _find_meant(facts_of(site), site.clock.now) == site.route["candidate"]["digest"]


@pytest.mark.parametrize("type", ["Shadow", "Approval", "Weight"])
@pytest.mark.parametrize("is_everywhere", [True, False])
async def test_before_it_counts_for_anybody_too_it_is_the_candidate_that_is_gone_back_from(type, is_everywhere):
    first = {"name": "first", "type": type} | {"Weight": {"weight": "0%"}}.get(type, {})
    first |= {} if type == "Approval" else {"until": {"seconds": 60}}
    steps = [first, {"name": "sign-off", "type": "Approval"}]
    site = Site()
    await site.apply(policy("92%", version="v1"))
    if not is_everywhere:
        site.restart(gateways=FixedGateways(Acknowledged(total=2, current=1, stale=("gw-1",))))
    await site.apply(policy("80%", version="v2", rollout={"steps": steps}))
    seen = [_find_meant(facts_of(site), site.clock.now)]
    await pass_time(site, 61)
    seen.append(_find_meant(facts_of(site), site.clock.now))

    reason = "AwaitingApproval" if is_everywhere else "Preparing"
    assert site.condition("Ready") == ("False", reason)
    assert seen == [site.route["candidate"]["digest"]] * 2


async def test_a_candidate_that_is_kept_from_judging_is_asked_about():
    site = await rolling()
    pin = override_manifest(pin={"digest": site.stable})
    with pytest.raises(NotFound, match=r"\(v2\) waits and judges nobody; name the one to reject with: kubectl baleen"):
        _find_meant(with_override(facts_of(site), pin), site.clock.now)


async def test_without_a_candidate_or_after_it_failed_it_is_what_is_in_force_that_is_gone_back_from():
    failed = await rolling(rollout={"progressDeadlineSeconds": 30, "onDeadline": "RollBack"})
    await pass_time(failed, 31)
    without = await rolling()
    await without.apply(stepped("92%", "v1"))

    assert failed.condition("Ready") == ("False", "DeadlineExceeded")
    for site in (failed, without):
        assert _find_meant(facts_of(site), site.clock.now) == site.stable


async def test_what_is_routed_though_a_pin_hides_it_is_no_candidate():
    site = await rolling()
    first = site.stable
    await site.apply(policy("70%", version="v3"))
    await site.apply(override_manifest(pin={"digest": first}))

    assert site.status["candidate"]["digest"] == site.stable
    assert rollout_of(site) is None


async def test_the_route_counts_where_the_status_is_of_another_candidate():
    site = await rolling(122)
    site.cluster.edit(
        POLICY_KIND, *KEY, lambda manifest: manifest["status"]["candidate"].update(digest=f"sha256:{'0' * 64}")
    )
    found = rollout_of(site)

    assert found.digest == site.route["candidate"]["digest"]
    assert (found.step, found.weight) == ("", "5%")
    assert "judging 5% of the content; the operator has not said" in describe_rollout(found)


async def test_content_that_waits_is_a_candidate_that_judges_nobody():
    site = await rolling()
    site.cluster.models_served = ()
    await site.apply(stepped("70%", "v3"))
    found = rollout_of(site)

    assert (found.version, found.step, found.weight, found.exposure) == ("v3", "", "none", None)
    assert found.reason == "ModelsUnavailable"
    assert "is the candidate, waiting to begin, judging nobody" in "\n".join(
        explain_digest(facts_of(site), found.digest, site.clock.now)
    )


@pytest.mark.parametrize(
    "reason",
    [
        machine.PREPARING,
        machine.SHADOW,
        machine.HOLDING,
        machine.AWAITING_APPROVAL,
        machine.PAUSED,
        machine.DEADLINE_EXCEEDED,
    ],
)
async def test_explain_says_where_a_candidate_is_and_what_to_do_for_every_reason(reason):
    site = await rolling({machine.HOLDING: 122, machine.AWAITING_APPROVAL: 183}.get(reason, 0))
    match reason:
        case machine.PREPARING:
            site.restart(gateways=FixedGateways(Acknowledged(total=2, current=1, stale=("gw-1",))))
            await site.apply(stepped("70%", "v3"))
        case machine.PAUSED:
            await site.apply(override_manifest(paused=True))
        case machine.DEADLINE_EXCEEDED:
            await pass_time(site, 86_401)
    said = "\n".join(explain_policy(facts_of(site), site.clock.now))

    assert "Candidate: sha256:" in said
    assert re.search(rf"Generation \d is not Ready since \w+ \({reason}\): v\d \(sha256:", said)
    assert f"  Next: {NEXT_BY_REASON[reason]}" in said
    assert "Besides" not in said


def test_there_is_something_to_do_for_every_reason_of_a_rollout():
    reasons = {value for name, value in vars(machine).items() if name.isupper() and isinstance(value, str)}

    assert len(reasons) >= 6
    assert reasons - NEXT_BY_REASON.keys() == set()


async def test_a_candidate_at_its_gate_can_be_approved_and_explained():
    site = await rolling()
    site.restart(backtests=FixedBacktests())
    gates = {"backtest": {"decisions": 9, "maxNewBlocks": "1%"}}
    await site.apply(stepped("70%", "v3", gates=gates))
    seen = {}
    for said in ({}, {"problem": "gw-1 does not answer"}, {"found": Backtest()}):
        if said:
            await pass_time(site, 3)
            site.ports.backtests.answer(site.clock(), **said)
            await site.reconcile()
        seen[rollout_of(site).reason] = "\n".join(explain_policy(facts_of(site), site.clock.now))
    intent = _approve(facts_of(site), rollout_of(site), "", site.clock.now)

    assert seen.keys() == AT_GATE - {"GateFailed"}
    for reason, words in seen.items():
        assert "waiting to begin, judging nobody" in words
        assert f"  Next: {NEXT_BY_REASON[reason]}" in words
    assert intent.told.endswith("is approved")
    assert intent.qualify(facts_of(site)) == " through all its steps; it passes its gate"


@pytest.mark.parametrize(
    ("applier", "before", "approver", "words"),
    [
        pytest.param("alice", "", "bob", [], id="another"),
        pytest.param("", "", "bob", [], id="nobody is known to have applied it"),
        pytest.param("alice", "", "", [], id="nobody is known to have approved it"),
        pytest.param("alice", "", "alice", ["alice applied it, too: where `approvalByAnother` is on"], id="the same"),
        pytest.param("alice", "bob", "bob", ["bob approved it before, and it stays in that name"], id="as before"),
        pytest.param("al", "al", "al", ["al approved it before", "al applied it, too"], id="as before and the same"),
    ],
)
async def test_whose_an_approval_is_is_told_where_that_matters(applier, before, approver, words):
    site = await rolling(183)
    facts = facts_of(site)
    digest = site.route["candidate"]["digest"]
    applied = write_stamp(name_text(parse_policy(facts.policy)), applier)
    facts = replace(facts, policy=annotated(facts.policy, APPLIED_BY_ANNOTATION, applied))

    def approved_by(user: str) -> dict[str, Any]:
        stamp = write_stamp(name_approval(digest, "sign-off"), user)
        found = override_manifest(approve={"digest": digest, "throughStep": "sign-off"})
        return annotated(found, APPROVED_BY_ANNOTATION, stamp)

    facts = with_override(facts, approved_by(before)) if before else facts
    intent = _approve(facts, rollout_of(site), "sign-off", site.clock.now)
    told = intent.qualify(with_override(facts, approved_by(approver)))

    assert [part for part in told.split("; ")[1:] if not any(part.startswith(each) for each in words)] == []
    assert len(told.split("; ")) == 1 + len(words)
    assert ("kubectl baleen approve community -n trust-safety --remove" in told) == bool(before)


def annotated(found: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    return found | {"metadata": found["metadata"] | {"annotations": {name: value} if value else {}}}


async def test_explain_names_an_approval_and_how_to_take_it_back():
    site = await rolling(183)
    digest = site.route["candidate"]["digest"]
    await site.apply(override_manifest(approve={"digest": digest, "throughStep": "sign-off"}, paused=True))
    said = "\n".join(explain_policy(facts_of(site), site.clock.now))

    assert f"Override approves {digest[:17]} (v2) through step sign-off" in said
    assert "kubectl baleen approve community -n trust-safety --remove" in said
    assert "kubectl baleen pause community -n trust-safety --remove" in said


async def test_what_failed_is_told_with_what_became_of_it_and_how_it_is_tried_again():
    site = await rolling(122, rollout={"progressDeadlineSeconds": 150, "onDeadline": "RollBack"})
    digest = site.route["candidate"]["digest"]
    await pass_time(site, 61)
    facts, now = facts_of(site), site.clock.now
    policy_words, digest_words = (
        "\n".join(words) for words in (explain_policy(facts, now), explain_digest(facts, digest, now))
    )
    found = find_rollout(facts, now)

    assert "candidate" not in site.route
    assert facts.failed(digest) is not None
    assert f"Failed: {digest[:17]} (v2) at 2026" in policy_words
    assert "(DeadlineExceeded): " in policy_words
    assert NEXT_BY_REASON["DeadlineExceeded"] in policy_words
    assert "failed at 2026" in digest_words
    assert "kubectl baleen approve community -n trust-safety" in digest_words
    assert found is not None
    assert (found.is_judging, found.reason) == (False, "DeadlineExceeded")


async def test_the_steps_that_are_still_to_be_approved_are_those_ahead():
    site = await rolling(183)
    facts, now = facts_of(site), site.clock.now
    plan = read_plan(facts.policy)
    before = find_rollout(facts, now)
    await site.apply(override_manifest(approve={"digest": before.digest, "throughStep": "sign-off"}))
    after = rollout_of(site)

    assert [each.name for each in steps_to_approve(plan, before)] == ["sign-off", "last-look"]
    assert after.step == "half"
    assert [each.name for each in steps_to_approve(plan, after)] == ["last-look"]


async def test_the_plan_of_a_policy_that_is_not_valid_any_more_is_not_known():
    site = await rolling(122)
    await site.apply(policy("70%", version="v3", rollout={"steps": STEPS}, tests=[{"name": "t"}]))

    assert rollout_of(site).weight == "5%"
    assert read_plan(facts_of(site).policy) is None
    assert read_plan(None) is None


async def test_diff_compares_the_candidate_with_what_is_in_force_unless_told_otherwise():
    site = await rolling(122)
    facts, now = facts_of(site), site.clock.now
    digest = site.route["candidate"]["digest"]
    before, after = choose_two(facts, "", "", now)
    old, new = choose_two(facts, "v2", "v1", now)
    rejecting = with_override(facts, override_manifest(reject=[digest]))

    assert before is not None
    assert (before.digest, after.digest) == (site.stable, digest)
    assert old is not None
    assert (old.digest, new.digest) == (digest, site.stable)
    # What never was in force was not before what is.
    assert choose_two(rejecting, "", "", now)[0] is None


async def test_where_a_policy_wins_its_candidate_is_told_of():
    site = await rolling(122)
    facts, now = facts_of(site), site.clock.now
    said = describe_place(candidates([facts], now), Context(), find_rollouts([facts], now))
    pinned_facts = with_override(facts, override_manifest(pin={"digest": site.stable}))

    assert "    beside it v2 is rolled out, judging 5% of the content (step canary)" in said
    assert not [
        each
        for each in describe_place(candidates([pinned_facts], now), Context(), find_rollouts([pinned_facts], now))
        if "beside it" in each
    ]


A, B = (f"sha256:{letter * 64}" for letter in "ab")
digests = st.sampled_from([A, B])
parts = st.fixed_dictionaries(
    {}, optional={"reject": st.just([B]), "pin": st.just({"digest": B}), "paused": st.just(True)}
)


@given(said=parts, digest=digests, through=st.sampled_from(["", "sign-off"]))
def test_approving_and_pausing_leave_what_else_is_said_and_can_be_taken_back(said, digest, through):
    after = approved(digest, through=through)(said)

    assert after["approve"] == {"digest": digest} | ({"throughStep": through} if through else {})
    assert unapproved(after) == said
    assert {name: each for name, each in after.items() if name != "approve"} == said
    assert unpaused(paused(said)) == {name: each for name, each in said.items() if name != "paused"}


@given(said=parts, digest=digests, other=digests)
def test_what_is_rejected_is_not_approved_any_more(said, digest, other):
    after = rejected(digest)(approved(other, through="")(said))

    assert ("approve" in after) == (digest != other)
    assert digest in after["reject"]


def test_a_pin_leaves_an_approval_alone():
    assert pinned(B, reason="", expires="")(approved(A, through="")({}))["approve"] == {"digest": A}


class Watching:
    """What is seen at each look in turn, an error where there is one; Ctrl-C comes after the last."""

    def __init__(self, *seen: View | BaleenError) -> None:
        self._seen = list(seen)

    def look(self) -> View:
        found = self._seen.pop(0)
        if isinstance(found, BaleenError):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        if not self._seen:
            raise KeyboardInterrupt


def watched(*seen: View | BaleenError, is_terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=is_terminal)
    watching = Watching(*seen)
    watch_view(watching.look, console, sleep=watching.sleep)
    return console.file.getvalue()  # type: ignore[attr-defined]


def view(sources: str, shown: str) -> View:
    return View(sources=sources, shown=Text(shown))


def test_a_watch_prints_what_changed_and_not_what_only_grew_older():
    assert watched(view("1", "30s"), view("1", "31s"), view("2", "32s"), view("1", "33s")) == "30s\n32s\n33s\n"


def test_a_watch_in_a_terminal_draws_every_look():
    drawn = watched(view("1", "30s"), view("1", "31s"), is_terminal=True)

    assert drawn.index("30s") < drawn.index("31s")


def test_a_watch_goes_on_while_the_api_server_is_away():
    away = ClusterError("it does not answer")

    assert watched(view("1", "one"), away, away, view("2", "two")) == (
        "one\none\nnot seen any more: it does not answer\ntwo\n"
    )


@pytest.mark.parametrize("error", [ClusterError("away"), NotFound("unknown policy")])
def test_a_watch_that_sees_nothing_at_first_says_why(error):
    with pytest.raises(type(error), match=str(error)):
        watched(error)
