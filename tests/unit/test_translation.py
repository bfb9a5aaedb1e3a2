"""Our categories in others' words: nothing is softened on the way, and nothing is made up."""

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.policy.schema import Verdict
from baleen_core.records import CategoryResult
from baleen_sidecar.flow.translation import OPENAI, PERSPECTIVE, changed, translate

NAMES = st.sampled_from(sorted({name for ours in (*OPENAI.values(), *PERSPECTIVE.values()) for name in ours}))
RESULTS = st.builds(
    CategoryResult,
    name=NAMES,
    score=st.none() | st.integers(0, 1_000_000),
    decision=st.sampled_from(Verdict),
    signals=st.just({}),
)
CATEGORIES = st.lists(RESULTS, unique_by=lambda each: each.name, max_size=6)
WANTED = st.sets(NAMES, max_size=4)


@given(categories=CATEGORIES, wanted=WANTED)
def test_a_name_says_the_strictest_and_the_highest_of_what_it_stands_for(categories, wanted):
    found = translate(categories, wanted)
    meant = [each for each in categories if each.name in wanted]

    if not meant:
        assert found is None
        return
    assert found is not None
    assert all(each.decision.severity <= found.verdict.severity for each in meant)
    assert found.verdict in {each.decision for each in meant}
    assert found.score == max([each.score or 0 for each in meant])
    assert found.is_whole == all(each.score is not None for each in meant)


@given(categories=CATEGORIES, other=RESULTS, wanted=WANTED)
def test_one_more_category_never_softens(categories, other, wanted):
    before = translate([each for each in categories if each.name != other.name], wanted)
    after = translate([each for each in categories if each.name != other.name] + [other], wanted)

    if before is not None:
        assert after is not None
        assert after.verdict.severity >= before.verdict.severity
        assert after.score >= before.score


def test_a_change_replaces_what_a_name_stands_for_and_leaves_all_others():
    found = changed(OPENAI, {"violence": ("gore", "weapons"), "hate": ()})

    assert (found["violence"], found["hate"], found["sexual"]) == (("gore", "weapons"), (), OPENAI["sexual"])
    assert list(found) == list(OPENAI)
