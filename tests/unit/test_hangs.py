"""A server is suspected after a silence that is unusual for what it has to do, and not for having much to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.hangs import Answered, HangRules, is_hung, suspicious_seconds

RULES = HangRules()
sizes = st.integers(1, 4096)
answered = st.lists(st.builds(Answered, sizes, st.floats(0.0001, 60)), min_size=RULES.calls, max_size=64)


@given(
    fixed=st.floats(0, 2),
    each=st.floats(1e-6, 0.1),
    seen=st.lists(sizes, min_size=RULES.calls, max_size=64),
    size=sizes,
    slower=st.floats(1, 8),
)
def test_no_call_is_suspicious_at_a_server_that_works_as_ever_or_a_few_times_slower(fixed, each, seen, size, slower):
    calls = [Answered(units, fixed + each * units) for units in seen]

    assert slower * (fixed + each * size) <= suspicious_seconds(calls, size, RULES) * 1.000001


@given(answered, sizes)
def test_suspicion_takes_a_while_and_longer_for_more_work(calls, size):
    little, much = (suspicious_seconds(calls, each, RULES) for each in (size, size + 1))

    assert RULES.least_seconds <= little <= much


@given(st.lists(st.floats(0.001, 0.1), min_size=40, max_size=63), st.floats(1, 3600))
def test_one_call_that_took_very_long_makes_nobody_patient(seconds, longest):
    ordinary = [Answered(1, each) for each in seconds]

    assert suspicious_seconds([*ordinary, Answered(1, longest)], 1, RULES) <= RULES.least_seconds


@pytest.mark.parametrize("calls", range(RULES.calls))
def test_with_few_calls_to_compare_with_no_silence_is_suspicious(calls):
    patience = suspicious_seconds([Answered(1, 0.01)] * calls, 1, RULES)

    assert patience is None
    assert not is_hung(1e9, patience, is_living=False, rules=RULES)


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(1, 100))
def test_longer_silence_never_speaks_for_a_server_and_one_that_is_there_is_given_longer(silent, more, suspicious):
    def judge(seconds, *, is_living):
        return is_hung(seconds, suspicious, is_living=is_living, rules=RULES)

    assert judge(silent, is_living=True) <= judge(silent, is_living=False)
    assert judge(silent, is_living=True) <= judge(silent + more, is_living=True)
    assert not judge(0.99 * suspicious, is_living=False)
    assert judge(RULES.living_times * suspicious, is_living=True)
