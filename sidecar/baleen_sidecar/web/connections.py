"""What connections may do: each by itself, and all of one server together."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

Caller = str | tuple[str, str, str | None]
"""An address; or, once somebody was shown to call, of what kind, by which name and for which tenant."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may send, how long it may take, and how many there may be."""

    headers: int = 100
    """Headers of one request; trailers count too."""
    head_bytes: int = 32 * 1024
    """The request's target and headers; also whatever else is neither a head nor a body (chunk sizes, empty lines)."""
    head_seconds: float = 5.0
    """From the first byte of a request, or from the start of the connection, until its headers are complete."""
    body_bytes: int = 64 * 1024
    """Of a body that is not complete, at least so much has to come in every `body_seconds`."""
    body_seconds: float = 10.0
    queued_requests: int = 4
    """Requests that wait on one connection while an earlier one is answered."""
    idle_seconds: float = 75.0
    """How long a connection stays open on which nothing is asked."""
    connections: int = 10_000
    """Open connections of the whole server."""
    connections_per_key: int = 2_000
    """Open connections whose last request came with the same API key."""
    connections_per_address: int = 1_000
    """Open connections of one address on which no API key was shown yet."""
    memory_bytes: int = 256 * MIB
    """What bodies of requests that are not answered may take, over all connections."""
    linger_seconds: float = 0.5
    """How long a refused caller may go on sending; to close on unread bytes resets, and the refusal is lost."""


class Shared:
    """What all connections of one server have in common: who has how many, and how many bytes of bodies are held."""

    def __init__(self) -> None:
        self.open: Counter[Caller] = Counter()
        self.body_bytes = 0

    def enter(self, caller: Caller, limit: int) -> bool:
        """Count a connection of a caller, unless it has `limit` of them."""
        if self.open[caller] >= limit:
            return False
        self.open[caller] += 1
        return True

    def leave(self, caller: Caller) -> None:
        """Count one off."""
        self.open[caller] -= 1
        if not self.open[caller]:
            del self.open[caller]
