"""A connection that has turned from HTTP to WebSocket (RFC 6455): whole messages, no more than are asked for."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Side
from websockets.protocol import Protocol as Frames

from baleen_sidecar.web.hot import Host

PING_SECONDS: Final = 20.0
"""How long a connection is silent before it is asked whether it is still there, and then has to say so."""
CLOSE_SECONDS: Final = 1.0
"""How long a caller has to take its leave; to close on unread bytes resets, and the reason is lost."""
SLICE_BYTES: Final = 4096
"""How much is taken apart at a time: the smallest frames have six bytes, and take a hundred times as much here."""
MAX_REASON_BYTES: Final = 123

_FRAMES_LOG: Final = logging.getLogger(f"{__name__}.frames")
_FRAMES_LOG.setLevel(logging.WARNING)


class Gone(Exception):
    """Nobody is there any more."""


class WebSocket(asyncio.Protocol):
    """Runs one coroutine, which receives and sends; the connection ends with it, and it with the connection.

    Frames, their limits and the order of closing are the library's. Beyond what is parsed up to the next message, bytes
    wait as they came, in a buffer that is bounded by flow control.
    """

    def __init__(
        self,
        host: Host,
        serve: Callable[["WebSocket"], Coroutine[Any, Any, None]],
        *,
        message_bytes: int,
        on_end: Callable[["WebSocket"], None],
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        """Begin at once. `serve` closes with a reason when it ends; `on_end` is told when all is over.

        `host` is the connection as it was before; it counts what is held here, and hears when the transport ends.
        """
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(Side.SERVER, state=OPEN, max_size=message_bytes, logger=_FRAMES_LOG)
        self._unread = bytearray()
        self._part: bytearray | None = None
        """The message that is coming in frames."""
        self._is_text = True
        self._partial_bytes = 0
        """At most so much of a frame is there that is not whole."""
        self._messages: deque[bytes] = deque()
        """Of one slice there may be several."""
        self._message_bytes = 0
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._on_end = on_end
        self._is_heard = True
        self._is_asked = False
        self._is_lost = False
        self._ping_seconds = ping_seconds
        self._closing: asyncio.TimerHandle | None = None
        self._pinging = self._loop.call_later(ping_seconds, self._ping)
        self.ended_by = ""
        """What ended it, where that was not `serve`: Client, Lost, Protocol or Memory."""
        self._task = self._loop.create_task(self._run(serve))
        # The server waits for these when it is told to end.
        host.tasks.add(self._task)
        self._task.add_done_callback(host.tasks.discard)

    async def receive(self) -> bytes:
        """Return the next message, text or not.

        Raises:
            Gone: there is none.
        """
        while not self._messages:
            self._go_on()
            if self._messages:
                break
            if self._is_over():
                raise Gone
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._message_bytes -= len(message)
        self._count()
        return message

    async def send(self, message: bytes) -> None:
        """Send a text, which is UTF-8, and wait while the caller does not take what was sent before.

        Raises:
            Gone: there is nobody to send it to.
        """
        if self._is_over():
            raise Gone
        self._frames.send_text(message)
        self._flush()
        if self._host.flow.write_paused:
            await self._host.flow.drain()

    def close(self, code: int, reason: str) -> None:
        """Say why this is the end, as far as that fits, and throw away what still comes."""
        if self._is_over():
            return
        self._frames.send_close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
        self._end()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._is_heard = True
        self._unread += data
        if self._is_over():
            self._throw_away()
        else:
            self._go_on()

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._host.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        was_over, self._is_lost = self._is_over(), True
        self._pinging.cancel()
        if self._closing is not None:
            self._closing.cancel()
        if not was_over:
            self._abandon("Lost")
        self._host.connection_lost(exc)
        self._on_end(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._host.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._host.resume_writing()
        if not self._is_over():
            self._go_on()

    async def _run(self, serve: Callable[["WebSocket"], Coroutine[Any, Any, None]]) -> None:
        try:
            await serve(self)
        except asyncio.CancelledError:
            if self._is_over():
                return
            # The server waits no longer.
            self.close(CloseCode.GOING_AWAY, "the server is going away")
            self._host.transport.close()
            raise
        except Gone:
            pass
        finally:
            self.close(CloseCode.INTERNAL_ERROR, "the stream failed for a reason on our side")

    def _is_over(self) -> bool:
        return self._is_lost or self._frames.state is not OPEN

    def _go_on(self) -> None:
        """Take apart what came, up to the next message."""
        while self._unread and not self._messages and not self._host.flow.write_paused:
            part = bytes(self._unread[:SLICE_BYTES])
            del self._unread[:SLICE_BYTES]
            self._frames.receive_data(part)
            events = self._frames.events_received()
            self._partial_bytes = len(part) if events else self._partial_bytes + len(part)
            for frame in events:
                if isinstance(frame, Frame):
                    self._take(frame)
            self._flush()
            if self._is_over():
                self._abandon("Protocol" if self._frames.close_rcvd is None else "Client")
                self._end()
                return
        if not self._count():
            self._abandon("Memory")
            self.close(CloseCode.TRY_AGAIN_LATER, "what is held for all connections would be over its limit")
            return
        if len(self._unread) > HIGH_WATER_LIMIT:
            self._host.flow.pause_reading()
        else:
            # Also while no message is wanted: else nobody would notice that the caller is gone.
            self._host.flow.resume_reading()
        if self._messages and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
            self._part = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._part is not None:
            self._part += frame.data
        else:
            return
        if not frame.fin:
            return
        message, self._part = bytes(self._part), None
        try:
            if self._is_text:
                message.decode()
        except UnicodeDecodeError as exc:
            if not self._is_over():
                self._frames.fail(CloseCode.INVALID_DATA, f"the text is not UTF-8: byte {exc.start}")
        else:
            self._messages.append(message)
            self._message_bytes += len(message)

    def _count(self) -> bool:
        """Have the host count what is held; False: that of all connections is over its limit."""
        parts = len(self._part) if self._part is not None else 0
        held = len(self._unread) + self._partial_bytes + parts + self._message_bytes
        change, self._held_bytes = held - self._held_bytes, held
        return self._host.hold(change)

    def _abandon(self, ended_by: str) -> None:
        """Forget what came, and end what is done about it: nobody waits for it."""
        self.ended_by = self.ended_by or ended_by
        self._unread.clear()
        self._messages.clear()
        self._part, self._partial_bytes, self._message_bytes = None, 0, 0
        if not self._is_lost:
            self._count()
        self._task.cancel()

    def _end(self) -> None:
        self._flush()
        self._pinging.cancel()
        self._host.flow.resume_reading()
        if self._closing is None:
            self._closing = self._loop.call_later(CLOSE_SECONDS, self._host.transport.close)
        self._throw_away()

    def _throw_away(self) -> None:
        """Read on only to see whether the caller takes its leave, too."""
        while self._unread:
            self._frames.receive_data(bytes(self._unread[:SLICE_BYTES]))
            del self._unread[:SLICE_BYTES]
            self._frames.events_received()
        self._flush()
        if self._frames.close_rcvd is not None:
            self._host.transport.close()

    def _flush(self) -> None:
        transport = self._host.transport
        for data in self._frames.data_to_send():
            if transport.is_closing():
                return
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()

    def _ping(self) -> None:
        self._pinging = self._loop.call_later(self._ping_seconds, self._ping)
        if self._is_heard or self._host.flow.read_paused:
            self._is_heard = self._is_asked = False
        elif self._is_asked:
            self._host.transport.abort()
        else:
            self._is_asked = True
            self._frames.send_ping(b"")
            self._flush()
