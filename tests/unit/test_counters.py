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
    stable: Verdict,
    candidate: Verdict,
    *,
    group: int = 0,
    cohort: Cohort = Cohort.STABLE,
    sides: str = "ab",
    rollout: str = "",
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
        rollout=rollout or f"rollout of {sides}",
        exposed=cohort is Cohort.CANDIDATE,
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
    )
    assert found.is_sound


def test_every_place_in_the_counts_is_for_one_group_and_one_pair_of_verdicts():
    places = [flip_index(group, one, other) for group in range(GROUPS) for one in Verdict for other in Verdict]

    assert places == list(range(GROUPS * VERDICT_PAIRS))


def test_two_policies_that_say_the_same_are_two_rollouts_and_another_try_is_another_one():
    made = tried(ALLOW, BLOCK, group=3, rollout="p")
    (trial,) = made.trials
    other = structs.replace(trial, name="q", rollout="q", group=4, exposed=True)
    counts = RolloutCounts("process-1")
    counts.count(structs.replace(made, trials=(trial, other)))
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


def test_counts_that_are_none_are_known():
    sound = RolloutCounts("process-1").of("r", "a", "b")

    assert not structs.replace(sound, flips=sound.flips[1:]).is_sound
    assert not structs.replace(sound, flips=(-1, *sound.flips[1:])).is_sound
    assert not structs.replace(sound, cohorts={"Stable": -1}).is_sound
