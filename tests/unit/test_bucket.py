"""Token buckets: never more than the burst and the rate allow, and whoever waits as long as told is let in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.bucket import Bucket, Buckets, Rate

rates = st.builds(
    Rate,
    per_second=st.floats(1e-4, 1e4),
    burst=st.floats(1, 1e4),
)
pauses = st.floats(0, 1e4)
costs = st.floats(0, 100)
takings = st.lists(st.tuples(pauses, costs), max_size=60)
SLACK = 1e-4


def test_a_burst_at_once_and_then_the_rate():
    bucket = Bucket(Rate(per_second=2, burst=3))

    assert [bucket.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) == 0.5


@given(rate=rates, takings=takings, start=st.floats(0, 1e6))
def test_no_span_of_time_admits_more_than_the_burst_and_the_rate(rate, takings, start):
    bucket, now = Bucket(rate), start
    admitted = []
    for pause, cost in takings:
        now += pause
        if bucket.take(now, cost) == 0.0:
            admitted.append((now, cost))

    for first, (begun, _) in enumerate(admitted):
        total = 0.0
        for at, cost in admitted[first:]:
            total += cost
            assert total <= (rate.burst + rate.per_second * (at - begun + SLACK)) * (1 + 1e-9)


@given(rate=rates, takings=takings, cost=costs)
def test_whoever_waits_as_long_as_told_is_let_in_and_not_before(rate, takings, cost):
    bucket, now = Bucket(rate), 1000.0
    for pause, taken in takings:
        now += pause
        bucket.take(now, taken)
    wait = bucket.take(now, cost)

    if cost <= rate.burst:
        assert wait < math.inf
    elif cost > (rate.burst + rate.per_second * SLACK) * (1 + 1e-9):
        assert wait == math.inf
    if 0.0 < wait < math.inf:
        if wait > SLACK:
            assert bucket.take(now + wait / 2, cost) > 0.0
        assert bucket.take(now + wait, cost) == 0.0


@given(rate=rates, takings=takings)
def test_a_refusal_takes_nothing_and_what_is_left_can_be_had(rate, takings):
    bucket, now = Bucket(rate), 1000.0
    for pause, cost in takings:
        now += pause
        before = bucket.left(now)
        if bucket.take(now, cost) > 0.0:
            assert bucket.left(now) == before

    assert 0.0 <= bucket.left(now) <= rate.burst
    assert bucket.take(now, bucket.left(now)) == 0.0


def test_a_new_rate_holds_at_once_and_what_was_taken_stays_taken():
    buckets, slow, fast = Buckets(), Rate(per_second=1, burst=1), Rate(per_second=10, burst=1)
    buckets.take("key", slow, 0.0)

    assert buckets.take("key", slow, 0.0) == 1.0
    assert buckets.take("key", fast, 0.95) == pytest.approx(0.05)


@given(keys=st.lists(st.integers(0, 9), max_size=100), limit=st.integers(1, 5))
def test_a_table_is_never_above_its_bound_and_forgets_who_was_away_longest(keys, limit):
    buckets, rate = Buckets(limit), Rate(per_second=1e-4, burst=1)
    recent: list[int] = []
    for key in keys:
        admitted = buckets.take(key, rate, 0.0) == 0.0

        assert admitted == (key not in recent)
        recent = [*(each for each in recent if each != key), key][-limit:]
        assert len(buckets) == len(recent) <= limit


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (1, math.inf)])
def test_a_rate_that_lets_nobody_or_everybody_in_is_none(per_second, burst):
    with pytest.raises(ValueError, match="above 0"):
        Rate(per_second=per_second, burst=burst)


def test_a_table_without_room_is_none():
    with pytest.raises(ValueError, match="room for 1 or more"):
        Buckets(0)
