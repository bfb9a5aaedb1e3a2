import pytest

from baleen_bench.flows import Sent
from baleen_bench.slots import Slot, recovery_seconds

GOOD, BAD, IDLE = Slot(due=20, in_time=20), Slot(due=20, in_time=3), Slot(due=0, in_time=0)


def test_what_was_due_between_two_moments_is_counted():
    sent = Sent(
        due=0,
        in_time=0,
        answered=0,
        errors={},
        unanswered=0,
        latency_ms={},
        started_at=0.0,
        slots=(GOOD, BAD, GOOD, GOOD),
        generator_cpu_seconds=0.0,
    )
    found = sent.between(0.1, 0.3)

    assert (found, found.share) == (Slot(due=40, in_time=23), 0.575)
    assert IDLE.share == 0


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
    found = recovery_seconds((GOOD, GOOD, BAD, *after), after_seconds=0.3, never_seconds=6.5)

    assert found == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("slots", "seconds"),
    [
        pytest.param([GOOD] * 80, 0.0, id="never away"),
        pytest.param([*[GOOD] * 10, *[BAD] * 10, *[GOOD] * 60], 0.0, id="well at once"),
        pytest.param([*[GOOD] * 10, *[BAD] * 25, *[GOOD] * 45], 1.5, id="well after a while"),
        pytest.param([*[GOOD] * 10, *[BAD] * 15, *[GOOD] * 15, BAD, *[GOOD] * 49], 2.1, id="ill again soon"),
        pytest.param([*[GOOD] * 10, *[BAD] * 15, *[GOOD] * 40, *[BAD] * 15], 0.5, id="ill again later"),
        pytest.param([*[GOOD] * 10, *[BAD] * 15, *[GOOD] * 20, *[BAD] * 35], 6.5, id="falls back"),
        pytest.param([*[GOOD] * 10, *[BAD] * 70], 6.5, id="never well"),
        pytest.param([*[GOOD] * 10, *[BAD] * 15, *[GOOD] * 29, IDLE], 0.5, id="nobody asked at the end"),
    ],
)
def test_it_is_well_from_the_moment_on_from_which_it_is_well_in_every_second_for_a_while(slots, seconds):
    # The model is away from the first second to the second one.
    found = recovery_seconds(slots, after_seconds=2.0, never_seconds=6.5, well_seconds=3.0)

    assert found == pytest.approx(seconds)
