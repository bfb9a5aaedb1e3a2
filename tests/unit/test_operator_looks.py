"""Rollouts with PromQL metrics, in a cluster in memory: when the server is asked, what it changes, and who may ask."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.analysis.looks import Reading
from baleen_core.analysis.metrics import Metric, MetricType
from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import AnalysisPlan
from baleen_operator.plan.looks import MIN_LOOK_SECONDS, Looked, look_at
from baleen_operator.plan.rollout import State
from baleen_operator.reconcile.ports import Acknowledged
from baleen_operator.resources.policy import Compared
from memory_cluster import FixedGateways, FixedProvider, Killed
from policies import override_manifest
from policy_site import TROUBLES, Site, lose_status, pass_time, policy

GOOD, BAD, NONE = Reading(value=0.01), Reading(value=0.0312), Reading(problem="it has no result")
QUERY = 'sum(rate(refunds{revision="$candidate"}[5m])) / sum(rate(refunds{revision="$stable"}[5m]))'
REFUNDS: dict[str, Any] = {"name": "refunds", "type": "PromQL", "query": QUERY, "max": "2%"}
SHADOW = {"name": "shadow", "type": "Shadow", "until": {"seconds": 60}}
CANARY = {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 60}}
HALF = {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 60}}


@pytest.fixture
def site() -> Site:
    return Site()


async def rolling(
    site: Site, *steps: dict[str, Any], metric: dict[str, Any] = REFUNDS, unsure: str = "Hold", **ports: Any
) -> FixedProvider:
    """Begin a rollout with one query, which is asked every 30 seconds."""
    provider = FixedProvider()
    site.restart(provider=provider, **ports)
    plan = {"analysis": {"metrics": [metric], "onInconclusive": unsure}, "steps": list(steps or (CANARY,))}
    await site.apply(policy("92%", version="v1", rollout=plan))
    await site.apply(policy("80%", version="v2", rollout=plan))
    return provider


async def look(site: Site, provider: FixedProvider, *readings: Reading, seconds: float = 31) -> None:
    """Let the server be asked after so many seconds, and answer, as often as there are readings."""
    for each in readings:
        await pass_time(site, seconds)
        provider.answer(site.clock.now, refunds=each)
        await site.reconcile()


def row(site: Site) -> dict[str, Any]:
    [found] = site.status["analysis"]["metrics"]
    return found


def candidate(site: Site) -> dict[str, Any]:
    return site.route.get("candidate", {})


async def test_a_candidate_whose_number_is_beyond_its_limit_again_and_again_is_rolled_back(site):
    provider = await rolling(site)
    await look(site, provider, BAD, BAD)
    held = row(site)
    await look(site, provider, BAD)

    assert (held["candidate"], held["verdict"], held["beyond"]) == ("0.0312", "Inconclusive", 2)
    assert candidate(site) == {}
    assert site.condition("Stalled") == ("True", "AnalysisFailed")
    assert "gave 0.0312; allowed is at most 0.02: 3 of the 3 looks in a row" in site.message("Stalled")


async def test_the_server_is_asked_by_the_digests_of_both_sides_once_in_an_interval(site):
    provider = await rolling(site)
    site.cluster.actions.clear()
    outcome = await site.reconcile()
    early = list(provider.asked)
    await pass_time(site, 31)
    await site.reconcile()
    first = list(provider.asked)
    provider.answer(site.clock.now, refunds=GOOD)
    for _ in range(3):
        await pass_time(site, 5)

    assert early == []
    assert outcome.requeue_seconds is not None
    assert outcome.requeue_seconds <= 30
    [queries] = first
    [(name, text)] = queries.texts
    assert name == "refunds"
    assert text == QUERY.replace("$candidate", candidate(site)["digest"]).replace("$stable", site.stable)
    assert len(provider.asked) == 1


async def test_a_step_ends_when_so_many_looks_of_it_were_good(site):
    provider = await rolling(site, CANARY, HALF)
    await look(site, provider, GOOD, GOOD)
    early = site.status["candidate"]["step"]
    await look(site, provider, GOOD)
    then, reset = site.status["candidate"]["step"], row(site)
    await look(site, provider, GOOD, GOOD, GOOD)

    assert (early, then) == ("canary", "half")
    assert "within" not in reset, "what was good at 5 % says nothing of half of the content"
    assert site.condition("Ready") == ("True", "InForce")


@pytest.mark.parametrize("unsure", ["Promote", "RollBack"])
async def test_before_so_many_looks_what_is_not_known_is_not_for_the_policy_to_say(site, unsure):
    provider = await rolling(site, metric=REFUNDS | {"looks": 5}, unsure=unsure)
    await look(site, provider, BAD, BAD, BAD, BAD, NONE)
    site.restart(provider=provider)
    await pass_time(site, 5)
    held, told = site.condition("Reconciling"), site.message("Reconciling")
    await look(site, provider, BAD)

    assert held == ("True", "Holding")
    assert "its query gave no number" in told
    assert site.condition("Stalled") == ("True", "AnalysisFailed")


@pytest.mark.parametrize(
    ("unsure", "reason"), [("Hold", "Holding"), ("Promote", "InForce"), ("RollBack", "AnalysisInconclusive")]
)
async def test_looks_that_contradict_one_another_are_for_the_policy_to_judge(site, unsure, reason):
    provider = await rolling(site, unsure=unsure)
    await look(site, provider, BAD, GOOD)
    early, told, seen = site.condition("Ready"), site.message("Ready"), row(site)
    await look(site, provider, BAD)

    assert early == ("False", "Holding")
    assert "refunds: its query gave 0.01; allowed is at most 0.02: 1 of the 3 looks in a row" in told
    assert seen["numbers"] == 2
    assert site.condition("Ready")[1] == reason


async def test_a_look_without_a_number_holds_and_is_told_in_words(site):
    provider = await rolling(site)
    await look(site, provider, GOOD, GOOD, NONE, NONE, NONE)
    held = row(site)
    told = site.message("Ready")
    await look(site, provider, GOOD)

    assert (held["verdict"], held["within"], held["problem"]) == ("Error", 2, "it has no result")
    assert "candidate" not in held
    assert "refunds: its query gave no number: it has no result" in told
    assert site.condition("Ready") == ("True", "InForce")


async def test_an_answer_counts_once_however_often_the_policy_is_looked_at(site):
    provider = await rolling(site)
    await look(site, provider, BAD)
    for _ in range(5):
        await site.reconcile()

    assert row(site)["beyond"] == 1


async def test_an_operator_that_starts_again_goes_on_where_the_last_one_was(site):
    provider = await rolling(site)
    await look(site, provider, BAD, BAD)
    again = FixedProvider()
    site.restart(provider=again)
    await site.reconcile()
    asked_early = list(again.asked)
    await look(site, again, BAD)

    assert asked_early == []
    assert site.condition("Stalled") == ("True", "AnalysisFailed")


async def test_in_a_shadow_a_query_about_the_candidate_is_shown_and_has_no_say(site):
    provider = await rolling(site, SHADOW, CANARY)
    await look(site, provider, NONE)
    shown, verdict = row(site), site.status["analysis"]["verdict"]
    await pass_time(site, 31)

    assert (shown["verdict"], shown["problem"], verdict) == ("Inconclusive", "it has no result", "Pass")
    assert site.status["candidate"]["step"] == "canary"


async def test_a_query_about_all_is_judged_in_a_shadow_too(site):
    provider = await rolling(site, SHADOW, CANARY, metric=REFUNDS | {"query": "sum(refunds)"})
    await look(site, provider, BAD, BAD, BAD)

    assert site.condition("Stalled") == ("True", "AnalysisFailed")


async def test_what_is_only_reported_stops_nothing(site):
    provider = await rolling(site, metric=REFUNDS | {"mode": "Report"})
    await look(site, provider, BAD)
    shown = row(site)
    await pass_time(site, 31)

    assert shown["beyond"] == 1
    assert site.condition("Ready") == ("True", "InForce")


async def test_while_a_revision_is_pinned_nobody_is_asked(site):
    provider = await rolling(site)
    await site.apply(override_manifest(pin={"digest": site.stable}))
    await pass_time(site, 100)

    assert provider.asked == []


@pytest.mark.parametrize("trouble", ["paused", "an edit that is not valid", "a model"])
async def test_a_candidate_that_judges_somebody_is_asked_about_whatever_else_keeps_it(site, trouble):
    provider = await rolling(site)
    await look(site, provider, BAD)
    match trouble:
        case "paused":
            await site.apply(override_manifest(paused=True))
        case "an edit that is not valid":
            await site.apply(policy("920%", version="v3"))
        case "a model":
            site.cluster.models_served = ()
            await site.reconcile()
    before, outcome = candidate(site), await site.reconcile()
    await look(site, provider, BAD, BAD)

    assert before["weightBasisPoints"] == 500
    assert outcome.requeue_seconds is not None, "the next look does not wait for somebody else's change"
    assert outcome.requeue_seconds <= 30
    assert candidate(site) == {}
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


BRIEF = SHADOW | {"until": {"seconds": 50}}
SIGN_OFF = {"name": "sign-off", "type": "Approval"}
LONG = CANARY | {"until": {"seconds": 80_000}}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([LONG], id="it was being brought to all"),
        pytest.param([SIGN_OFF, LONG], id="and was approved by then"),
        pytest.param([BRIEF, LONG], id="it was in a shadow"),
        pytest.param([BRIEF, SIGN_OFF, LONG], id="it awaited approval"),
    ],
)
async def test_a_candidate_whose_status_was_not_written_is_asked_about_whatever_else_keeps_it(site, steps, trouble):
    gateways = FixedGateways(Acknowledged(total=1, current=0, stale=("gw-1",)))
    provider = await rolling(site, *steps, gateways=gateways)
    gateways.said = Acknowledged()
    if BRIEF in steps:
        await site.reconcile()
        await look(site, provider, BAD)
        site.clock.now += timedelta(seconds=20)
    if SIGN_OFF in steps[1:]:
        await site.reconcile()
    behind = candidate(site)
    if SIGN_OFF in steps:
        site.cluster.put(override_manifest(approve={"digest": behind["digest"]}))
    await lose_status(site, trouble)
    before, outcome = candidate(site), await site.reconcile()
    await look(site, provider, BAD, BAD)
    held = row(site)
    await look(site, provider, BAD)

    assert behind["shadow"] is True
    assert before["weightBasisPoints"] == 500
    assert outcome.requeue_seconds is not None, "the next look does not wait for somebody else's change"
    assert outcome.requeue_seconds <= 30
    assert (held["verdict"], held["beyond"]) == ("Inconclusive", 2), "what was in the shadow says nothing of it"
    assert candidate(site) == {}
    assert [each["reason"] for each in site.status["failed"]] == ["AnalysisFailed"]


async def test_a_step_that_a_look_ended_is_gone_on_from_though_no_status_says_that_it_passed(site):
    provider = await rolling(site, CANARY, HALF)
    await look(site, provider, GOOD, GOOD)
    await pass_time(site, 31)
    provider.answer(site.clock.now, refunds=GOOD)
    site.cluster.kill_after = 1
    with pytest.raises(Killed):
        await site.reconcile()
    behind = site.status["candidate"]["step"], site.status["analysis"]["verdict"]
    site.restart(provider=provider)
    await site.reconcile()

    assert behind == ("canary", "Inconclusive")
    assert (site.status["candidate"]["step"], candidate(site)["weightBasisPoints"]) == ("half", 5000)


async def test_another_query_begins_the_steps_again(site):
    provider = await rolling(site)
    await look(site, provider, BAD, BAD)
    plan = {"analysis": {"metrics": [REFUNDS | {"max": "3%"}]}, "steps": [CANARY]}
    await site.apply(policy("80%", version="v2", rollout=plan))

    assert "beyond" not in row(site)


# Who may ask


@pytest.mark.parametrize(
    ("grants", "reason", "told"),
    [
        pytest.param(
            Grants(has_provider=False),
            "NoProvider",
            "spec.rollout.analysis.metrics[0].type: NoProvider: PromQL has no server to ask in this installation",
            id="nobody",
        ),
        pytest.param(
            Grants(query_namespaces=frozenset({"platform"})),
            "NotGranted",
            "PromQL may be asked only by policies in platform; leave this metric out",
            id="others",
        ),
    ],
)
async def test_a_query_that_nobody_would_answer_is_refused_with_what_to_do(site, grants, reason, told):
    site.restart(grants=grants)
    plan = {"analysis": {"metrics": [REFUNDS]}, "steps": [CANARY]}
    await site.apply(policy("92%", version="v1", rollout=plan))

    assert site.condition("Accepted") == ("False", reason)
    assert told in site.message("Accepted")


async def test_a_policy_without_queries_needs_no_server(site):
    site.restart(grants=Grants(has_provider=False))
    blocks = {"name": "blocks", "type": "BlockRate", "maxIncrease": "1%"}
    await site.apply(policy("92%", version="v1", rollout={"analysis": {"metrics": [blocks]}, "steps": [CANARY]}))

    assert site.condition("Ready") == ("True", "InForce")


async def test_a_rollout_goes_on_being_looked_at_when_the_server_is_taken_away(site):
    provider = await rolling(site)
    await look(site, provider, GOOD)
    site.restart(provider=provider, grants=Grants(has_provider=False))
    await site.reconcile()

    assert site.condition("Accepted") == ("False", "NoProvider")
    assert candidate(site)["weightBasisPoints"] == 500, "what is refused takes nothing back"


@pytest.mark.parametrize(
    "grants",
    [
        pytest.param(Grants(has_provider=False), id="nobody"),
        pytest.param(Grants(query_namespaces=frozenset({"platform"})), id="others"),
    ],
)
async def test_nothing_is_asked_for_a_candidate_whose_policy_may_not_ask_any_more(site, grants):
    provider = await rolling(site)
    await look(site, provider, GOOD)
    before = list(provider.asked)
    site.restart(provider=provider, grants=grants)
    await pass_time(site, 31)

    assert candidate(site)["weightBasisPoints"] == 500
    assert provider.asked == before


# The plan alone

START = datetime(2026, 2, 1, tzinfo=UTC)
PLAN = AnalysisPlan(
    metrics=(Metric(name="refunds", type=MetricType.PROMQL, query="refunds", maximum=20_000),), interval_seconds=30
)
STATE = State(digest="sha256:" + "c" * 64, version="v2", start_time=START, plan="p", step="canary", step_time=START)


def looking(rows: list[Compared], looked: Looked, now: datetime, **said: Any) -> Any:
    return look_at(PLAN, STATE, rows, looked, rollout="r", stable="sha256:" + "5" * 64, now=now, **said)


@given(st.lists(st.tuples(st.floats(-100, 100), st.booleans(), st.booleans()), max_size=30))
def test_whatever_the_clock_does_the_server_is_not_asked_in_a_hurry_nor_forgotten(moves):
    """Each move is so many seconds, whether the server has answered by then, and whether the operator starts again."""
    now, rows, looked, asked = START, [], Looked(), []
    for seconds, answers, restarts in moves:
        now += timedelta(seconds=seconds)
        looked, asked = (Looked(), []) if restarts else (looked, asked)
        found = looking(rows, looked, now)
        if found.queries is not None:
            assert looked.under_way is None
            assert not asked or not 0 <= (now - asked[-1]).total_seconds() < 30
            looked, asked = replace(looked, under_way=found.queries), [*asked, now]
        assert found.queries or found.wait_seconds or looked.under_way
        assert found.wait_seconds is None or 0 < found.wait_seconds <= 30
        if looked.under_way and answers:
            looked = Looked(queries=looked.under_way, readings={"refunds": GOOD}, time=asked[-1])


def test_a_short_interval_is_for_the_first_look_alone_and_does_not_hurry_the_platform():
    short, said = replace(PLAN, interval_seconds=1), {"rollout": "r", "stable": STATE.digest}
    first = look_at(short, STATE, [], Looked(), now=START + timedelta(seconds=1), **said)
    asked = START + timedelta(seconds=1)
    answered = Looked(queries=first.queries, readings={"refunds": GOOD}, time=asked)
    then = look_at(short, STATE, [], answered, now=asked + timedelta(seconds=2), **said)

    assert first.queries is not None
    assert then.queries is None
    assert then.wait_seconds == pytest.approx(MIN_LOOK_SECONDS - 2)


def test_an_answer_to_another_rollout_is_none():
    [asked] = [looking([], Looked(), START + timedelta(seconds=31)).queries]
    other = Looked(queries=replace(asked, rollout="another"), readings={"refunds": BAD}, time=START)

    found = looking([], other, START + timedelta(seconds=32))

    assert found.streaks == {}
    assert found.queries == asked


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"look_time": ""}, id="no time"),
        pytest.param({"look_time": "2026-01-31T00:00:00Z"}, id="of the step before"),
        pytest.param({"name": "others"}, id="another metric"),
    ],
)
def test_rows_that_say_nothing_of_this_step_count_nothing(wrong):
    whole = Compared(name="refunds", candidate="0.5", beyond=2, look_time="2026-02-01T00:00:10Z")
    now = START + timedelta(seconds=20)

    assert looking([whole], Looked(), now).streaks["refunds"].beyond == 2
    assert looking([replace(whole, **wrong)], Looked(), now).streaks == {}


def test_a_status_that_says_more_looks_than_there_can_be_is_cut(site):
    rows = [Compared(name="refunds", candidate="wrong", beyond=10**6, numbers=1, look_time="2026-02-01T00:00:10Z")]

    streak = looking(rows, Looked(), START + timedelta(seconds=20)).streaks["refunds"]

    assert (streak.beyond, streak.numbers, streak.value) == (3, 3, None)
