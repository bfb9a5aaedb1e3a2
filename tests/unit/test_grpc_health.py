"""Health checks over gRPC, at moments that a real client cannot choose."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2

from baleen_sidecar.web.grpc import keyless
from baleen_sidecar.web.grpc.bounds import Room
from baleen_sidecar.web.grpc.keyless import Health

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Aborted(Exception):
    """What the library raises once a call was refused."""


class Context:
    """A call of the library, which asks about the server as a whole, or nothing at all."""

    def __init__(self, *, is_silent: bool = False, on_write: Callable[[], None] = lambda: None) -> None:
        self._is_silent = is_silent
        self._on_write = on_write
        self.said: list[int] = []
        self.refusals: list[grpc.StatusCode] = []

    async def read(self) -> bytes:
        """Give the one message."""
        if self._is_silent:
            await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        """Take an answer."""
        self.said.append(health_pb2.HealthCheckResponse.FromString(data).status)
        self._on_write()

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Refuse the call."""
        self.refusals.append(code)
        raise Aborted


class Server:
    """Says that it is ready until it drains."""

    def __init__(self) -> None:
        self.is_draining = False
        self.health = Health(
            self._ready, lambda: self.is_draining, checks=Room(1, "checks"), watches=Room(1, "watches")
        )

    async def _ready(self) -> bool:
        return True

    def end(self) -> None:
        """Drain, for no time at all, and end."""
        self.is_draining = True
        self.health.look()
        self.health.end()


async def test_who_is_just_being_told_how_it_is_hears_of_its_end_too() -> None:
    server = Server()
    context = Context(on_write=server.end)

    await server.health.watch(None, context)

    assert context.said == [SERVING, NOT_SERVING]


async def test_a_call_whose_message_does_not_come_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyless, "MESSAGE_SECONDS", 0.01)
    server, silent, late = Server(), Context(is_silent=True), Context(is_silent=True)
    calls: list[Callable[[Any, Any], Any]] = [server.health.check, server.health.watch]

    for call in calls:
        for context in (silent, late):
            with pytest.raises(Aborted):
                await call(None, context)

    assert silent.refusals == late.refusals == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    assert health_pb2.HealthCheckResponse.FromString(await server.health.check(None, Context())).status == SERVING
