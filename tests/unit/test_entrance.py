"""The entrance: while there is more to do than can be done, as much comes in as can, the urgent first, others alike."""

import random
from collections import Counter
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.priority import Priority
from baleen_sidecar.flow.entrance import LATE_SECONDS, LEAST, Entrance, shares
from baleen_sidecar.usecases.govern import BEAT_SECONDS, LEAST_BEATS, PART_SECONDS

LOW, NORMAL, HIGH, CRITICAL = Priority
rates = st.floats(0, 1e5, allow_nan=False)
asked = st.dictionaries(st.tuples(st.sampled_from(Priority), st.sampled_from("abcdef")), rates, max_size=12)


def given_to(wanted, found):
    return {key: min(rate, found[key[0]]) for key, rate in wanted.items()}


@given(wanted=asked, limit=rates)
def test_no_more_comes_in_than_may_but_for_the_critical(wanted, limit):
    entering = given_to(wanted, shares(wanted, limit))

    critical = sum(rate for (priority, _), rate in wanted.items() if priority is CRITICAL)
    assert sum(entering.values()) <= max(limit, critical) * (1 + 1e-9) + 1e-6


@given(wanted=asked, limit=rates)
def test_nothing_that_may_come_in_is_left_while_somebody_is_refused(wanted, limit):
    entering = given_to(wanted, shares(wanted, limit))

    is_refused = any(entering[key] < rate for key, rate in wanted.items())
    assert not is_refused or sum(entering.values()) >= limit * (1 - 1e-9) - 1e-6


@given(wanted=asked, limit=rates)
def test_nobody_comes_in_while_somebody_more_urgent_is_refused(wanted, limit):
    entering = given_to(wanted, shares(wanted, limit))

    refused = [priority for (priority, who), rate in wanted.items() if entering[priority, who] < rate]
    assert all(rate == 0 for (priority, _), rate in entering.items() if any(priority < each for each in refused))


@given(wanted=asked, limit=rates)
def test_of_one_priority_nobody_is_refused_who_asks_for_less_than_another_gets(wanted, limit):
    entering = given_to(wanted, shares(wanted, limit))

    for (priority, who), rate in wanted.items():
        others = [got for (each, _), got in entering.items() if each is priority]
        assert entering[priority, who] == rate or entering[priority, who] >= max(others) - 1e-9


def test_while_there_is_time_everybody_comes_in():
    entrance = Entrance()
    for _ in range(50):
        assert all(entrance.enters(priority, "any") for priority in Priority for _ in range(1000))
        entrance.next_part(PART_SECONDS, 0.99)

    assert entrance.limit == inf


@given(pressures=st.lists(st.floats(0, 50), max_size=40), asking=st.integers(0, 50))
def test_after_any_overload_everybody_comes_in_again_within_seconds(pressures, asking):
    entrance = Entrance()
    for pressure in pressures:
        for _ in range(50):
            entrance.enters(NORMAL, "any")
        entrance.next_part(PART_SECONDS, pressure)
    for _ in range(50):
        for _ in range(asking):
            entrance.enters(NORMAL, "any")
        entrance.next_part(PART_SECONDS, 0.1)

    assert all(entrance.enters(NORMAL, "any") for _ in range(asking))


@given(pressures=st.lists(st.floats(0, 50), max_size=40))
def test_the_critical_come_in_whatever_there_is_to_do(pressures):
    entrance = Entrance()
    for pressure in pressures:
        assert all(entrance.enters(CRITICAL, "any") for _ in range(10))
        entrance.next_part(PART_SECONDS, pressure)


def test_who_wants_less_than_one_request_in_each_part_is_not_kept_out():
    entrance, entered = Entrance(), Counter()
    for part in range(400):
        entered["many"] += sum(entrance.enters(NORMAL, "many") for _ in range(100))
        entered["few"] += part % 4 == 0 and entrance.enters(NORMAL, "few")
        # Behind at first, and then with neither too much nor room for more.
        entrance.next_part(PART_SECONDS, 2.0 if part < 5 else 0.95)

    assert entered["few"] == 100
    assert entered["many"] / (400 * PART_SECONDS) < 4 * LEAST


@dataclass
class Loop:
    """An event loop whose turns last as long as what came since the last one takes, up to so many requests a turn.

    Callers have so many requests a second each, at random; who is refused takes less than who is let in.
    """

    callers: dict[tuple[Priority, str], float]
    seconds_in: float
    seconds_refused: float
    connections: int = 320
    entered: Counter = field(default_factory=Counter)
    came: Counter = field(default_factory=Counter)
    turns: list[float] = field(default_factory=list)

    def run(self, seconds, *, entrance, since=0.0):
        chance, now, left = random.Random(1), 0.0, []
        total = sum(self.callers.values())
        keys, weights = list(self.callers), list(self.callers.values())
        upcoming = chance.expovariate(total)
        begun, due, late, beats = 0.0, BEAT_SECONDS, inf, 0
        while now < seconds:
            if now >= due:
                late, beats = min(late, now - due), beats + 1
                if beats >= LEAST_BEATS and now - begun >= PART_SECONDS:
                    entrance.next_part(now - begun, late / LATE_SECONDS)
                    begun, late, beats = now, inf, 0
                due = now + BEAT_SECONDS
            while upcoming <= now:
                left.append(chance.choices(keys, weights)[0])
                upcoming += chance.expovariate(total)
            if not left:
                now = min(upcoming, due)
                continue
            turn, left = left[: self.connections], left[self.connections :]
            took = 0.0
            for key in turn:
                enters = entrance.enters(*key)
                took += self.seconds_in if enters else self.seconds_refused
                if now >= since:
                    self.came[key] += 1
                    self.entered[key] += enters
            now += took
            if now >= since:
                self.turns.append(took)


class Open:
    """Lets everybody in."""

    def enters(self, priority, who):
        return True

    def next_part(self, seconds, pressure):
        pass


PER_SECOND = 2000.0
"""What the loop can do of requests that are let in; it refuses five times as many."""


def loop_of(callers):
    return Loop(callers=callers, seconds_in=1 / PER_SECOND, seconds_refused=0.2 / PER_SECOND)


@pytest.mark.parametrize("times", [1.2, 2.0, 3.5])
def test_in_an_overload_turns_stay_short_and_nearly_all_that_can_be_done_is(times):
    callers = {(CRITICAL, "top"): 100.0, (NORMAL, "any"): PER_SECOND * times - 100.0}
    loop, without = loop_of(callers), loop_of(callers)
    loop.run(8.0, entrance=Entrance(), since=2.0)
    without.run(8.0, entrance=Open(), since=4.0)

    # So many, with those that are refused beside them, take all of the time.
    most = PER_SECOND * (1 - 0.2 * times) / 0.8
    assert sum(loop.entered.values()) / 6.0 > 0.75 * most
    assert loop.entered[CRITICAL, "top"] == loop.came[CRITICAL, "top"]
    assert sum(turn for turn in loop.turns if turn > 0.1) < 0.05 * 6.0
    assert times == 1.2 or sum(turn for turn in without.turns if turn > 0.1) > 0.95 * 4.0


def test_in_an_overload_whoever_asks_for_a_fair_share_has_it():
    calm = [(NORMAL, f"calm-{number}") for number in range(7)]
    loop = loop_of(dict.fromkeys(calm, 50.0) | {(NORMAL, "flood"): 5000.0})
    loop.run(8.0, entrance=Entrance(), since=2.0)

    assert min(loop.entered[key] / loop.came[key] for key in calm) > 0.95
    assert loop.entered[NORMAL, "flood"] < 0.4 * loop.came[NORMAL, "flood"]


def test_so_few_that_they_cannot_be_what_takes_the_time_are_all_let_in():
    entrance = Entrance()
    for _ in range(100):
        assert all(entrance.enters(NORMAL, who) for who in ("one", "other") for _ in range(2))
        entrance.next_part(PART_SECONDS, 10.0)


def test_one_long_piece_of_work_keeps_nobody_out():
    loop = loop_of({(NORMAL, "any"): 0.5 * PER_SECOND})
    loop.seconds_in, entrance = 0.0, Entrance()
    busy = iter([0.09])
    limits = []

    class Watched:
        def enters(self, priority, who):
            loop.seconds_in = next(busy, 0.5 / PER_SECOND)
            return entrance.enters(priority, who)

        def next_part(self, seconds, pressure):
            entrance.next_part(seconds, pressure)
            limits.append(entrance.limit)

    loop.run(1.0, entrance=Watched())

    assert set(limits) == {inf}
