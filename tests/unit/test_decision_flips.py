"""Flips: laws of counting and merging, and what is counted."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.decision.engine import Sides, judge
from baleen_core.decision.flips import (
    MAX_EXAMPLES,
    NO_LANGUAGE,
    OTHER_LANGUAGE,
    FlipMatrix,
    FlipSummary,
    Rejudged,
    merge_flips,
    rejudge_trial,
    rejudged,
    summarize,
)
from baleen_core.policy.schema import ListType, Verdict
from evidence import (
    SEXUAL,
    TOXIC,
    decide_by,
    make_category,
    make_evidence,
    make_hit,
    make_list,
    make_policy,
    make_record,
    make_threshold,
)

ALLOW, REVIEW, BLOCK = Verdict
severities = st.integers(0, 2)
decisions = st.builds(
    Rejudged,
    id=st.text("0123456789abcdef", min_size=1, max_size=8),
    before=severities,
    after=severities,
    categories=st.dictionaries(st.sampled_from(["hate", "spam"]), st.tuples(severities, severities)),
    language=st.sampled_from([None, "en", "de", "xx", "klingon"]),
    group=st.one_of(st.none(), st.integers(0, 63)),
)
many = st.lists(decisions, max_size=60)


@given(one=many, other=many)
def test_merged_summaries_are_the_summary_of_all(one, other):
    assert merge_flips(summarize(one), summarize(other)) == summarize(one + other)


@given(found=many, data=st.data())
def test_no_order_has_a_say(found, data):
    assert summarize(data.draw(st.permutations(found))) == summarize(found)


@given(one=many, other=many, third=many)
def test_summaries_merge_in_any_order_and_grouping(one, other, third):
    a, b, c = map(summarize, (one, other, third))

    assert merge_flips(a, b) == merge_flips(b, a)
    assert merge_flips(merge_flips(a, b), c) == merge_flips(a, merge_flips(b, c))
    assert merge_flips(a, FlipSummary()) == a


@given(found=many)
def test_every_decision_counts_once_altogether_and_in_its_language(found):
    summary = summarize(found)

    def total(matrices):
        return sum(each.total for each in matrices)

    assert summary.overall.total == len(found) == total(summary.languages.values())
    assert total(summary.groups.values()) == sum(each.group is not None for each in found)
    assert summary.overall.flips == sum(each.before != each.after for each in found)
    assert summary.overall.flips == sum(count for _, count in summary.overall.kinds())


@given(found=many)
def test_examples_are_few_and_flipped_as_they_say(found):
    summary = summarize(found)

    kinds = {kind for kind, _ in summary.overall.kinds()}
    assert summary.examples.keys() == kinds
    for (before, after), ids in summary.examples.items():
        flipped = {each.id for each in found if (each.before, each.after) == (before.severity, after.severity)}
        assert set(ids) <= flipped
        assert len(ids) == len(set(ids)) == min(MAX_EXAMPLES, len(flipped))


@given(ids=st.sets(st.integers(0, 10_000), min_size=30))
def test_examples_are_no_matter_of_which_decisions_came_first(ids):
    found = [Rejudged(id=f"d-{number}", before=0, after=2, categories={}, language=None) for number in sorted(ids)]

    forward, backward = summarize(found), summarize(found[::-1])

    assert forward.examples == backward.examples
    assert len(forward.examples[ALLOW, BLOCK]) == MAX_EXAMPLES


def test_blocks_and_allows_are_new_when_they_were_anything_else():
    matrix = FlipMatrix(counts=(100, 1, 2, 4, 100, 8, 16, 32, 100))

    assert (matrix.total, matrix.flips) == (363, 63)
    assert (matrix.new_blocks, matrix.new_allows) == (2 + 8, 4 + 16)
    assert matrix.count(BLOCK, REVIEW) == 32
    assert matrix.kinds()[0] == ((BLOCK, REVIEW), 32)


def test_languages_that_no_policy_can_name_are_counted_as_one():
    found = [
        Rejudged(id=str(index), before=0, after=0, categories={}, language=language)
        for index, language in enumerate(("de", "tlh", "xx", None))
    ]

    counted = {name: matrix.total for name, matrix in summarize(found).languages.items()}

    assert counted == {"de": 1, OTHER_LANGUAGE: 2, NO_LANGUAGE: 1}


def test_a_category_that_one_revision_lacks_says_allow_there():
    stable = make_policy(make_category("toxicity", make_threshold(TOXIC, "70%", "92%")))
    candidate = make_policy(make_category("sexual", make_threshold(SEXUAL, "50%")))
    evidence = make_evidence({TOXIC: 950_000, SEXUAL: 600_000})

    found = rejudged("d-1", (stable, judge(stable, evidence)), (candidate, judge(candidate, evidence)), language=None)

    assert (found.before, found.after) == (2, 1)
    assert found.categories == {"toxicity": (2, 0), "sexual": (0, 1)}


def test_the_known_good_has_no_category_that_blocks():
    toxicity = make_category("toxicity", make_threshold(TOXIC, "70%", "92%"))
    cleared = make_list("cleared", Verdict.ALLOW, type=ListType.DIGEST)
    stable, candidate = make_policy(toxicity), make_policy(toxicity, lists=(cleared,))
    evidence = make_evidence({TOXIC: 950_000}, lists=(make_hit("cleared"),))

    found = rejudged("d-1", (stable, judge(stable, evidence)), (candidate, judge(candidate, evidence)), language=None)

    assert (found.before, found.after, found.categories) == (2, 0, {"toxicity": (2, 0)})


TOXICITY = make_category("toxicity", make_threshold(TOXIC, "70%", "92%"))
STRICTER = make_category("toxicity", make_threshold(TOXIC, "50%", "60%"))


@given(score=st.integers(0, 1_000_000), group=st.integers(0, 63))
def test_what_the_sides_of_a_rollout_said_is_what_they_say_again_of_the_evidence(score, group):
    stable, candidate = make_policy(TOXICITY), make_policy(STRICTER)
    evidence = make_evidence({TOXIC: score}, type="text", language="en")
    decision = decide_by(stable, evidence=evidence, trials=(Sides(stable=stable, candidate=candidate, group=group),))
    record = make_record(decision, evidence)
    found = rejudge_trial(record, decision.trials[0], stable, candidate)

    assert (found.before, found.after) == (judge(stable, evidence).severity, judge(candidate, evidence).severity)
    assert found.categories == {"toxicity": (found.before, found.after)}
    assert (found.id, found.language, found.group) == (record.id, "en", group)
    erased = rejudge_trial(structs.replace(record, erased=True), decision.trials[0], stable, candidate)
    assert (erased.before, erased.after, erased.categories) == (found.before, found.after, {})
