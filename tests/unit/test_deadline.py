"""A request's deadline ends what is awaited, and is not mistaken for a caller who hangs up."""

import asyncio

import pytest

from baleen_core.errors import DeadlineExceeded
from baleen_sidecar.usecases.moderate import Deadline


async def test_what_is_done_in_time_is_not_disturbed() -> None:
    with Deadline(5, 5):
        await asyncio.sleep(0)

    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("left", [0.01, 0.0, -1.0], ids=["soon", "now", "long ago"])
async def test_what_is_not_done_in_time_ends_and_the_task_goes_on(left: float) -> None:
    with pytest.raises(DeadlineExceeded, match=r"the deadline of 2\.5 s passed before a decision"), Deadline(2.5, left):
        await asyncio.sleep(30)

    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_the_work_itself_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(5, 5):
        raise ValueError("mine")


@pytest.mark.parametrize("left", [30.0, 0.0], ids=["before the deadline", "in the same turn as the deadline"])
async def test_who_is_cancelled_by_somebody_else_stays_cancelled(left: float) -> None:
    async def work() -> None:
        with Deadline(30, left):
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
