"""The newest of what changes all the time, for any number of readers at their own pace."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A reader gets the newest value, and then each time it asks the newest again, once there is one."""

    def __init__(self) -> None:
        self._value: tuple[T, ...] = ()
        self._number = 0
        self._changed = asyncio.Event()

    def put(self, value: T) -> None:
        """Replace the value, and wake whoever waits for it."""
        self._value = (value,)
        self._number += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncGenerator[T, None]:
        """Yield the newest value for ever; what came while nobody asked is one."""
        seen = 0
        while True:
            if self._number == seen:
                await self._changed.wait()
                continue
            seen = self._number
            yield self._value[0]
