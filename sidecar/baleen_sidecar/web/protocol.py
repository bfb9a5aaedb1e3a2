"""HTTP/1.1 from callers who may be slow, broken or hostile: uvicorn's protocol, with a limit on all it would wait for.

uvicorn itself bounds neither the headers nor the time until they and the body are there, and never closes a connection
on which nothing was asked. What the application is asked stays uvicorn's business.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final, Literal, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from baleen_sidecar.web.errors import PROBLEM_TYPE, describe_status


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may send, and how long it may take."""

    headers: int = 100
    """Headers of one request; trailers count too."""
    head_bytes: int = 32 * 1024
    """The request's target and headers; also whatever else is neither a head nor a body (chunk sizes, empty lines)."""
    head_seconds: float = 5.0
    """From the first byte of a request, or from the start of the connection, until its headers are complete."""
    body_bytes: int = 64 * 1024
    """Of a body that is not complete, at least so much has to come in every `body_seconds`."""
    body_seconds: float = 10.0
    queued_requests: int = 32
    """Requests that wait on one connection while an earlier one is answered."""
    connections: int = 1_000
    """Open connections of the whole server."""
    linger_seconds: float = 0.5
    """How long a refused caller may go on sending; to close on unread bytes resets, and the refusal is lost."""


Stage = Literal["between", "head", "body"]
"""What the parser is in. Words, not an enum: it is noted three times for every request."""

RETRY_AFTER_SECONDS: Final = 1
"""What is said to the connection that is one too many."""


class _Refused(Exception):
    """Stops the parser, which then has uvicorn call `send_400_response`."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses with a problem; closes without a word where an earlier answer is under way."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Looked up for every header: an attribute of our own is the cheapest.
        self._limit_headers = self.limits.headers
        self._stage: Stage = "between"
        self._timer: TimerHandle | None = None
        self._advanced = False
        """Whether the bytes just read completed a head or a message, or were a part of a body."""
        self._loose_bytes = 0
        """Bytes read since the parser last advanced."""
        self._read_bytes = 0
        """Bytes of the read that is being parsed."""
        self._body_bytes = 0
        self._body_bytes_before = 0
        self._refusal: tuple[int, str] | None = None
        self._is_refused = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Start the time for the first request, or refuse the connection."""
        super().connection_made(cast(Transport, transport))
        if len(self.connections) > self.limits.connections:
            # Those that are turned away must not keep out those that come after them.
            self.connections.discard(self)
            self._refuse(503, f"the server has its {self.limits.connections} connections open; try again later")
        else:
            self._start_timer(self.limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless refused, and see to it that what is incomplete gets neither too long nor too late."""
        if not self._is_refused:
            self._advanced = False
            self._read_bytes = len(data)
            super().data_received(data)
            self._bound_the_rest()

    def on_message_begin(self) -> None:
        """Expect a head."""
        super().on_message_begin()
        self._stage = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        super().on_header(name, value)
        if len(self.headers) > self._limit_headers:
            self._stop_parsing(431, f"the request has more than {self._limit_headers} headers")

    def on_headers_complete(self) -> None:
        """Hand the request to uvicorn, which answers or queues it."""
        # What was read is an upper bound of the head, and nearly always says enough.
        if self._loose_bytes + self._read_bytes > self.limits.head_bytes < self._count_head():
            self._stop_parsing(431, self._head_is_long())
        if len(self.pipeline) >= self.limits.queued_requests:
            # An answer is under way, so that nothing can be said.
            raise _Refused
        super().on_headers_complete()
        self._advance("body")

    def on_body(self, body: bytes) -> None:
        """Count what came."""
        super().on_body(body)
        self._advanced = True
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """End the time for the body."""
        super().on_message_complete()
        self._advance("between")

    def send_400_response(self, msg: str) -> None:
        """Answer for uvicorn when the parser has stopped: by an error in the bytes, or because we stopped it."""
        self._refuse(*(self._refusal or (400, "these bytes are not an HTTP/1.1 request")))

    def _advance(self, stage: Stage) -> None:
        self._stage = stage
        self._advanced = True
        self._stop_timer()

    def _bound_the_rest(self) -> None:
        # What was read before and after an advance is not told apart: one read is bounded, so both are too.
        self._loose_bytes = 0 if self._advanced else self._loose_bytes + self._read_bytes
        if self._is_refused:
            return
        if self._loose_bytes > self.limits.head_bytes:
            self._refuse(431, self._head_is_long())
        elif self._timer is None:
            self._await_the_rest()

    def _await_the_rest(self) -> None:
        if self._stage == "body":
            self._body_bytes = 0
            self._body_bytes_before = self.limits.body_bytes
            self._start_timer(self.limits.body_seconds / 2, self._measure_body)
        elif self._stage == "head" or self._loose_bytes:
            self._start_timer(self.limits.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._is_answering():
            # Reading may be paused; the connection is in use in any case.
            self._start_timer(self.limits.head_seconds, self._head_is_late)
        elif self._stage == "head":
            self._refuse(408, f"the headers were not complete within {self.limits.head_seconds:g} s")
        else:
            # A pool that holds an unused connection would take the refusal for the answer to its next request.
            self.transport.close()

    def _measure_body(self) -> None:
        """Look at the window that slides by halves; the first half has credit, so that a body has the whole window."""
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # The application is slow, not the caller.
            self._body_bytes = self.limits.body_bytes
        if self._body_bytes_before + self._body_bytes < self.limits.body_bytes:
            self.transport.close()
            return
        self._body_bytes_before, self._body_bytes = self._body_bytes, 0
        self._start_timer(self.limits.body_seconds / 2, self._measure_body)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _may_say_why(self) -> bool:
        """Whether a refusal would be taken for the answer to the request that is refused, not to an earlier one."""
        if self.transport.is_closing():
            return False
        is_only_one = self._stage == "body" and not self.pipeline and not self.cycle.response_started
        return is_only_one or not self._is_answering()

    def _count_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _head_is_long(self) -> str:
        return f"the request's target and headers are over the limit of {self.limits.head_bytes} bytes"

    def _stop_parsing(self, status: int, detail: str) -> None:
        self._refusal = status, detail
        raise _Refused

    def _refuse(self, status: int, detail: str) -> None:
        self._is_refused = True
        self._stop_timer()
        if not self._may_say_why():
            self.transport.close()
            return
        if self._is_answering():
            # What uvicorn does when a caller hangs up: the application is told, and what it still sends is dropped.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(render_refusal(status, detail))
        self.transport.write_eof()
        self._start_timer(self.limits.linger_seconds, self.transport.close)

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def render_refusal(status: int, detail: str) -> bytes:
    """Write the whole answer; there is no request id, for the request was not read."""
    body = msgspec.json.encode(describe_status(status, detail, request_id=""))
    again = f"retry-after: {RETRY_AFTER_SECONDS}\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: {PROBLEM_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        f"{again}"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
