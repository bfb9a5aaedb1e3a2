"""HTTP by hand: request ids, deadlines, methods, and callers that break the protocol or hang up."""

import asyncio
import json
import re
import socket
import time
from typing import Any

import pytest

from held import HeldInference
from sidecars import RunningSidecar, StartSidecar, post
from waiting import until

HEAD = b"POST /v1/moderate HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
ALLOWED = {"content_type": "text", "decision": "Allow", "risk": "Low"}
CHUNK = b"%x\r\n" % 65536 + b"y" * 65536 + b"\r\n"


def speak(running: RunningSidecar, *parts: bytes) -> bytes:
    """Send bytes as they are and return everything that comes back until the server closes."""
    with socket.create_connection(running.address, timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def problem(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


@pytest.fixture
def held(start_sidecar: StartSidecar) -> RunningSidecar:
    """An application whose models never answer."""
    return start_sidecar(inference=HeldInference())


@pytest.mark.parametrize("path", ["/v1/moderate", "/v1/decisions/nothing"], ids=["the hot route", "the others"])
def test_a_refusal_repeats_the_callers_request_id(sidecar: RunningSidecar, path: str) -> None:
    response = sidecar.client.get(path, headers={"X-Request-Id": "order-17:a.b_c"})

    assert response.headers["x-request-id"] == response.json()["request_id"] == "order-17:a.b_c"


def test_a_decision_repeats_the_callers_request_id(sidecar: RunningSidecar) -> None:
    sent = {"Content-Type": "text/plain", "X-Request-Id": "order-17"}

    assert sidecar.client.post("/v1/moderate", content=b"hello", headers=sent).headers["x-request-id"] == "order-17"


@pytest.mark.parametrize("given", ["a b", "<script>", "a" * 65, ""], ids=["a space", "markup", "too long", "empty"])
def test_a_request_id_that_is_unsafe_to_log_is_replaced(sidecar: RunningSidecar, given: str) -> None:
    response = sidecar.client.get("/v1/moderate", headers={"X-Request-Id": given})

    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])


def test_without_an_id_each_request_gets_its_own(sidecar: RunningSidecar) -> None:
    assert len({sidecar.client.get("/v1/moderate").headers["x-request-id"] for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        pytest.param("GET", "/v1/moderate", "POST", id="reading the hot route"),
        pytest.param("PUT", "/v1/moderate", "POST", id="writing it otherwise"),
        pytest.param("POST", "/v1/policies", "GET", id="writing policies"),
        pytest.param("DELETE", "/v1/decisions/a", "GET", id="deleting decisions"),
        pytest.param("GET", "/v1/decisions/a/replay", "POST", id="reading a replay"),
        pytest.param("POST", "/health", "GET", id="writing health"),
    ],
)
def test_another_method_is_refused_and_the_right_one_named(
    sidecar: RunningSidecar, method: str, path: str, allowed: str
) -> None:
    response = sidecar.client.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["detail"] == f"{path} takes {allowed}"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/moderate/", "/v2/moderate", "/docs/assets/..%2f..%2fapp.py"])
def test_an_unknown_path_is_a_problem_like_any_other(sidecar: RunningSidecar, path: str) -> None:
    response = sidecar.client.get(path)

    assert (response.status_code, response.json()["type"]) == (404, "urn:baleen:problem:not-found")


def test_work_that_cannot_be_done_in_time_is_refused(held: RunningSidecar) -> None:
    sent = {"Content-Type": "text/plain", "X-Baleen-Deadline-Ms": "100"}

    response = held.client.post("/v1/moderate", content=b"hello", headers=sent)

    assert (response.status_code, response.json()["type"]) == (504, "urn:baleen:problem:deadline-exceeded")
    assert response.json()["detail"] == "the deadline of 0.1 s passed before a decision"


def test_no_caller_may_wait_longer_than_the_installation_allows(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=HeldInference(), deadline_seconds=0.1)
    sent = {"Content-Type": "text/plain", "X-Baleen-Deadline-Ms": "600000"}

    assert running.client.post("/v1/moderate", content=b"hello", headers=sent).status_code == 504


def test_a_deadline_that_is_met_changes_nothing(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(inference=inference)
    sent = {"Content-Type": "text/plain", "X-Baleen-Deadline-Ms": "30000"}
    running.loop.call_soon_threadsafe(running.loop.call_later, 0.2, inference.released.set)

    assert running.client.post("/v1/moderate", content=b"hello", headers=sent).status_code == 200


def test_a_body_that_does_not_come_in_time_is_refused(start_sidecar: StartSidecar) -> None:
    address = start_sidecar().address
    begun = time.monotonic()
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HEAD + b"X-Baleen-Deadline-Ms: 200\r\nContent-Length: 10\r\n\r\nhel")
        answer = connection.recv(65536)

    assert statuses(answer) == [504]
    assert b"connection: close" in answer
    assert 0.1 < time.monotonic() - begun < 1.5


def test_the_body_of_a_refused_request_may_still_be_sent_and_the_answer_arrives(start_sidecar: StartSidecar) -> None:
    answer = speak(start_sidecar(), HEAD + b"Content-Length: 30000000\r\n\r\n", bytes(30_000_000))

    assert statuses(answer) == [413]
    assert problem(answer)["detail"] == "content: the text body is over the limit of 262144 bytes"


def test_a_body_without_a_length_is_cut_off_at_the_limit(start_sidecar: StartSidecar) -> None:
    # Where the whole body came before it was refused, the connection is kept.
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = speak(start_sidecar(), head, *[CHUNK] * 64, b"0\r\n\r\n")

    assert statuses(answer) == [413]
    assert problem(answer)["detail"] == "content: the text body is over the limit of 262144 bytes"


def test_a_body_in_chunks_is_judged_as_a_whole(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = speak(running, head, b"6\r\nDouble\r\n", b"5\r\n your\r\n", b"6\r\n coins\r\n", b"0\r\n\r\n")

    assert statuses(answer) == [200]
    assert b'"name":"scams"' in answer


@pytest.mark.parametrize("length", [99_999_999_999_999, 2**62], ids=["99 TB", "4 EB"])
def test_a_huge_claim_is_refused_before_a_byte_is_read(start_sidecar: StartSidecar, length: int) -> None:
    with socket.create_connection(start_sidecar().address, timeout=10) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
        answer = connection.recv(65536)

    assert statuses(answer) == [413]


def test_a_caller_who_waits_for_leave_to_send_gets_it(start_sidecar: StartSidecar) -> None:
    with socket.create_connection(start_sidecar().address, timeout=10) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        leave = connection.recv(65536)
        connection.sendall(b"hello")
        answer = connection.recv(65536)

    assert (statuses(leave), statuses(answer)) == ([100], [200])


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", id="two lengths"),
        pytest.param(HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", id="two different lengths"),
        pytest.param(HEAD + b"Content-Length: three\r\n\r\nabc", id="a length in words"),
        pytest.param(HEAD + b"Content-Length: -3\r\n\r\nabc", id="a negative length"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", id="an endless length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="a chunk of no size"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", id="TLS"),
    ],
)
def test_what_is_no_http_is_refused_and_harms_nobody(start_sidecar: StartSidecar, sent: bytes) -> None:
    running = start_sidecar()

    answer = speak(running, sent)

    assert statuses(answer) == [400]
    assert post(running, {"type": "text", "text": "hello"}).status_code == 200


def test_requests_that_are_sent_at_once_are_answered_in_order(start_sidecar: StartSidecar) -> None:
    requests = [HEAD + b"X-Request-Id: r%d\r\nContent-Length: 5\r\n\r\nhello" % number for number in range(4)]
    last = HEAD + b"X-Request-Id: last\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"

    answers = speak(start_sidecar(), b"".join(requests) + last)

    assert statuses(answers) == [200] * 5
    ids = re.findall(rb"^x-request-id: (\S+)\r$", answers, re.MULTILINE)
    assert ids == [*(b"r%d" % number for number in range(4)), b"last"]


def test_a_refused_request_does_not_spoil_the_next_one_on_its_connection(start_sidecar: StartSidecar) -> None:
    refused = HEAD + b"X-Baleen-Deadline-Ms: 0\r\nContent-Length: 0\r\n\r\n"
    right = HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"

    assert statuses(speak(start_sidecar(), refused + right)) == [422, 200]


def test_a_caller_who_hangs_up_in_the_middle_of_a_body_leaves_nothing_behind(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    connections = [socket.create_connection(running.address) for _ in range(10)]
    for connection in connections:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhello")
    running.run(until(lambda: running.in_flight == 10))
    for connection in connections:
        connection.close()

    running.run(until(lambda: running.in_flight == 0))

    assert running.client.get("/v1/status").json()["requests"] == {"decisions": 0, "refused": 0}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/v1/policies/community/simulate", id="a draft"),
        pytest.param("/v1/breakers/source%2Fcamera", id="an order"),
        pytest.param("/v1/sources/camera/stats", id="statistics"),
    ],
)
def test_whoever_hangs_up_in_the_middle_of_a_document_is_no_failure(
    sidecar: RunningSidecar, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    def is_answering() -> bool:
        return any("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())

    with socket.create_connection(sidecar.address) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        sidecar.run(until(is_answering))

    sidecar.run(until(lambda: not is_answering()))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_caller_who_hangs_up_while_a_model_is_asked_is_not_waited_for(held: RunningSidecar) -> None:
    with socket.create_connection(held.address) as connection:
        connection.sendall(HEAD + b"Content-Length: 5\r\n\r\nhello")
        held.run(until(lambda: held.in_flight == 1))

    held.run(until(lambda: held.in_flight == 0))

    assert held.metric("baleen_decisions_total", **ALLOWED) == 0
    assert held.client.get("/v1/status").json()["requests"] == {"decisions": 0, "refused": 0}
