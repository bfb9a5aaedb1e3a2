"""What is added up of gateways some of which share a log: each log once."""

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.logs import one_per_log

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
