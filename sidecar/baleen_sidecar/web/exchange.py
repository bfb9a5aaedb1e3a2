"""A request to a hot route below ASGI, from its head to its answer, in its turn on a connection."""

import logging
from asyncio import AbstractEventLoop, CancelledError, Future, Task, TimerHandle, Transport
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE
from uvicorn.server import ServerState

from baleen_core.callers import Identity
from baleen_sidecar.web.application import Application
from baleen_sidecar.web.hot import HotAnswer, HotRoute, MustAsk, Switch
from baleen_sidecar.web.request_body import DISCARD_SECONDS, ClientGone, check_claims, too_large

log = logging.getLogger(__name__)

CLOSE: Final = (b"connection", b"close")
_UNLIMITED: Final = 1 << 62


class Connection(Protocol):
    """What an exchange needs of the connection that it is on."""

    loop: AbstractEventLoop
    transport: Transport
    flow: FlowControl
    server_state: ServerState
    tasks: set[Task[None]]
    is_parsing: bool
    """Whether more of what was read is about to be parsed; then whoever waits is told (`Exchange.settle`)."""

    def claim(self, key: Identity) -> None:
        """Count the connection among those of a key.

        Raises:
            LimitExceeded: the key has too many.
        """

    def on_response_complete(self) -> None:
        """Go on with the next request, if one waits."""

    def switch(self, to: Switch) -> None:
        """Hand the connection over: what comes from now on is no HTTP."""


class IncomingBody:
    """The body of one request, as its connection reads it: chunks in a list that is joined once."""

    __slots__ = ("_chunks", "_headers", "_limit", "_loop", "_on_wait", "_waiter", "is_complete", "is_dropped", "total")

    def __init__(self, headers: Mapping[bytes, bytes], loop: AbstractEventLoop, on_wait: Callable[[], None]) -> None:
        """`on_wait` is called when somebody asks for the body."""
        self._headers = headers
        self._loop = loop
        self._on_wait = on_wait
        self._chunks: list[bytes] = []
        self._limit = _UNLIMITED
        self._waiter: Future[None] | None = None
        self.total = 0
        self.is_complete = False
        self.is_dropped = False
        """Whether nobody will ask for what still comes."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for more of it; nobody any more who was woken, and runs soon."""
        return self._waiter is not None and not self._waiter.done()

    async def read(self, kind: str, limit_bytes: int) -> bytes:
        """See baleen_sidecar.web.hot.Body."""
        check_claims(self._headers, kind, limit_bytes)
        self._on_wait()
        self._limit = limit_bytes
        while not self.is_complete and self.total <= limit_bytes:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.total > limit_bytes:
            raise too_large(kind, limit_bytes)
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    async def gone(self) -> None:
        """Wait for ever: whoever hangs up ends the task that answers, and with it this."""
        await self._loop.create_future()

    def feed(self, chunk: bytes) -> None:
        """Take a part of it."""
        self._chunks.append(chunk)
        self.total += len(chunk)
        if self.total > self._limit:
            self._wake()

    def end(self) -> None:
        """Learn that this was all."""
        self.is_complete = True
        self._wake()

    def drop(self) -> None:
        """Forget it, and what still comes."""
        self.is_dropped = True
        self._chunks.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """Stands where uvicorn has its cycle, and tells those who look at one what they look at."""

    __slots__ = (
        "_app",
        "_connection",
        "_discarding",
        "_refusal",
        "_request",
        "_route",
        "_started_seconds",
        "_task",
        "body",
        "disconnected",
        "keep_alive",
        "may_switch",
        "response_complete",
        "response_started",
        "waiting_for_100_continue",
    )

    def __init__(
        self,
        connection: Connection,
        app: Application,
        route: HotRoute,
        *,
        method: str,
        target: bytes,
        headers: Mapping[bytes, bytes],
        keep_alive: bool,
        expect_100_continue: bool,
        may_switch: bool,
    ) -> None:
        self.keep_alive = keep_alive
        self.may_switch = may_switch
        self.waiting_for_100_continue = expect_100_continue
        self.response_started = False
        self.response_complete = False
        self.disconnected = False
        self.body = IncomingBody(headers, connection.loop, self._ask_for_body)
        path, _, query = target.partition(b"?")
        self._connection = connection
        self._app = app
        self._route = route
        self._request = app.hot.read(
            method=method,
            path=path.decode("ascii"),
            query=query,
            headers=headers,
            body=self.body,
            may_switch=may_switch,
        )
        self._task: Task[None] | None = None
        self._discarding: TimerHandle | None = None
        self._refusal: HotAnswer | None = None
        self._started_seconds = 0.0

    def start(self) -> None:
        """Begin to answer: it is the turn of this request. What its head alone refuses costs no task."""
        hot, request = self._app.hot, self._request
        self._started_seconds = hot.monotonic_seconds()
        try:
            request.key = self._app.door.admit(request.path, request.query, request.headers, request.request_id)
            if request.key is not None:
                self._connection.claim(request.key)
            hot.check(self._route, request)
        except MustAsk:
            self._begin(must_ask=True)
        except Exception as exc:
            self._refusal = hot.refuse(self._route, request, exc)
            if self.body.is_complete or not self._connection.is_parsing:
                self.settle()
        else:
            self._begin()

    def settle(self) -> None:
        """Send the refusal, if there is one: once what came with the head was read, so that it is not in the way."""
        refusal, self._refusal = self._refusal, None
        if refusal is None or self.disconnected:
            return
        if self._connection.flow.write_paused:
            self._begin(refusal)
        else:
            self._write(refusal)
            self._app.hot.has_refused(self._started_seconds)

    def _begin(self, refusal: HotAnswer | None = None, *, must_ask: bool = False) -> None:
        self._task = self._connection.loop.create_task(self._answer(refusal, must_ask))
        # uvicorn's server waits for these when it is told to end.
        self._connection.tasks.add(self._task)

    async def _asked(self) -> HotAnswer:
        request, hot = self._request, self._app.hot
        try:
            request.key = await self._app.door.ask(request.path, request.headers, request.request_id)
            if request.key is not None:
                self._connection.claim(request.key)
        except Exception as exc:
            return hot.refuse(self._route, request, exc)
        return await hot.answer(self._route, request)

    def abandon(self) -> None:
        """Stop: nobody waits for an answer any more."""
        self.disconnected = True
        self.body.drop()
        if self._discarding is not None:
            self._discarding.cancel()
        if self._task is not None:
            # One that has not begun yet never does, and would not take itself off.
            self._task.add_done_callback(self._connection.tasks.discard)
            self._task.cancel()

    def end_body(self) -> None:
        """Learn that the whole request was read."""
        self.body.end()
        if self._discarding is not None:
            self._finish()

    async def _answer(self, refusal: HotAnswer | None, must_ask: bool) -> None:
        connection = self._connection
        try:
            if refusal is not None:
                answer = refusal
            elif must_ask:
                answer = await self._asked()
            else:
                answer = await self._app.hot.serve(self._route, self._request)
            if connection.flow.write_paused:
                await connection.flow.drain()
            if not self.disconnected:
                self._write(answer)
        except ClientGone:
            connection.transport.close()
        except CancelledError:
            if not self.disconnected:
                # The server does not wait any longer.
                connection.transport.close()
            raise
        except Exception:
            log.exception("answer failed", extra={"request_id": self._request.request_id})
            connection.transport.close()
        finally:
            assert self._task is not None, "it runs"
            connection.tasks.discard(self._task)

    def _ask_for_body(self) -> None:
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.body.is_complete:
            self._connection.flow.resume_reading()

    def _write(self, answer: HotAnswer) -> None:
        connection, is_read = self._connection, self.body.is_complete
        if answer.switch is not None:
            self._switch(answer, answer.switch)
            return
        more = [*connection.server_state.default_headers, *answer.headers]
        if CLOSE in more or not is_read:
            self.keep_alive = False
        if not self.keep_alive and CLOSE not in more:
            more.append(CLOSE)
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
            STATUS_LINE[answer.status],
            answer.media_type,
            len(answer.body),
            self._request.request_id.encode(),
            _render(more) if more else b"",
        )
        self.response_started = True
        self.waiting_for_100_continue = False
        connection.transport.write(head if self._request.method == "HEAD" else head + answer.body)
        if is_read:
            self._finish()
        else:
            # To close on unread bytes resets the connection, and the answer is lost.
            self.body.drop()
            self._discarding = connection.loop.call_later(DISCARD_SECONDS, self._finish)
            connection.flow.resume_reading()

    def _switch(self, answer: HotAnswer, to: Switch) -> None:
        more = ((b"x-request-id", self._request.request_id.encode()), *answer.headers)
        self.response_started = self.response_complete = True
        self._connection.transport.write(b"%b%b\r\n" % (STATUS_LINE[answer.status], _render(list(more))))
        self._connection.switch(to)

    def _finish(self) -> None:
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None
        self.response_complete = True
        self.body.drop()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()


def _render(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines: list[Any] = []
    for name, value in headers:
        if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
            raise ValueError("a header of an answer would end before its line does")
        lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)
