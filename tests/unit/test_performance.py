"""Performance of revisions: laws of counting and merging, and what is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from baleen_core.decision import performance
from baleen_core.decision.performance import (
    LATENCY_BOUNDS,
    MAX_NAMES,
    OTHER,
    merge_performance,
    summarize_performance,
)
from baleen_core.policy.schema import Verdict
from baleen_core.records import Cohort, Missing
from judged_records import ALLOW, BLOCK, OURS, REVIEW, decided, on_record, ref, tried

verdicts = st.sampled_from(Verdict)
names = st.sampled_from(["community", "kids"])
namespaces = st.sampled_from([OURS, "elsewhere", UNSET])
POLICY = on_record(digests="ab")


records = st.builds(
    lambda verdict, refs, trials, categories, degraded, language, latency: decided(
        verdict,
        *refs,
        trials=tuple(trials),
        categories=categories,
        degraded=tuple(degraded),
        language=language,
        latency=latency,
    ),
    verdict=verdicts,
    refs=st.lists(
        st.builds(ref, st.sampled_from("abcd"), name=names, namespace=namespaces, cohort=st.sampled_from(Cohort)),
        max_size=3,
    ),
    trials=st.lists(st.builds(tried, verdicts, verdicts, name=names, namespace=namespaces), max_size=2),
    categories=st.lists(st.tuples(st.sampled_from(["hate", "spam", "x" * 300]), verdicts), max_size=3),
    degraded=st.lists(st.sampled_from(["toxicity", "PolicySource"]), max_size=3),
    language=st.sampled_from([None, "en", "klingon"]),
    latency=st.integers(-(2**63), 2**63),
)
many = st.lists(records, max_size=30)


@given(one=many, other=many)
def test_merged_counts_are_the_counts_of_all(one, other):
    merged = merge_performance(summarize_performance(POLICY, one), summarize_performance(POLICY, other))

    assert merged == summarize_performance(POLICY, one + other)


@given(one=many, other=many, third=many, data=st.data())
def test_no_order_and_no_grouping_has_a_say(one, other, third, data):
    a, b, c = (summarize_performance(POLICY, each) for each in (one, other, third))

    assert merge_performance(a, b) == merge_performance(b, a)
    assert merge_performance(merge_performance(a, b), c) == merge_performance(a, merge_performance(b, c))
    assert summarize_performance(POLICY, data.draw(st.permutations(one))) == a


@given(found=many)
def test_every_decision_counts_once_for_each_revision_of_the_policy_that_judged(found):
    counted = summarize_performance(POLICY, found)

    for digest in "abcd":
        may_be = (OURS, UNSET) if digest in "ab" else (OURS,)
        expected = [
            each
            for each in found
            if any(
                (r.digest, r.name) == (digest, "community") and r.namespace in may_be for r in each.decision.policies
            )
        ]
        tried_in = sum(
            digest in (trial.stable, trial.candidate)
            for each in found
            for trial in each.decision.trials
            if trial.name == "community" and trial.namespace in (OURS, UNSET)
        )
        if digest not in counted:
            assert (expected, tried_in) == ([], 0)
            continue
        one = counted[digest]
        assert one.decisions == len(expected) == sum(map(sum, one.languages.values())) == sum(one.latencies)
        assert sum(one.said) == tried_in
        assert one.as_candidate <= one.decisions


@given(one=st.sets(st.text("abc", max_size=4)), other=st.sets(st.text("abc", max_size=4)))
def test_names_are_bounded_and_what_is_beyond_is_counted_together(one, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performance, "MAX_NAMES", 5)
        parts = [
            [decided(ALLOW, ref("a"), categories=[(name, BLOCK)]) for name in sorted(found)] for found in (one, other)
        ]
        merged = merge_performance(*(summarize_performance(POLICY, part) for part in parts))
        whole = summarize_performance(POLICY, [*parts[0], *parts[1]])

    assert merged == whole
    categories = merged["a"].categories if merged else {}
    assert len(categories) <= 6
    assert set(categories) - {OTHER} == set(sorted(one | other)[:5])
    assert sum(each[2] for each in categories.values()) == len(one) + len(other)


def test_no_more_revisions_are_counted_than_there_is_room_for():
    found = summarize_performance(POLICY, [decided(ALLOW, ref(f"sha256:{n:03}")) for n in range(MAX_NAMES + 50)])

    assert len(found) == MAX_NAMES + 1
    assert found[OTHER].decisions == 50


def test_what_is_counted_is_what_the_record_says():
    found = summarize_performance(
        POLICY,
        [
            decided(
                BLOCK,
                ref("a", cohort=Cohort.CANDIDATE, version="v2"),
                ref("f", name="floor"),
                trials=(tried(ALLOW, REVIEW, stable="s", candidate="a"),),
                categories=[("hate", BLOCK), ("spam", ALLOW)],
                degraded=("toxicity",),
                missing={"toxicity.toxic": Missing.FAILED},
                latency=10_000,
            ),
            decided(ALLOW, ref("a"), language=None, missing={"x.y": Missing.NOT_SERVED}, latency=20_000),
        ],
    )

    assert found.keys() == {"a", "s"}
    one = found["a"]
    assert (one.version, one.outcomes, one.as_candidate, one.said) == ("v2", (1, 0, 1), 1, (0, 1, 0))
    assert (found["s"].decisions, found["s"].said) == (0, (1, 0, 0))
    assert one.categories == {"hate": (0, 0, 1), "spam": (1, 0, 0)}
    assert one.languages == {"en": (0, 0, 1), "none": (1, 0, 0)}
    assert (one.failed, one.degraded) == (1, {"toxicity": 1})
    assert found["s"].latency_seconds(0.5) is None


@given(latency=st.integers(101, 50_000_000))
def test_a_latency_is_right_within_a_fifth(latency):
    (found,) = summarize_performance(POLICY, [decided(ALLOW, ref("a"), latency=latency)] * 3).values()

    for ratio in (0.5, 0.99):
        seconds = found.latency_seconds(ratio)
        assert latency / 1e6 / 1.2 <= seconds <= latency / 1e6 * 1.2
    assert len(found.latencies) == len(LATENCY_BOUNDS)
