"""Callers who are slow, broken or hostile, on real connections to the real server with a trivial application."""

import asyncio
import contextlib
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import pytest
import uvloop

from baleen_sidecar.main import bind, run_server
from baleen_sidecar.settings import Settings
from baleen_sidecar.web.hot import Message, Receive, Scope, Send
from baleen_sidecar.web.protocol import BoundedHttpProtocol

Connect = Callable[[], socket.socket]
Limit = Callable[..., None]

GET: Final = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
SLOW: Final = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
POST: Final = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
CHUNKED: Final = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
SLOW_SECONDS: Final = 0.5
KIB: Final = 1024
TIMEOUT_SECONDS: Final = 10


class CountingApplication:
    """Answers with the length of the body, on /slow after a moment; notes who hung up before the body was there."""

    def __init__(self) -> None:
        self.hung_up = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(SLOW_SECONDS)
        count, more = 0, True
        while more:
            event: Message = await receive()
            if event["type"] == "http.disconnect":
                self.hung_up.set()
                return
            count, more = count + len(event["body"]), event["more_body"]
        body = b"%d" % count
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def application() -> CountingApplication:
    return CountingApplication()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Change limits, for the connections that are made from here on."""

    def change(**limits: Any) -> None:
        monkeypatch.setattr(BoundedHttpProtocol, "limits", replace(BoundedHttpProtocol.limits, **limits))

    return change


@pytest.fixture
def connect(application: CountingApplication) -> Iterator[Connect]:
    """Connect to a server that runs until the end of the test; connections are closed with it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    listening = bind(Settings().host, 0)

    async def serve() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(run_server(application, listening))
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        serving.cancel()
        await asyncio.wait([serving])

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="server")
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening)
        stack.callback(thread.join)
        loop, stop = started.result(TIMEOUT_SECONDS)
        stack.callback(lambda: loop.call_soon_threadsafe(stop.set))
        address = listening.getsockname()

        yield lambda: stack.enter_context(socket.create_connection(address, timeout=TIMEOUT_SECONDS))


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes, which it has to; a reset is an end too."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(64 * KIB):
            found += part
    return found


def read_answers(connection: socket.socket, count: int) -> list[bytes]:
    """Return the bodies of so many answers with one-digit lengths and no close."""
    found = b""
    while found.count(b"\r\n\r\n") < count or found.endswith(b"\r\n\r\n"):
        part = connection.recv(64 * KIB)
        assert part, f"closed after {found!r}"
        found += part
    return [answer.partition(b"\r\n\r\n")[2] for answer in found.split(b"HTTP/1.1 200 OK\r\n")[1:]]


def read_refusal(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the status and problem of the only answer, after which the connection is closed."""
    head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert {"content-type: application/problem+json", "connection: close"} <= set(lines)
    problem = json.loads(body)
    assert problem["status"] == int(lines[0].split()[1])
    return problem["status"], problem


def send_until_refused(connection: socket.socket, part: bytes, *, limit_bytes: int = KIB * KIB) -> int:
    """Send `part` again and again, until the server has closed its side; return how much was sent."""
    connection.setblocking(False)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < limit_bytes:
            with contextlib.suppress(BlockingIOError):
                sent += connection.send(part)
            with contextlib.suppress(BlockingIOError):
                connection.recv(1, socket.MSG_PEEK)
                break
            time.sleep(0.001)
    connection.settimeout(TIMEOUT_SECONDS)
    return sent


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nx: ", b"a" * 8 * KIB, id="one header that never ends"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a" * 8 * KIB, id="a header's name that never ends"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x: %s\r\n" % (b"a" * 4 * KIB), id="headers without end"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x:\r\n" * KIB, id="tiny headers without end"),
        pytest.param(b"GET /", b"a" * 8 * KIB, id="a target that never ends"),
        pytest.param(b"", b"\r\n" * 4 * KIB, id="empty lines before the request"),
    ],
)
def test_a_head_without_end_is_refused_early_and_not_kept(
    connect: Connect, limit: Limit, begin: bytes, part: bytes
) -> None:
    limit(linger_seconds=1.0)
    connection = connect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    connection.sendall(begin)

    sent = send_until_refused(connection, part)
    # The refused connection is still open and discards.
    connection.sendall(b"a" * (KIB * KIB - sent))
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    status, problem = read_refusal(connection)
    assert (status, problem["type"]) == (431, "urn:baleen:problem:headers-too-large")
    assert sent < 512 * KIB
    assert kept < 256 * KIB


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        pytest.param(b"0\r\nx: ", b"a" * 8 * KIB, id="a trailer that never ends"),
        pytest.param(b"0\r\n", b"x:\r\n" * KIB, id="trailers without end"),
        pytest.param(b"5;", b"a" * 8 * KIB, id="a chunk's extension that never ends"),
    ],
)
def test_what_is_neither_head_nor_body_is_refused_too(
    connect: Connect, application: CountingApplication, begin: bytes, part: bytes
) -> None:
    connection = connect()
    connection.sendall(CHUNKED + begin)

    sent = send_until_refused(connection, part)

    assert sent < 512 * KIB
    assert read_refusal(connection)[0] == 431
    assert application.hung_up.wait(TIMEOUT_SECONDS)


def test_a_hundred_headers_are_answered_and_one_more_is_refused(connect: Connect) -> None:
    fits, does_not = (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * count + b"\r\n" for count in (100, 101))
    connection = connect()
    connection.sendall(fits)
    assert read_answers(connection, 1) == [b"0"]

    connection.sendall(does_not)

    status, problem = read_refusal(connection)
    assert (status, problem["detail"]) == (431, "the request has more than 100 headers")


@pytest.mark.parametrize("pieces", [pytest.param(1, id="at once"), pytest.param(4, id="in pieces")])
def test_a_head_is_measured_the_same_however_it_is_sent(connect: Connect, pieces: int) -> None:
    connection = connect()
    for size, answered in ((32 * KIB - 100, True), (32 * KIB + 100, False)):
        request = b"GET / HTTP/1.1\r\nx: " + b"a" * size + b"\r\n\r\n"
        step = len(request) // pieces + 1
        for start in range(0, len(request), step):
            connection.sendall(request[start : start + step])
            time.sleep(0.02)
        if answered:
            assert read_answers(connection, 1) == [b"0"]

    assert read_refusal(connection)[0] == 431


def test_headers_that_drip_are_refused_when_their_time_is_over(connect: Connect, limit: Limit) -> None:
    limit(head_seconds=0.3)
    connection = connect()
    began = time.monotonic()
    connection.sendall(b"GET / HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(6):
            connection.sendall(b"x: y\r\n")
            time.sleep(0.1)

    status, problem = read_refusal(connection)

    assert (status, problem["type"]) == (408, "urn:baleen:problem:timeout")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("sent", [pytest.param(b"", id="nothing"), pytest.param(b"\r\n", id="an empty line")])
def test_a_connection_that_asks_nothing_is_closed_without_a_word(connect: Connect, limit: Limit, sent: bytes) -> None:
    limit(head_seconds=0.2)
    connection = connect()
    connection.sendall(sent)

    assert read_to_end(connection) == b""


def test_a_kept_connection_has_the_time_for_headers_anew_for_each_request(connect: Connect, limit: Limit) -> None:
    limit(head_seconds=0.5)
    connection = connect()
    for _ in range(3):
        connection.sendall(GET[:20])
        time.sleep(0.2)
        connection.sendall(GET[20:])
        assert read_answers(connection, 1) == [b"0"]
    connection.sendall(GET[:20])

    assert read_refusal(connection)[0] == 408


def test_a_late_second_head_does_not_spoil_the_answer_under_way(connect: Connect, limit: Limit) -> None:
    limit(head_seconds=SLOW_SECONDS / 3)
    connection = connect()
    connection.sendall(SLOW + GET[:20])

    # The refusal may come with the answer, or long after it.
    answer, refusal = read_to_end(connection).split(b"HTTP/1.1 408 ")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n0")
    assert b"the headers were not complete" in refusal


@pytest.mark.parametrize(
    "begin", [pytest.param(b"", id="not at all"), pytest.param(b"a" * 900, id="less than in one window")]
)
def test_a_body_that_does_not_arrive_ends_the_connection(
    connect: Connect, application: CountingApplication, limit: Limit, begin: bytes
) -> None:
    limit(body_bytes=KIB, body_seconds=0.4)
    connection = connect()
    connection.sendall(POST % 5000 + begin)

    assert read_to_end(connection) == b""
    assert application.hung_up.wait(TIMEOUT_SECONDS)


def test_a_body_may_take_many_windows_while_enough_of_it_arrives(connect: Connect, limit: Limit) -> None:
    limit(body_bytes=KIB, body_seconds=0.4)
    connection = connect()
    connection.sendall(POST % 20_000)
    for _ in range(20):
        connection.sendall(b"a" * 1000)
        time.sleep(0.05)

    assert read_answers(connection, 1) == [b"20000"]


@pytest.mark.parametrize(
    ("more", "length"),
    [
        pytest.param(b"", 1024 * KIB, id="it does not read what came"),
        pytest.param(b"expect: 100-continue\r\n", 10, id="it has not yet said that it wants the body"),
    ],
)
def test_a_caller_is_not_blamed_for_an_application_that_is_slow_to_read(
    connect: Connect, limit: Limit, more: bytes, length: int
) -> None:
    limit(body_bytes=KIB, body_seconds=SLOW_SECONDS / 5)
    connection = connect()
    connection.sendall(b"POST /slow HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (more, length))
    if more:
        assert connection.recv(KIB) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"a" * length)

    assert read_answers(connection, 1) == [b"%d" % length]


def test_requests_may_be_sent_ahead_and_are_answered_in_order(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"".join(POST % count + b"a" * count for count in range(5)))

    assert read_answers(connection, 5) == [b"%d" % count for count in range(5)]

    connection.sendall(GET)
    assert read_answers(connection, 1) == [b"0"]


def test_of_more_than_four_requests_ahead_the_first_are_answered_and_the_caller_has_to_ask_again(
    connect: Connect,
) -> None:
    connection = connect()
    connection.sendall(SLOW + GET * 30)

    answers = read_to_end(connection)

    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 5
    assert answers.count(b"connection: close\r\n") == 1


def test_a_connection_too_many_is_told_to_come_again_and_can(connect: Connect, limit: Limit) -> None:
    limit(connections=2)
    held = [connect(), connect()]
    for connection in held:
        connection.sendall(GET)
        assert read_answers(connection, 1) == [b"0"]

    refused = connect()
    refused.sendall(GET)
    answer = read_to_end(refused)

    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "urn:baleen:problem:overloaded"

    held[0].shutdown(socket.SHUT_WR)
    assert read_to_end(held[0]) == b""
    admitted = connect()
    admitted.sendall(GET)
    assert read_answers(admitted, 1) == [b"0"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"hello\r\n\r\n", id="words"),
        pytest.param(b"GET /\xff HTTP/1.1\r\n\r\n", id="a target that is not ASCII"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n", id="a length that is no number"),
    ],
)
def test_bytes_that_are_not_http_are_refused_as_malformed(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)

    status, problem = read_refusal(connection)

    assert (status, problem["type"]) == (400, "urn:baleen:problem:malformed")


def test_who_is_refused_in_a_body_that_waits_for_a_continue_is_not_asked_for_it(
    connect: Connect, application: CountingApplication
) -> None:
    connection = connect()
    connection.sendall(CHUNKED.replace(b"host: x", b"host: x\r\nexpect: 100-continue") + b"no length\r\n")

    assert read_refusal(connection)[0] == 400
    assert application.hung_up.wait(TIMEOUT_SECONDS)
