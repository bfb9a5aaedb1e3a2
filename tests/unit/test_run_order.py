"""In which order tests are begun."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_run import own_id
from run_order import LONG_SECONDS, Kind, ordered, read_seconds, write_seconds

kinds = st.builds(Kind, waits=st.booleans(), late=st.booleans(), first=st.booleans())
suites = st.dictionaries(st.integers(0, 99), kinds)
lengths = st.dictionaries(st.integers(0, 99), st.floats(LONG_SECONDS, 300))


@given(suites, lengths)
def test_each_test_is_begun_once(suite, seconds):
    assert sorted(ordered(suite, seconds)) == sorted(suite)


@given(suites, lengths)
def test_what_is_being_made_is_needed_last(suite, seconds):
    found = [suite[name] for name in ordered(suite, seconds)]

    assert [(not kind.first, not kind.first and kind.late) for kind in found] == sorted(
        (not kind.first, not kind.first and kind.late) for kind in found
    )


@given(suites, lengths)
def test_of_what_waits_and_of_what_does_not_the_longest_come_first(suite, seconds):
    found = ordered(suite, seconds)

    for first, late, waits in {(kind.first, kind.late, kind.waits) for kind in suite.values() if not kind.first}:
        same = [seconds.get(name, 0) for name in found if suite[name] == Kind(waits=waits, late=late, first=first)]
        assert same == sorted(same, reverse=True)


def test_what_one_process_runs_is_as_long_as_all_of_it():
    suite = dict.fromkeys(range(6), Kind(waits=False))
    seconds = {0: 10.0, 3: 7.0, 4: 5.0, 5: 12.0}

    assert ordered(suite, seconds, {3: "a", 4: "a", 1: "b"}) == [3, 4, 5, 0, 1, 2]


def test_what_is_short_keeps_its_place():
    suite = dict.fromkeys(range(50), Kind(waits=False))

    assert ordered(suite, {7: 5.0}) == [7, *range(7), *range(8, 50)]


@given(st.lists(st.floats(LONG_SECONDS, 60), min_size=1), st.lists(st.floats(LONG_SECONDS, 60), min_size=1))
def test_whenever_one_half_is_begun_so_is_the_other_but_for_one_test(waiting, busy):
    """Else the processors would have nothing to do at the end, or too much."""
    halves = {True: waiting, False: busy}
    seconds = {(waits, index): each for waits, half in halves.items() for index, each in enumerate(half)}
    begun = {True: 0.0, False: 0.0}
    for name in ordered({name: Kind(waits=name[0]) for name in seconds}, seconds):
        waits = name[0]
        share = begun[waits] / sum(halves[waits])
        other = begun[not waits] / sum(halves[not waits])
        assert share <= other + 1e-9
        begun[waits] += seconds[name]


def test_only_what_took_long_is_written_down(tmp_path):
    path = tmp_path / "seconds.json"
    write_seconds({"b": 2.04, "a": 31.26, "c": 1.9}, path)

    assert read_seconds(path) == {"a": 31.3, "b": 2.0}
    assert [*json.loads(path.read_text())] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "keywords", "own"),
    [
        pytest.param("test_a.py::test[b]@postgres", {"xdist_group"}, "test_a.py::test[b]", id="of a group"),
        pytest.param("test_a.py::test[a@b]@postgres", {"xdist_group"}, "test_a.py::test[a@b]", id="with the same sign"),
        pytest.param("test_a.py::test[a@b]", {"xdist_group"}, "test_a.py::test[a@b]", id="without workers"),
        pytest.param("test_a.py::test[a@b]", set(), "test_a.py::test[a@b]", id="of no group"),
    ],
)
def test_a_group_is_no_part_of_the_name_under_which_seconds_are_kept(name, keywords, own):
    assert own_id(name, keywords) == own


@pytest.mark.xdist_group("in-a-group")
def test_processes_know_of_groups(request):
    # With a pytest that pytest-xdist does not know yet, nothing is grouped, and nothing says so.
    assert request.node.nodeid.endswith("@in-a-group") == hasattr(request.config, "workerinput")
