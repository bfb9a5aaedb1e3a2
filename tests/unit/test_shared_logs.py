"""What is added up of gateways some of which share a log: each log once."""

import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.flips import FlipMatrix
from baleen_core.decision.logs import MAX_CHANCE, find_contradiction, one_per_log
from baleen_core.policy.schema import Verdict

gateways = st.dictionaries(st.text("abc", min_size=1), st.sampled_from(["", "", "shared", "other"]), max_size=8)


@given(gateways)
def test_each_log_counts_once_and_none_is_left_out(answers):
    kept = one_per_log(answers, lambda log: log)
    shared = [log for log in kept.values() if log]

    assert kept.items() <= answers.items()
    assert len(shared) == len(set(shared))
    assert set(kept.values()) == set(answers.values())
    assert [name for name, log in answers.items() if not log] == [name for name, log in kept.items() if not log]


@given(gateways, st.randoms())
def test_who_counts_for_a_log_does_not_depend_on_who_answered_first(answers, random):
    shuffled = list(answers.items())
    random.shuffle(shuffled)

    assert one_per_log(dict(shuffled), lambda log: log) == one_per_log(answers, lambda log: log)
    assert all(
        name == min(other for other in answers if answers[other] == log)
        for name, log in one_per_log(answers, lambda log: log).items()
        if log
    )


sizes = st.dictionaries(st.text("abc", min_size=1), st.tuples(st.sampled_from(["", "shared"]), st.integers(0, 9)))


@given(sizes)
def test_whoever_says_most_of_a_log_counts_for_it(answers):
    kept = one_per_log(answers, lambda each: each[0], lambda each: each[1])
    most = max((size for log, size in answers.values() if log), default=None)

    assert [size for log, size in kept.values() if log] == ([] if most is None else [most])


def matrix(*flipped: bool) -> FlipMatrix:
    """Decisions of which each was allowed, and is blocked if it flipped."""
    cells = [0] * 9
    for each in flipped:
        cells[Verdict.BLOCK.severity if each else 0] += 1
    return FlipMatrix(counts=tuple(cells))


def contradiction(**said: FlipMatrix):
    return find_contradiction(said, lambda _: "db", lambda each: each)


@given(st.lists(st.booleans(), max_size=200), st.lists(st.booleans(), max_size=200))
def test_whoever_names_a_log_of_its_own_contradicts_nobody(one, other):
    said = {"one": matrix(*one), "other": matrix(*other)}

    assert find_contradiction(said, lambda _: "", lambda each: each) is None


@given(found=st.lists(st.booleans(), max_size=200), readers=st.integers(1, 4))
def test_those_who_say_the_same_contradict_nobody(found, readers):
    assert contradiction(**{f"gateway-{n}": matrix(*found) for n in range(readers)}) is None


def test_a_log_that_grows_between_two_looks_contradicts_nobody():
    chance = random.Random(7)
    for rate in (0.0, 0.001, 0.02, 0.3, 0.97):
        log = [chance.random() < rate for _ in range(30_000)]
        for newer in (1, 50, 3_000, 20_000):
            assert contradiction(one=matrix(*log[:5_000]), other=matrix(*log[newer : newer + 5_000])) is None


@given(flips=st.integers(150, 1_000), silent=st.integers(900, 1_000))
def test_whoever_hides_what_flips_is_found_whichever_name_it_has(flips, silent):
    honest, liar = matrix(*[True] * flips, *[False] * (1_000 - flips)), matrix(*[False] * silent)
    found = contradiction(a=honest, b=liar), contradiction(a=liar, b=honest)

    for each in found:
        assert each is not None
        assert set(each.readers) == {"a", "b"}
        assert sorted(each.counts) == [0, flips]
        assert "say that they read one log, and contradict each other" in each.told()


def share(count: int, total: int) -> FlipMatrix:
    """So many decisions of which so many flipped."""
    return matrix(*[True] * count, *[False] * (total - count))


@given(one=st.integers(1, 400), other=st.integers(1, 400), data=st.data())
def test_honest_readers_are_accused_by_a_chance_of_one_in_a_million_at_most(one, other, data):
    flipped = data.draw(st.integers(0, one + other))
    ways = {
        count: comb(one, count) * comb(other, flipped - count)
        for count in range(max(0, flipped - other), min(one, flipped) + 1)
    }
    accused = sum(
        of_all
        for count, of_all in ways.items()
        if contradiction(a=share(count, one), b=share(flipped - count, other)) is not None
    )

    assert accused <= MAX_CHANCE * comb(one + other, flipped)


@pytest.mark.parametrize(
    ("counts", "totals", "is_one"),
    [
        pytest.param((1, 10), (10, 10_000), False, id="one that flips of ten, which is 1 % of all times"),
        pytest.param((1, 1), (100, 10_000), False, id="one that flips of few and of many"),
        pytest.param((3, 0), (3, 10), False, id="all of three, which may be chance"),
        pytest.param((15, 0), (20, 20), True, id="most of twenty, and none"),
        pytest.param((5_000, 0), (5_000, 5_000), True, id="all and none"),
        pytest.param((0, 0), (5_000, 20), False, id="none and none"),
        pytest.param((5_000, 20), (5_000, 20), False, id="all and all"),
    ],
)
def test_what_chance_can_do_with_few_is_no_contradiction(counts, totals, is_one):
    said = [share(count, total) for count, total in zip(counts, totals, strict=True)]

    assert (contradiction(a=said[0], b=said[1]) is not None) is is_one
    assert (contradiction(a=said[1], b=said[0]) is not None) is is_one
