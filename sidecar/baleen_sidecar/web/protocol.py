"""HTTP/1.1 from callers who may be slow, broken or hostile: uvicorn's protocol, with a limit on all it would wait for.

uvicorn itself bounds neither the headers nor the time until they and the body are there, and never closes a connection
on which nothing was asked. Hot routes are served from here, below ASGI; what else the application is asked stays
uvicorn's business.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final, Literal, cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from baleen_core.callers import Identity
from baleen_core.errors import LimitExceeded
from baleen_sidecar.web.application import Application
from baleen_sidecar.web.callers import note_connection
from baleen_sidecar.web.connections import Caller, ConnectionLimits, Shared
from baleen_sidecar.web.errors import PROBLEM_TYPE, describe_status
from baleen_sidecar.web.exchange import Exchange
from baleen_sidecar.web.hot import HotRoute, Switch

Stage = Literal["between", "head", "body"]
"""What the parser is in. Words, not an enum: it is noted three times for every request."""

STALL_SECONDS: Final = 30.0
"""How long a caller may leave answers unread, beyond what the buffer takes."""
RETRY_AFTER_SECONDS: Final = 1
"""What is said to the connection that is one too many."""


class _Refused(Exception):
    """Stops the parser, which then has uvicorn call `send_400_response`."""


class _Transport:
    """A transport that says beforehand that it is closed, whoever closes it: uvicorn does, too."""

    def __init__(self, transport: Transport, on_close: Callable[[], None]) -> None:
        self._transport = transport
        self._on_close = on_close
        # For every answer: an attribute of our own is the cheapest.
        self.write, self.is_closing = transport.write, transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """See asyncio.Transport."""
        if not self.is_closing():
            self._on_close()
        self._transport.close()


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses with a problem; closes without a word where an earlier answer is under way."""

    limits: ConnectionLimits = ConnectionLimits()
    stall_seconds: ClassVar[float] = STALL_SECONDS

    def __init__(
        self, *args: Any, shared: Shared | None = None, limits: ConnectionLimits | None = None, **kwargs: Any
    ) -> None:
        """`shared` is of all connections of one server; without `limits` those of the class hold."""
        super().__init__(*args, **kwargs)
        if limits is not None:
            self.limits = limits
        self._shared = Shared() if shared is None else shared
        self._application = self.app if isinstance(self.app, Application) else None
        self._targets = {} if self._application is None else self._application.targets
        # Looked up for every header: an attribute of our own is the cheapest.
        self._limit_headers = self.limits.headers
        self._caller: Caller = ""
        """As whose this connection is counted; empty: it is not."""
        self._held_bytes = 0
        """What is kept for this connection: bodies of requests that are not answered, or what a WebSocket holds."""
        self._bodies: list[int] = []
        """What the body of each of these requests takes, the one that is being answered first."""
        self._current: Exchange | RequestResponseCycle | None = None
        """What is being answered, or was last; `cycle` is what is being read, or was last."""
        self._reading: Exchange | None = None
        """The same as `cycle`, if it is for a hot route."""
        self._idle_since = 0.0
        """When the last answer was given, in seconds of the loop's clock."""
        self._stage: Stage = "between"
        self._timer: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._advanced = False
        """Whether the bytes just read completed a head or a message, or were a part of a body."""
        self.is_parsing = False
        self._loose_bytes = 0
        """Bytes read since the parser last advanced."""
        self._read_bytes = 0
        """Bytes of the read that is being parsed."""
        self._body_bytes = 0
        self._body_bytes_before = 0
        self._refusal: tuple[int, str] | None = None
        self._is_refused = False
        """Whether what still comes is thrown away."""
        self._is_full = False
        self._is_alone = False
        """Whether the newest request asked for another protocol in vain: nothing may be sent ahead of its answer."""
        self._early = b""
        """What came of another protocol before the connection was handed over to it."""
        self._is_switched = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Start the time for the first request, or refuse the connection."""
        super().connection_made(cast(Transport, transport))
        self.transport = cast(Transport, _Transport(cast(Transport, transport), self._end_in_time))
        limits, address = self.limits, str(self.client[0]) if self.client else "unknown"
        if len(self.connections) > limits.connections:
            self._turn_away(f"the server has its {limits.connections} connections open; try again later")
        elif not self._shared.enter(address, limits.connections_per_address):
            self._turn_away(
                f"{address} has {limits.connections_per_address} connections open on which it showed no API key, "
                "which is the limit"
            )
        else:
            self._caller = address
            self._start_timer(limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is being answered, and forget all that was noted for this connection."""
        self._stop_timer()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        self._release()
        self.pipeline.clear()
        if self._caller:
            self._shared.leave(self._caller)
            self._caller = ""
        if self._is_answering():
            self._abandon()
        if self._reading is not None:
            # It is none of uvicorn's.
            self.cycle = cast(RequestResponseCycle, None)
        super().connection_lost(exc)
        # uvicorn closes the transport once more.
        self._read_on()

    def pause_writing(self) -> None:
        """Start the time in which the reader has to take something."""
        super().pause_writing()
        if self._stalled is None:
            # Not close: that would wait for the reader, too.
            self._stalled = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Forget the time, unless it is that in which a closed connection has to end."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._read_on()

    def eof_received(self) -> None:
        """Close before the transport does it by itself, which would wait for the reader."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse, unless refused, and see to it that what is incomplete gets neither too long nor too late."""
        if not self._is_refused:
            self._advanced = False
            self._read_bytes = len(data)
            self.is_parsing = True
            try:
                self._parse(data)
            except HttpParserError:
                self.send_400_response("")
            self.is_parsing = False
            if isinstance(self._current, Exchange):
                self._current.settle()
            self._bound_the_rest()

    def shutdown(self) -> None:
        """End once what is being answered is; another protocol is told to end by whoever serves it."""
        if not self._is_switched:
            super().shutdown()

    def switch(self, to: Switch) -> None:
        """See baleen_sidecar.web.exchange.Connection; the limits and counts of this connection stay what they are."""
        self._is_switched = True
        self.server_state.total_requests += 1
        self._stop_timer()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self._release()
        early, self._early = self._early, b""
        protocol = to(self)
        self.transport.set_protocol(protocol)
        if early:
            protocol.data_received(early)
        self.flow.resume_reading()

    def hold(self, count: int) -> bool:
        """Count bytes that are kept for this connection, or count some off; False: all keep more than they may."""
        self._held_bytes += count
        self._shared.body_bytes += count
        return self._shared.body_bytes <= self.limits.memory_bytes

    def claim(self, key: Identity) -> None:
        """Count this connection among those of the caller whose newest request came on it.

        Raises:
            LimitExceeded: that one has too many; the connection is closed after its answer.
        """
        caller = (key.kind, key.name, key.tenant)
        if caller == self._caller or not self._caller:
            return
        limit = self.limits.connections_per_key
        if not self._shared.enter(caller, limit):
            if self._current is not None:
                self._current.keep_alive = False
            raise LimitExceeded(f"{key.said} has {limit} connections open, which is the limit")
        self._shared.leave(self._caller)
        self._caller = caller

    def on_message_begin(self) -> None:
        """Expect a head; what uvicorn begins here waits until it is known to be for ASGI."""
        if self._is_alone and self._is_answering():
            # It may be in the protocol that was asked for: whoever sent it did not wait to hear whether that is spoken.
            self._is_full = True
            raise _Refused
        self._is_alone = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._stage = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        if len(self.headers) > self._limit_headers:
            self._stop_parsing(431, f"the request has more than {self._limit_headers} headers")

    def on_headers_complete(self) -> None:
        """Hand the request to its hot route, or to uvicorn, which answers or queues it."""
        route = self._targets.get(self.url.partition(b"?")[0]) if self._targets else None
        may_switch = False
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            may_switch = route is not None and self._is_handshake()
            if not may_switch:
                # A server may ignore what is asked so (RFC 9110, 7.8); see `_stop_at_upgrade`.
                return
        # What was read is an upper bound of the head, and nearly always says enough.
        if self._loose_bytes + self._read_bytes > self.limits.head_bytes < self._count_head():
            self._stop_parsing(431, self._head_is_long())
        if len(self.pipeline) >= self.limits.queued_requests:
            self._is_full = True
            raise _Refused
        if route is not None:
            self._begin_exchange(route, may_switch=may_switch)
        else:
            self._begin_asgi()
        self._advance("body")

    def on_body(self, body: bytes) -> None:
        """Count what came, and keep it until it is read."""
        self._advanced = True
        self._body_bytes += len(body)
        exchange = self._reading
        if exchange is None:
            # uvicorn drops what comes after an answer.
            if not self.cycle.response_complete:
                self._hold(len(body))
                super().on_body(body)
        elif not exchange.body.is_dropped:
            self._hold(len(body))
            exchange.body.feed(body)
            if exchange.body.total > HIGH_WATER_LIMIT and not exchange.body.is_awaited:
                self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """End the time for the body."""
        if self._stage == "head":
            # Not begun: its head is about to be read again.
            return
        if self._reading is not None:
            self._reading.end_body()
        else:
            super().on_message_complete()
        self._advance("between")

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one; let go of the body that was judged."""
        self.server_state.total_requests += 1
        # None: all was let go of, for the connection is about to end.
        if self._bodies:
            self.hold(-self._bodies.pop(0))
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.limits.idle_seconds, self._close_if_idle)

    def _unset_keepalive_if_required(self) -> None:
        # uvicorn would stop and start a timer for each request; ours runs on, and looks when it fires.
        pass

    def send_400_response(self, msg: str) -> None:
        """Answer for uvicorn when the parser has stopped: by an error in the bytes, or because we stopped it."""
        if self._is_full:
            # What was accepted is answered, and what is read after it thrown away: the caller has to ask again.
            self._is_refused = True
            self._stop_timer()
            self.cycle.keep_alive = False
            return
        self._refuse(*(self._refusal or (400, "these bytes are not an HTTP/1.1 request")))

    def _close_if_idle(self) -> None:
        idle_seconds, self.timeout_keep_alive_task = self.limits.idle_seconds, None
        is_asked = self._stage != "between" or self._is_answering()
        left = idle_seconds if is_asked else self._idle_since + idle_seconds - self.loop.time()
        if left <= 0:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self._close_if_idle)

    def _begin_exchange(self, route: HotRoute, *, may_switch: bool) -> None:
        assert self._application is not None, "it has the route"
        before, parser = self.cycle, self.parser
        exchange = Exchange(
            self,
            self._application,
            route,
            method=parser.get_method().decode("ascii"),
            target=self.url,
            headers=dict(self.headers),
            keep_alive=parser.get_http_version() != "1.0" and parser.should_keep_alive(),
            expect_100_continue=self.expect_100_continue,
            may_switch=may_switch,
        )
        self._reading = exchange
        self.cycle = cast(RequestResponseCycle, exchange)
        self._bodies.append(0)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin_asgi(self) -> None:
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        self._reading = None
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers += headers
        note_connection(cast(dict[str, Any], self.scope), self.claim)
        super().on_headers_complete()
        self._bodies.append(0)
        if self.pipeline:
            # uvicorn pauses where a request waits, and then would not see that the caller hangs up.
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        current = cast(Exchange | RequestResponseCycle, cycle)
        self._current = current
        if isinstance(current, Exchange):
            current.start()
        else:
            super()._start_asgi_task(current, app)

    def _hold(self, count: int) -> None:
        limit = self.limits.memory_bytes
        self._bodies[-1] += count
        if not self.hold(count):
            self._stop_parsing(503, f"the bodies of all requests would be over the limit of {limit} bytes together")

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as exc:
            self._stop_at_upgrade(data[exc.args[0] :])

    def _stop_at_upgrade(self, rest: bytes) -> None:
        """Go on after the head of a request for another protocol: in HTTP, if that is not spoken here.

        The parser passes over the body of such a request, and would take it for the next one. So another parser is
        given the head once more, without the wish, and only then is the request begun.
        """
        if self._stage == "head":
            head = self._render_plain_head()
            # Another: after a request with `Connection: close` a parser takes no more.
            self.parser = HttpRequestParser(self)
            # As uvicorn has it; else a byte after such a request would be an error while that is answered.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parse(head)
            self._is_alone = True
            if rest:
                self._parse(rest)
            return
        self._is_refused = True
        self.cycle.keep_alive = False
        if self._reading is not None and self._reading.may_switch:
            self._early = rest
            self.flow.pause_reading()

    def _is_handshake(self) -> bool:
        """Whether the head that was read asks for a WebSocket, the one protocol that a connection can turn to."""
        parser, upgrade = self.parser, dict(self.headers).get(b"upgrade", b"")
        is_asked = upgrade.strip().lower() == b"websocket" and parser.get_method() == b"GET"
        return is_asked and parser.get_http_version() == "1.1"

    def _render_plain_head(self) -> bytes:
        """Write the head that was read, as it was but for what asks for another protocol."""
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _release(self) -> None:
        self._shared.body_bytes -= self._held_bytes
        self._held_bytes = 0
        self._bodies.clear()

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
        self._release()
        if not self._may_say_why():
            self.transport.close()
            return
        if self._is_answering():
            self._abandon()
        self.transport.write(render_refusal(status, detail))
        self.transport.write_eof()
        self._start_timer(self.limits.linger_seconds, self.transport.close)

    def _turn_away(self, detail: str) -> None:
        # Those that are turned away must not keep out those that come after them.
        self.connections.discard(self)
        self._refuse(503, detail)

    def _abandon(self) -> None:
        current = self._current
        if isinstance(current, Exchange):
            current.abandon()
        elif current is not None:
            # What uvicorn does when a caller hangs up: the application is told, and what it still sends is dropped.
            current.disconnected = True
            # Else it would still be asked for its body, after the end of what is sent to it.
            current.waiting_for_100_continue = False
            current.message_event.set()

    def _end_in_time(self) -> None:
        """Start the time in which what was written has to be taken: to close waits for the reader."""
        self._read_on()
        self._stalled = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

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
