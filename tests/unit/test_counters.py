"""What a gateway counts of its decisions."""

from msgspec import structs

from baleen_core.policy.schema import Verdict
from baleen_core.records import Decision, PolicyRef, PolicyRole
from baleen_sidecar.flow.counters import DecisionCounts
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
