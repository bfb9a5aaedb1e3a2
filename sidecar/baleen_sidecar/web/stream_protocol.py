"""The bounded protocol for connections that stay: streams end with the server."""

from baleen_core.policy_stream import STREAM_PATH
from baleen_sidecar.web.connections import ConnectionLimits
from baleen_sidecar.web.protocol import BoundedHttpProtocol


class PolicyStreamProtocol(BoundedHttpProtocol):
    """What a reader leaves unread is bounded by the buffer; how long it leaves it, by `stall_seconds`."""

    # Sidecars may all come through one proxy, and none of them shows an API key.
    limits: ConnectionLimits = ConnectionLimits(
        connections=4_000, connections_per_address=4_000, head_bytes=24 * 1024, queued_requests=32
    )

    def shutdown(self) -> None:
        """End a stream, which never ends by itself; other answers are finished."""
        super().shutdown()
        if self._is_answering() and self.cycle.scope["path"] == STREAM_PATH:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.close()
