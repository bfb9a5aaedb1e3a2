"""Keep out who shows no good API key: plain ASGI in front of every route, so that a refusal costs next to nothing."""

from collections.abc import Callable
from typing import Final

from baleen_core.api_keys import ApiKeys
from baleen_core.errors import Forbidden, Unauthenticated
from baleen_sidecar.flow.door import admit, is_open
from baleen_sidecar.web.callers import note_key
from baleen_sidecar.web.errors import describe
from baleen_sidecar.web.hot import ASGIApp, Receive, Scope, Send, read_request_id, refuse
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.request_body import RequestBody

CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="baleen"')


class Door:
    """Passes on what is open, and requests whose key is good for their route, with the key in their scope.

    Unlike `LoopbackOnly` it does not look at Host and Origin: a web page has no key to show.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Callable[[], ApiKeys],
        *,
        metrics: RequestMetrics,
        wall_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
    ) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._wall_seconds = wall_seconds
        self._chance = chance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_open(scope["path"]):
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        try:
            key = admit(self._keys(), headers, scope["path"], wall_seconds=self._wall_seconds())
        except (Unauthenticated, Forbidden) as exc:
            problem = describe(exc, read_request_id(headers, self._chance))
            self._metrics.refused(problem.status)
            more = [CHALLENGE] if isinstance(exc, Unauthenticated) else []
            return await refuse(send, problem, RequestBody(headers, receive), more)
        note_key(scope, key)
        await self._app(scope, receive, send)
