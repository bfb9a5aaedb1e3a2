"""`WS /v1/stream`, asked by the real `websockets` client: the same decisions and errors as over HTTP, in order."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from baleen_core.callers import Per, RateLimit
from baleen_core.priority import Priority
from baleen_sidecar.main import Served, bind
from baleen_sidecar.testing import FixedInference
from baleen_sidecar.web import streams, websocket
from faces import MODERATE_KEY, REVIEW_KEY, TOXICITY, policy, write_keys
from held import HeldInference
from keyed import api_key, write_key_file
from pages import ROOT, blocks
from serving import until
from sidecars import RunningSidecar, StartSidecar, post

POLICIES = {"all.yaml": [policy()]}
LONG = "This text is blocked since it has more letters than forty."
SECONDS = 30
HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies=POLICIES, inference=FixedInference({TOXICITY: 0.2}))


@contextlib.contextmanager
def stream(running: RunningSidecar, address: tuple[str, int] | None = None, **more: Any) -> Iterator[ClientConnection]:
    """Open a stream, which ends with the block."""
    host, port = address or running.address
    more = {"proxy": None, "open_timeout": SECONDS, "close_timeout": 1, "max_size": None, **more}
    with connect(f"ws://{host}:{port}/v1/stream", **more) as connection:
        yield connection


def text(words: str = "hello", **more: Any) -> str:
    return json.dumps({"content": {"type": "text", "text": words}, **more})


def answer(connection: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(connection.recv(timeout=SECONDS))
    return found


def ask(connection: ClientConnection, message: str | bytes) -> dict[str, Any]:
    connection.send(message)
    return answer(connection)


def closed(connection: ClientConnection) -> tuple[int, str]:
    """Wait for the end, and return how the server gave it."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=SECONDS)
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


def test_a_decision_is_that_of_the_http_face_and_on_record(running: RunningSidecar) -> None:
    over_http = post(running, {"type": "text", "text": LONG}, tenant="acme").json()

    with stream(running, additional_headers={"X-Request-Id": "r-1"}) as connection:
        found = ask(connection, text(LONG, context={"tenant": "acme"}, id="mine"))
        assert connection.response is not None
        assert connection.response.headers["x-request-id"] == "r-1"

    assert (found["index"], found["id"]) == (0, "mine")
    changing = {"id", "latency_ms", "queue_wait_ms"}
    assert {name: each for name, each in found["decision"].items() if name not in changing} == {
        name: each for name, each in over_http.items() if name not in changing
    }
    recorded = running.client.get(f"/v1/decisions/{found['decision']['id']}").json()
    assert recorded["decision"] == "Block"
    metrics = running.client.get("/metrics").text
    assert until(lambda: 'baleen_streams_ended_total{reason="Client"} 1.0' in running.client.get("/metrics").text)
    assert 'baleen_decisions_total{content_type="text",decision="Block",risk="Critical"} 2.0' in metrics


def test_messages_are_answered_in_their_order_and_what_is_wrong_with_one_spoils_no_other(
    running: RunningSidecar,
) -> None:
    wrong = {
        3: ("", None, [""]),
        5: ('{"id": "five", "content": {"type": "text"}}', "five", ["content.text"]),
        7: ('{"content": {"type": "text", "text": "x"}, "idd": "y"}', None, ["idd"]),
        8: (text("", id="eight"), "eight", ["content.text"]),
        9: (text(context={"tenant": ""}), None, ["context.tenant"]),
        11: (text("x" * 300_000, id="z"), "z", ["content.text"]),
        12: ("[" * 10_000, None, [""]),
        13: (text(id="i" * 300), None, ["id"]),
    }
    with stream(running) as connection:
        for number in range(60):
            connection.send(wrong[number][0] if number in wrong else text(LONG if number % 2 else "hello"))
        found = [answer(connection) for _ in range(60)]

    assert [each["index"] for each in found] == list(range(60))
    assert {
        number: (each.get("id"), [field["field"] for field in each["problem"]["errors"]])
        for number, each in enumerate(found)
        if "problem" in each
    } == {number: (identity, fields) for number, (_, identity, fields) in wrong.items()}
    assert {found[number]["problem"]["status"] for number in wrong} == {413, 422}
    assert [each["decision"]["decision"] for number, each in enumerate(found) if number not in wrong] == [
        "Block" if number % 2 else "Allow" for number in range(60) if number not in wrong
    ]


def test_a_message_may_come_in_frames_and_as_bytes(running: RunningSidecar) -> None:
    with stream(running) as connection:
        connection.send(iter(text(LONG)))
        in_frames = answer(connection)
        as_bytes = ask(connection, text(LONG).encode())

    assert [each["decision"]["decision"] for each in (in_frames, as_bytes)] == ["Block", "Block"]


def send_while_taken(connection: socket.socket, message: bytes, *, most: int) -> int:
    """Send until the other side takes no more; return how many went whole."""
    count = 0
    with contextlib.suppress(TimeoutError):
        while count < most:
            connection.sendall(message)
            count += 1
    return count


def test_a_stream_is_read_no_further_than_it_is_answered(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference, stream_window=3)

    with stream(running) as connection:
        connection.socket.settimeout(0.5)
        message = Frame(Opcode.TEXT, text().encode() + b" " * 100_000).serialize(mask=True)
        sent = send_while_taken(connection.socket, message, most=500)
        assert until(lambda: running.in_flight == 3)
        running.loop.call_soon_threadsafe(inference.released.set)
        answers = [answer(connection) for _ in range(sent)]

    assert 3 < sent < 200, "what is not read stays in the sockets' buffers"
    assert [each["index"] for each in answers] == list(range(sent))
    assert until(lambda: running.is_idle)


def test_who_leaves_ends_what_was_asked(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference)
    before = running.count_tasks()

    for leave in (lambda each: each.close(), lambda each: each.socket.shutdown(socket.SHUT_RDWR)):
        with stream(running) as connection:
            for number in range(30):
                connection.send(text(f"{number}"))
            assert until(lambda: running.in_flight == 16)
            leave(connection)
            assert until(lambda: running.is_idle)
    # Calls of models go on, for whoever asks the same next.
    running.loop.call_soon_threadsafe(inference.released.set)
    assert until(lambda: running.count_tasks() <= before)

    ended = {reason: running.metric("baleen_streams_ended_total", reason=reason) for reason in ("Client", "Lost")}
    assert sum(ended.values()) == 2
    assert ended["Lost"] >= 1


GARBAGE = {
    "compressed": (b"\xc1\x80\0\0\0\0", 1002, "reserved bits"),
    "unknown opcode": (b"\x83\x80\0\0\0\0", 1002, "opcode"),
    "not masked": (b"\x81\x02hi", 1002, "mask"),
    "continued without a begin": (b"\x80\x80\0\0\0\0", 1002, "unexpected continuation"),
    "no UTF-8": (b"\x81\x82\0\0\0\0\xff\xfe", 1007, "UTF-8"),
    "exabytes": (b"\x81\xff\x7f" + b"\xff" * 7 + bytes(4), 1009, "limit"),
    "a byte too many": (b"\x81\xfe\x10\x01" + bytes(4 + 0x1001), 1009, "limit"),
    "too much in frames": (
        b"\x01\xfe\x08\0" + bytes(4 + 0x800) + b"\x80\xfe\x08\x01" + bytes(4 + 0x801),
        1009,
        "limit",
    ),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 1002, ""),
}


def test_bytes_that_are_no_message_end_the_stream_with_a_reason(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, stream_message_limit_bytes=4096)
    found = {}
    for name, (sent, _, words) in GARBAGE.items():
        with stream(running) as connection:
            assert "decision" in ask(connection, text())
            connection.socket.sendall(sent)
            code, reason = closed(connection)
        found[name] = code
        assert words in reason, name

    assert found == {name: code for name, (_, code, _) in GARBAGE.items()}
    assert until(lambda: running.is_idle)
    assert running.metric("baleen_streams_ended_total", reason="Protocol") == len(GARBAGE)


def test_a_stream_that_fails_for_a_reason_on_our_side_says_so_here_and_there(
    running: RunningSidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(answer: object) -> bytes:
        raise ValueError("a secret")

    monkeypatch.setattr(streams, "_ENCODE", fail)
    with stream(running, additional_headers={"X-Request-Id": "mine"}) as connection:
        connection.send(text())
        code, reason = closed(connection)
    assert until(lambda: running.is_idle)
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]

    assert (code, "secret" in reason) == (1011, False)
    assert (record.getMessage(), record.__dict__["request_id"]) == ("request failed", "mine")
    assert "a secret" in str(record.exc_info)
    assert running.metric("baleen_streams_ended_total", reason="Failed") == 1
    assert running.client.get("/v1/status").json()["requests"]["refused"] == 1


def test_messages_that_would_take_too_much_memory_together_end_their_stream(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, body_memory_bytes=200_000)

    with stream(running) as first, stream(running) as second:
        # Frames that are not complete.
        first.socket.sendall(b"\x81\xff" + (150_000).to_bytes(8) + bytes(4) + b" " * 140_000)
        # What is read in order comes after that.
        assert [running.client.get("/health").status_code for _ in range(3)] == [200] * 3
        second.socket.sendall(b"\x81\xff" + (150_000).to_bytes(8) + bytes(4) + b" " * 140_000)
        ended = closed(second)
        first.socket.sendall(b" " * 10_000)
        assert answer(first)["problem"]["status"] == 422

    assert ended[0] == 1013
    assert until(lambda: running.is_idle)


def raw(running: RunningSidecar, sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that comes until the server ends it."""
    found = b""
    with socket.create_connection(running.address, timeout=SECONDS) as connection:
        connection.sendall(sent)
        while part := connection.recv(65536):
            found += part
    return found


def test_what_is_no_handshake_is_answered_in_http(running: RunningSidecar) -> None:
    plain = running.client.get("/v1/stream")
    posted = running.client.post("/v1/stream")
    escaped = running.client.get("/v1/str%65am")
    other = raw(running, HANDSHAKE.replace(b"Version: 13", b"Version: 8") + b"\r\n")
    keyless = raw(running, HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key") + b"\r\n")
    bodied = raw(running, HANDSHAKE + b"Content-Length: 3\r\n\r\nabc")
    old = raw(running, HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n")
    queried = raw(running, HANDSHAKE.replace(b"/v1/stream", b"/v1/stream?surface=x") + b"\r\n")

    assert [each.status_code for each in (plain, posted, escaped)] == [426, 405, 426]
    assert plain.headers["upgrade"] == "websocket"
    assert plain.json()["type"] == "urn:baleen:problem:upgrade-required"
    assert [each[:12] for each in (other, keyless, bodied, old, queried)] == [
        b"HTTP/1.1 400",
        b"HTTP/1.1 400",
        b"HTTP/1.1 400",
        b"HTTP/1.1 426",
        b"HTTP/1.1 422",
    ]
    assert b"sec-websocket-version: 13" in other
    assert b"Sec-WebSocket-Key" in keyless


def test_what_is_sent_along_with_the_handshake_is_not_lost(running: RunningSidecar) -> None:
    message = Frame(Opcode.TEXT, text(LONG).encode()).serialize(mask=True)
    bye = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)

    with socket.create_connection(running.address, timeout=SECONDS) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HANDSHAKE + b"\r\n" + message)
        found = b""
        while b'"decision":"Block"' not in found:
            found += connection.recv(65536)
        connection.sendall(bye)
        while part := connection.recv(65536):
            found += part

    assert found.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 101 Switching Protocols" in found
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".lower() in found.lower()
    assert found.endswith(b"\x88\x02\x03\xe8")


def test_a_page_of_another_site_opens_no_stream(running: RunningSidecar) -> None:
    with pytest.raises(InvalidStatus) as caught, stream(running, origin="https://evil.example"):
        pass

    assert caught.value.response.status_code == 421


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys.yaml")


def test_only_who_has_a_key_opens_a_stream(start_sidecar: StartSidecar, keys: Path) -> None:
    running = start_sidecar(policies=POLICIES, api_keys_file=keys)
    statuses = []
    for headers in ({}, {"X-API-Key": REVIEW_KEY}):
        with pytest.raises(InvalidStatus) as caught, stream(running, additional_headers=headers):
            pass
        statuses.append(caught.value.response.status_code)
        assert caught.value.response.headers["content-type"] == "application/problem+json"
    with stream(running, additional_headers={"X-API-Key": MODERATE_KEY}) as connection:
        found = ask(connection, text())

    assert statuses == [401, 403]
    assert found["decision"]["decision"] == "Allow"


def test_each_message_counts_and_a_key_that_is_gone_ends_the_stream(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    limits = (RateLimit(requests=1, per=Per.DAY, burst=2),)
    file = write_key_file(tmp_path / "keys.yaml", api_key("app", MODERATE_KEY, limits=limits))
    running = start_sidecar(policies=POLICIES, api_keys_file=file)

    with stream(running, additional_headers={"X-API-Key": MODERATE_KEY}) as connection:
        found = [ask(connection, text()) for _ in range(3)]
        assert running.sidecar.keys is not None
        write_key_file(file)
        running.sidecar.keys.load()
        connection.send(text())
        code, reason = closed(connection)

    assert ["decision" in each for each in found] == [True, True, False]
    assert found[2]["problem"]["type"] == "urn:baleen:problem:limit-exceeded"
    assert found[2]["retry_after_seconds"] > 0
    assert code == 1008
    assert "not known here" in reason


def test_a_tenant_that_the_key_may_not_speak_for_is_refused_by_message(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    file = write_key_file(tmp_path / "keys.yaml", api_key("app", MODERATE_KEY, tenant="acme"))
    running = start_sidecar(policies=POLICIES, api_keys_file=file)

    with stream(running, additional_headers={"X-API-Key": MODERATE_KEY}) as connection:
        found = [ask(connection, text(context={"tenant": tenant})) for tenant in ("bank", "acme")]

    assert [each.get("problem", {}).get("status") for each in found] == [403, None]


def test_the_priority_of_a_stream_is_capped_and_told(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    inference = HeldInference()
    inference.released.set()
    file = write_key_file(tmp_path / "keys.yaml", api_key("app", MODERATE_KEY, top_priority=Priority.HIGH))
    running = start_sidecar(policies=POLICIES, inference=inference, api_keys_file=file)
    headers = {"X-API-Key": MODERATE_KEY, "X-Baleen-Priority": "Critical"}

    with stream(running, additional_headers=headers) as connection:
        ask(connection, text())
        assert connection.response is not None
        told = connection.response.headers["x-baleen-priority"]

    assert told == "High"
    assert {work.priority for work in inference.works} == {Priority.HIGH}


def test_a_deadline_is_that_of_each_message(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, inference=HeldInference())

    with stream(running, additional_headers={"X-Baleen-Deadline-Ms": "100"}) as connection:
        found = [ask(connection, text()) for _ in range(2)]
    headers = {"X-Baleen-Deadline-Ms": "soon"}
    with pytest.raises(InvalidStatus) as caught, stream(running, additional_headers=headers):
        pass

    assert found[0]["problem"]["status"] == 504
    # What cannot be done in time is refused at once.
    assert found[1]["problem"]["status"] in (503, 504)
    assert caught.value.response.status_code == 422


def test_connections_of_streams_count_for_their_key_and_address(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    keyed = start_sidecar(
        policies=POLICIES,
        api_keys_file=write_key_file(tmp_path / "keys.yaml", api_key("app", MODERATE_KEY)),
        connection_limit_per_key=2,
    )
    shown = {"additional_headers": {"X-API-Key": MODERATE_KEY}}
    with stream(keyed, **shown), stream(keyed, **shown), pytest.raises(InvalidStatus) as caught:  # noqa: SIM117
        with stream(keyed, **shown):
            pass
    assert until(lambda: keyed.is_idle)
    with stream(keyed, **shown) as connection:
        assert "decision" in ask(connection, text())

    assert caught.value.response.status_code == 429


def test_a_stream_on_which_nothing_comes_is_ended(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, idle_seconds=0.5)

    with stream(running) as connection:
        assert "decision" in ask(connection, text())
        ended = closed(connection)

    assert ended == (1001, "nothing came on this stream for 0.5 s")
    assert until(lambda: running.metric("baleen_streams_ended_total", reason="Idle") == 1)
    assert running.client.get("/v1/status").json()["requests"]["refused"] == 0


def test_who_does_not_answer_a_ping_is_gone(start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket.WebSocket.__init__, "__kwdefaults__", {"ping_seconds": 0.1})
    running = start_sidecar(policies=POLICIES, inference=HeldInference())

    with stream(running) as alive, socket.create_connection(running.address, timeout=SECONDS) as dead:
        dead.sendall(HANDSHAKE + b"\r\n" + Frame(Opcode.TEXT, text().encode()).serialize(mask=True))
        assert until(lambda: running.metric("baleen_streams_open") == 2 and running.in_flight == 1)
        assert until(lambda: running.metric("baleen_streams_ended_total", reason="Lost") == 1)
        assert running.in_flight == 0
        time.sleep(0.3)
        alive.send(text())
        assert until(lambda: running.in_flight == 1)


def test_a_server_that_ends_answers_what_it_has_read(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference)
    other = bind("127.0.0.1", 0)
    server = Served(app=running.sidecar.app, listening=other).server()
    serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[other]), running.loop)

    with stream(running, address=other.getsockname()[:2]) as connection:
        connection.send(text("one"))
        connection.send(text("two"))
        assert until(lambda: running.in_flight == 2)
        running.loop.call_soon_threadsafe(server.handle_exit, signal.SIGTERM, None)
        assert until(lambda: server.should_exit and not server.servers[0].is_serving())
        # The same application on a port that is still served.
        with pytest.raises(InvalidStatus) as caught, stream(running):
            pass
        running.loop.call_soon_threadsafe(inference.released.set)
        found = [answer(connection) for _ in range(2)]
        code, reason = closed(connection)
        serving.result(SECONDS)

    assert ["decision" in each for each in found] == [True, True]
    assert code == 1001
    assert "going away" in reason
    assert caught.value.response.status_code == 503
    assert until(lambda: running.metric("baleen_streams_ended_total", reason="GoingAway") == 1)


def test_what_the_page_says_is_typed_here(
    start_sidecar: StartSidecar, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = start_sidecar(policies=POLICIES, inference=FixedInference({TOXICITY: 0.6}), api_keys_file=keys)
    (program,) = blocks(ROOT / "docs/reference/http.md", "python")
    address = "{}:{}".format(*running.address)
    assert "127.0.0.1:8080" in program
    monkeypatch.setenv("BALEEN_API_KEY", MODERATE_KEY)

    exec(program.replace("127.0.0.1:8080", address), {})

    assert capsys.readouterr().out.splitlines() == ["0 Review", "1 content.text: the text is empty"]
