"""Follow a PolicySource in a test, and wait for what it says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from baleen_sidecar.ports import PolicySource, Published
from waiting import until


class Follower:
    """The newest state that a source gave, and how many there were."""

    def __init__(self, source: PolicySource) -> None:
        self.source = source
        self.count = 0
        self._published: Published | None = None

    @property
    def published(self) -> Published:
        """Return the newest state; there must be one."""
        assert self._published is not None, f"nothing was published; {self.source.problem}"
        return self._published

    @property
    def has_published(self) -> bool:
        """Whether there was a state."""
        return self._published is not None

    async def follow(self) -> None:
        """Take every state as it comes."""
        async for published in self.source.published():
            self._published = published
            self.count += 1

    async def until(self, condition: Callable[[Published], object], *, seconds: float = 30) -> Published:
        """Return the first state for which the condition holds."""
        try:
            await until(lambda: self._published is not None and bool(condition(self._published)), seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"not seen; the source says {self.source.problem!r}: {self._published}") from None
        return self.published

    async def until_problem(self, words: str, *, seconds: float = 30) -> str:
        """Return what the source says once these words are in it; no words: once it says nothing."""
        try:
            await until(lambda: words in self.source.problem if words else not self.source.problem, seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"{words!r} was not said but {self.source.problem!r}") from None
        return self.source.problem


@asynccontextmanager
async def following(source: PolicySource, *runs: Any) -> AsyncIterator[Follower]:
    """Run a source, if it has to be run, and whatever else, while its states are taken."""
    follower = Follower(source)
    coroutines = [follower.follow(), *(each.run() for each in (source, *runs) if hasattr(each, "run"))]
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        yield follower
        for task in tasks:
            # What ended did so by an error: nothing here ends by itself.
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
