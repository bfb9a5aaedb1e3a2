"""When the next group of rows is committed."""

from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.pace import CROWD_SECONDS, Pace

GAP = 0.001

seconds = st.floats(0, 1, allow_nan=False)
groups = st.lists(st.tuples(st.integers(1, 200), seconds, seconds), max_size=20)
"""So many rows, after so long without one, committed in so many seconds."""


@given(groups)
def test_a_pause_ends_no_later_than_a_gap_after_its_group_began(found: list[tuple[int, float, float]]) -> None:
    pace, now = Pace(GAP), 0.0
    for rows, idle, took in found:
        began = now + idle
        now = began + took
        pause = pace.after(rows, began=began, ended=now)

        assert 0 <= pause <= GAP
        assert pause == 0 or now + pause <= began + GAP + 1e-9
        now += pause


@given(groups)
def test_rows_that_come_one_by_one_wait_for_nobody(found: list[tuple[int, float, float]]) -> None:
    pace, now = Pace(GAP), 0.0
    for _, idle, took in found:
        began = now + idle
        now = began + took

        assert pace.after(1, began=began, ended=now) == 0


@given(groups, st.integers(2, 200))
def test_under_load_groups_begin_a_gap_apart(found: list[tuple[int, float, float]], crowd: int) -> None:
    pace, now = Pace(GAP), 0.0
    for rows, idle, took in found:
        now += idle
        pace.after(rows, began=now, ended=now + took)
        now += took
    after = pace.after(crowd, began=now, ended=now + GAP / 4)

    assert abs(after - GAP * 3 / 4) < 1e-9


@given(groups)
def test_what_came_together_is_forgotten(found: list[tuple[int, float, float]]) -> None:
    pace, now = Pace(GAP), 0.0
    for rows, idle, took in found:
        now += idle
        pace.after(rows, began=now, ended=now + took)
        now += took

    assert pace.after(1, began=now + CROWD_SECONDS, ended=now + CROWD_SECONDS) == 0
