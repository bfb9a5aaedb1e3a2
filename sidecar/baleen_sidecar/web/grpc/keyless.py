"""What is asked without a key: the standard health checks, and reflection. It takes no room of calls that have one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from baleen_core.errors import ContentError, DeadlineExceeded
from baleen_sidecar.web.grpc.bounds import Room, only_message
from baleen_sidecar.web.grpc.service import NAME

MESSAGE_SECONDS: Final = 5.0
"""How long the message of a health check may take to come; it has a few bytes."""
WATCH_SECONDS: Final = 1.0
"""How often the health of this server is looked at for those who watch it."""


class Health:
    """The health of the server as a whole ("") and of its service.

    The library's own forgets all who watch a service once one of them leaves.
    """

    def __init__(
        self,
        ready: Callable[[], Awaitable[bool]],
        is_draining: Callable[[], bool],
        *,
        checks: Room,
        watches: Room,
    ) -> None:
        self._ready = ready
        self._is_draining = is_draining
        self._checks = checks
        self._watches = watches
        self._look = asyncio.Event()
        self._has_ended = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server is given.

        Calls are handled as streams, as those of the service are: else one whose message never comes has no bound.
        """
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(self.check),
                "Watch": grpc.stream_stream_rpc_method_handler(self.watch),
            },
        )

    async def check(self, requests: Any, context: Any) -> bytes:
        """Say how it is now."""
        async with self._asked(context, self._checks) as service:
            if (status := await self._status(service)) is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {service!r} here")
            return _render(status)

    async def watch(self, requests: Any, context: Any) -> None:
        """Say how it is, and again when that changes, until the server ends."""
        said = None
        async with self._asked(context, self._watches) as service:
            while True:
                # Before the status: what changes while that is found out, or told, is looked at once more.
                look, is_last = self._look, self._has_ended
                status = await self._status(service)
                status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
                if status != said:
                    await context.write(_render(status))
                    said = status
                if is_last:
                    return
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        await look.wait()
                except TimeoutError:
                    pass

    def look(self) -> None:
        """Have those who watch look at once."""
        self._look.set()
        self._look = asyncio.Event()

    def end(self) -> None:
        """Let those who watch go, who would ask again at once if they went while the server still answers."""
        self._has_ended = True
        self.look()

    @asynccontextmanager
    async def _asked(self, context: Any, room: Room) -> AsyncIterator[str]:
        """Give a call a place, and read which service it is about; what is no such call is refused."""
        async with room.place(context):
            try:
                data = await only_message(context, MESSAGE_SECONDS)
                service = str(health_pb2.HealthCheckRequest.FromString(data).service)
            except DeadlineExceeded as exc:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(exc))
            except (ContentError, DecodeError) as exc:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
            else:
                yield service

    async def _status(self, service: str) -> Any:
        if service not in ("", NAME):
            return None
        is_serving = not self._is_draining() and await self._ready()
        response = health_pb2.HealthCheckResponse
        return response.SERVING if is_serving else response.NOT_SERVING


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # it has no types
    """Says what there is to call."""

    def __init__(self, room: Room) -> None:
        super().__init__((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._room = room

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> None:  # noqa: N802 - as the service has it
        """Answer questions for as long as they come."""
        async with self._room.place(context):
            async for answer in super().ServerReflectionInfo(requests, context):
                await context.write(answer)


def _render(status: Any) -> bytes:
    response: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return response
