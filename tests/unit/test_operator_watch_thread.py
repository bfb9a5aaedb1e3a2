"""kopf's end: whatever its tasks do about being cancelled, the operator is told why it ended."""

import asyncio

import kopf
import pytest

from baleen_operator.handlers.thread import watch

WATCHES = 3


async def goes_on(cancelled: list[str]) -> None:
    """Take no notice of being cancelled the first time, as a watch of kopf's between two requests does."""
    while not cancelled:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append("once")
    await asyncio.sleep(3600)


async def is_refused() -> None:
    raise PermissionError("cannot watch moderationpolicies")


async def test_when_one_watch_fails_the_others_end_and_the_cause_is_raised(monkeypatch):
    spawned: list[asyncio.Task[None]] = []

    async def spawn(**_):
        spawned[:] = [asyncio.create_task(goes_on([])) for _ in range(WATCHES)]
        return [*spawned, asyncio.create_task(is_refused())]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn)
    with pytest.raises(PermissionError, match="cannot watch moderationpolicies"):
        async with asyncio.timeout(30):
            await watch(kopf.OperatorRegistry(), ())

    assert len(spawned) == WATCHES
    assert all(task.cancelled() for task in spawned)


async def test_when_it_is_told_to_end_its_tasks_end(monkeypatch):
    spawned: list[asyncio.Task[None]] = []
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def spawn(*, stop_flag, **_):
        spawned[:] = [asyncio.create_task(goes_on([]))]
        loop.call_soon_threadsafe(began.set)
        return [*spawned, asyncio.create_task(stop_flag.wait())]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn)
    watching = asyncio.create_task(watch(kopf.OperatorRegistry(), ()))
    await began.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching

    assert [task.cancelled() for task in spawned] == [True]
