"""Keep web pages out: a browser on this machine reaches loopback for any page that it shows.

Without API keys (with them, see `door.py`), loopback is all that stands between a stranger and the sidecar. A page can
post to it without asking (a "simple" request), and read the answers by giving its own name our address (DNS
re-binding).
"""

import ipaddress
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from baleen_sidecar.web.errors import describe_status
from baleen_sidecar.web.hot import ASGIApp, NotAdmitted, Receive, Scope, Send, check_path, read_request_id, refuse
from baleen_sidecar.web.request_body import RequestBody

NAMES: Final = frozenset({"localhost", ""})


class LoopbackOnly:
    """Passes on requests that were sent to a loopback name or address, and not by another site's page."""

    def __init__(self, app: ASGIApp, chance: Callable[[int], bytes]) -> None:
        self._app = app
        self._chance = chance

    def admit(self, path: str, query: bytes, headers: Mapping[bytes, bytes], request_id: str) -> None:
        """See baleen_sidecar.web.hot.Door."""
        check_path(path, request_id)
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if is_loopback_host(host) and origin in ("", f"http://{host}", f"https://{host}"):
            return
        who = f"Host {host!r}" if not is_loopback_host(host) else f"Origin {origin!r}"
        detail = (
            f"{who} is not this sidecar's; without API keys it answers only what is sent to loopback by no other site"
        )
        raise NotAdmitted(describe_status(421, detail, request_id), [(b"connection", b"close")])

    async def ask(self, path: str, headers: Mapping[bytes, bytes], request_id: str) -> None:
        """See baleen_sidecar.web.hot.Door: there is nobody to be asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        try:
            self.admit(scope["path"], scope["query_string"], headers, read_request_id(headers, self._chance))
        except NotAdmitted as exc:
            return await refuse(send, exc.problem, RequestBody(headers, receive), exc.more)
        await self._app(scope, receive, send)


@lru_cache(maxsize=64)
def is_loopback_host(host: str) -> bool:
    """Say whether a Host header, with or without a port, names this machine to itself."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() in NAMES
