"""Waiting in tests for something that no event announces."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

_SHORTEST_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 0.1


def pauses() -> Iterator[float]:
    """Yield how long to pause before each next look, in seconds: a look takes CPU time from what is waited for."""
    seconds = _SHORTEST_SECONDS
    while True:
        yield seconds
        seconds = min(1.5 * seconds, _LONGEST_SECONDS)


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 30) -> None:
    """Return as soon as the condition holds; fail with TimeoutError when it does not hold in time."""
    async with asyncio.timeout(seconds):
        for pause in pauses():
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(pause)
