"""What a request takes from its bytes to those of its answer, where no socket carries either of them."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.main import Served, bind, open_sidecar
from baleen_sidecar.settings import Settings

A_TURN: Final = 64
"""Requests between two looks at the clock."""
LEAST_TURNS: Final = 12
"""However short the time is."""


class Nowhere(asyncio.Transport):
    """Takes an answer, and remembers the last one."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answers = 0
        self.last = b""

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Take an answer."""
        self.answers += 1
        self.last = bytes(data)

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""

    def close(self) -> None:
        """There is nothing to close."""


def cpu_us(settings: Settings, requests: Mapping[str, bytes], *, status: Mapping[str, int], seconds: float) -> Any:
    """Give each of the requests, in turns, to the product's protocol; return the µs of each by its name, turn by turn.

    Raises:
        RuntimeError: one was not answered at once, or with another status than its own.
    """
    return uvloop.run(_measure(settings, requests, status, seconds))


async def _measure(
    settings: Settings, requests: Mapping[str, bytes], status: Mapping[str, int], seconds: float
) -> dict[str, list[float]]:
    inference = RoutedInference(lambda at: TritonInference(at, timeout_seconds=1.0))
    inference.route({})
    found: dict[str, list[float]] = {name: [] for name in requests}
    async with open_sidecar(settings, [], inference, breakers=inference) as sidecar:
        with bind(settings.host, 0) as listening:
            server = Served(app=sidecar.app, listening=listening).server()
            config = server.config
            config.load()
            until = time.monotonic() + seconds
            while time.monotonic() < until or min(map(len, found.values())) < LEAST_TURNS:
                for name, request in requests.items():
                    transport = Nowhere()
                    protocol = config.http_protocol_class(  # type: ignore[call-arg]
                        config=config, server_state=server.server_state, app_state={}, _loop=asyncio.get_running_loop()
                    )
                    protocol.connection_made(transport)
                    protocol.data_received(request)  # warms up
                    begun = time.thread_time()
                    for _ in range(A_TURN):
                        protocol.data_received(request)
                    found[name].append((time.thread_time() - begun) / A_TURN * 1e6)
                    said = transport.last.split(b" ", 2)[1]
                    if transport.answers != A_TURN + 1 or said != b"%d" % status[name]:
                        raise RuntimeError(f"{name}: {transport.answers} answers, the last of them {said!r}")
                    protocol.connection_lost(None)
    await inference.close()
    return found


def request_of(path: str, body: bytes, *headers: str) -> bytes:
    """Write a request as it stands on the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def settings_for(folder: Path, keys: Path) -> Settings:
    """Return settings of a product that asks for keys."""
    return Settings(port=0, policies=folder / "policies", state=folder / "state", api_keys_file=keys)
