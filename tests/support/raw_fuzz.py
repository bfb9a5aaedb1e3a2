"""Hostile bytes for a real server over TCP: requests and frames, right and wrong, cut, doubled, mixed, in pieces."""

import asyncio
import gzip
import json
import random
import re
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

CALLERS: Final = 24
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_PATHS: Final = (
    b"/v1/moderate",
    b"/v1/moderate",
    b"/v1/moderate",
    b"/v1/moderate?surface=comments",
    b"/v1/moderate?a",
    b"/v1/moder%61te",
    b"http://localhost/v1/moderate",
    b"/v1/moderate#x",
    b"/health",
    b"/v1/policies",
    b"/v1/decisions/x/replay",
    b"*",
    b"//v1/moderate",
)
_TOKENS: Final = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\r\n\r\n",
    b" ",
    b":",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Content-Encoding: gzip\r\n",
    b"X-Baleen-Deadline-Ms: 1\r\n",
    b"X-Baleen-Deadline-Ms: 99999999999\r\n",
    b"X-Request-Id: \xff\r\n",
    b"Host: evil.example\r\n",
    b"Content-Type: text/plain; charset=utf-16\r\n",
    b"Content-Type: application/json\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;x=y\r\nabcde\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"{" * 200,
    b"[" * 4000,
    b'{"content":',
    b'"type":"text",' * 3,
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"x: y\r\n" * 120,
    b"a" * 40_000,
)
_BOMB: Final = gzip.compress(bytes(20_000_000))
_HANDSHAKE: Final = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
_SWITCHED: Final = b"HTTP/1.1 101 "
_OFFERS: Final = (
    b"",
    b"",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    b"Sec-WebSocket-Protocol: x, y\r\n",
    b"X-Baleen-Deadline-Ms: 1\r\n",
    b"Content-Length: 4\r\n",
)
_HEADS: Final = (
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x81\xff\0\0\0\0\xff\xff\xff\xff",
    b"\x01\x80\0\0\0\0",
    b"\xc1\x85\0\0\0\0abcde",
    b"\x8f\x80\0\0\0\0",
    b"\x88\xfe\x00\x80" + bytes(132),
    b"\x88\x81\0\0\0\0x",
    b"\x88\x82\0\0\0\0\x03\xed",
    b"\x09\x80\0\0\0\0",
)
"""Frames that claim what is not so, or may not be."""


class Fuzzer:
    """Makes up what to send; the same seed makes up the same."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def connection(self) -> list[bytes]:
        """Return what is sent on one connection, in the parts in which it is sent."""
        if self._chance.random() < 0.35:
            sent = self._stream()
        else:
            sent = b"".join(self._request() for _ in range(self._chance.choice((1, 1, 1, 2, 3, 8))))
        for _ in range(self._chance.choice((0, 0, 0, 0, 0, 1, 1, 2, 5))):
            sent = self._mutate(sent)
        if len(sent) < 2 or self._chance.random() < 0.6:
            return [sent]
        places = sorted(self._chance.randrange(1, len(sent)) for _ in range(self._chance.randint(1, 4)))
        return [sent[start:end] for start, end in zip([0, *places], [*places, len(sent)], strict=True)]

    def is_patient(self) -> bool:
        """Say whether this caller waits for an answer, or hangs up at once."""
        return self._chance.random() < 0.7

    def _request(self) -> bytes:
        chance = self._chance
        method = chance.choice((b"POST", b"POST", b"POST", b"POST", b"GET", b"HEAD", b"OPTIONS", b"PUT", b"BREW"))
        media, body = self._body()
        head = b"%b %b HTTP/%b\r\nHost: localhost\r\nContent-Type: %b\r\n" % (
            method,
            chance.choice(_PATHS),
            chance.choice((b"1.1", b"1.1", b"1.1", b"1.0", b"2.0")),
            media,
        )
        if body is _BOMB:
            head += b"Content-Encoding: gzip\r\n"
        if chance.random() < 0.1:
            head += b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            head += b"%b: %b\r\n" % (chance.choice((b"X-Request-Id", b"X-API-Key", b"Origin", b"x")), self._bytes(20))
        if chance.random() < 0.3:
            chunks = [body[start : start + 7000] for start in range(0, len(body), 7000)]
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(_chunk, [*chunks, b""]))
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _body(self) -> tuple[bytes, bytes]:
        chance = self._chance
        match chance.randrange(8):
            case 0:
                return b"text/plain", self._bytes(300)
            case 1:
                return b"text/plain", b"you are kind " * chance.choice((1, 10, 500, 5000, 30_000))
            case 2:
                return b"application/json", self._bytes(300)
            case 3:
                return b"image/png", b"\x89PNG\r\n\x1a\n" + self._bytes(400)
            case 4:
                return b"text/plain", _BOMB
            case 5:
                return b"application/json", b""
            case _:
                content = {"type": "text", "text": "you are kind " * chance.randint(0, 30)}
                return b"application/json", json.dumps({"content": content, "context": {}}).encode()

    def _stream(self) -> bytes:
        chance = self._chance
        before = self._request() if chance.random() < 0.1 else b""
        frames = b"".join(self._frames() for _ in range(chance.choice((0, 1, 2, 5, 5, 40))))
        bye = Frame(Opcode.CLOSE, chance.choice((b"", b"\x03\xe8", b"\x0f\xa0ciao"))).serialize(mask=True)
        return before + _HANDSHAKE + chance.choice(_OFFERS) + b"\r\n" + frames + (bye if chance.random() < 0.7 else b"")

    def _frames(self) -> bytes:
        """Return a message, in one frame or several, or something else."""
        chance = self._chance
        opcode = chance.choice((Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY))
        match chance.randrange(10):
            case 0:
                return chance.choice(_HEADS)
            case 1:
                return Frame(chance.choice((Opcode.PING, Opcode.PONG)), self._bytes(125)).serialize(mask=True)
            case 2:
                return Frame(opcode, self._bytes(300)).serialize(mask=True)
            case 3:
                return Frame(opcode, chance.choice(_TOKENS)).serialize(mask=True)
            case _:
                data = json.dumps(self._item()).encode()
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 0, 1, 3))))
        parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        sent = b""
        for index, part in enumerate(parts):
            frame = Frame(opcode if index == 0 else Opcode.CONT, part, fin=index == len(parts) - 1)
            sent += frame.serialize(mask=chance.random() < 0.98)
            if chance.random() < 0.1:
                sent += Frame(Opcode.PING, b"?").serialize(mask=True)
        return sent

    def _item(self) -> dict[str, Any]:
        chance = self._chance
        text = "you are kind " * chance.choice((0, 1, 5, 30, 25_000))
        item: dict[str, Any] = {"content": {"type": "text", "text": text}}
        match chance.randrange(5):
            case 0:
                item["id"] = chance.choice(("a", "\ud800", "x" * 300, 7, None))
            case 1:
                item["context"] = chance.choice(({"tenant": ""}, {"surface": "chat"}, [], {"author": {"id": "jo"}}))
            case 2:
                item["content"] = chance.choice(({}, {"type": "image", "data": "AAAA"}, {"type": "x"}, None))
        return item

    def _mutate(self, sent: bytes) -> bytes:
        chance = self._chance
        at = chance.randrange(len(sent) + 1)
        # Mostly in the head, where most is decided.
        at = min(at, chance.choice((200, 400, len(sent))))
        other = chance.randrange(len(sent) + 1)
        match chance.randrange(7):
            case 0:
                return sent[:at]
            case 1:
                return sent[:at] + chance.choice(_TOKENS) + sent[at:]
            case 2:
                return sent[:at] + self._bytes(8) + sent[at + 8 :]
            case 3:
                return sent[:at] + sent[at + chance.randint(1, 40) :]
            case 4:
                return sent[: max(at, other)] + sent[min(at, other) :][:100_000]
            case 5:
                line = sent.find(b"\r\n", at) + 2
                return sent[:line] + chance.choice(_TOKENS) + sent[line:]
            case _:
                return sent[at:] + sent[:at]

    def _bytes(self, most: int) -> bytes:
        return self._chance.randbytes(self._chance.randint(0, most))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def fuzz(address: tuple[str, int], *, seconds: float, seed: int, pause_seconds: float = 0.0) -> Counter[int]:
    """Send for so long what a fuzzer makes up, over many connections; return how often each status came back.

    Of streams these are the statuses of messages, too, and the codes by which they were closed, from 1000 on. Each
    caller pauses for so long after a connection.

    Raises:
        AssertionError: the server took no more connections.
    """
    found: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def call(caller: int) -> None:
        made_up = Fuzzer(seed * 1000 + caller)
        while time.monotonic() < end:
            found.update(await _speak(address, made_up))
            await asyncio.sleep(pause_seconds)

    async with asyncio.TaskGroup() as group:
        for caller in range(CALLERS):
            group.create_task(call(caller))
    return found


async def _speak(address: tuple[str, int], made_up: Fuzzer) -> list[int]:
    parts, is_patient, answer = made_up.connection(), made_up.is_patient(), b""
    reader, writer = await asyncio.open_connection(*address)
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(0.5):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            while is_patient and (more := await reader.read(64 * 1024)):
                answer += more
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    http, switched, rest = answer.partition(_SWITCHED)
    frames = rest.partition(b"\r\n\r\n")[2]
    return [*map(int, STATUS.findall(http + switched)), *(_read_frames(frames) if switched else ())]


def _read_frames(sent: bytes) -> list[int]:
    """Read what a server has sent over a WebSocket, as far as it came.

    Raises:
        AssertionError: it is not what may be sent.
    """
    frames = Protocol(Side.CLIENT, max_size=None)
    frames.receive_data(sent)
    assert frames.parser_exc is None, (frames.parser_exc, sent)
    found = []
    texts = (each for each in frames.events_received() if isinstance(each, Frame) and each.opcode is Opcode.TEXT)
    for index, frame in enumerate(texts):
        answer = json.loads(bytes(frame.data))
        assert answer["index"] == index, answer
        found.append(answer["problem"]["status"] if "problem" in answer else 200)
    return found if frames.close_rcvd is None else [*found, frames.close_rcvd.code]
