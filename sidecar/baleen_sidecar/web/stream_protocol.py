"""The bounded protocol for connections that stay: readers that stall are cut off, and streams end with the server."""

from asyncio import TimerHandle
from typing import ClassVar, Final

from baleen_core.policy_stream import STREAM_PATH
from baleen_sidecar.web.protocol import BoundedHttpProtocol, ConnectionLimits

STALL_SECONDS: Final = 30.0


class PolicyStreamProtocol(BoundedHttpProtocol):
    """What a reader leaves unread is bounded by the buffer; how long it leaves it, by `stall_seconds`."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits(connections=4_000, head_bytes=24 * 1024)
    stall_seconds: ClassVar[float] = STALL_SECONDS

    _stalled: TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the time in which the reader has to take something."""
        super().pause_writing()
        if self._stalled is None:
            # Not close: that would wait for the reader, too.
            self._stalled = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Forget the time."""
        super().resume_writing()
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._read_on()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End a stream, which never ends by itself; other answers are finished."""
        super().shutdown()
        if self._is_answering() and self.cycle.scope["path"] == STREAM_PATH:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.close()

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
