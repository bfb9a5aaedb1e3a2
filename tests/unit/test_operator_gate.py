"""The gate of logged decisions: when it is asked, what its answer does, and that nothing makes it change its mind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.backtest import Backtest
from baleen_core.decision.flips import Rejudged, summarize
from baleen_core.policy.schema import BacktestGate
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, ROUTE_KIND
from baleen_operator.plan.gate import Asked, Gating, Question, look, records_after
from memory_cluster import FixedBacktests, Killed
from policies import override_manifest
from policy_site import KEY, Site, pass_time, policy

START = datetime(2026, 2, 1, tzinfo=UTC)
GATE = {"decisions": 100, "maxFlipRate": "10%", "maxNewBlocks": "5%"}
STEPS = [{"name": "shadow", "type": "Shadow", "until": {"seconds": 60}}]
QUESTION = Question(
    candidate="sha256:" + "b" * 64,
    stable="sha256:" + "a" * 64,
    gate=BacktestGate(decisions=100, max_flip_rate=100_000, max_new_blocks=50_000),
)


def logs(*, same: int = 0, blocks: int = 0, unknown: int = 0) -> Backtest:
    """What logs say of so many decisions that stay as they were, and so many that would be blocked."""
    found = [
        Rejudged(id=f"d-{number}", before=0, after=after, categories={"insult": (0, after)}, language="en")
        for number, after in enumerate([0] * same + [2] * blocks)
    ]
    return Backtest(flips=summarize(found), unknown=unknown)


GOOD, BAD, FEW = logs(same=99, blocks=1), logs(same=80, blocks=20), logs(same=9)


# The state machine

answers = st.one_of(
    st.just({"problem": "gw-2 does not answer"}), st.sampled_from([{"found": found} for found in (GOOD, BAD, FEW)])
)


@given(st.lists(st.tuples(answers, st.integers(0, 700), st.booleans()), max_size=12))
def test_what_passed_or_failed_once_stays_so_and_only_then_nobody_is_asked(said):
    """Whatever is answered when, and whenever the operator is started again and has forgotten what it asked."""
    known, asked, now, decided = (), Asked(), START, None
    for answer, seconds, restarts in said:
        now += timedelta(seconds=seconds)
        asked = Asked() if restarts else asked
        found = look(QUESTION, known, asked, now)
        known = records_after(known, found.record)
        assert found.gating is not Gating.OPEN or decided == "Pass"
        if decided:
            assert found == look(QUESTION, known, Asked(), START)
            assert (found.question, found.wait_seconds) == (None, None)
            assert found.gating is {"Pass": Gating.OPEN, "Fail": Gating.FAILED}[decided]
        elif found.record is not None and found.record.verdict != "Inconclusive":
            decided = found.record.verdict
        else:
            assert (found.question is None) == (found.wait_seconds is not None)
        if found.question is not None:
            under_way = replace(asked, under_way=QUESTION)
            assert look(QUESTION, known, under_way, now).question is None
            tries = asked.tries + 1 if asked.question else 1
            asked = Asked(question=QUESTION, time=now, tries=tries, **answer)
    assert len(known) <= 1


def test_a_question_is_asked_again_later_each_time():
    def waits(tries: int, **said: Any) -> float | None:
        return look(QUESTION, (), Asked(question=QUESTION, time=START, tries=tries, **said), START).wait_seconds

    assert [waits(tries, problem="gw-2 does not answer") for tries in (1, 2, 3, 9)] == [2, 4, 8, 60]
    assert [waits(tries, found=FEW) for tries in (1, 2, 9)] == [30, 60, 600]


def test_a_clock_that_was_put_back_keeps_no_question_from_being_asked():
    asked = Asked(question=QUESTION, found=FEW, time=START + timedelta(days=1), tries=3)

    assert look(QUESTION, (), asked, START).question == QUESTION


def test_an_answer_to_another_question_is_none():
    stale = Asked(question=replace(QUESTION, stable="sha256:" + "c" * 64), found=GOOD, time=START, tries=1)

    found = look(QUESTION, (), stale, START)

    assert (found.gating, found.question, found.record) == (Gating.ASKING, QUESTION, None)


# In a cluster


@pytest.fixture
def site() -> Site:
    site = Site()
    site.restart(backtests=FixedBacktests())
    return site


def gated(block: str, version: str, gate: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return policy(block, version=version, gates={"backtest": GATE if gate is None else gate}, **spec)


async def answered(site: Site, **said: Any) -> None:
    """Have the gateways answer, and the operator hear of it."""
    site.ports.backtests.answer(site.clock(), **said)
    await site.reconcile()


async def asked_for(site: Site, **spec: Any) -> str:
    """Put a first policy in force, edit it, and return the digest of the edit, which is at its gate."""
    await site.apply(gated("92%", "v1", **spec))
    assert site.ports.backtests.questions == [], "the first content of a policy has nothing to go beside"
    await site.apply(gated("80%", "v2", **spec))
    return str(site.status["candidate"]["digest"])


@pytest.mark.parametrize("rollout", [{}, {"steps": STEPS}], ids=["at once", "by steps"])
async def test_an_edit_begins_once_the_logs_passed_it(site, rollout):
    second = await asked_for(site, rollout=rollout)
    first = site.stable
    (asked,) = site.ports.backtests.questions

    assert (asked[0].stable, asked[0].candidate) == (first, second)
    assert (asked[1].policy, asked[1].decisions) == ("/".join(KEY), 100)
    assert [each.digest for each in (asked[1].stable, asked[1].candidate)] == [first, second]
    assert site.condition("Reconciling") == ("True", "Backtesting")
    assert (site.condition("Accepted")[0], site.route.get("candidate")) == ("True", None)
    await answered(site, found=GOOD)

    if rollout:
        assert (site.stable, site.route["candidate"]["digest"]) == (first, second)
        assert site.condition("Reconciling") == ("True", "Shadow")
        await pass_time(site, 61)
    assert site.stable == second
    assert site.condition("Ready") == ("True", "InForce")
    assert len(site.ports.backtests.questions) == 1
    assert [each["verdict"] for each in site.status["backtests"]] == ["Pass"]


async def test_an_edit_that_fails_says_what_to_change_and_an_approval_lets_it_through(site):
    second = await asked_for(site)
    first = site.stable
    await answered(site, found=BAD)

    message = site.message("Stalled")
    assert (site.condition("Stalled"), site.condition("Accepted")) == (("True", "GateFailed"), ("False", "GateFailed"))
    assert site.condition("Reconciling")[0] == "False"
    for said in ("20% of 100 logged decisions", "maxNewBlocks (5%)", "by category insult (20)", "spec.approve"):
        assert said in message
    assert site.stable == first
    assert "GateFailed" in site.cluster.events()
    # Started again, it asks nobody again.
    site.restart(backtests=FixedBacktests())
    await pass_time(site, 10_000)
    assert site.ports.backtests.questions == []
    assert site.message("Stalled") == message

    await site.apply(override_manifest(approve={"digest": second}))
    assert (site.stable, site.condition("Ready")) == (second, ("True", "InForce"))


async def test_an_approval_that_is_taken_back_before_it_began_lets_nothing_through(site):
    second = await asked_for(site, rollout={"steps": STEPS})
    first = site.stable
    await answered(site, found=BAD)
    await site.apply(override_manifest(approve={"digest": "sha256:" + "0" * 64}))
    assert site.route.get("candidate") is None
    await site.apply(override_manifest(approve={"digest": second}))
    assert site.route["candidate"]["digest"] == second
    # What has begun goes on by its steps.
    site.cluster.remove(OVERRIDE_KIND, *KEY)
    await pass_time(site, 61)

    assert first != second
    assert site.stable == second


async def test_too_few_decisions_hold_and_are_asked_for_again(site):
    second = await asked_for(site)
    await answered(site, found=FEW)

    assert site.condition("Reconciling") == ("True", "GateInconclusive")
    assert site.condition("Stalled")[0] == "False"
    for said in ("9 decisions of this policy", "100 are wanted", "spec.approve"):
        assert said in site.message("Ready")
    assert "GateInconclusive" in site.cluster.events()
    await pass_time(site, 10)
    assert len(site.ports.backtests.questions) == 1
    await pass_time(site, 31)
    assert len(site.ports.backtests.questions) == 2
    assert site.condition("Reconciling") == ("True", "GateInconclusive")
    await answered(site, found=GOOD)
    assert site.stable == second


async def test_a_gateway_that_does_not_answer_is_no_pass(site):
    second = await asked_for(site)
    first = site.stable
    await answered(site, problem="gw-2 does not answer")

    assert (site.stable, site.condition("Reconciling")) == (first, ("True", "GateUnanswered"))
    assert "gw-2 does not answer" in site.message("Ready")
    assert "backtests" not in site.status
    await pass_time(site, 3)
    await answered(site, found=GOOD)
    assert site.stable == second


async def test_one_edit_cannot_remove_or_widen_the_gate_that_would_stop_it(site):
    await site.apply(gated("92%", "v1"))
    await site.apply(policy("80%", version="v2"))
    await site.apply(gated("70%", "v3", {"decisions": 50, "maxFlipRate": "90%", "maxNewBlocks": "90%"}))

    assert site.route["gates"] == {"backtest": GATE}
    gates = [question.gate for question, _ in site.ports.backtests.questions]
    assert gates == [BacktestGate(decisions=100, max_flip_rate=100_000, max_new_blocks=50_000)] * 2
    # By an edit of its own it goes.
    await site.apply(policy("92%", version="v1"))
    assert "gates" not in site.route
    await site.apply(policy("80%", version="v2"))
    assert site.condition("Ready") == ("True", "InForce")


async def test_after_an_edit_of_the_gate_the_same_content_is_asked_about_anew(site):
    await asked_for(site)
    await answered(site, found=BAD)
    wide = {"decisions": 100, "maxNewBlocks": "30%"}
    await site.apply(gated("92%", "v1", wide))
    second = await site.apply(gated("80%", "v2", wide))
    assert second["candidate"]["digest"] == site.ports.backtests.questions[-1][0].candidate
    await answered(site, found=BAD)

    assert site.condition("Ready") == ("True", "InForce")
    assert [each["verdict"] for each in site.status["backtests"]] == ["Pass", "Fail"]


async def test_what_was_stable_a_while_ago_returns_without_a_question(site):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2"))
    await site.apply(gated("92%", "v1"))

    assert site.history()[0][1] == "Returned"
    assert site.ports.backtests.questions == []


async def test_what_is_rolled_out_is_asked_about_no_more(site):
    second = await asked_for(site, rollout={"steps": STEPS})
    await answered(site, found=GOOD)
    longer = {"steps": [*STEPS, {"name": "half", "type": "Weight", "weight": "50%"}]}
    await site.apply(gated("80%", "v2", {"decisions": 100, "maxNewBlocks": "0%"}, rollout=longer))

    assert site.route["candidate"]["digest"] == second
    assert len(site.ports.backtests.questions) == 1


async def test_a_paused_edit_is_not_asked_about(site):
    await site.apply(gated("92%", "v1"))
    await site.apply(gated("80%", "v2", paused=True))

    assert site.condition("Reconciling") == ("True", "Paused")
    assert site.ports.backtests.questions == []


async def test_an_edit_at_its_gate_takes_the_candidate_before_it_back(site):
    await site.apply(policy("92%", version="v1"))
    await site.apply(policy("80%", version="v2", rollout={"steps": STEPS}))
    assert "candidate" in site.route
    await site.apply(gated("70%", "v3", rollout={"steps": STEPS}))

    assert "candidate" not in site.route
    assert site.condition("Reconciling") == ("True", "Backtesting")


async def test_where_the_route_is_gone_nothing_gets_past_the_gate(site):
    await site.apply(gated("92%", "v1"))
    first = site.stable
    site.cluster.remove(ROUTE_KIND, *KEY)
    await site.apply(gated("80%", "v2"))

    assert site.stable == first
    assert site.condition("Reconciling") == ("True", "Backtesting")


@pytest.mark.parametrize("found", [GOOD, BAD], ids=["passed", "failed"])
@pytest.mark.parametrize("actions", [1, 2, 3])
async def test_an_operator_that_is_killed_while_it_hears_the_answer_comes_to_the_same(site, found, actions):
    second = await asked_for(site, rollout={"steps": STEPS})
    site.ports.backtests.answer(site.clock(), found=found)
    site.cluster.kill_after = actions
    try:
        await site.reconcile()
    except Killed:
        site.restart(backtests=FixedBacktests())
        site.cluster.kill_after = None
        await site.reconcile()
    if site.ports.backtests.questions and site.ports.backtests.told.under_way:
        await answered(site, found=found)

    if found is GOOD:
        assert site.route["candidate"]["digest"] == second
    else:
        assert "candidate" not in site.route
        assert site.condition("Stalled") == ("True", "GateFailed")


async def test_a_status_that_somebody_altered_opens_no_gate(site):
    await asked_for(site)
    first = site.stable
    nonsense = [{"verdict": "Pass"}, "Pass", {"candidate": 5, "stable": [], "gate": {}, "verdict": "Pass"}]
    site.cluster.edit(POLICY_KIND, *KEY, lambda each: each["status"].update(backtests=nonsense))
    await site.reconcile()

    assert site.stable == first
    assert site.condition("Reconciling") == ("True", "Backtesting")


@pytest.mark.parametrize(
    ("found", "gating"),
    [
        pytest.param((GOOD, GOOD), Gating.ASKING, id="both good"),
        pytest.param((GOOD, BAD), Gating.FAILED, id="one bad"),
        pytest.param((BAD, GOOD), Gating.FAILED, id="the other one bad"),
        pytest.param((GOOD, FEW), Gating.INCONCLUSIVE, id="one has too few"),
        pytest.param((GOOD, FEW, BAD), Gating.FAILED, id="one bad, and one has too few"),
    ],
)
def test_what_may_be_true_as_well_holds_a_candidate_too(found, gating):
    asked = Asked(question=QUESTION, found=found[0], also=found[1:], time=START, tries=1)

    assert look(QUESTION, (), asked, START).gating == gating
