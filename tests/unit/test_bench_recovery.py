import pytest

from metastable_recovery import Slot, recovery_seconds

WELL, ILL, NOBODY = Slot(due=20, good=20), Slot(due=20, good=3), Slot(due=0, good=0)


@pytest.mark.parametrize(
    ("slots", "seconds"),
    [
        pytest.param([WELL] * 80, 0.0, id="never away"),
        pytest.param([*[WELL] * 10, *[ILL] * 10, *[WELL] * 60], 0.0, id="well at once"),
        pytest.param([*[WELL] * 10, *[ILL] * 25, *[WELL] * 45], 1.5, id="well after a while"),
        pytest.param([*[WELL] * 10, *[ILL] * 15, *[WELL] * 15, ILL, *[WELL] * 49], 2.1, id="ill again soon"),
        pytest.param([*[WELL] * 10, *[ILL] * 15, *[WELL] * 40, *[ILL] * 15], 0.5, id="ill again later"),
        pytest.param([*[WELL] * 10, *[ILL] * 15, *[WELL] * 20, *[ILL] * 35], 6.0, id="falls back"),
        pytest.param([*[WELL] * 10, *[ILL] * 70], 6.0, id="never well, for as long as was looked"),
        pytest.param([*[WELL] * 10, *[ILL] * 15, *[WELL] * 29, NOBODY], 0.5, id="nobody asked at the end"),
    ],
)
def test_it_is_well_from_the_moment_on_from_which_it_is_well_in_every_second_for_a_while(slots, seconds):
    # The model is away from the first second to the second one.
    assert recovery_seconds(slots, 0.1, back_at=2.0, well_seconds=3.0) == pytest.approx(seconds)
