"""What becomes of the rows behind a group that could not be written."""

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision_chain import SALT_BYTES, Head
from baleen_sidecar.adapters.store.decision_rows import to_chained_row
from baleen_sidecar.adapters.store.group_writer import GAP_SECONDS, PATIENCE_SECONDS, Group, GroupWriter, Waiting
from decision_records import make_record

MAX_ROWS = 3
WAIT_SECONDS = 20.0


class Hanging:
    """A database whose next writes take so many seconds each, and fail; those after that work, at once."""

    def __init__(self, *seconds: float) -> None:
        self.left = list(seconds)
        self.now = 0.0
        self.tries = 0

    @property
    def head(self) -> Head | None:
        return None

    def open(self) -> None:
        pass

    def write(self, group: Group) -> None:
        self.tries += 1
        if self.left:
            self.now += self.left.pop(0)
            raise OSError(f"write {self.tries}")

    def close(self) -> None:
        pass


def queue(count: int) -> list[Waiting]:
    loop = asyncio.new_event_loop()
    rows = [to_chained_row(make_record(f"{number}"), bytes(SALT_BYTES)) for number in range(count)]
    waiting = [Waiting(row, loop.create_future()) for row in rows]
    loop.close()
    return waiting


def write(rows: Hanging, waiting: list[Waiting]) -> list[tuple[list[Waiting], str]]:
    """Write all that waits when the writer begins, and return what was delivered together, and why."""
    delivered: list[tuple[list[Waiting], str]] = []
    writer = GroupWriter(
        rows,
        max_rows=MAX_ROWS,
        max_wait_seconds=0.0,
        deliver=lambda group, cause: delivered.append((list(group), str(cause or ""))),
        monotonic_seconds=lambda: rows.now,
    )
    for each in waiting:
        writer.put(each)
    writer.start()
    writer.stop()
    return delivered


def test_what_is_queued_when_a_write_took_long_to_fail_is_told_the_same_at_once() -> None:
    waiting = queue(MAX_ROWS * 5)
    rows = Hanging(PATIENCE_SECONDS + 1)

    assert write(rows, waiting) == [(waiting[:MAX_ROWS], "write 1"), (waiting[MAX_ROWS:], "write 1")]
    assert rows.tries == 1


def test_a_write_that_fails_soon_costs_its_own_group_alone() -> None:
    waiting = queue(MAX_ROWS * 2)

    assert write(Hanging(PATIENCE_SECONDS), waiting) == [(waiting[:MAX_ROWS], "write 1"), (waiting[MAX_ROWS:], "")]


def test_what_comes_after_that_is_tried_anew() -> None:
    first, behind, after = queue(3)
    done = threading.Event()
    delivered: list[tuple[list[Waiting], str]] = []
    rows = Hanging(PATIENCE_SECONDS + 1)

    def deliver(group: Group, cause: Exception | None) -> None:
        delivered.append((list(group), str(cause or "")))
        if first in group:
            writer.put(behind)
        elif behind in group:
            writer.put(after)
        else:
            done.set()

    writer = GroupWriter(
        rows, max_rows=MAX_ROWS, max_wait_seconds=0.0, deliver=deliver, monotonic_seconds=lambda: rows.now
    )
    writer.put(first)
    writer.start()
    assert done.wait(WAIT_SECONDS)
    writer.stop()

    assert delivered == [([first], "write 1"), ([behind], "write 1"), ([after], "")]


def test_under_load_rows_gather_before_the_next_group_is_written() -> None:
    first, second, third, fourth = queue(4)
    pauses: list[float] = []
    delivered: list[list[Waiting]] = []
    done = threading.Event()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            writer.put(third)
            writer.put(fourth)

    def deliver(group: Group, cause: Exception | None) -> None:
        delivered.append(list(group))
        if len(delivered) == 2:
            done.set()

    writer = GroupWriter(
        Hanging(), max_rows=MAX_ROWS, max_wait_seconds=0.0, deliver=deliver, monotonic_seconds=lambda: 0.0, pause=pause
    )
    writer.put(first)
    writer.put(second)
    writer.start()
    assert done.wait(WAIT_SECONDS)
    writer.stop()

    assert delivered == [[first, second], [third, fourth]]
    assert set(pauses) == {GAP_SECONDS}


@given(
    count=st.integers(0, MAX_ROWS * 6), seconds=st.lists(st.sampled_from([0.0, 0.5, PATIENCE_SECONDS * 2]), max_size=6)
)
def test_each_row_is_answered_for_once_in_the_order_in_which_they_came(count: int, seconds: list[float]) -> None:
    waiting = queue(count)
    delivered = write(Hanging(*seconds), waiting)

    assert [each for group, _ in delivered for each in group] == waiting
