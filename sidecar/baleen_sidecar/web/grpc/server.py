"""The gRPC server: the service, standard health checks, reflection, and a limit on all that callers may take."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

import grpc
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server as add_reflection

from baleen_core.errors import StateError
from baleen_sidecar.web.calls import Calls
from baleen_sidecar.web.grpc.bounds import Room
from baleen_sidecar.web.grpc.keyless import Health, Reflection
from baleen_sidecar.web.grpc.service import ModerationService, ServiceRules

MAX_METADATA_BYTES: Final = 16 * 1024
MAX_STREAMS: Final = 100
"""Calls of one connection at a time; others wait at the client."""
CONNECTION_AGE_SECONDS: Final = 600
"""How old a connection gets before its client is asked to make another, so that new replicas get their share."""
CONNECTION_GRACE_SECONDS: Final = 660
"""How long calls on such a connection may go on: longer than a stream lasts."""
HANDSHAKE_SECONDS: Final = 5
PING_SECONDS: Final = 60
"""How long a connection is silent before it is asked whether it is still there."""
WINDOW_BYTES: Final = 64 * 1024
"""What of a call is taken from its caller before it is asked for; the core would let that grow to megabytes."""
MIN_PING_SECONDS: Final = 10
"""Clients that ping more often are sent away."""
REFLECTIONS: Final = 20
"""How many may ask at a time what there is to call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """What callers may take together; `calls` are those of the service alone."""

    message_bytes: int
    calls: int
    connections: int


class GrpcServer:
    """Serves on a port of its own, in the loop that it is made in."""

    def __init__(
        self,
        calls: Calls,
        ready: Callable[[], Awaitable[bool]],
        *,
        rules: ServiceRules,
        limits: GrpcLimits,
        grace_seconds: float,
        drain_seconds: float = 0.0,
    ) -> None:
        """`ready` is what health checks say.

        Once it is told to end, calls are answered for `drain_seconds` still; then those under way have `grace_seconds`.
        """
        self._grace_seconds = grace_seconds
        self._drain_seconds = drain_seconds
        self.port = 0
        """Where it listens, once it is bound."""
        # Not the library's one limit of all calls: those without a key, which may go on for ever, could take it whole.
        self._service = ModerationService(calls, rules, Room(limits.calls, "calls"))
        self._health = Health(
            ready,
            lambda: self._service.is_draining,
            # A client has one of each for a connection.
            checks=Room(limits.connections, "health checks"),
            watches=Room(limits.connections, "calls that watch the health of this server"),
        )
        self._ended = asyncio.Event()
        self._hurried = asyncio.Event()
        self._server = grpc.aio.server(options=_options(limits, rules.idle_seconds))
        self._server.add_generic_rpc_handlers((self._service.handler(), self._health.handler()))
        add_reflection(Reflection(Room(REFLECTIONS, "calls of reflection")), self._server)

    def bind(self, host: str, port: int) -> None:
        """Take the port; 0 is a free one.

        Raises:
            StateError: it is taken, or may not be used.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = int(self._server.add_insecure_port(address))
        except RuntimeError as exc:
            raise StateError(f"cannot listen on {host} port {port} for gRPC: {exc}") from exc

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        """End, in order: see `serve`; a second SIGINT ends the drain, as that of HTTP."""
        if self._ended.is_set() and number == signal.SIGINT:
            self._hurried.set()
        self._ended.set()

    async def serve(self) -> None:
        """Answer calls until told to end; then no streams are begun, and what was read of them is answered.

        Health checks say so from then on, and other calls are answered for as long as it drains: only its end closes
        connections, and whoever connects anew before others know of it would come back, in vain.
        """
        await self._server.start()
        try:
            await self._ended.wait()
            self._service.drain()
            self._health.look()
            await self._drained()
            self._health.end()
            await self._server.stop(self._grace_seconds)
        finally:
            await self._server.stop(None)

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(self._drain_seconds):
                await self._hurried.wait()
        except TimeoutError:
            pass


def _options(limits: GrpcLimits, idle_seconds: float) -> list[tuple[str, int]]:
    """Return what gRPC's core bounds for us."""
    return [
        # Else two processes could have the port, and each a part of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # Only "identity": what is small on the wire must not become large here.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", int(idle_seconds * 1000)),
        ("grpc.max_connection_age_ms", CONNECTION_AGE_SECONDS * 1000),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1000),
        ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_SECONDS * 1000),
    ]
