"""What the head of a request alone refuses is answered without a task, on real connections."""

import contextlib
import gc
import json
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from hot_server import HotServer, impatient_hot_server, read_answer
from serving import until

POST: Final = b"POST /hot HTTP/1.1\r\nhost: x\r\n"
STRANGER: Final = POST + b"x-api-key: stranger\r\n"
BODY: Final = b"content-length: 3\r\n\r\nabc"
GOOD: Final = POST + BODY
ABOVE: Final = b"POST /h%6ft HTTP/1.1\r\nhost: x\r\n"
"""The same route, which comes as ASGI."""


@pytest.fixture(scope="module")
def server() -> Iterator[HotServer]:
    # Some bodies here never come.
    with impatient_hot_server() as running:
        yield running


@pytest.fixture
def connection(server: HotServer) -> Iterator[socket.socket]:
    with contextlib.closing(server.connect()) as opened:
        yield opened


def test_a_stranger_is_refused_and_may_ask_again_on_the_same_connection(connection: socket.socket) -> None:
    for number in range(3):
        connection.sendall(STRANGER + b"x-request-id: r%d\r\n" % number + BODY)
        status, headers, body = read_answer(connection)

        assert (status, headers["x-request-id"]) == (401, f"r{number}")
        assert json.loads(body)["request_id"] == f"r{number}"
    connection.sendall(GOOD)
    assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("path", [POST, ABOVE], ids=["below ASGI", "as ASGI"])
@pytest.mark.parametrize(("token", "status"), [(b"somebody", 200), (b"stranger", 401)])
def test_who_shows_a_token_is_asked_for_and_waited_for(
    connection: socket.socket, path: bytes, token: bytes, status: int
) -> None:
    connection.sendall(path + b"authorization: %b\r\n" % token + BODY)

    assert read_answer(connection)[0] == status


def test_refusals_and_answers_keep_the_order_of_their_requests(connection: socket.socket) -> None:
    slow = POST + b"x-wait: 0.05\r\nx-request-id: slow\r\n" + BODY
    wrong = b"PUT /hot HTTP/1.1\r\nhost: x\r\nx-request-id: put\r\n" + BODY
    connection.sendall(slow + STRANGER + b"x-request-id: stranger\r\n" + BODY + wrong + GOOD)

    found = [read_answer(connection) for _ in range(4)]
    assert [status for status, _, _ in found] == [200, 401, 405, 200]
    assert [headers["x-request-id"] for _, headers, _ in found[:3]] == ["slow", "stranger", "put"]


def test_a_refusal_waits_for_no_body_that_is_late_and_the_connection_ends_with_it(connection: socket.socket) -> None:
    connection.sendall(STRANGER + b"content-length: 3\r\n\r\n")
    status, headers, _ = read_answer(connection)

    assert (status, headers["connection"]) == (401, "close")


def test_a_refusal_behind_an_answer_waits_for_no_body_that_is_late(connection: socket.socket) -> None:
    connection.sendall(POST + b"x-wait: 0.05\r\n" + BODY + STRANGER + b"content-length: 3\r\n\r\n")

    assert read_answer(connection)[0] == 200
    assert read_answer(connection)[0] == 401


def test_who_would_wait_for_permission_to_send_is_refused_instead(connection: socket.socket) -> None:
    connection.sendall(STRANGER + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")

    assert read_answer(connection)[0] == 401


def test_refusals_leave_nothing_behind_and_are_no_requests_in_flight(server: HotServer) -> None:
    before = server.tasks()
    connections = [server.connect() for _ in range(8)]
    for each in connections:
        each.sendall(STRANGER + BODY)
    statuses = [read_answer(each)[0] for each in connections]
    for each in connections:
        each.close()

    assert statuses == [401] * 8
    assert server.concurrency.in_flight == 0
    assert server.tasks() == before
    until(lambda: server.open_connections() == 0)


def test_a_refusal_behind_an_answer_that_nobody_reads_waits_until_it_is_read(
    server: HotServer, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than the system keeps for a reader, so that the server has to stop writing.
    monkeypatch.setattr(server.route, "answer_bytes", 16 * 1024 * 1024)
    before = server.tasks()
    connection.sendall(GOOD + STRANGER + BODY)
    until(lambda: server.tasks() == before + 1)

    assert read_answer(connection)[0] == 200
    assert read_answer(connection)[0] == 401
    until(lambda: server.tasks() == before)


@pytest.mark.filterwarnings("error")
def test_who_breaks_off_in_the_bytes_behind_its_request_leaves_nothing_that_was_not_begun(server: HotServer) -> None:
    before = server.tasks()
    with contextlib.closing(server.connect()) as connection:
        # The request begins, and is abandoned before its task ran: what comes behind it is no HTTP.
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n" + b"no chunk\r\n")
        assert read_answer(connection)[0] == 400
    until(lambda: server.tasks() == before)
    gc.collect()
