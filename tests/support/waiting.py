"""Waiting in tests for something that no event announces."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

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


async def suspend(process: psutil.Process) -> None:
    """Stop a process, and return once none of its threads runs: on a busy machine they go on for a while."""
    process.suspend()
    await until(lambda: all(map(_is_stopped, Path(f"/proc/{process.pid}/task").iterdir())))


def _is_stopped(thread: Path) -> bool:
    try:
        # The name before the state may hold anything.
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended
