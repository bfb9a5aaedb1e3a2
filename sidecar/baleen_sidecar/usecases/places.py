"""So many at a time, the most urgent first."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from baleen_core.priority import Priority


class Places:
    """A semaphore that hands its places to the most urgent who wait, and of these to who came first."""

    def __init__(self, places: int) -> None:
        self._free = places
        # Whoever gives up leaves at once, out of the middle; a plain dictionary is slow to find what is first again.
        self._waiting: dict[Priority, OrderedDict[asyncio.Future[None], None]] = {
            priority: OrderedDict() for priority in sorted(Priority, reverse=True)
        }

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._free

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[None]:
        """Hold a place, once there is one."""
        await self.acquire(priority)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, priority: Priority) -> None:
        """Wait for a place; whoever has one gives it back by `release`."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[priority][turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting[priority].pop(turn, None)
            if turn.done() and not turn.cancelled():
                # It was given a place just then.
                self.release()
            raise

    def release(self) -> None:
        """Give a place back, or to who is next."""
        for line in self._waiting.values():
            while line:
                turn, _ = line.popitem(last=False)
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
