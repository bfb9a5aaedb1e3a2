"""Stands before everything else, and turns the key in the URL of Google's clients into a header."""

from baleen_sidecar.flow.url_key import take_key
from baleen_sidecar.web.hot import ASGIApp, Receive, Scope, Send

_HEADER = b"x-api-key"


class KeyInUrl:
    """Passes on all requests: those that may have a key in their query without it, and with `X-API-Key` instead.

    A caller's own header counts more than the URL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query, key = take_key(scope["path"], scope["query_string"])
            if query is not scope["query_string"]:
                headers = list(scope["headers"])
                if key and all(name != _HEADER for name, _ in headers):
                    headers.append((_HEADER, key))
                scope = {**scope, "query_string": query, "headers": headers}
        await self._app(scope, receive, send)
