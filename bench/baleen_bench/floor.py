"""Servers that do less than the product, on the same uvicorn: what is left of its cost when work is taken away.

`bare` is no uvicorn either: a protocol that parses each request, and answers bytes that were made before: what the wire
takes. `empty` answers them from ASGI; `codec` reads the request and writes an answer with the product's codec;
`decide` also judges by the policies of a folder.
"""

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

import httptools
import msgspec
import uvloop

from baleen_bench.children import announce
from baleen_core.decision.engine import decide
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.ids import decision_id
from baleen_core.policy.schema import Verdict
from baleen_core.records import Cohort, ContentFacts, DecisionRecord, Evidence, PolicyRole, Risk
from baleen_sidecar.adapters.resources import read_folder
from baleen_sidecar.main import bind, run_server
from baleen_sidecar.settings import Settings
from baleen_sidecar.testing import MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.web.hot import ASGIApp, Receive, Scope, Send, respond
from baleen_sidecar.web.schemas import DecisionAnswer, PolicyAnswer, Text, read_request, to_answer, to_context

Answering = Callable[[bytes], bytes]
_ENCODER: Final = msgspec.json.Encoder()


def canned_answer() -> DecisionAnswer:
    """Return an answer of the size that a rule-only policy leads to."""
    policy = PolicyAnswer(PolicyRole.WINNER, "comments", "Moderation", "v1", "sha256:" + "0" * 64, Cohort.STABLE)
    return DecisionAnswer(
        id="01JD00000000000000000000000",
        decision=Verdict.ALLOW,
        risk=Risk.LOW,
        score=0.0,
        categories=(),
        reasons=(),
        policies=(policy,),
        models=(),
        from_cache=False,
        degraded=(),
        language="en",
        latency_ms=0.1,
    )


def empty() -> Answering:
    """Answer the same bytes to anything."""
    ready = _ENCODER.encode(canned_answer())
    return lambda body: ready


def codec() -> Answering:
    """Read the request, write an answer, and do nothing in between."""
    answer = canned_answer()

    def handle(body: bytes) -> bytes:
        request = read_request(body)
        assert isinstance(request.content, Text)
        return _ENCODER.encode(answer)

    return handle


def deciding(policies: PolicySnapshot) -> Answering:
    """Read the request, judge it, write what came out: no language, no digest, no lists, no log."""

    def handle(body: bytes) -> bytes:
        request = read_request(body)
        assert isinstance(request.content, Text)
        context = to_context(request.context)
        facts = ContentFacts(type="text", digest="0" * 64, length=len(request.content.text))
        evidence = Evidence(content=facts, context=context, language="en")
        decision = decide(policies.in_force(context), evidence)
        record = DecisionRecord(
            id=decision_id(int(time.time() * 1000), os.urandom(10)), time="", evidence=evidence, decision=decision
        )
        return _ENCODER.encode(to_answer(record))

    return handle


class BareProtocol(asyncio.Protocol):
    """Parses requests as the product's server does, and does nothing with them."""

    def __init__(self, answer: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            len(answer),
            answer,
        )
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where answers go."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, as every server has to."""

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""

    def on_message_complete(self) -> None:
        """Answer."""
        self._transport.write(self._answer)


async def serve_bare(listening: socket.socket) -> None:
    """Serve it until the process is told to end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    answer = _ENCODER.encode(canned_answer())
    async with await loop.create_server(lambda: BareProtocol(answer), sock=listening):
        await ended.wait()


async def read_policies(folder: Path) -> PolicySnapshot:
    """Put the policies of a folder in force, as the product does, and keep nothing on disk."""
    with ThreadPoolExecutor(1) as executor:
        adopt = AdoptPolicies(MemoryRevisionStore(), (), executor=executor, wall_seconds=time.time)
        return await adopt.adopt(read_folder(folder))


def serve_bytes(handle: Answering) -> ASGIApp:
    """Make the smallest ASGI application around a function of bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        chunks = []
        while True:
            message = await receive()
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        await respond(send, 200, b"application/json", handle(body), "0")

    return app


async def main() -> None:
    """Serve one of the stages until the process is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("bare", "empty", "codec", "decide"))
    parser.add_argument("--policies", type=Path)
    arguments = parser.parse_args()
    if arguments.stage == "bare":
        with bind(Settings().host, 0) as listening:
            announce(listening)
            await serve_bare(listening)
        return
    match arguments.stage:
        case "empty":
            handle = empty()
        case "codec":
            handle = codec()
        case _:
            handle = deciding(await read_policies(arguments.policies))
    with bind(Settings().host, 0) as listening:
        announce(listening)
        await run_server(serve_bytes(handle), listening)


if __name__ == "__main__":
    uvloop.run(main())
