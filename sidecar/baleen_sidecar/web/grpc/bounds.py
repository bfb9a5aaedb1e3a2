"""What bounds every call, whoever makes it: how many there are of a kind, and how long its message may take to come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from baleen_core.errors import ContentError, DeadlineExceeded, Problem


class Room:
    """Room for so many calls of one kind at a time, which those of another cannot take."""

    def __init__(self, limit: int, what: str) -> None:
        """`what` is how a refusal calls them."""
        self._limit = limit
        self._what = what
        self._taken = 0

    @asynccontextmanager
    async def place(self, context: Any) -> AsyncIterator[None]:
        """Give a call its place until the block ends.

        Raises:
            grpc.aio.AbortError: there is none; its caller was told so, with RESOURCE_EXHAUSTED.
        """
        if self._taken >= self._limit:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {self._limit} {self._what} already")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def only_message(context: Any, seconds: float) -> bytes:
    """Return the bytes of the one message of a call.

    Raises:
        DeadlineExceeded: it did not come within `seconds`.
        ContentError: the call ended without it.
    """
    try:
        async with asyncio.timeout(seconds):
            data = await context.read()
    except TimeoutError:
        raise DeadlineExceeded(f"the message did not come within {seconds:g} s") from None
    if not isinstance(data, bytes):
        raise ContentError([Problem(field="", message="the call ended without a message; send one")])
    return data
