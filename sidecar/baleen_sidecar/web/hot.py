"""Hot routes: a function of a request to an answer, which whoever serves bytes can call, with ASGI or below it.

The protocol calls them below ASGI (`exchange.py`). A request that names one in another way, such as with escapes in its
path, gets there as ASGI, and everything else passes through to the application behind. See
docs/adr/0029-hot-routes-below-asgi.md.
"""

import asyncio
import logging
import re
from asyncio import Protocol as AnyProtocol
from asyncio import Transport
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any, Final, Protocol, TypeVar

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl

from baleen_core.callers import Identity
from baleen_core.errors import BaleenError
from baleen_core.priority import Priority
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.door import PRIORITY_HEADER, is_plain, read_priority
from baleen_sidecar.flow.url_key import take_key
from baleen_sidecar.web.callers import key_of
from baleen_sidecar.web.errors import (
    PROBLEM_TYPE,
    ProblemDetails,
    describe,
    describe_status,
    is_private,
    unexpected,
)
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.rate_limit import refusal_headers
from baleen_sidecar.web.request_body import ClientGone, RequestBody
from baleen_sidecar.web.request_body import Receive as Receive

log = logging.getLogger(__name__)

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_ENCODER: Final = msgspec.json.Encoder()
_KEY_HEADER: Final = b"x-api-key"


class Body(Protocol):
    """What a request brings beside its head."""

    async def read(self, kind: str, limit_bytes: int) -> bytes:
        """Return the whole body; `kind` is how an error calls it.

        Raises:
            TooLarge: it is over the limit, or says that it will be.
            WrongType: it is compressed.
            ClientGone: the caller hung up.
        """

    async def gone(self) -> None:
        """Return once the caller has hung up; to be awaited after the whole body was read."""


class HotRequest(msgspec.Struct, kw_only=True):
    """A request to a hot route; header names are in lower case, `received_seconds` is monotonic.

    `key` is who calls; None where no keys are asked for. `priority` is what counts: what is claimed, up to what the
    caller may claim. With `may_switch` an answer can hand the connection over to another protocol.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: Body
    request_id: str
    received_seconds: float
    key: Identity | None = None
    priority: Priority = Priority.NORMAL
    may_switch: bool = False

    def told_priority(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the header by which whoever claimed a priority is told which one counted."""
        return ((PRIORITY_HEADER, self.priority.title.encode()),) if PRIORITY_HEADER in self.headers else ()


class Host(Protocol):
    """A connection of HTTP on which another protocol is spoken from now on.

    What the transport says to that protocol about writing and about its end is passed on to the host.
    """

    transport: Transport
    flow: FlowControl
    tasks: set[asyncio.Task[None]]

    def hold(self, count: int) -> bool:
        """Count bytes that are kept for this connection, or count some off; False: all keep more than they may."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""


Switch = Callable[[Host], AnyProtocol]
"""Makes the protocol that a connection speaks from now on."""


class HotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer; `content-length` and `x-request-id` are added to its headers. With 101 there is a `switch`."""

    status: int
    body: bytes = b""
    media_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    switch: Switch | None = None


class HotRoute(Protocol):
    """Answers the requests of one path."""

    @property
    def method(self) -> str:
        """The one method that it takes."""

    async def answer(self, request: HotRequest) -> HotAnswer:
        """Answer, and count what was decided.

        Raises:
            BaleenError: it is refused.
            ClientGone: there is nobody left to answer.
        """

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """Say a refusal in the words of this route, such as `problem_answer`."""


def problem_answer(problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
    """Say a refusal as RFC 9457 has it."""
    return HotAnswer(
        status=problem.status,
        body=_ENCODER.encode(problem),
        media_type=PROBLEM_TYPE.encode(),
        headers=tuple(more),
    )


class NotAdmitted(Exception):
    """A door lets a request in no further; it is answered with `problem`, and `more` headers."""

    def __init__(self, problem: ProblemDetails, more: Headers = ()) -> None:
        self.problem = problem
        self.more = more
        super().__init__(problem.detail)


def check_path(path: str, request_id: str) -> None:
    """Let a path pass that may be one of ours.

    Raises:
        NotAdmitted: it has control characters, and so is not there.
    """
    if not is_plain(path):
        raise NotAdmitted(describe_status(404, f"there is no {path!r} here", request_id))


class MustAsk(Exception):
    """Whose a request is, is not known at once: `Door.ask` finds out."""


class Door(Protocol):
    """Stands in front of all that is served: as ASGI, or asked by whoever serves without."""

    def admit(self, path: str, query: bytes, headers: Mapping[bytes, bytes], request_id: str) -> Identity | None:
        """Return whose request it is; None where nobody is asked for.

        Raises:
            NotAdmitted: it stays outside.
            MustAsk: it may come in, if `ask` says so.
        """

    async def ask(self, path: str, headers: Mapping[bytes, bytes], request_id: str) -> Identity | None:
        """Return whose request it is, where `admit` could not say it.

        Raises:
            NotAdmitted: it stays outside.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, as ASGI, what is admitted."""


def everybody(priority: Priority, who: str) -> None:
    """Let in requests of every priority, whoever calls."""


def nobody_asks(seconds: float) -> None:
    """Forget how long a refusal took."""


class HotRoutes:
    """Serves hot routes as ASGI, where a door has been passed, and hands every other request to `rest`."""

    def __init__(
        self,
        routes: Mapping[str, HotRoute],
        *,
        metrics: RequestMetrics,
        concurrency: Concurrency,
        monotonic_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
        rest: ASGIApp,
        let_in: Callable[[Priority, str], None] = everybody,
        spend: Callable[[float], None] = nobody_asks,
    ) -> None:
        """`let_in` raises Overloaded for priorities of which nothing is judged now, and for who has had its share.

        `spend` hears of the seconds that it took to refuse a request by its head.
        """
        self._let_in = let_in
        self._spend = spend
        self._routes = routes
        self._metrics = metrics
        self._concurrency = concurrency
        self.monotonic_seconds = monotonic_seconds
        self._chance = chance
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self._rest(scope, receive, send)
        headers = dict(scope["headers"])
        body = RequestBody(headers, receive)
        request = self.read(
            method=scope["method"], path=scope["path"], query=scope["query_string"], headers=headers, body=body
        )
        request.key = key_of(scope)
        try:
            answer = await self.answer(route, request)
        except ClientGone:
            return
        if answer.status >= 400:
            return await refuse_with(send, answer, request.request_id, body)
        await respond(send, answer.status, answer.media_type, answer.body, request.request_id, answer.headers)

    @property
    def routes(self) -> Mapping[str, HotRoute]:
        """The routes by their paths."""
        return self._routes

    def read(
        self,
        *,
        method: str,
        path: str,
        query: bytes,
        headers: Mapping[bytes, bytes],
        body: Body,
        may_switch: bool = False,
    ) -> HotRequest:
        """Put together a request of this moment; the key that Google's clients have in a query is a header."""
        query, in_url = take_key(path, query)
        if in_url and _KEY_HEADER not in headers:
            headers = {**headers, _KEY_HEADER: in_url}
        return HotRequest(
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body,
            request_id=read_request_id(headers, self._chance),
            received_seconds=self.monotonic_seconds(),
            may_switch=may_switch,
        )

    def check(self, route: HotRoute, request: HotRequest) -> None:
        """Look at the head of a request of a caller who may come in, and note its priority.

        Raises:
            NotAdmitted: the route does not take its method.
            ContentError: it claims something that is no priority.
            Overloaded: nothing of its priority is judged now, or nothing more of its caller.
        """
        if request.method != route.method:
            problem = describe_status(405, f"{request.path} takes {route.method}", request.request_id)
            raise NotAdmitted(problem, [(b"allow", route.method.encode())])
        request.priority = read_priority(request.headers, request.key)
        if route.method == "POST":
            self._let_in(request.priority, "" if request.key is None else request.key.group)

    def has_refused(self, since_seconds: float) -> None:
        """Take note that a request was refused by its head, which began at this monotonic time, and ends now."""
        self._spend(self.monotonic_seconds() - since_seconds)

    async def answer(self, route: HotRoute, request: HotRequest) -> HotAnswer:
        """Answer a request whose caller may come in, or say why not.

        Raises:
            ClientGone: there is nobody left to answer.
        """
        try:
            self.check(route, request)
        except Exception as exc:
            return self.refuse(route, request, exc)
        return await self.serve(route, request)

    async def serve(self, route: HotRoute, request: HotRequest) -> HotAnswer:
        """Answer a request that was checked, or say why not.

        Raises:
            ClientGone: there is nobody left to answer.
        """
        self._concurrency.enter()
        try:
            return await route.answer(request)
        except ClientGone:
            raise
        except Exception as exc:
            return self.refuse(route, request, exc)
        finally:
            self._concurrency.leave()

    def refuse(self, route: HotRoute, request: HotRequest, error: Exception) -> HotAnswer:
        """Say why there is no decision, and count it."""
        more: Headers
        if isinstance(error, NotAdmitted):
            problem, more = error.problem, error.more
        else:
            problem = explain(error, request.request_id)
            more = refusal_headers(error) if isinstance(error, BaleenError) else ()
        self._metrics.refused(problem.status)
        return route.refuse(problem, more)


def explain(error: Exception, request_id: str) -> ProblemDetails:
    """Describe why there is no decision, and log what of it is not for callers."""
    if not isinstance(error, BaleenError):
        log.error("request failed", extra={"request_id": request_id}, exc_info=error)
        return unexpected(request_id)
    if is_private(error):
        log.error("request refused", extra={"request_id": request_id, "cause": str(error)})
    return describe(error, request_id)


async def unless_gone(body: Body, work: Coroutine[Any, Any, T]) -> T:
    """Do work for as long as the caller of a request, whose whole body was read, waits for it.

    Raises:
        ClientGone: the caller hung up; the work was cancelled, and has ended.
    """
    tasks = (asyncio.create_task(work), asyncio.create_task(body.gone()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientGone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def refuse(send: Send, problem: ProblemDetails, body: RequestBody, more: Headers = ()) -> None:
    """Send a problem, and throw away for a moment what is still coming of the request's body."""
    await refuse_with(send, problem_answer(problem, more), problem.request_id, body)


async def refuse_with(send: Send, answer: HotAnswer, request_id: str, body: RequestBody) -> None:
    """Send a refusal, and throw away for a moment what is still coming of the request's body."""
    unread = body.unread
    close = (b"connection", b"close")
    headers = [*answer.headers, close] if unread and close not in answer.headers else answer.headers
    await respond(send, answer.status, answer.media_type, answer.body, request_id, headers, more_body=unread)
    if unread:
        await body.discard()
        await send({"type": "http.response.body", "body": b""})


async def respond(
    send: Send,
    status: int,
    media_type: bytes,
    body: bytes,
    request_id: str,
    more: Headers = (),
    *,
    more_body: bool = False,
) -> None:
    """Send a whole response; with `more_body`, the exchange is not over until an empty body was sent too."""
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


def read_request_id(headers: Mapping[bytes, bytes], chance: Callable[[int], bytes]) -> str:
    """Take the caller's request id when it is harmless to log, else make one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else chance(8).hex()
