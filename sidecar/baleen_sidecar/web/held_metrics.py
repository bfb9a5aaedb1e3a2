"""What the process holds at the moment and must give back: connections, bytes of bodies, tasks."""

import asyncio
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from baleen_sidecar.web.connections import Shared


class HeldMetrics(Collector):
    """Reads it when it is asked for; what grows from hour to hour under a steady load is a leak."""

    def __init__(self, shared: Shared) -> None:
        """`shared` is what the connections of the HTTP port have in common."""
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now; the library asks for this."""
        yield GaugeMetricFamily("baleen_connections", "Open connections of the HTTP port", self._shared.open.total())
        yield GaugeMetricFamily("baleen_body_bytes", "Bytes of requests' bodies that are held", self._shared.body_bytes)
        yield GaugeMetricFamily("baleen_tasks", "Tasks of the event loop", count_tasks())


def count_tasks() -> int:
    """Return how many tasks have not ended; 0 where no event loop runs."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
