"""The workers: one for a key at a time, none stopped by another's failure, and an end in order."""

import asyncio
from collections import Counter

import pytest

from baleen_core.errors import ClusterError, Stale
from baleen_core.resources import DEPLOYMENT_KIND, POLICY_KIND
from baleen_operator.adapters.queue import KeyedQueue, Task, Work, is_expected, is_race
from waiting import until


def ignore(key: object, error: Exception, seconds: float) -> None:
    """Let a failure be retried."""


async def run_until(queue: KeyedQueue[str], condition, *, workers: int = 4) -> None:
    """Run the queue until something holds, and end it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.run(workers))
        try:
            await until(condition)
        finally:
            queue.stop()


async def test_keys_are_worked_on_side_by_side_and_one_key_never_twice_at_once():
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    done: list[str] = []

    async def work(key: str) -> None:
        running[key] += 1
        most[key] = max(most[key], running[key])
        most["together"] = max(most["together"], running.total())
        queue.add([key] if len(done) < 50 else [])
        await asyncio.sleep(0.001)
        running[key] -= 1
        done.append(key)

    queue: KeyedQueue[str] = KeyedQueue(work, on_error=ignore)
    queue.add("abcdef")
    await run_until(queue, lambda: len(done) >= 50 and queue.depth == 0)

    assert most.pop("together") == 4
    assert set(most.values()) == {1}


async def test_work_that_fails_is_tried_again_and_holds_up_nobody():
    tries: Counter[str] = Counter()
    heard: list[tuple[str, str]] = []

    async def work(key: str) -> None:
        tries[key] += 1
        if key == "bad" and tries[key] < 3:
            raise ValueError("not yet")

    queue: KeyedQueue[str] = KeyedQueue(
        work, on_error=lambda key, error, _: heard.append((key, str(error))), chance=lambda: 0.0
    )
    queue.add(["bad", "good"])
    await run_until(queue, lambda: tries["bad"] == 3, workers=1)

    assert tries["good"] == 1
    assert heard == [("bad", "not yet")] * 2


async def test_a_key_that_wants_to_be_looked_at_again_is():
    turns: list[str] = []

    async def work(key: str) -> float | None:
        turns.append(key)
        return 0.01 if len(turns) < 3 else None

    queue: KeyedQueue[str] = KeyedQueue(work, on_error=ignore)
    queue.add(["a"])
    await run_until(queue, lambda: len(turns) == 3)

    assert turns == ["a"] * 3


async def test_a_stop_lets_what_was_begun_end_and_begins_nothing():
    begun, ended = asyncio.Event(), []

    async def work(key: str) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        ended.append(key)

    queue: KeyedQueue[str] = KeyedQueue(work, on_error=ignore)
    queue.add(["a", "b", "c"])
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.run(1))
        await begun.wait()
        queue.stop()

    assert ended == ["a"]
    assert queue.depth == 2


async def test_a_kind_whose_work_takes_long_does_not_hold_up_another():
    done: list[Task] = []
    release = asyncio.Event()

    async def slow(task: Task) -> None:
        await release.wait()

    async def quick(task: Task) -> None:
        done.append(task)

    work = Work(
        queues={
            DEPLOYMENT_KIND: KeyedQueue(slow, on_error=ignore),
            POLICY_KIND: KeyedQueue(quick, on_error=ignore),
        },
        workers={DEPLOYMENT_KIND: 1, POLICY_KIND: 1},
    )
    work.add([(DEPLOYMENT_KIND, ("n", "a")), (DEPLOYMENT_KIND, ("n", "b")), (POLICY_KIND, ("n", "p"))], urgent=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(work.run())
        await until(lambda: bool(done))
        work.stop()
        release.set()

    assert done == [(POLICY_KIND, ("n", "p"))]


@pytest.mark.parametrize(
    ("error", "expected", "race"),
    [
        pytest.param(Stale("x"), True, True, id="somebody else was faster"),
        pytest.param(ClusterError("x"), True, False, id="the API server refused"),
        pytest.param(KeyError("x"), False, False, id="a fault of the operator"),
    ],
)
def test_only_faults_of_the_operator_itself_are_told_with_a_trace(error: Exception, expected: bool, race: bool):
    assert (is_expected(error), is_race(error)) == (expected, race)
