"""A breaker opens for what fails, closes for what is back, and never tries with more calls than it may."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.breaker import (
    Breaker,
    BreakerRules,
    Manual,
    Outcome,
    State,
    after_call,
    after_order,
    after_probe,
    before_call,
    find_state,
    may_forget,
    probe_wait,
)

RULES = BreakerRules(slow_seconds=1.0)
OF_A_CAMERA = BreakerRules(success_threshold=3, is_probed=False)


class Setting:
    """One breaker, the calls that are under way, and a clock."""

    def __init__(self, rules=RULES):
        self.rules, self.breaker, self.now = rules, Breaker(), 0.0
        self.permits = []

    def begin(self):
        self.breaker, permit = before_call(self.breaker, now=self.now, rules=self.rules)
        if permit is not None:
            self.permits.append(permit)
        return permit is not None

    def end(self, outcome, place=0, *, seconds=0.1, jitter=0.5):
        permit = self.permits.pop(place)
        self.breaker = after_call(
            self.breaker,
            permit,
            outcome,
            now=self.now,
            seconds=seconds,
            jitter=jitter,
            rules=self.rules,
            why="no answer",
        )

    def call(self, outcome, *, times=1, **options):
        for _ in range(times):
            assert self.begin()
            self.end(outcome, -1, **options)

    def probe(self, is_good, *, jitter=0.5):
        self.breaker = after_probe(
            self.breaker, is_good=is_good, begun=self.now, now=self.now, jitter=jitter, rules=self.rules
        )

    def order(self, wanted):
        self.breaker = after_order(self.breaker, wanted, now=self.now, rules=self.rules, why="ann")

    @property
    def state(self):
        return find_state(self.breaker, now=self.now)


@pytest.fixture
def setting():
    return Setting()


def test_five_failures_in_a_row_open_it_and_four_do_not(setting):
    setting.call(Outcome.FAILED, times=4)
    setting.call(Outcome.DONE)
    setting.call(Outcome.FAILED, times=4)

    assert setting.state is State.CLOSED

    setting.call(Outcome.FAILED)

    assert (setting.state, setting.breaker.why) == (State.OPEN, "5 in a row failed: no answer")
    assert not setting.begin()


def test_what_nobody_can_judge_never_opens_it_and_does_not_interrupt_a_row_of_failures(setting):
    setting.call(Outcome.IGNORED, times=1000)
    setting.call(Outcome.FAILED, times=4)
    setting.call(Outcome.IGNORED, times=1000)

    assert setting.state is State.CLOSED

    setting.call(Outcome.FAILED)

    assert setting.state is State.OPEN


def test_half_of_the_recent_calls_failing_opens_it_with_no_two_in_a_row(setting):
    for _ in range(9):
        setting.call(Outcome.FAILED)
        setting.call(Outcome.DONE)

    assert setting.state is State.CLOSED

    setting.call(Outcome.FAILED)
    setting.call(Outcome.DONE)

    assert setting.state is State.OPEN
    assert setting.breaker.why == "10 of 20 within 30 s failed"


def test_failures_of_long_ago_count_no_more(setting):
    for _ in range(9):
        setting.call(Outcome.FAILED)
        setting.call(Outcome.DONE)
    setting.now += RULES.window_seconds * 1.1
    setting.call(Outcome.FAILED)
    setting.call(Outcome.DONE)

    assert setting.state is State.CLOSED


def test_half_of_the_recent_calls_being_slow_opens_it_and_says_so(setting):
    for _ in range(10):
        setting.call(Outcome.DONE, seconds=1.5)
        setting.call(Outcome.DONE, seconds=0.5)

    assert setting.state is State.OPEN
    assert setting.breaker.why == "10 of 20 within 30 s took longer than 1.0 s"


def test_without_a_limit_no_call_is_slow():
    setting = Setting(BreakerRules())
    setting.call(Outcome.DONE, times=100, seconds=1000)

    assert setting.state is State.CLOSED


def opened(rules=RULES):
    setting = Setting(rules)
    setting.call(Outcome.FAILED, times=5)
    return setting


def test_open_it_stays_however_long_until_a_golden_question_was_answered():
    setting = opened()
    setting.now += 1e6

    assert not setting.begin()

    setting.probe(True)

    assert setting.state is State.HALF_OPEN
    assert setting.begin()


def test_two_trials_that_succeed_close_it_and_more_at_once_are_not_allowed():
    setting = opened()
    setting.probe(True)

    assert [setting.begin() for _ in range(4)] == [True, True, False, False]

    setting.end(Outcome.DONE)
    setting.end(Outcome.DONE)

    assert setting.state is State.CLOSED
    assert setting.begin()


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [pytest.param(Outcome.FAILED, 0.1, id="failed"), pytest.param(Outcome.DONE, 1.5, id="slow")],
)
def test_one_bad_trial_opens_it_again(outcome, seconds):
    setting = opened()
    setting.probe(True)
    setting.call(outcome, seconds=seconds)

    assert setting.state is State.OPEN


def test_a_trial_that_was_given_up_frees_its_place_and_decides_nothing():
    setting = opened()
    setting.probe(True)
    setting.call(Outcome.IGNORED, times=100)

    assert (setting.state, setting.breaker.trials) == (State.HALF_OPEN, 0)


def test_good_probes_alone_close_it_while_nobody_calls():
    setting = opened()
    for _ in range(3):
        setting.now = max(setting.now, setting.breaker.probe_at)
        setting.probe(True)

    assert setting.state is State.CLOSED
    assert setting.now <= 3.0


def test_calls_of_before_it_opened_decide_nothing_after():
    setting = Setting()
    for _ in range(10):
        setting.begin()
    for _ in range(5):
        setting.end(Outcome.FAILED)
    setting.probe(True)
    for _ in range(5):
        setting.end(Outcome.FAILED)

    assert setting.state is State.HALF_OPEN


@given(st.integers(0, 100_000), st.floats(0, 1), st.floats(0, 1))
def test_after_an_outage_of_any_length_it_is_tried_within_seven_seconds(missed, jitter, phase):
    """The wait between probes is bounded, and so is the back-off of what missed its probes: there is none."""
    setting = opened()
    setting.breaker = replace(setting.breaker, missed=missed, refusals=50, trial_at=math.inf)
    setting.now = 1000.0
    setting.probe(False, jitter=jitter)
    back_at = setting.now + phase * 6
    while setting.breaker.probe_at < back_at:
        setting.now = setting.breaker.probe_at
        setting.probe(False, jitter=jitter)
    setting.now = setting.breaker.probe_at
    setting.probe(True, jitter=jitter)

    assert setting.begin()
    assert setting.now - back_at <= 6.0 + 1e-6


def test_golden_questions_are_asked_after_1_2_4_and_then_about_every_5_seconds():
    waits = [probe_wait(missed, jitter=0.5, rules=RULES) for missed in range(6)]

    assert waits == [1, 2, 4, 5, 5, 5]
    assert {probe_wait(9, jitter=jitter, rules=RULES) for jitter in (0.0, 1.0)} == {4.0, 6.0}


def test_what_passes_its_probes_and_fails_its_trials_is_tried_less_and_less_often():
    setting, waits = opened(), []
    for _ in range(9):
        setting.probe(True)
        if setting.state is State.OPEN:
            begun = setting.now
            setting.now = setting.breaker.trial_at
            setting.probe(True)
            waits.append(round(setting.now - begun, 6))
        setting.call(Outcome.FAILED, jitter=0.0)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_what_misses_a_probe_owes_no_more_than_one_good_one():
    setting = opened()
    for _ in range(8):
        setting.probe(True)
        setting.now = max(setting.now, setting.breaker.trial_at if setting.state is State.OPEN else 0)
        setting.call(Outcome.FAILED)
    setting.probe(False)
    setting.probe(True)

    assert setting.begin()


def test_a_camera_is_tried_after_a_wait_that_doubles_to_a_minute_and_closes_after_three_successes():
    setting = opened(OF_A_CAMERA)
    waits = []
    for _ in range(8):
        waits.append(round(setting.breaker.trial_at - setting.now, 6))
        setting.now = setting.breaker.trial_at
        setting.call(Outcome.FAILED, jitter=0.0)
    setting.now = setting.breaker.trial_at
    setting.call(Outcome.DONE, times=2)

    assert waits == [0.9, 2, 4, 8, 16, 32, 60, 60]
    assert setting.state is State.HALF_OPEN

    setting.call(Outcome.DONE)

    assert setting.state is State.CLOSED


def test_what_was_opened_by_hand_stays_so_and_what_was_closed_by_hand_too(setting):
    setting.order(Manual.OPEN)
    setting.now += 1000
    setting.probe(True)

    assert (setting.state, setting.begin(), setting.breaker.why) == (State.OPEN, False, "ann")

    setting.order(Manual.CLOSED)
    setting.call(Outcome.FAILED, times=100)
    setting.probe(False)

    assert setting.state is State.CLOSED


@pytest.mark.parametrize("rules", [RULES, OF_A_CAMERA], ids=["probed", "camera"])
def test_left_to_itself_again_it_goes_on_by_the_rules(rules):
    setting = Setting(rules)
    setting.order(Manual.OPEN)
    setting.order(Manual.AUTO)
    setting.probe(True)
    setting.call(Outcome.DONE, times=rules.success_threshold)

    assert setting.state is State.CLOSED

    setting.order(Manual.CLOSED)
    setting.order(Manual.AUTO)
    setting.call(Outcome.FAILED, times=5)

    assert setting.state is State.OPEN


def test_only_what_is_well_and_owes_nothing_may_be_forgotten():
    setting = Setting(OF_A_CAMERA)
    setting.call(Outcome.DONE, times=3)

    assert may_forget(setting.breaker, now=setting.now, rules=setting.rules)

    setting.call(Outcome.FAILED)
    setting.call(Outcome.DONE)

    assert not may_forget(setting.breaker, now=setting.now, rules=setting.rules)
    assert may_forget(setting.breaker, now=setting.now + 60, rules=setting.rules)


STEPS = st.one_of(
    st.just(("begin",)),
    st.tuples(st.just("end"), st.sampled_from(Outcome), st.integers(0, 1000), st.floats(0, 5)),
    st.tuples(st.just("wait"), st.floats(0, 100)),
    st.tuples(st.just("probe"), st.booleans()),
    st.tuples(st.just("order"), st.sampled_from(Manual)),
)


@given(st.lists(STEPS, max_size=200), st.sampled_from([RULES, OF_A_CAMERA]), st.floats(0, 1))
def test_never_more_trials_than_allowed_in_any_order_of_events_and_none_is_lost(steps, rules, jitter):
    setting = Setting(rules)
    for step in steps:
        match step:
            case ("begin",):
                was = setting.state
                allowed = setting.begin()
                assert not (allowed and was is State.OPEN)
            case ("end", outcome, place, seconds) if setting.permits:
                setting.end(outcome, place % len(setting.permits), seconds=seconds, jitter=jitter)
            case ("wait", seconds):
                setting.now += seconds
            case ("probe", is_good):
                setting.probe(is_good, jitter=jitter)
            case ("order", wanted):
                setting.order(wanted)
        trials = sum(permit.is_trial for permit in setting.permits)

        assert trials == setting.breaker.trials <= rules.success_threshold

    # Whatever happened, it closes again once all goes well.
    setting.order(Manual.AUTO)
    while setting.permits:
        setting.end(Outcome.IGNORED)
    for _ in range(10):
        setting.now = max(setting.now, *(at for at in (setting.breaker.next_try_at,) if at is not None), 0.0)
        setting.probe(True)
        if setting.begin():
            setting.end(Outcome.DONE)

    assert setting.state is State.CLOSED
    assert setting.breaker.trials == 0
