"""The keyed queue: workers that take what `plan.schedule` says is next."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from baleen_core.errors import BaleenError, Stale
from baleen_operator.plan.schedule import Schedule

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class KeyedQueue(Generic[K]):
    """Calls `work` for each key that is added, never twice at once for one key; it returns when it wants to be again.

    Work that fails is tried again, later each time; `on_error` hears of each failure.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        on_error: Callable[[K, Exception, float], None],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._clock = clock
        self._chance = chance
        self._schedule: Schedule[K] = Schedule()
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def depth(self) -> int:
        """How many keys wait for their turn."""
        return self._schedule.depth

    @property
    def oldest_age_seconds(self) -> float:
        """How long the one that waits longest has waited."""
        return self._schedule.oldest_age_seconds(self._clock())

    def add(self, keys: Iterable[K], *, urgent: bool = True) -> None:
        """Have keys worked on as soon as they can be."""
        for key in keys:
            self._schedule.add(key, self._clock(), urgent=urgent)
        self._wake.set()

    async def run(self, workers: int) -> None:
        """Work until `stop` is called, and end what was begun."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._serve())

    def stop(self) -> None:
        """Take nothing new; what waits is found again by whoever leads next."""
        self._stopping = True
        self._wake.set()

    async def _serve(self) -> None:
        while not self._stopping:
            key = self._schedule.take(self._clock())
            if key is None:
                await self._rest()
            else:
                await self._work_on(key)

    async def _rest(self) -> None:
        # Nothing is awaited between looking at the schedule and clearing, so no wake-up is lost.
        self._wake.clear()
        due = self._schedule.next_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._wake.wait()

    async def _work_on(self, key: K) -> None:
        try:
            again_seconds = await self._work(key)
        except Exception as exc:
            # Whatever it was, one resource must not stop the work on all others.
            self._on_error(key, exc, self._schedule.failed(key, self._clock(), self._chance()))
        else:
            self._schedule.done(key, self._clock(), again_seconds=again_seconds)
        # The timer of this key may now be the next of all: idle workers wait for an older one.
        self._wake.set()


Task = tuple[str, tuple[str, str]]
"""A resource to look at: kind, and namespace and name."""


class Work:
    """A queue for each kind: what takes minutes for one kind must not hold up another."""

    def __init__(self, queues: Mapping[str, KeyedQueue[Task]], workers: Mapping[str, int]) -> None:
        self.queues = queues
        self._workers = workers

    def add(self, tasks: Iterable[Task], *, urgent: bool) -> None:
        """Have resources looked at as soon as they can be."""
        sorted_out: dict[str, list[Task]] = {kind: [] for kind in self.queues}
        for task in tasks:
            sorted_out[task[0]].append(task)
        for kind, found in sorted_out.items():
            if found:
                self.queues[kind].add(found, urgent=urgent)

    async def run(self) -> None:
        """Work until `stop` is called, and end what was begun."""
        async with asyncio.TaskGroup() as group:
            for kind, queue in self.queues.items():
                group.create_task(queue.run(self._workers[kind]))

    def stop(self) -> None:
        """Take nothing new."""
        for queue in self.queues.values():
            queue.stop()


def is_expected(error: Exception) -> bool:
    """Say whether an error is one that trying again can help, so that a stack trace says nothing more."""
    return isinstance(error, BaleenError)


def is_race(error: Exception) -> bool:
    """Say whether somebody else only was faster: nothing that anyone has to know."""
    return isinstance(error, Stale)
