"""The body of a request: read up to a limit, or thrown away for a moment so that a refusal arrives."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final

from baleen_core.errors import Problem, TooLarge, WrongType

DISCARD_SECONDS: Final = 2.0
"""How long a refused caller may go on sending before the connection is closed."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The caller hung up before its request was read."""


class RequestBody:
    """Reads one body; `unread` says whether some of it may still come."""

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive) -> None:
        self._headers = headers
        self._receive = receive
        self.unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers

    async def read(self, kind: str, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            TooLarge: it is over the limit, or says that it will be.
            WrongType: it is compressed.
            ClientGone: the caller hung up.
        """
        check_claims(self._headers, kind, limit_bytes)
        # A list joined once: appending to bytes copies the whole body for every chunk.
        chunks: list[bytes] = []
        total = 0
        while True:
            chunk = await self._next()
            total += len(chunk)
            if total > limit_bytes:
                raise too_large(kind, limit_bytes)
            chunks.append(chunk)
            if not self.unread:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def discard(self) -> None:
        """Throw away what still comes; to close on unread bytes resets the connection, and the answer is lost."""
        with suppress(ClientGone, TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self.unread:
                    await self._next()

    async def gone(self) -> None:
        """Return once the caller has hung up; to be awaited after the whole body was read."""
        with suppress(ClientGone):
            while True:
                await self._next()

    async def _next(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self.unread = False
            raise ClientGone
        self.unread = event.get("more_body", False)
        chunk: bytes = event.get("body", b"")
        return chunk


def check_claims(headers: Mapping[bytes, bytes], kind: str, limit_bytes: int) -> None:
    """Refuse a body by what its headers say of it, before any of it is read; `kind` is how an error calls it.

    Raises:
        TooLarge: it says that it is over the limit.
        WrongType: it is compressed.
    """
    claimed = headers.get(b"content-length", b"0")
    if not claimed.isdigit() or int(claimed) > limit_bytes:
        raise too_large(kind, limit_bytes)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        message = "compressed bodies are not accepted; send the bytes as they are"
        raise WrongType([Problem(field="Content-Encoding", message=message)])


def too_large(kind: str, limit_bytes: int) -> TooLarge:
    """Make the refusal of a body that is over its limit."""
    return TooLarge([Problem(field="content", message=f"the {kind} body is over the limit of {limit_bytes} bytes")])
