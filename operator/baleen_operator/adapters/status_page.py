"""How the operator is, over HTTP: /health, /ready and /metrics, on the leader and on those that stand by."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from baleen_operator.metrics import Metrics


@dataclass(slots=True)
class Readiness:
    """What this replica is, and what it waits for.

    `outages` and `details` are looked up when somebody asks: the former keep it from its work, the latter from some.
    `more` is what else is said, which readiness does not depend on.
    """

    role: str = "starting"
    waiting_for: tuple[str, ...] = ("the API server",)
    outages: Callable[[], tuple[str, ...]] = field(default=lambda: ())
    details: Callable[[], tuple[str, ...]] = field(default=lambda: ())
    more: Callable[[], dict[str, str]] = field(default=dict)

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Say whether this replica does, or could do, its work, and why not."""
        reasons = (*self.waiting_for, *self.outages())
        return not reasons, {
            "status": "waiting" if reasons else "ready",
            "role": self.role,
            "reasons": list(reasons),
            "details": list(self.details()),
            **self.more(),
        }


@asynccontextmanager
async def status_page(host: str, port: int, readiness: Readiness, metrics: Metrics) -> AsyncIterator[int]:
    """Answer until the end; yields the port.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "role": readiness.role})

    async def ready(request: web.Request) -> web.Response:
        is_ready, report = readiness.report()
        return web.json_response(report, status=200 if is_ready else 503)

    async def exposition(request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/metrics", exposition)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
