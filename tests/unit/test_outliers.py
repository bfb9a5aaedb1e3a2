"""A replica that does much worse than the others is left alone, and never all of them are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.outliers import OutlierRules, eject_seconds, find_outlier, may_eject
from baleen_sidecar.flow.recent import Recent, Tally

RULES = OutlierRules()


def tally(calls=100, failures=0, mean=0.01):
    return Tally(calls=calls, failures=failures, seconds=(calls - failures) * mean)


@pytest.mark.parametrize(
    ("tallies", "worst"),
    [
        pytest.param([tally(failures=30), tally()], 0, id="fails where the other does not"),
        pytest.param([tally(failures=9), tally()], None, id="fails a little"),
        pytest.param([tally(failures=40), tally(failures=20)], None, id="both fail"),
        pytest.param([tally(), tally(mean=0.1)], 1, id="slow"),
        pytest.param([tally(), tally(mean=0.04)], None, id="slower by a few milliseconds"),
        pytest.param([tally(mean=0.5), tally(mean=1.2)], None, id="slower by less than three times"),
        pytest.param([tally(calls=19, failures=19), tally()], None, id="too few calls of it"),
        pytest.param([tally(failures=50), tally(calls=19)], None, id="too few calls of others"),
        pytest.param([tally(failures=20), tally(failures=60), tally(), tally()], 1, id="the worse of two"),
        pytest.param([tally(failures=50)], None, id="the only one"),
        pytest.param([], None, id="none"),
    ],
)
def test_one_that_does_much_worse_than_all_others_together_is_left_alone(tallies, worst):
    found = find_outlier(tallies, [False] * len(tallies), RULES)

    assert (found and found.index) == worst


def test_why_it_is_left_alone_is_said_in_numbers():
    failing = find_outlier([tally(failures=30), tally(failures=1)], [False, False], RULES)
    slow = find_outlier([tally(), tally(mean=0.25)], [False, False], RULES)

    assert failing.why == "30 of its 100 calls failed, and 1 of 100 elsewhere"
    assert slow.why == "its calls take 0.25 s, and 0.01 s elsewhere"


TALLIES = st.builds(
    lambda calls, share, mean: tally(calls, int(calls * share), mean),
    st.integers(0, 500),
    st.floats(0, 1),
    st.floats(0.0001, 10),
)


@given(st.lists(st.tuples(TALLIES, st.booleans()), max_size=12))
def test_at_most_half_are_left_alone_and_none_twice(replicas):
    tallies, away = [each for each, _ in replicas], [each for _, each in replicas]
    found = find_outlier(tallies, away, RULES)
    if found is None:
        return

    assert not away[found.index]
    assert sum(away) + 1 <= len(replicas) / 2


@given(st.integers(0, 100), st.integers(0, 100))
def test_somebody_always_stays(replicas, away):
    assert not may_eject(replicas, away) or away + 1 < replicas


def test_each_time_lasts_longer_up_to_a_minute():
    assert [eject_seconds(times, RULES) for times in (1, 2, 3, 100)] == [5, 10, 15, 60]


EVENTS = st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=100)


@given(EVENTS, st.floats(0.5, 60))
def test_a_window_counts_what_is_within_it_and_forgets_what_is_older(events, span):
    """What is between nine tenths of the span and the whole of it may count or not: slices slide out one by one."""
    recent, now, times = Recent(), 0.0, []
    for wait, failed in events:
        now += wait
        recent = recent.adding(Tally(calls=1, failures=int(failed)), now=now, span_seconds=span)
        times.append((now, failed))
    total = recent.total(now=now, span_seconds=span)
    surely = [failed for at, failed in times if at > now - span * 0.9 + 1e-6]
    perhaps = [failed for at, failed in times if at >= now - span * 1.1 - 1e-6]

    assert len(surely) <= total.calls <= len(perhaps)
    assert sum(surely) <= total.failures <= sum(perhaps)
    assert len(recent.slices) <= 11
