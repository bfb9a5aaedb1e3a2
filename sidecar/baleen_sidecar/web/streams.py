"""`WS /v1/stream`: content as it comes, in JSON, and an answer to each message, in their order."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge
from websockets.datastructures import Headers as HandshakeHeaders
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from baleen_core.errors import BaleenError, ContentError, Forbidden, Overloaded, Unauthenticated, UpstreamError
from baleen_sidecar.web.batch import Identifier, decode_item
from baleen_sidecar.web.calls import Call, Calls, Content
from baleen_sidecar.web.errors import ProblemDetails, describe_status
from baleen_sidecar.web.hot import Headers, Host, HotAnswer, HotRequest, NotAdmitted, problem_answer
from baleen_sidecar.web.live import GoingAway, Idle, Live, LiveRules, Old
from baleen_sidecar.web.moderate import read_deadline, refuse_query
from baleen_sidecar.web.openapi import refusals, request_headers
from baleen_sidecar.web.websocket import Gone, WebSocket

PATH: Final = "/v1/stream"
VERSION: Final = (b"sec-websocket-version", b"13")
_ENCODE: Final = msgspec.json.Encoder().encode


class _Named(Struct):
    id: Identifier | None = None


_NAMED: Final = msgspec.json.Decoder(_Named)


class StreamMetrics:
    """Counts streams, by what ended them."""

    def __init__(self, registry: CollectorRegistry, *, count: Callable[[], int]) -> None:
        Gauge("baleen_streams_open", "Open streams over WebSocket", registry=registry).set_function(count)
        self._ended = Counter(
            "baleen_streams_ended", "Streams over WebSocket, by what ended them", ["reason"], registry=registry
        )

    def ended(self, reason: str) -> None:
        """Count one that has ended."""
        self._ended.labels(reason).inc()


class StreamRoute:
    """Answers `GET /v1/stream`, and what comes once that has become a stream."""

    method = "GET"

    def __init__(
        self,
        calls: Calls,
        *,
        rules: LiveRules,
        message_bytes: int,
        deadline_seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        """`deadline_seconds` is how long a message may take at most."""
        self._calls = calls
        self._live = Live(calls, rules)
        self._message_bytes = message_bytes
        self._deadline_seconds = deadline_seconds
        self._open: set[WebSocket] = set()
        self._metrics = StreamMetrics(registry, count=lambda: len(self._open))

    def drain(self) -> None:
        """Begin no stream, and end those that are open, once what was read is answered."""
        self._live.drain()

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        refuse_query(request.query)
        accepted = shake_hands(request)
        # Said once, before there is anything to answer, and not with each message.
        read_deadline(request.headers, self._deadline_seconds)
        if self._live.is_draining:
            raise Overloaded("the server is going away: begin a stream elsewhere")
        call = Call(headers=request.headers, request_id=request.request_id, key=request.key, priority=request.priority)

        def switch(host: Host) -> WebSocket:
            reason = "Failed"

            async def serve(socket: WebSocket) -> None:
                nonlocal reason
                reason = await self._serve(socket, call)

            def ended(socket: WebSocket) -> None:
                self._open.discard(socket)
                self._metrics.ended(socket.ended_by or reason)

            socket = WebSocket(host, serve, message_bytes=self._message_bytes, on_end=ended)
            self._open.add(socket)
            return socket

        return HotAnswer(status=101, headers=(*accepted, *request.told_priority()), switch=switch)

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return problem_answer(problem, more)

    async def _serve(self, socket: WebSocket, call: Call) -> str:
        """Answer until the end; return what that was."""
        try:
            await self._live.answer(call, socket.receive, socket.send, read=read_streamed, render=_ENCODE)
        except Gone:
            raise
        except (Idle, Old, GoingAway) as exc:
            socket.close(CloseCode.GOING_AWAY, str(exc))
            return type(exc).__name__
        except Exception as exc:
            # What ended it is a message that was refused, and the stream with it, or what failed here, which is logged.
            problem = self._calls.refuse(exc, call)
            code = CloseCode.POLICY_VIOLATION if isinstance(exc, Unauthenticated | Forbidden) else None
            if isinstance(exc, UpstreamError | Overloaded):
                code = CloseCode.TRY_AGAIN_LATER
            socket.close(code or CloseCode.INTERNAL_ERROR, problem.detail)
            return "Refused" if isinstance(exc, BaleenError) else "Failed"
        return "Client"


def shake_hands(request: HotRequest) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that accept a WebSocket; without extensions, so that nothing that is small becomes large.

    Raises:
        NotAdmitted: the request does not ask for one, or not rightly.
    """
    frames = ServerProtocol()
    headers = HandshakeHeaders(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.items()]
    )
    try:
        if not request.may_switch:
            raise InvalidUpgrade("Upgrade", headers.get("upgrade"))
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            raise InvalidHandshake("the request has a body")
        accept, _, _ = frames.process_request(Request(request.path, headers))
    except InvalidUpgrade:
        detail = f"{request.path} is asked over WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`"
        raise NotAdmitted(
            describe_status(426, detail, request.request_id), [(b"upgrade", b"websocket"), VERSION]
        ) from None
    except InvalidHandshake as exc:
        detail = f"this is no handshake of WebSocket: {exc}"
        raise NotAdmitted(describe_status(400, detail, request.request_id), [VERSION]) from None
    return ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept.encode()))


def read_streamed(data: bytes) -> tuple[str | None, Content | ContentError]:
    """Read a message: its id, as far as that can be told, and what it has or what is wrong with that."""
    try:
        item = decode_item(data)
    except ContentError as exc:
        try:
            return _NAMED.decode(data).id, exc
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None, exc
    return item.id, (item.content, item.context)


def describe_stream() -> dict[str, Any]:
    """Document the operation, as far as OpenAPI can: what the messages are is in the schemas."""
    return {
        "tags": ["moderation"],
        "operationId": "moderateStream",
        "summary": "Moderate what comes over a WebSocket, in order",
        "description": (
            "Each message is a `BatchItem`, and has one `ItemAnswer`, in their order; `index` counts them from 0. No "
            "more is read than is answered."
        ),
        "parameters": request_headers(),
        "responses": {
            "101": {"description": "A WebSocket from now on"},
            **{str(status): said for status, said in refusals(400, 422, 426, 503).items()},
        },
    }
