"""What comes over a WebSocket is taken apart as it is asked for, however it was cut on its way."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from baleen_sidecar.web.websocket import SLICE_BYTES, WebSocket
from waiting import until

SMALLEST = Frame(Opcode.TEXT, b"").serialize(mask=True)


class Transport(asyncio.Transport):
    """Notes what is written, and whether anything more would be read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True
        self.closed = False

    def write(self, data: Any) -> None:
        """See asyncio.Transport."""
        self.written += data

    def can_write_eof(self) -> bool:
        """See asyncio.Transport."""
        return False

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self.closed

    def close(self) -> None:
        """See asyncio.Transport."""
        self.closed = True

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self.is_reading = True


class Host:
    """A connection of HTTP that has turned, and counts what is held for it."""

    def __init__(self, limit_bytes: int = 1 << 40) -> None:
        self.sent = Transport()
        self.transport: asyncio.Transport = self.sent
        self.flow = FlowControl(self.transport)
        self.tasks: set[asyncio.Task[None]] = set()
        self.held = 0
        self._limit_bytes = limit_bytes

    def hold(self, count: int) -> bool:
        """See the protocol."""
        self.held += count
        return self.held <= self._limit_bytes

    def connection_lost(self, exc: Exception | None) -> None:
        """See the protocol."""
        self.held = 0

    def pause_writing(self) -> None:
        """See the protocol."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """See the protocol."""
        self.flow.resume_writing()


class Stream:
    """A WebSocket whose messages are received when that is asked for, up to `wanted` of them."""

    def __init__(self, host: Host, *, wanted: int = 0) -> None:
        self.received: list[bytes] = []
        self.more = asyncio.Semaphore(wanted)
        self.ended = False
        self.socket = WebSocket(host, self._serve, message_bytes=100_000, on_end=self._end)

    async def _serve(self, socket: WebSocket) -> None:
        while True:
            await self.more.acquire()
            self.received.append(await socket.receive())

    def _end(self, socket: WebSocket) -> None:
        self.ended = True


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


messages = st.lists(st.tuples(st.text(max_size=20), st.integers(1, 3), st.booleans()), max_size=30)


@given(sent=messages, cuts=st.lists(st.floats(0, 1), max_size=10), wanted=st.integers(0, 31))
async def test_however_it_is_cut_the_same_comes_out_and_no_more_than_is_asked_for(sent, cuts, wanted):
    data = b""
    for text, parts, is_pinged in sent:
        raw = text.encode()
        step = len(raw) // parts + 1
        pieces = [raw[start : start + step] for start in range(0, len(raw), step)] or [b""]
        for index, piece in enumerate(pieces):
            opcode = Opcode.TEXT if index == 0 else Opcode.CONT
            data += Frame(opcode, piece, fin=index == len(pieces) - 1).serialize(mask=True)
            if is_pinged:
                data += Frame(Opcode.PING, b"p").serialize(mask=True)
    host = Host()
    stream = Stream(host, wanted=wanted)
    places = sorted(int(cut * len(data)) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        stream.socket.data_received(data[start:end])
        await settle()
    expected = [text.encode() for text, _, _ in sent]
    assert stream.received == expected[:wanted]
    for _ in sent:
        stream.more.release()
    await settle()

    assert stream.received == expected
    stream.socket.connection_lost(None)
    await settle()
    assert (stream.ended, host.held, host.tasks) == (True, 0, set())


async def test_of_many_small_frames_only_a_slice_is_taken_apart():
    host = Host()
    stream = Stream(host)
    flood = SMALLEST * 20_000
    stream.socket.data_received(flood)
    await settle()

    assert not host.sent.is_reading
    # What is parsed is no longer counted byte by byte.
    assert len(flood) - SLICE_BYTES <= host.held <= len(flood)
    for _ in range(20_000):
        stream.more.release()
    await until(lambda: len(stream.received) == 20_000)
    assert host.sent.is_reading
    assert host.held < HIGH_WATER_LIMIT
    stream.socket.connection_lost(None)


async def test_while_nobody_takes_the_pongs_no_more_pings_are_read():
    host = Host()
    stream = Stream(host, wanted=1)
    await settle()
    stream.socket.pause_writing()
    stream.socket.data_received(Frame(Opcode.PING, b"p" * 100).serialize(mask=True) * 2_000)
    written = host.sent.written
    stream.socket.resume_writing()
    client = Protocol(Side.CLIENT)
    client.receive_data(host.sent.written)

    assert written == b""
    assert not stream.received
    assert [frame.opcode for frame in client.events_received()] == [Opcode.PONG] * 2_000
    stream.socket.connection_lost(None)


async def test_what_would_be_over_the_limit_of_all_ends_it_and_is_let_go_at_once():
    host = Host(limit_bytes=10_000)
    stream = Stream(host, wanted=1)
    stream.socket.data_received(Frame(Opcode.TEXT, b"x" * 20_000).serialize(mask=True)[:15_000])
    await settle()
    client = Protocol(Side.CLIENT)
    client.receive_data(host.sent.written)

    assert client.close_rcvd is not None
    assert client.close_rcvd.code == 1013
    assert host.held == 0
    assert (stream.received, host.tasks) == ([], set())
    stream.socket.connection_lost(None)


@pytest.mark.parametrize("reason", ["short", "ü" * 200], ids=["short", "longer than a frame may have"])
async def test_a_reason_is_said_as_far_as_it_fits(reason):
    host = Host()
    stream = Stream(host)
    stream.socket.close(1001, reason)
    client = Protocol(Side.CLIENT)
    client.receive_data(host.sent.written)

    assert client.close_rcvd is not None
    assert client.close_rcvd.code == 1001
    assert reason.startswith(client.close_rcvd.reason)
    assert client.close_rcvd.reason
    stream.socket.connection_lost(None)


async def test_who_sends_no_more_is_closed_as_whoever_counts_the_time_of_that_is_told():
    host = Host()
    stream = Stream(host)
    stream.socket.eof_received()

    assert host.sent.closed
    stream.socket.connection_lost(None)


async def test_whoever_says_good_bye_too_is_let_go_at_once_whatever_came_before():
    host = Host()
    stream = Stream(host)
    sent = SMALLEST * 2_000 + Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=True)
    stream.socket.data_received(sent[:-3])
    stream.socket.close(1001, "the end")
    is_closed_before = host.sent.closed
    stream.socket.data_received(sent[-3:])

    assert (is_closed_before, host.sent.closed) == (False, True)
    stream.socket.connection_lost(None)
