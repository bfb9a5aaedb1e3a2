"""What a gateway counts of its decisions."""

from msgspec import structs

from baleen_core.assignment import GROUPS
from baleen_core.policy.schema import Verdict
from baleen_core.policy_stream import VERDICT_PAIRS, TrialCounts, flip_index
from baleen_core.records import Cohort, Decision, PolicyRef, PolicyRole, Trial
from baleen_sidecar.flow.counters import DecisionCounts, RolloutCounts
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


ALLOW, REVIEW, BLOCK = Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK


def tried(
    stable: Verdict, candidate: Verdict, *, group: int = 0, cohort: Cohort = Cohort.STABLE, sides: str = "ab"
) -> Decision:
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
    )
    return structs.replace(made, policies=(ref,), trials=(trial,))


def test_what_both_sides_said_is_counted_by_group_and_who_judged():
    counts = RolloutCounts("process-1")
    for each in (
        tried(ALLOW, BLOCK, group=3),
        tried(ALLOW, BLOCK, group=3, cohort=Cohort.CANDIDATE),
        tried(BLOCK, ALLOW, group=63, cohort=Cohort.CANDIDATE),
        tried(REVIEW, REVIEW),
        decision(BLOCK, "a"),
    ):
        counts.count(each)
    found = counts.of("p", "a", "b")

    expected = [0] * (64 * 9)
    expected[3 * 9 + 2], expected[63 * 9 + 6], expected[4] = 2, 1, 1
    assert found == TrialCounts(
        stable="a",
        candidate="b",
        process="process-1",
        flips=tuple(expected),
        cohorts={"Stable": 2, "Candidate": 2},
    )
    assert found.is_sound


def test_every_place_in_the_counts_is_for_one_group_and_one_pair_of_verdicts():
    places = [flip_index(group, one, other) for group in range(GROUPS) for one in Verdict for other in Verdict]

    assert places == list(range(GROUPS * VERDICT_PAIRS))


def test_two_policies_that_say_the_same_have_each_a_rollout_of_their_own():
    made = tried(ALLOW, BLOCK, group=3)
    (trial,) = made.trials
    other = structs.replace(trial, name="q", group=5)
    counts = RolloutCounts("process-1")
    counts.count(structs.replace(made, trials=(trial, other)))
    counts.count(structs.replace(made, trials=(other,)))

    found = {name: counts.of(name, "a", "b") for name in "pq"}
    assert {name: sum(each.flips) for name, each in found.items()} == {"p": 1, "q": 2}
    assert found["q"].flips[flip_index(5, ALLOW, BLOCK)] == 2
    assert all(each.is_sound for each in found.values())


def test_a_rollout_in_which_nothing_was_decided_has_zeros_and_asking_keeps_nothing():
    counts = RolloutCounts("process-1", limit=1)
    counts.count(tried(ALLOW, ALLOW))

    assert counts.of("p", "x", "y") == TrialCounts(
        stable="x", candidate="y", process="process-1", flips=(0,) * 64 * 9, cohorts={}
    )
    assert sum(counts.of("p", "a", "b").flips) == 1


def test_rollouts_are_told_apart_by_both_sides_and_the_oldest_make_room():
    counts = RolloutCounts("process-1", limit=2)
    for sides in ("ab", "ac", "ab", "bc"):
        counts.count(tried(ALLOW, ALLOW, sides=sides))

    assert [sum(counts.of("p", *sides).flips) for sides in ("ab", "ac", "bc")] == [2, 0, 1]
    assert [counts.of("p", *sides).cohorts for sides in ("ab", "ac", "bc")] == [{"Stable": 2}, {}, {"Stable": 1}]


def test_counts_that_are_none_are_known():
    sound = RolloutCounts("process-1").of("p", "a", "b")

    assert not structs.replace(sound, flips=sound.flips[1:]).is_sound
    assert not structs.replace(sound, flips=(-1, *sound.flips[1:])).is_sound
    assert not structs.replace(sound, cohorts={"Stable": -1}).is_sound
