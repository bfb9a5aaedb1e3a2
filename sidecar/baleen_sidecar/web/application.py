"""All that one port serves, in the two forms in which it can be served; and what other ports need of it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from baleen_sidecar.web.calls import Calls
from baleen_sidecar.web.connections import ConnectionLimits, Shared
from baleen_sidecar.web.hot import Door, HotRoute, HotRoutes, Receive, Scope, Send
from baleen_sidecar.web.streams import StreamRoute
from baleen_sidecar.web.url_key import KeyInUrl


class Application:
    """The whole as ASGI, which begins with the door; and hot routes, which a protocol can serve below ASGI."""

    def __init__(
        self,
        door: Door,
        hot: HotRoutes,
        limits: ConnectionLimits,
        *,
        calls: Calls | None = None,
        ready: Callable[[], Awaitable[bool]] | None = None,
        streams: StreamRoute | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`calls` and `ready` are for faces beside HTTP: where what they bring is judged, and whether it can be.

        `shared` is what all connections have in common, where somebody else wants to look at it.
        """
        self.shared: Final = Shared() if shared is None else shared
        self.calls: Final = calls
        self.ready: Final = ready
        self._streams = streams
        self.door: Final = door
        self._asgi = KeyInUrl(door)
        self.hot: Final = hot
        self.limits: Final = limits
        self.targets: Final[Mapping[bytes, HotRoute]] = {path.encode(): route for path, route in hot.routes.items()}
        """Hot routes by their paths, as requests have them on the wire."""

    def drain(self) -> None:
        """End what would not end by itself, once what was read of it is answered: the server is going away."""
        if self._streams is not None:
            self._streams.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._asgi(scope, receive, send)
