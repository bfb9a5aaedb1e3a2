"""Metrics in Prometheus' text format, or OpenMetrics': as a route, and as all that a port of its own has."""

from typing import Any, Final

from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

PATH: Final = "/metrics"
OPENMETRICS: Final = "application/openmetrics-text"


def expose(registry: CollectorRegistry, accept: str = "") -> Response:
    """Answer with all metrics of the registry: in OpenMetrics' format, which has exemplars, where that is accepted."""
    # The library's own negotiation fails at a version that is no number, and repeats what is one in a header.
    accepted = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    if OPENMETRICS in accepted:
        page: str | bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return Response(page, media_type=openmetrics.CONTENT_TYPE_LATEST)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class MetricsPage:
    """An ASGI application that has /metrics and nothing else, for those who may not reach more."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        await self._answer(scope["method"], scope["path"], accept)(scope, receive, send)

    def _answer(self, method: str, path: str, accept: str) -> Response:
        if path != PATH:
            return PlainTextResponse(f"this port has {PATH} alone\n", 404)
        if method not in ("GET", "HEAD"):
            return PlainTextResponse(f"{PATH} is read with GET\n", 405, {"allow": "GET, HEAD"})
        return expose(self._registry, accept)
