"""Laws of what a spool may hold, and of what is sent at once."""

import contextlib
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict
from baleen_sidecar.flow.spool import SpoolRoom, take_while_fits

LIMIT = 1000
STEPS = st.lists(st.tuples(st.sampled_from(["take", "send", "drop"]), st.integers(1, 400), st.sampled_from(Verdict)))


@given(STEPS)
def test_what_waits_is_never_over_the_limit_and_never_what_goes(steps: list[tuple[str, int, Verdict]]) -> None:
    room, waiting, sent = SpoolRoom(LIMIT), 0, 0
    for step, size, verdict in steps:
        if step == "take":
            with contextlib.suppress(LogUnavailable):
                room.take(size, verdict)
                waiting += size
        elif step == "send" and size <= waiting:
            room.send(size)
            waiting, sent = waiting - size, sent + size
        elif step == "drop" and room.is_over:
            room.drop(min(size, sent))
            sent -= min(size, sent)

        assert (room.waiting_bytes, room.sent_bytes) == (waiting, sent)
        assert waiting <= LIMIT
        assert room.is_over == (sent > 0 and waiting + sent > LIMIT)


@given(st.integers(0, LIMIT), st.integers(1, LIMIT))
def test_whenever_an_allow_is_taken_so_is_a_block_and_an_eighth_is_for_what_is_no_allow(full: int, size: int) -> None:
    def takes(verdict: Verdict) -> bool:
        try:
            SpoolRoom(LIMIT, waiting_bytes=full).take(size, verdict)
        except LogUnavailable:
            return False
        return True

    assert takes(Verdict.BLOCK) == takes(Verdict.REVIEW) == (full + size <= LIMIT)
    assert takes(Verdict.ALLOW) == (full + size <= LIMIT * 7 // 8)


def test_a_full_spool_names_its_setting() -> None:
    with pytest.raises(LogUnavailable, match="BALEEN_SPOOL_LIMIT_BYTES is 1,000, and the last eighth is kept for Rev"):
        SpoolRoom(LIMIT, waiting_bytes=LIMIT).take(1, Verdict.ALLOW)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120))
def test_batches_are_all_rows_in_their_order_each_within_the_limit_but_for_its_last_row(
    sizes: list[int], limit: int
) -> None:
    rows, batches = list(enumerate(sizes)), []
    rest = iter(rows)
    while batch := list(take_while_fits(rest, lambda row: row[1], limit_bytes=limit)):
        batches.append(batch)

    assert list(chain.from_iterable(batches)) == rows
    assert all(sum(size for _, size in batch[:-1]) < limit for batch in batches)
