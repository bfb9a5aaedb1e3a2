import pytest

from baleen_bench.flows import Sent, Slot, recovery_seconds

GOOD, BAD, IDLE = Slot(due=10, in_time=10), Slot(due=10, in_time=0), Slot(due=0, in_time=0)


def sent(*slots):
    return Sent(
        due=0,
        in_time=0,
        answered=0,
        errors={},
        unanswered=0,
        latency_ms={},
        started_at=0.0,
        slots=slots,
        generator_cpu_seconds=0.0,
    )


def test_what_was_due_between_two_moments_is_counted():
    found = sent(GOOD, BAD, GOOD, GOOD).between(0.1, 0.3)

    assert found == Slot(due=20, in_time=10)


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        pytest.param([GOOD] * 12, 0.0, id="at once"),
        pytest.param([BAD] * 3 + [GOOD] * 12, 0.3, id="a while later"),
        pytest.param([GOOD, BAD] * 2 + [GOOD] * 12, 0.4, id="not for a moment only"),
        pytest.param([BAD] * 5 + [GOOD] * 10, 0.5, id="in the last second that was looked at"),
        pytest.param([BAD] * 6 + [GOOD] * 9, 6.5, id="never"),
        pytest.param([IDLE] * 12, 0.0, id="where nothing was due nothing is missing"),
    ],
)
def test_a_return_is_where_all_but_a_few_are_answered_from_then_on_for_a_second(after, seconds):
    found = sent(GOOD, GOOD, BAD, *after)

    assert recovery_seconds(found, after_seconds=0.3, never_seconds=6.5) == pytest.approx(seconds)
