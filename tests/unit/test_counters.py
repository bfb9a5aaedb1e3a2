"""What a gateway counts of its decisions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.assignment import GROUPS
from baleen_core.policy.schema import Verdict
from baleen_core.policy_stream import (
    CELLS,
    LATENCY_BOUNDS,
    MAX_WEIGHTS,
    VERDICT_PAIRS,
    TrialCounts,
    cell_index,
    flip_index,
    read_cell,
)
from baleen_core.records import Cohort, Context, Decision, DecisionRecord, PolicyRef, PolicyRole, Trial
from baleen_sidecar.flow.counters import (
    MAX_AHEAD_SECONDS,
    MAX_LATE_SECONDS,
    DecisionCounts,
    KnownRollouts,
    Rollout,
    RolloutCounts,
)
from baleen_sidecar.flow.repeats import Repeats
from baleen_sidecar.ports import Adopted
from decision_records import make_record


def decision(verdict: Verdict, *digests: str) -> Decision:
    policies = tuple(
        PolicyRef(role=PolicyRole.WINNER, name=digest, type="Moderation", version="", digest=digest)
        for digest in digests
    )
    return structs.replace(make_record().decision, decision=verdict, policies=policies)


def test_each_revision_that_judged_is_counted_by_the_decision():
    counts = DecisionCounts()
    for each in (
        decision(Verdict.ALLOW, "a", "b"),
        decision(Verdict.ALLOW, "a"),
        decision(Verdict.BLOCK, "a", "b"),
    ):
        counts.count(each)

    assert counts.of("a") == {"Allow": 2, "Block": 1}
    assert counts.of("b") == {"Allow": 1, "Block": 1}
    assert counts.of("c") == {}


def test_memory_is_bounded_and_those_that_judged_longest_ago_are_forgotten():
    counts = DecisionCounts(limit=2)
    for digest in ("a", "b", "a", "c"):
        counts.count(decision(Verdict.ALLOW, digest))

    assert [counts.of(digest) for digest in "abc"] == [{"Allow": 2}, {}, {"Allow": 1}]


NUMBERS = count()
ALLOW, REVIEW, BLOCK = Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK


def tried(
    stable: Verdict,
    candidate: Verdict,
    *,
    group: int = 0,
    cohort: Cohort = Cohort.STABLE,
    sides: str = "ab",
    rollout: str = "",
    weight: int = 0,
    failed: bool = False,
    **record: Any,
) -> DecisionRecord:
    """A decision in a rollout of two revisions, of which one judged."""
    judged = sides[cohort is Cohort.CANDIDATE]
    made = decision(stable, judged)
    ref = structs.replace(made.policies[0], name="p", cohort=cohort)
    trial = Trial(
        name="p",
        stable=sides[0],
        candidate=sides[1],
        stable_verdict=stable,
        candidate_verdict=candidate,
        group=group,
        rollout=rollout or f"rollout of {sides}",
        exposed=cohort is Cohort.CANDIDATE,
        weight=weight,
        failed=failed,
    )
    whole = make_record()
    # Each about other content: the same would be taken for what a client sent again.
    content = structs.replace(whole.evidence.content, digest=f"{next(NUMBERS):064x}")
    return structs.replace(
        whole,
        evidence=structs.replace(whole.evidence, content=content),
        decision=structs.replace(made, policies=(ref,), trials=(trial,)),
        **record,
    )


def with_trials(record: DecisionRecord, *trials: Trial) -> DecisionRecord:
    return structs.replace(record, decision=structs.replace(record.decision, trials=trials))


def test_what_both_sides_said_is_counted_by_group_and_who_judged():
    counts = RolloutCounts("process-1")
    for each in (
        tried(ALLOW, BLOCK, group=3),
        tried(ALLOW, BLOCK, group=3, cohort=Cohort.CANDIDATE),
        tried(BLOCK, ALLOW, group=63, cohort=Cohort.CANDIDATE),
        tried(REVIEW, REVIEW),
        structs.replace(make_record(), decision=decision(BLOCK, "a")),
    ):
        counts.count(each)
    found = counts.of("rollout of ab", "a", "b")

    expected = [0] * (64 * 9)
    expected[3 * 9 + 2], expected[63 * 9 + 6], expected[4] = 2, 1, 1
    assert found == TrialCounts(
        stable="a",
        candidate="b",
        rollout="rollout of ab",
        process="process-1",
        flips=tuple(expected),
        cohorts={"Stable": 2, "Candidate": 2},
        made={"Stable": 2, "Candidate": 2},
    )
    assert found.is_sound


def test_every_place_in_the_counts_is_for_one_group_and_one_pair_of_verdicts():
    places = [flip_index(group, one, other) for group in range(GROUPS) for one in Verdict for other in Verdict]

    assert places == list(range(GROUPS * VERDICT_PAIRS))


def test_two_policies_that_say_the_same_are_two_rollouts_and_another_try_is_another_one():
    made = tried(ALLOW, BLOCK, group=3, rollout="p")
    (trial,) = made.decision.trials
    other = structs.replace(trial, name="q", rollout="q", group=4, exposed=True)
    counts = RolloutCounts("process-1")
    counts.count(with_trials(made, trial, other))
    counts.count(tried(ALLOW, ALLOW, rollout="p again"))

    found = [counts.of(rollout, "a", "b") for rollout in ("p", "q", "p again")]
    assert [each.cohorts for each in found] == [{"Stable": 1}, {"Candidate": 1}, {"Stable": 1}]
    assert [each.flips.index(1) for each in found] == [3 * 9 + 2, 4 * 9 + 2, 0]
    assert [each.rollout for each in found] == ["p", "q", "p again"]


def test_a_rollout_in_which_nothing_was_decided_has_zeros_and_asking_keeps_nothing():
    counts = RolloutCounts("process-1", limit=1)
    counts.count(tried(ALLOW, ALLOW))

    assert counts.of("z", "x", "y") == TrialCounts(
        stable="x", candidate="y", rollout="z", process="process-1", flips=(0,) * 64 * 9, cohorts={}
    )
    assert sum(counts.of("rollout of ab", "a", "b").flips) == 1


def test_the_oldest_rollouts_make_room():
    counts = RolloutCounts("process-1", limit=2)
    for sides in ("ab", "ac", "ab", "bc"):
        counts.count(tried(ALLOW, ALLOW, sides=sides))

    found = [counts.of(f"rollout of {sides}", *sides) for sides in ("ab", "ac", "bc")]
    assert [sum(each.flips) for each in found] == [2, 0, 1]
    assert [each.cohorts for each in found] == [{"Stable": 2}, {}, {"Stable": 1}]


def test_where_chance_decides_cohorts_are_counted_by_weight_group_latency_and_whether_the_side_failed():
    candidate = Cohort.CANDIDATE
    counts = RolloutCounts("process-1")
    for each in (
        tried(ALLOW, ALLOW, group=3, weight=500, latency_microseconds=4_000),
        tried(ALLOW, ALLOW, group=3, weight=500, latency_microseconds=1_004_000, apart_microseconds=1_000_000),
        tried(ALLOW, ALLOW, group=3, weight=500, latency_microseconds=4_000, cohort=candidate, failed=True),
        tried(ALLOW, ALLOW, group=63, weight=5000, latency_microseconds=60_000_000, cohort=candidate),
        # Chance decides nothing.
        tried(ALLOW, ALLOW, weight=0),
        tried(ALLOW, ALLOW, weight=10_000, cohort=candidate),
    ):
        counts.count(each)
    found = counts.of("rollout of ab", "a", "b")

    assert found.weights == {
        500: {
            cell_index(3, Cohort.STABLE, 0.004, failed=False): 2,
            cell_index(3, candidate, 0.004, failed=True): 1,
        },
        5000: {cell_index(63, candidate, 60.0, failed=False): 1},
    }
    assert found.cohorts == {"Stable": 3, "Candidate": 3}
    assert found.is_sound


@given(st.integers(0, 63), st.sampled_from(Cohort), st.floats(0, 1e6), st.booleans())
def test_a_cell_says_what_was_counted_in_it(group: int, side: Cohort, seconds: float, failed: bool):
    index = cell_index(group, side, seconds, failed=failed)
    found = read_cell(index)

    assert (found[0], found[1], found[3]) == (group, side, failed)
    assert (0.0, *LATENCY_BOUNDS)[found[2]] <= seconds <= LATENCY_BOUNDS[found[2]]
    assert 0 <= index < CELLS


def test_no_more_weights_are_counted_than_a_plan_can_have():
    counts = RolloutCounts("process-1")
    for weight in range(1, MAX_WEIGHTS + 3):
        counts.count(tried(ALLOW, ALLOW, weight=weight))

    found = counts.of("rollout of ab", "a", "b")
    assert (len(found.weights), sum(found.flips)) == (MAX_WEIGHTS, MAX_WEIGHTS + 2)
    assert found.is_sound


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"flips": (0,) * 575}, id="too few"),
        pytest.param({"flips": (-1, 2, *(0,) * 574)}, id="less than nothing"),
        pytest.param({"flips": (2**54, *(0,) * 575), "cohorts": {"Stable": 2**54}}, id="absurd"),
        pytest.param({"cohorts": {"Stable": -1, "Candidate": 2}}, id="less than nothing for a side"),
        pytest.param({"cohorts": {"Stable": 2}}, id="more decisions than the groups have"),
        pytest.param({"made": {"Stable": 0}}, id="more counted than made"),
        pytest.param({"made": {"Stable": 2**54}}, id="an absurd total"),
        pytest.param({"weights": {500: {1: 1}}}, id="a candidate's where none was"),
        pytest.param({"weights": {500: {0: 2}}}, id="more by weight than decisions"),
        pytest.param({"weights": {500: {0: -1, 2: 1}}}, id="less than nothing by weight"),
        pytest.param({"weights": {500: {CELLS: 1}}}, id="no such cell"),
        pytest.param({"weights": {10_000: {0: 1}}}, id="no such weight"),
        pytest.param({"weights": {weight: {} for weight in range(1, MAX_WEIGHTS + 2)}}, id="too many weights"),
    ],
)
def test_counts_that_are_none_are_known(wrong: dict[str, Any]):
    counts = RolloutCounts("process-1")
    counts.count(tried(ALLOW, ALLOW, weight=500, latency_microseconds=0))
    sound = counts.of("rollout of ab", "a", "b")

    assert sound.is_sound
    assert not structs.replace(sound, **wrong).is_sound


@given(st.lists(st.tuples(st.sampled_from(Verdict), st.sampled_from(Cohort), st.integers(0, 3)), max_size=9))
def test_what_a_process_says_follows_what_it_said_and_nothing_that_was_more(made):
    counts = RolloutCounts("process-1")
    said = [counts.of("rollout of ab", "a", "b")]
    for verdict, side, weight in made:
        counts.count(tried(verdict, ALLOW, cohort=side, weight=weight * 1000))
        said.append(counts.of("rollout of ab", "a", "b"))

    for number, each in enumerate(said):
        assert each.is_sound
        assert all(each.follows(earlier) for earlier in said[: number + 1])
        assert not any(each.follows(later) for later in said[number + 1 :])


NOW = datetime(2026, 9, 21, 14, 0, 30, tzinfo=UTC)
UNDER_WAY = {"rollout of ab": Rollout(stable="a", candidate="b", weights=frozenset({0, 500}))}


def sent(
    content: str = "c", author: str | None = "author", *, time: datetime = NOW, sides: str = "ab", **place: Any
) -> DecisionRecord:
    """A decision about some content."""
    record = tried(ALLOW, ALLOW, sides=sides, time=time.isoformat(timespec="milliseconds"))
    context = Context(author={"id": author} if author else {}, **place)
    facts = structs.replace(record.evidence.content, digest=content)
    return structs.replace(record, evidence=structs.replace(record.evidence, context=context, content=facts))


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        pytest.param(sent(), 1, id="the same"),
        pytest.param(sent(time=NOW + timedelta(seconds=29)), 1, id="in the same minute"),
        pytest.param(sent(time=NOW + timedelta(seconds=30)), 2, id="in the next minute"),
        pytest.param(sent("other"), 2, id="other content"),
        pytest.param(sent(author="other"), 2, id="by somebody else"),
        pytest.param(sent(author=None), 2, id="by nobody who is known"),
        pytest.param(sent(session="s"), 2, id="in another session"),
        pytest.param(sent(tenant="t"), 2, id="for another tenant"),
    ],
)
def test_what_a_client_sends_again_counts_once(again: DecisionRecord, expected: int):
    counts = RolloutCounts("process-1", key=b"k")
    counts.count(sent())
    counts.count(again)
    found = counts.of("rollout of ab", "a", "b")

    assert (sum(found.flips), found.made) == (expected, {"Stable": expected})


def test_what_is_remembered_of_decisions_is_bounded():
    repeats = Repeats(b"k", limit=2)

    assert [repeats.is_repeated(sent(each)) for each in ("a", "b", "b", "c", "b", "a", "b")] == [
        *(False, False, True, False),
        *(True, False, False),
    ]


def test_who_does_not_know_the_key_cannot_tell_what_is_taken_for_the_same():
    names = [Repeats(key)._name(sent()) for key in (b"one", b"other")]

    assert names[0] != names[1]
    assert {len(each) for each in names} == {8}


def claims(*records: DecisionRecord, rollouts: Any = UNDER_WAY) -> RolloutCounts:
    counts = RolloutCounts("process-1", limit=1)
    for each in records:
        counts.count_claimed(each, rollouts, now=NOW)
    return counts


def test_a_sidecars_claims_count_for_what_is_rolled_out_here_and_make_nobody_else_forgotten():
    others = [sent(str(number), sides="xy") for number in range(3)]
    counts = claims(sent("1"), *others, sent("2"), sent("1"))
    wrong = claims(sent("1"), rollouts={"rollout of ab": replace(UNDER_WAY["rollout of ab"], candidate="c")})

    assert counts.of("rollout of ab", "a", "b").cohorts == {"Stable": 2}
    assert counts.of("rollout of xy", "x", "y").made == {}
    assert wrong.of("rollout of ab", "a", "b").made == {}


@pytest.mark.parametrize(
    ("seconds", "counted"),
    [
        pytest.param(-MAX_LATE_SECONDS, 1, id="as late as may be"),
        pytest.param(-MAX_LATE_SECONDS - 1, 0, id="too late"),
        pytest.param(MAX_AHEAD_SECONDS, 1, id="a clock that is ahead"),
        pytest.param(MAX_AHEAD_SECONDS + 1, 0, id="out of the future"),
    ],
)
def test_a_sidecars_decision_of_another_time_is_known_of_and_not_counted(seconds: float, counted: int):
    found = claims(sent(time=NOW + timedelta(seconds=seconds))).of("rollout of ab", "a", "b")

    assert (sum(found.flips), found.made) == (counted, {"Stable": 1})


def test_a_sidecar_invents_no_weight():
    records = [
        structs.replace(tried(ALLOW, ALLOW, weight=weight), time=NOW.isoformat(), request_id=str(weight))
        for weight in (500, 501)
    ]
    records[1] = structs.replace(records[1], evidence=sent("other").evidence)
    found = claims(*records).of("rollout of ab", "a", "b")

    assert (sum(found.flips), list(found.weights)) == (2, [500])


def test_rollouts_are_known_with_the_weights_that_they_have_had_here():
    adopted: dict[str, Adopted] = {}
    known = KnownRollouts(lambda: adopted)
    assert known() == {}
    base = Adopted(epoch=1, digest="a", candidate="b", rollout="r", weight=500)
    adopted = {"p": base, "q": Adopted(epoch=1, digest="a")}
    assert known() == {"r": Rollout(stable="a", candidate="b", weights=frozenset({500}))}
    assert known() is known()
    adopted = {"p": replace(base, epoch=2, weight=5000)}
    assert known()["r"].weights == {500, 5000}
    adopted = {"p": replace(base, epoch=3, rollout="another try", weight=500)}
    assert known().keys() == {"another try"}
    assert known()["another try"].weights == {500}
