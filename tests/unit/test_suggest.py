"""Suggested thresholds: the law of each, and when nothing can be suggested."""

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.suggest import MIN_BLOCKED, Suggestion, lowest_threshold, suggest
from baleen_core.policy.schema import OnLanguageUnsupported
from baleen_core.ratio import MILLION
from evidence import SEXUAL, TOXIC, make_category, make_evidence, make_policy, make_threshold

scores = st.lists(st.integers(0, MILLION) | st.sampled_from([0, MILLION]), min_size=1, max_size=80)
POLICY = make_policy(
    make_category("sexual", make_threshold(SEXUAL, "50%")),
    make_category(
        "toxicity",
        make_threshold(TOXIC, "70%", "92%"),
        languages=("en",),
        on_language_unsupported=OnLanguageUnsupported.SKIP,
    ),
)


@given(found=scores, data=st.data())
def test_a_threshold_is_the_lowest_that_blocks_no_more_than_is_allowed(found, data):
    allowed = data.draw(st.integers(0, len(found)))

    threshold = lowest_threshold(found, allowed)

    def reached(value):
        return sum(score >= value for score in found)

    if threshold is None:
        assert reached(MILLION) > allowed
    else:
        assert reached(threshold) <= allowed
        assert threshold == 0 or reached(threshold - 1) > allowed


@given(found=scores, data=st.data())
def test_who_may_block_more_gets_no_higher_a_threshold(found, data):
    few, many = sorted((data.draw(st.integers(0, len(found))), data.draw(st.integers(0, len(found)))))

    strict, loose = lowest_threshold(found, many), lowest_threshold(found, few)

    assert loose is None or (strict is not None and strict <= loose)


def toxic(count, language="en"):
    return [make_evidence({TOXIC: 1_000 * score}, type="text", language=language) for score in range(count)]


def by_signal(*evidences, rate):
    return {each.signal: each for each in suggest(POLICY, evidences, max_block_rate=rate)}


def test_a_threshold_is_suggested_for_each_signal_beside_the_one_that_stands():
    found = by_signal(*toxic(1000), rate=10_000)

    assert found[TOXIC] == Suggestion(
        category="toxicity", signal=TOXIC, now=920_000, suggested=989_001, scored=1000, needed=1000, blocked=10
    )
    assert (found[SEXUAL].now, found[SEXUAL].suggested, found[SEXUAL].scored) == (None, None, 0)


def test_a_log_that_is_too_small_is_said_to_be():
    found = by_signal(*toxic(999), rate=10_000)[TOXIC]

    assert (found.suggested, found.is_log_too_small, found.needed) == (None, True, MIN_BLOCKED * 100)
    assert not by_signal(*toxic(1000), rate=10_000)[TOXIC].is_log_too_small


def test_text_that_a_category_is_not_made_for_does_not_count():
    found = by_signal(*toxic(1000), *toxic(1000, language="de"), *toxic(20, language=None), rate=10_000)[TOXIC]

    assert found.scored == 1020


def test_nothing_is_suggested_where_too_much_has_the_highest_score():
    found = by_signal(*[make_evidence({SEXUAL: MILLION})] * 100, rate=100_000)[SEXUAL]

    assert (found.suggested, found.is_log_too_small) == (None, False)
