"""Messages one after another: answered in their order, never more read than the window lets, nothing left behind."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.web.in_order import in_order

windows = st.integers(1, 5)
naps = st.lists(st.integers(0, 4), max_size=30)


def reading(count: int, last: Exception | None = None) -> tuple[Callable[[], Awaitable[int | None]], list[int]]:
    read: list[int] = []

    async def next_one() -> int | None:
        if len(read) == count:
            if last is not None:
                raise last
            return None
        read.append(len(read))
        return read[-1]

    return next_one, read


async def nap(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@given(window=windows, work=naps, writing=st.integers(0, 3))
def test_answers_are_in_the_order_of_reading_and_no_more_is_read_than_the_window(
    window: int, work: list[int], writing: int
) -> None:
    read, seen = reading(len(work))
    written: list[int] = []

    async def answer(message: int) -> int:
        assert len(seen) - len(written) <= window
        await nap(work[message])
        return message

    async def write(answer: int) -> None:
        await nap(writing)
        written.append(answer)

    asyncio.run(in_order(read, answer, write, window=window))

    assert written == list(range(len(work)))


@given(window=windows, work=naps)
def test_what_was_read_is_answered_before_an_error_of_reading_is_raised(window: int, work: list[int]) -> None:
    read, _ = reading(len(work), ValueError("broken"))
    written: list[int] = []

    async def answer(message: int) -> int:
        await nap(work[message])
        return message

    async def write(answer: int) -> None:
        written.append(answer)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(in_order(read, answer, write, window=window))
    assert written == list(range(len(work)))


async def test_who_takes_no_answers_is_asked_for_no_messages_and_leaves_nothing() -> None:
    read, seen = reading(100)
    under_way = 0

    async def answer(message: int) -> int:
        nonlocal under_way
        under_way += 1
        try:
            await nap(message)
            return message
        finally:
            under_way -= 1

    async def write(answer: int) -> None:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    whole = asyncio.create_task(in_order(read, answer, write, window=3))
    await nap(50)
    assert len(seen) == 3
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole

    assert (under_way, asyncio.all_tasks()) == (0, before)


async def test_an_error_of_writing_ends_what_is_under_way() -> None:
    read, _ = reading(10)
    cancelled = []

    async def answer(message: int) -> int:
        if message:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(message)
                raise
        return message

    async def write(answer: int) -> None:
        await nap(10)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await in_order(read, answer, write, window=3)
    assert sorted(cancelled) == [1, 2]
