"""A real server with one hot route that does as it is told, and a raw ASGI application for everything else."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from baleen_core.api_keys import ApiKey, KeyRole
from baleen_core.callers import Identity
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.main import Served, bind
from baleen_sidecar.web import exchange, request_body
from baleen_sidecar.web.application import Application
from baleen_sidecar.web.callers import note_key
from baleen_sidecar.web.connections import ConnectionLimits
from baleen_sidecar.web.errors import ProblemDetails, describe_status
from baleen_sidecar.web.hot import (
    ASGIApp,
    Headers,
    HotAnswer,
    HotRequest,
    HotRoutes,
    MustAsk,
    NotAdmitted,
    Receive,
    Scope,
    Send,
    Switch,
    nobody_asks,
    problem_answer,
    refuse,
    respond,
)
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.request_body import RequestBody

TIMEOUT_SECONDS: Final = 10.0
HOT: Final = "/hot"
BODY_LIMIT: Final = 100_000


@dataclass(slots=True)
class EchoRoute:
    """Answers with the length of the body; waits as `x-wait` says, and notes who was cancelled.

    With a `switch`, whoever may switch gets it.
    """

    method: str = "POST"
    switch: Switch | None = None
    cancelled: list[str] = field(default_factory=list)
    answered: int = 0
    answer_bytes: int = 0

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        if request.may_switch and self.switch is not None:
            return HotAnswer(status=101, switch=self.switch)
        try:
            if wait := request.headers.get(b"x-wait"):
                await asyncio.sleep(float(wait))
            body = await request.body.read("hot", BODY_LIMIT)
        except asyncio.CancelledError:
            self.cancelled.append(request.request_id)
            raise
        self.answered += 1
        return HotAnswer(status=200, body=b"%d" % len(body) + b"x" * self.answer_bytes, media_type=b"text/plain")

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return problem_answer(problem, more)


class NamedDoor:
    """Lets in whoever sends no `x-api-key`, or the name of a key in it; only when asked, whoever sends a token.

    A tenant follows behind `@`. No key is called `stranger`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def admit(self, path: str, query: bytes, headers: Mapping[bytes, bytes], request_id: str) -> ApiKey | None:
        """See baleen_sidecar.web.hot.Door."""
        if b"authorization" in headers:
            raise MustAsk
        name = headers.get(b"x-api-key")
        return None if name is None else key_of_name(name, request_id)

    async def ask(self, path: str, headers: Mapping[bytes, bytes], request_id: str) -> Identity:
        """See baleen_sidecar.web.hot.Door: whose it is, is what the token says."""
        await asyncio.sleep(0)
        key = key_of_name(headers[b"authorization"], request_id)
        return Identity(name=key.name, roles=key.roles, tenant=key.tenant)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            try:
                key: Identity | None = self.admit(scope["path"], b"", headers, "")
            except MustAsk:
                key = await self.ask(scope["path"], headers, "")
        except NotAdmitted as exc:
            return await refuse(send, exc.problem, RequestBody(headers, receive), exc.more)
        if key is not None:
            note_key(scope, key)
        await self._app(scope, receive, send)


def key_of_name(name: bytes, request_id: str) -> ApiKey:
    """Return the key of a name.

    Raises:
        NotAdmitted: there is none.
    """
    if name == b"stranger":
        raise NotAdmitted(describe_status(401, "there is no such key", request_id))
    said, _, tenant = name.decode().partition("@")
    return ApiKey(name=said, sha256="0" * 64, roles=frozenset(KeyRole), tenant=tenant or None)


async def rest(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, if there is one, and answer with its length; of a GET it is not looked at."""
    count, more = 0, scope["method"] != "GET"
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        count, more = count + len(event["body"]), event["more_body"]
    await respond(send, 200, b"text/plain", b"%d" % count, "asgi")


@dataclass(frozen=True, slots=True, kw_only=True)
class HotServer:
    """A running server, and what can be looked at behind it."""

    address: tuple[str, int]
    route: EchoRoute
    concurrency: Concurrency
    connect: Callable[[], socket.socket]
    end: Callable[[], None]
    tasks: Callable[[], int]
    """How many tasks there are beside the server's own."""
    open_connections: Callable[[], int]
    held_bytes: Callable[[], int]
    """What bodies take, by the count that all connections have in common."""
    unsent_bytes: Callable[[], int]
    """What was answered on all connections and could not be sent yet, for nobody reads it."""


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer that says its length, and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, f"the connection was closed after {head!r}"
        head += part
    first, *lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines if line)
    left, body = int(headers.get("content-length", 0)), b""
    while left > len(body):
        part = connection.recv(left - len(body))
        assert part, f"the connection was closed after {body!r}"
        body += part
    return int(first.split()[1]), headers, body


@contextlib.contextmanager
def impatient_hot_server() -> Iterator[HotServer]:
    """Serve as `hot_server` does, and wait but a moment for the rest of a body that nobody will ask for."""
    with pytest.MonkeyPatch.context() as patch, hot_server() as running:
        patch.setattr(request_body, "DISCARD_SECONDS", 0.1)
        patch.setattr(exchange, "DISCARD_SECONDS", 0.1)
        yield running


@contextlib.contextmanager
def hot_server(
    *, drain_seconds: float = 0.0, spend: Callable[[float], None] = nobody_asks, **limits: Any
) -> Iterator[HotServer]:
    """Serve until the block ends; connections are closed with it."""
    route, concurrency = EchoRoute(), Concurrency(lambda: 0.0)
    routes = HotRoutes(
        {HOT: route},
        metrics=RequestMetrics(CollectorRegistry()),
        concurrency=concurrency,
        monotonic_seconds=count(0.0, 0.5).__next__,
        chance=lambda count: b"\x07" * count,
        rest=rest,
        spend=spend,
    )
    app = Application(NamedDoor(routes), routes, ConnectionLimits(**limits))
    listening = bind("127.0.0.1", 0)
    listening.listen(4096)
    started: Future[asyncio.AbstractEventLoop] = Future()
    server = Served(app=app, listening=listening, drain_seconds=drain_seconds).server()

    async def serve() -> None:
        started.set_result(asyncio.get_running_loop())
        await server.serve(sockets=[listening])

    async def count_tasks() -> int:
        return len(asyncio.all_tasks()) - 1

    async def count_unsent() -> int:
        return sum(each.transport.get_write_buffer_size() for each in server.server_state.connections)

    def ask(work: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(work, loop).result(TIMEOUT_SECONDS)

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="hot-server")
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening)
        stack.callback(thread.join)
        loop = started.result(TIMEOUT_SECONDS)

        def end() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(server.handle_exit, signal.SIGTERM, None)

        stack.callback(end)
        address = listening.getsockname()
        yield HotServer(
            address=address,
            route=route,
            concurrency=concurrency,
            connect=lambda: stack.enter_context(socket.create_connection(address, timeout=TIMEOUT_SECONDS)),
            end=end,
            open_connections=lambda: len(server.server_state.connections),
            tasks=lambda: ask(count_tasks()),
            held_bytes=lambda: app.shared.body_bytes,
            unsent_bytes=lambda: ask(count_unsent()),
        )
