"""Metrics in Prometheus' text format: as a route, and as all that a port of its own has."""

from typing import Any, Final

from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

PATH: Final = "/metrics"


def expose(registry: CollectorRegistry) -> Response:
    """Answer with all metrics of the registry."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class MetricsPage:
    """An ASGI application that has /metrics and nothing else, for those who may not reach more."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await self._answer(scope["method"], scope["path"])(scope, receive, send)

    def _answer(self, method: str, path: str) -> Response:
        if path != PATH:
            return PlainTextResponse(f"this port has {PATH} alone\n", 404)
        if method not in ("GET", "HEAD"):
            return PlainTextResponse(f"{PATH} is read with GET\n", 405, {"allow": "GET, HEAD"})
        return expose(self._registry)
