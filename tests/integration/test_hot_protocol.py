"""Hot routes below ASGI, on real connections: what a caller sees is what the same request sees as ASGI."""

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from baleen_core.errors import TooLarge
from baleen_sidecar.web import exchange, websocket
from baleen_sidecar.web.exchange import IncomingBody
from baleen_sidecar.web.hot import Host
from baleen_sidecar.web.protocol import BoundedHttpProtocol
from baleen_sidecar.web.websocket import WebSocket
from hot_server import BODY_LIMIT, TIMEOUT_SECONDS, HotServer, hot_server, impatient_hot_server, read_answer
from serving import until

KIB: Final = 1024
POST: Final = b"POST /hot HTTP/1.1\r\nhost: x\r\n"
GOOD: Final = POST + b"content-length: 3\r\n\r\nabc"
ASGI: Final = b"POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nabcd"
ESCAPED: Final = b"POST /h%6ft HTTP/1.1\r\nhost: x\r\n"
"""The same route, which comes as ASGI."""


@pytest.fixture(scope="module")
def server() -> Iterator[HotServer]:
    # Some bodies here never come.
    with impatient_hot_server() as running:
        yield running


def read_to_end(connection: socket.socket) -> bytes:
    found = b""
    try:
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(64 * KIB):
                found += part
    except TimeoutError:
        raise AssertionError(f"the server does not close; so far it said {found!r}") from None
    return found


def speak(server: HotServer, *parts: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back until the server closes."""
    connection = server.connect()
    for part in parts:
        connection.sendall(part)
    return read_to_end(connection)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"content-length: 3\r\n\r\nabc", id="a body"),
        pytest.param(b"content-length: 0\r\n\r\n", id="an empty body"),
        pytest.param(b"\r\n", id="no body"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", id="chunks"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-more: y\r\n\r\n", id="chunks and a trailer"),
        pytest.param(b"x-request-id: mine\r\n\r\n", id="a request id"),
        pytest.param(b"x-request-id: <bad>\r\n\r\n", id="a request id that is none"),
        pytest.param(b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n", id="a compressed body"),
        pytest.param(b"content-length: 999999999\r\n\r\n", id="a body that would be too large"),
        pytest.param(b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", id="an upgrade"),
        pytest.param(b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\n\r\nabc", id="one with a body"),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_below_asgi_everything_is_answered_as_above(
    server: HotServer, method: bytes, version: bytes, more: bytes
) -> None:
    below, above = (
        speak(server, b"%b %b HTTP/%b\r\nhost: x\r\nconnection: close\r\n%b" % (method, path, version, more))
        for path in (b"/hot", b"/h%6ft")
    )

    # A refusal may be said before the whole request was read, and then both say that they close.
    assert sorted(below.split(b"\r\n")) == sorted(above.split(b"\r\n"))
    assert below


def test_the_path_alone_says_the_route(server: HotServer) -> None:
    for path, status in ((b"/hot?a=b", 200), (b"/hot?", 200), (b"/hot/", 200), (b"/hotter", 200)):
        answer = speak(server, b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)

        assert statuses(answer) == [status]
        assert (b"x-request-id: asgi" in answer) == (path in (b"/hot/", b"/hotter"))


def test_a_connection_is_kept_for_the_next_request_and_closed_when_the_caller_says_so(server: HotServer) -> None:
    connection = server.connect()
    for _ in range(3):
        connection.sendall(GOOD)
        assert read_answer(connection)[2] == b"3"

    connection.sendall(GOOD.replace(b"host: x", b"connection: close"))

    assert read_to_end(connection).endswith(b"connection: close\r\n\r\n3")


def test_hot_and_other_requests_that_are_sent_ahead_are_answered_in_order(server: HotServer) -> None:
    slow = POST + b"x-wait: 0.05\r\nx-request-id: slow\r\n\r\n"

    answers = speak(server, slow + ASGI + GOOD + ASGI + GOOD.replace(b"host: x", b"connection: close"))

    assert re.findall(rb"\r\n\r\n(\d)", answers) == [b"0", b"4", b"3", b"4", b"3"]


def test_of_more_than_four_requests_ahead_the_first_are_answered_and_the_rest_is_not(server: HotServer) -> None:
    before = server.route.answered

    answers = speak(server, POST + b"x-wait: 0.05\r\n\r\n" + GOOD * 30)

    assert statuses(answers) == [200] * 5
    assert server.route.answered - before == 5
    assert answers.count(b"connection: close") == 1


def test_a_body_may_be_sent_after_leave_was_given(server: HotServer) -> None:
    connection = server.connect()
    connection.sendall(POST + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert connection.recv(KIB) == b"HTTP/1.1 100 Continue\r\n\r\n"

    connection.sendall(b"abc")

    assert read_answer(connection)[2] == b"3"


def test_a_body_that_is_claimed_to_be_too_large_is_refused_without_leave_to_send_it(server: HotServer) -> None:
    connection = server.connect()
    connection.sendall(POST + b"expect: 100-continue\r\ncontent-length: 999999\r\n\r\n")

    status, headers, body = read_answer(connection)

    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body)["detail"] == f"content: the hot body is over the limit of {BODY_LIMIT} bytes"


async def test_nobody_waits_for_a_body_that_is_over_its_limit_though_who_did_has_not_run_yet() -> None:
    body = IncomingBody({}, asyncio.get_running_loop(), lambda: None)
    reading = asyncio.create_task(body.read("hot", 10))
    await asyncio.sleep(0)
    body.feed(b"a" * 10)
    assert body.is_awaited

    body.feed(b"a")

    assert not body.is_awaited
    with pytest.raises(TooLarge):
        await reading


def test_a_refused_body_is_thrown_away_so_that_the_refusal_arrives(
    server: HotServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "DISCARD_SECONDS", 10)
    chunks = [b"%x\r\n" % (64 * KIB) + b"a" * 64 * KIB + b"\r\n"] * 100
    answer = speak(server, POST + b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")

    assert statuses(answer) == [413]


def test_a_large_body_in_pieces_waits_for_a_route_that_is_slow_to_read_it(server: HotServer) -> None:
    connection = server.connect()
    connection.sendall(POST + b"x-wait: 0.1\r\ncontent-length: 99000\r\n\r\n" + b"a" * 99_000)

    assert read_answer(connection)[2] == b"99000"


def test_who_hangs_up_is_not_waited_for(server: HotServer) -> None:
    connection = server.connect()
    connection.sendall(POST + b"x-wait: 30\r\nx-request-id: gone\r\n\r\n")
    until(lambda: server.concurrency.in_flight == 1)

    connection.close()

    until(lambda: server.concurrency.in_flight == 0)
    assert "gone" in server.route.cancelled


def test_who_hangs_up_with_requests_sent_ahead_leaves_none_of_them_behind(server: HotServer) -> None:
    before = server.route.answered
    connection = server.connect()
    connection.sendall(POST + b"x-wait: 30\r\nx-request-id: first\r\n\r\n" + GOOD * 3)
    until(lambda: server.concurrency.in_flight == 1)

    connection.close()

    until(lambda: "first" in server.route.cancelled)
    assert (server.concurrency.in_flight, server.route.answered) == (0, before)


def test_told_to_end_it_answers_what_was_asked_and_closes_then() -> None:
    with hot_server() as server:
        connection, idle = server.connect(), server.connect()
        connection.sendall(POST + b"x-wait: 0.4\r\n\r\n")
        until(lambda: server.concurrency.in_flight == 1)

        server.end()

        assert read_to_end(idle) == b""
        assert read_to_end(connection).endswith(b"connection: close\r\n\r\n0")


def test_while_it_drains_each_answer_asks_for_another_connection() -> None:
    with hot_server(drain_seconds=5) as server:
        connections = [server.connect() for _ in range(3)]
        for each in connections:
            each.sendall(GOOD)
            assert "connection" not in read_answer(each)[1]
        server.end()
        time.sleep(0.3)

        for each in connections:
            each.sendall(GOOD)
            assert read_to_end(each).count(b"connection: close\r\n") == 1


def test_a_connection_is_closed_once_nothing_was_asked_on_it_for_long_and_not_before() -> None:
    with hot_server(idle_seconds=1.0) as server:
        connection, slow = server.connect(), server.connect()
        slow.sendall(POST + b"x-wait: 1.5\r\n\r\n")
        for _ in range(4):
            connection.sendall(GOOD)
            assert read_answer(connection)[2] == b"3"
            time.sleep(0.3)

        assert read_to_end(connection) == b""
        assert read_answer(slow)[0] == 200


def test_a_reader_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "stall_seconds", 0.2)
    with hot_server() as server:
        server.route.answer_bytes = 8 * KIB * KIB
        connection = server.connect()
        connection.sendall(GOOD * 4)
        until(lambda: server.route.answered >= 1)

        time.sleep(0.5)

        assert len(read_to_end(connection)) < 4 * server.route.answer_bytes
        until(lambda: server.concurrency.in_flight == 0)


@contextlib.contextmanager
def small_connection(server: HotServer) -> Iterator[socket.socket]:
    """Connect, and take little that is not read, until the block ends."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        connection.connect(server.address)
        yield connection


def leave_unread(server: HotServer, connection: socket.socket) -> None:
    """Ask, and read no answers, until some wait to be sent: fewer than would stop the writing."""
    server.route.answer_bytes = 60 * KIB
    while server.unsent_bytes() == 0:
        answered = server.route.answered
        connection.sendall(GOOD)
        until(lambda answered=answered: server.route.answered > answered)
        time.sleep(0.01)
    server.route.answer_bytes = 0
    assert server.unsent_bytes() < HIGH_WATER_LIMIT - KIB


def send_no_more(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("end", "limits"),
    [
        pytest.param(send_no_more, {}, id="its caller sends no more"),
        pytest.param(lambda each: each.sendall(GOOD.replace(b"host: x", b"connection: close")), {}, id="asked to"),
        pytest.param(lambda each: each.sendall(ASGI.replace(b"host: x", b"connection: close")), {}, id="by uvicorn"),
        pytest.param(lambda each: each.sendall(b"\0"), {}, id="refused"),
        pytest.param(lambda each: None, {"idle_seconds": 1.0}, id="idle"),
    ],
)
def test_a_connection_that_is_closed_is_not_kept_by_a_reader_who_does_not_read(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[socket.socket], None], limits: dict[str, float]
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "stall_seconds", 0.2)
    with hot_server(**limits) as server, small_connection(server) as connection:
        leave_unread(server, connection)
        end(connection)

        until(lambda: server.open_connections() == 0)


def test_nor_is_one_that_has_turned_to_a_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "stall_seconds", 0.2)
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.1)
    is_full = threading.Event()

    def switch(host: Host) -> WebSocket:
        async def serve(each: WebSocket) -> None:
            while host.transport.get_write_buffer_size() == 0:
                await each.send(b"x" * 20 * KIB)
                await asyncio.sleep(0.01)
            is_full.set()

        return WebSocket(host, serve, message_bytes=KIB, on_end=lambda each: None)

    with hot_server() as server, small_connection(server) as connection:
        server.route.method, server.route.switch = "GET", switch
        connection.sendall(b"GET /hot HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")

        assert is_full.wait(TIMEOUT_SECONDS)
        until(lambda: server.open_connections() == 0)


JAVA: Final = (
    b"POST %b HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n%bHost: x\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n"
)
"""What its HttpClient sends, unless it is told to speak HTTP/1.1."""
LENGTH: Final = b"Content-length: %d\r\n"
BODIES: Final = {
    "a body": (LENGTH % 3, b"abc", b"3"),
    "a body that looks like a request": (LENGTH % len(GOOD), GOOD, b"%d" % len(GOOD)),
    "chunks": (b"Transfer-encoding: chunked\r\n", b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", b"4"),
    "chunks and a trailer": (b"Transfer-encoding: chunked\r\n", b"1\r\na\r\n0\r\nUpgrade: h2c\r\n\r\n", b"1"),
    "an empty body": (LENGTH % 0, b"", b"0"),
    "no body": (b"", b"", b"0"),
    "headers without values": (b"X-A:\r\n%bX-B: \r\n" % (LENGTH % 3), b"abc", b"3"),
}


@pytest.mark.parametrize("path", [b"/hot", b"/other"])
@pytest.mark.parametrize(("more", "body", "said"), BODIES.values(), ids=BODIES)
def test_a_request_that_asks_for_http_2_is_answered_in_http_1_and_so_is_the_next(
    server: HotServer, path: bytes, more: bytes, body: bytes, said: bytes
) -> None:
    connection = server.connect()
    for _ in range(3):
        connection.sendall(JAVA % (path, more) + b"\r\n" + body)
        status, headers, answered = read_answer(connection)

        assert (status, answered) == (200, said)
        assert "connection" not in headers
    connection.sendall(GOOD.replace(b"host: x", b"connection: close"))
    assert read_to_end(connection).endswith(b"\r\n\r\n3")


def test_so_it_is_wherever_the_request_is_cut(server: HotServer) -> None:
    connection = server.connect()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    more, body, said = BODIES["chunks"]
    sent = JAVA % (b"/hot", more) + b"\r\n" + body
    for place in range(1, len(sent)):
        connection.sendall(sent[:place])
        time.sleep(0.001)
        connection.sendall(sent[place:])

        assert read_answer(connection)[2] == said, sent[:place]


def test_leave_to_send_a_body_is_given_also_to_who_asks_for_http_2(server: HotServer) -> None:
    connection = server.connect()
    connection.sendall(JAVA % (b"/hot", LENGTH % 3) + b"Expect: 100-continue\r\n\r\n")
    assert connection.recv(KIB) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"abc")

    assert read_answer(connection)[2] == b"3"


@pytest.mark.parametrize("path", [b"/hot", b"/other"])
@pytest.mark.parametrize(("more", "body", "said"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("ahead", [GOOD, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", JAVA % (b"/other", b"") + b"\r\n"])
def test_what_is_sent_ahead_of_that_answer_is_no_request(
    server: HotServer, path: bytes, more: bytes, body: bytes, said: bytes, ahead: bytes
) -> None:
    answered = server.route.answered

    answers = speak(server, GOOD + JAVA % (path, more) + b"\r\n" + body + ahead)

    assert re.findall(rb"\r\n\r\n(\d+)", answers) == [b"3", said]
    assert server.route.answered == answered + (2 if path == b"/hot" else 1)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(LENGTH % 3 + b"Transfer-Encoding: chunked\r\n", id="two lengths"),
        pytest.param(LENGTH % 3 + LENGTH % 4, id="two other lengths"),
        pytest.param(b"Transfer-Encoding: gzip\r\n", id="no length"),
        pytest.param(b"Transfer-Encoding: chunked, gzip\r\n", id="no length after chunks"),
        pytest.param(b"X-A: b\r\n " + LENGTH % 3, id="a folded header"),
        pytest.param(b"X-A: b\n" + LENGTH % 3, id="a line that ends like no other"),
        pytest.param(b"X-A: b\r" + LENGTH % 3, id="a line that does not end"),
        pytest.param(b"X-A: b\0\r\n", id="a zero"),
    ],
)
def test_whoever_asks_for_http_2_is_read_no_more_leniently(server: HotServer, more: bytes) -> None:
    sent = (
        JAVA % (b"/hot", more) + b"\r\nabc",
        (JAVA % (b"/hot", more) + b"\r\nabc").replace(b"Upgrade: h2c\r\n", b""),
    )

    assert [statuses(speak(server, each)) for each in sent] == [[400], [400]]


@pytest.mark.parametrize("target", [b"x:443", b"/hot", b"/other"])
@pytest.mark.parametrize("more", [b"", b"content-length: 3\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n"])
def test_nothing_is_read_after_a_connect(server: HotServer, target: bytes, more: bytes) -> None:
    answered = server.route.answered

    answers = speak(server, b"CONNECT %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (target, more) + GOOD)

    assert len(statuses(answers)) == 1
    assert server.route.answered == answered


def test_bodies_of_all_connections_together_are_bounded_and_the_limit_is_named() -> None:
    with hot_server(memory_bytes=150_000) as server:
        begun = [server.connect() for _ in range(3)]
        for each in begun[:2]:
            each.sendall(POST + b"content-length: 70000\r\n\r\n" + b"a" * 60_000)
        until(lambda: server.concurrency.in_flight == 2)
        # Both are read before the third one says what is too much.
        time.sleep(0.1)
        begun[2].sendall(POST + b"content-length: 70000\r\n\r\n" + b"a" * 60_000)

        status, headers, body = read_answer(begun[2])
        begun[0].sendall(b"a" * 10_000)
        assert read_answer(begun[0])[2] == b"70000"
        again = server.connect()
        again.sendall(POST + b"content-length: 70000\r\n\r\n" + b"a" * 70_000)

        assert (status, headers["retry-after"]) == (503, "1")
        assert "the limit of 150000 bytes" in json.loads(body)["detail"]
        assert read_answer(again)[2] == b"70000"


SLOW: Final = POST + b"x-wait: 0.02\r\n"
LONG: Final = b"content-length: 10000\r\n\r\n" + b"a" * 10_000
CHUNKS: Final = b"transfer-encoding: chunked\r\n\r\n" + (b"1388\r\n" + b"a" * 5000 + b"\r\n") * 2 + b"0\r\n\r\n"
LONG_ASGI: Final = b"POST /other HTTP/1.1\r\nhost: x\r\n" + LONG


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param((SLOW + LONG,), id="to a hot route"),
        pytest.param((SLOW + CHUNKS,), id="in chunks"),
        pytest.param((SLOW + LONG, LONG_ASGI), id="some of them to others"),
    ],
)
def test_a_body_counts_until_it_is_answered_though_other_requests_always_wait(asked: tuple[bytes, ...]) -> None:
    with hot_server(memory_bytes=150_000) as server:
        connection = server.connect()
        requests = asked * (30 // len(asked))
        connection.sendall(b"".join(requests[:2]))
        for each in (*requests[2:], b"", b""):
            connection.sendall(each)
            assert read_answer(connection)[::2] == (200, b"10000")

        until(lambda: server.held_bytes() == 0)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        pytest.param(SLOW + LONG + POST + b"content-length: 200000\r\n\r\naaa", [200, 413], id="too large"),
        pytest.param((SLOW + LONG) * 2 + b"\0", [], id="followed by nonsense"),
        pytest.param(POST + b"content-length: 99000\r\n\r\n" + b"a" * 99_000, [503], id="more than all may have"),
        pytest.param((POST + b"x-wait: 30\r\n" + LONG) * 2, None, id="left by its caller"),
    ],
)
def test_a_body_that_is_not_judged_counts_no_more_either(sent: bytes, answered: list[int] | None) -> None:
    with hot_server(memory_bytes=80_000) as server:
        connection = server.connect()
        connection.sendall(sent)
        if answered is None:
            until(lambda: server.held_bytes() == 20_000)
            connection.close()
        else:
            assert statuses(read_to_end(connection)) == answered

        until(lambda: server.held_bytes() == 0)


def test_a_body_that_nobody_read_does_not_count_once_its_request_is_answered() -> None:
    with hot_server(memory_bytes=1000) as server:
        connection = server.connect()
        connection.sendall(b"GET /other HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n")
        assert read_answer(connection)[::2] == (200, b"0")

        connection.sendall(b"a" * 10_000 + GOOD)

        assert read_answer(connection)[::2] == (200, b"3")


def test_a_request_that_is_refused_before_it_began_leaves_no_task_behind() -> None:
    with hot_server(memory_bytes=10) as server:
        before = server.tasks()

        assert _status(server, POST + b"content-length: 20\r\n\r\n" + b"a" * 20) == 503

        until(lambda: server.tasks() == before)
        begun = time.monotonic()
    # The server waits for none when it ends.
    assert time.monotonic() - begun < 5


def test_the_time_of_refusals_is_told_and_that_of_answers_is_not() -> None:
    spent: list[float] = []
    with hot_server(spend=spent.append) as server:
        for head in (b"x-api-key: stranger\r\n", b"", b"x-baleen-priority: Unheard-of\r\n"):
            _status(server, POST + head + b"content-length: 2\r\n\r\naa")

    # Two ticks of its clock, each half a second, have nothing between them.
    assert spent == [0.5, 0.5]


def test_an_address_without_a_key_has_so_many_connections_and_a_key_has_its_own(server: HotServer) -> None:
    with hot_server(connections_per_address=2, connections_per_key=2) as server:
        with_key = POST + b"x-api-key: shop\r\n\r\n"
        held = [server.connect(), server.connect()]
        for each in held:
            each.sendall(GOOD)
            read_answer(each)
        refused = read_to_end(server.connect())
        # Shown a key, a connection counts there, and makes room for another without one.
        held[0].sendall(with_key)
        assert read_answer(held[0])[0] == 200
        held += [server.connect()]
        held[1].sendall(with_key)
        held[2].sendall(with_key)
        found = [read_answer(each) for each in held[1:]]

        assert b"has 2 connections open on which it showed no API key" in refused
        assert [each[0] for each in found] == [200, 429]
        assert "the API key 'shop' has 2 connections open" in found[1][2].decode()
        assert found[1][1]["connection"] == "close"

        held[0].close()
        until(lambda: _status(server, with_key) == 200)


def _status(server: HotServer, sent: bytes) -> int:
    with server.connect() as connection:
        connection.sendall(sent)
        return read_answer(connection)[0]


def test_the_same_limit_holds_for_requests_that_are_asgi() -> None:
    with hot_server(connections_per_key=1) as server:
        first, second = server.connect(), server.connect()
        sent = ASGI.replace(b"host: x", b"x-api-key: shop")
        first.sendall(sent)
        assert read_answer(first)[0] == 200
        second.sendall(POST + b"x-api-key: shop\r\n\r\n")

        assert read_answer(second)[0] == 429


@pytest.mark.parametrize("shown", [b"x-api-key: app@b", b"x-api-key: app", b"authorization: app@a"])
def test_callers_of_one_name_keep_no_connections_from_each_other(shown: bytes) -> None:
    with hot_server(connections_per_key=1) as server:
        first, second, third = server.connect(), server.connect(), server.connect()
        first.sendall(POST + b"x-api-key: app@a\r\n\r\n")
        assert read_answer(first)[0] == 200
        second.sendall(POST + shown + b"\r\n\r\n")
        assert read_answer(second)[0] == 200
        third.sendall(POST + shown + b"\r\n\r\n")

        assert read_answer(third)[0] == 429


FLOOD: Final = int(os.environ.get("BALEEN_FLOOD", "1500"))
"""Connections that one caller opens; more take minutes on a busy machine."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as it needs; ours are the server's, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * FLOOD + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this system does not let a process have {wanted} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_caller_who_opens_connections_without_end_leaves_room_for_others(many_files: None) -> None:
    with hot_server(linger_seconds=0.05, head_seconds=300) as server, contextlib.ExitStack() as stack:
        for _ in range(FLOOD):
            stack.enter_context(socket.create_connection(server.address, timeout=60))

        with socket.socket() as other:
            other.settimeout(60)
            other.bind(("127.0.2.1", 0))
            other.connect(server.address)
            other.sendall(GOOD)

            assert read_answer(other)[2] == b"3"
            # Those above the limit were refused, and are closed.
            until(lambda: server.open_connections() == 1000 + 1)
    assert server.concurrency.in_flight == 0
