"""Whose turn it is: once at a time for a key, nothing forgotten, nobody waiting for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from baleen_operator.plan.schedule import LONGEST_BACK_OFF_SECONDS, Schedule, back_off_seconds, within_seconds

KEYS = st.sampled_from("abcde")


def drain(schedule: Schedule[str], now: float = 0.0) -> list[str]:
    """Take and finish until nothing is left."""
    found = []
    while (key := schedule.take(now)) is not None:
        found.append(key)
        schedule.done(key, now)
    return found


def test_a_key_that_is_added_twice_is_worked_on_once():
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0)
    schedule.add("a", 1)

    assert drain(schedule, 1) == ["a"]


def test_a_key_that_is_added_during_its_work_is_worked_on_again_afterwards_and_not_before():
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0)
    assert schedule.take(0) == "a"
    schedule.add("a", 1)

    assert schedule.take(1) is None
    schedule.done("a", 2)
    assert schedule.take(2) == "a"


def test_what_a_person_changed_overtakes_what_is_only_looked_at_again():
    schedule: Schedule[str] = Schedule()
    for key in ("x", "y", "z"):
        schedule.add(key, 0, urgent=False)
    schedule.add("edited", 1)

    assert drain(schedule, 1)[0] == "edited"


def test_a_key_that_waits_as_routine_becomes_urgent_when_a_person_changes_it():
    schedule: Schedule[str] = Schedule()
    schedule.add("other", 0, urgent=False)
    schedule.add("edited", 0, urgent=False)
    schedule.add("edited", 1)

    assert drain(schedule, 1) == ["edited", "other"]


def test_routine_gets_every_fifth_turn_however_much_is_urgent():
    schedule: Schedule[int] = Schedule()
    for number in range(100):
        schedule.add(number, 0)
        schedule.add(1000 + number, 0, urgent=False)
    turns = [schedule.take(0) for _ in range(10)]

    assert [turn is not None and turn >= 1000 for turn in turns] == [False] * 4 + [True] + [False] * 4 + [True]


def test_a_key_comes_back_when_it_wanted_to_and_not_before():
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0)
    schedule.take(0)
    schedule.done("a", 10, again_seconds=30)

    assert schedule.next_at() == 40
    assert schedule.take(39.9) is None
    assert schedule.take(40) == "a"


def test_an_earlier_reason_to_come_back_counts():
    schedule: Schedule[str] = Schedule()
    schedule.add_at("a", 60)
    schedule.add_at("a", 20)
    schedule.add_at("a", 40)

    assert schedule.next_at() == 20
    assert schedule.take(20) == "a"
    schedule.done("a", 20)
    assert schedule.take(1000) is None


def test_a_key_that_fails_comes_back_later_each_time_until_it_succeeds():
    schedule: Schedule[str] = Schedule()
    now, waits = 0.0, []
    schedule.add("a", now)
    for _ in range(4):
        assert schedule.take(now) == "a"
        waits.append(schedule.failed("a", now, 0.999))
        now += waits[-1]
    assert schedule.take(now) == "a"
    schedule.done("a", now)
    schedule.add("a", now)
    schedule.take(now)

    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]
    assert schedule.failed("a", now, 0.999) == waits[0]


def test_the_age_is_that_of_the_key_that_waits_longest():
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 5, urgent=False)
    schedule.add("b", 8)

    assert schedule.oldest_age_seconds(20) == 15
    drain(schedule, 20)
    assert schedule.oldest_age_seconds(20) == 0


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_back_off_is_bounded_and_never_nothing(failures: int, chance: float):
    assert 0 < back_off_seconds(failures, chance) <= LONGEST_BACK_OFF_SECONDS


@given(failures=st.integers(1, 30), chance=st.floats(0, 1, exclude_max=True))
def test_more_failures_never_mean_a_shorter_wait(failures: int, chance: float):
    assert back_off_seconds(failures, chance) <= back_off_seconds(failures + 1, chance)


@pytest.mark.parametrize(("again", "found"), [(0.0, 0.0), (5.0, 5.0), (60.0, 30.0), (None, 30.0)])
def test_what_is_polled_is_looked_at_again_as_soon_as_it_wants_and_at_the_latest_when_it_is_due(
    again: float | None, found: float
):
    assert within_seconds(again, 30.0) == found


class ScheduleLaws(RuleBasedStateMachine):
    """Whatever happens in whatever order: no key twice at once, and no wish to be worked on is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.now = 0.0
        self.working: set[str] = set()
        self.wanted: set[str] = set()
        self.later: dict[str, float] = {}

    @rule(key=KEYS, urgent=st.booleans())
    def add(self, key: str, urgent: bool) -> None:
        self.schedule.add(key, self.now, urgent=urgent)
        self.wanted.add(key)
        self.later.pop(key, None)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        for each in [each for each, when in self.later.items() if when <= self.now]:
            self.wanted.add(each)
            del self.later[each]
        if key is None:
            assert not self.wanted - self.working
            return
        assert key not in self.working
        assert key in self.wanted
        self.wanted.discard(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), seconds=st.none() | st.floats(0.001, 20), fails=st.booleans())
    def finish(self, data: st.DataObject, seconds: float | None, fails: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        if fails:
            seconds = self.schedule.failed(key, self.now, 0.5)
        else:
            self.schedule.done(key, self.now, again_seconds=seconds)
        if seconds is not None and key not in self.wanted:
            self.later[key] = self.now + seconds

    @invariant()
    def running_is_what_was_taken(self) -> None:
        assert self.schedule.running == self.working

    @invariant()
    def depth_counts_each_key_that_waits_once(self) -> None:
        due = {key for key, when in self.later.items() if when <= self.now}
        assert len(self.wanted) <= self.schedule.depth + len(due)
        assert self.schedule.depth <= len(self.wanted) + len(due)


ScheduleLaws.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestScheduleLaws = pytest.mark.timeout(120)(ScheduleLaws.TestCase)
