"""What Prometheus scrapes of sources: all together, since there may be very many; GET /v1/sources has each of them."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from baleen_sidecar.usecases.watch_sources import WatchSources


class SourceMetrics(Collector):
    """Says how many sources there are, and how much came of them."""

    def __init__(self, sources: WatchSources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Make the metrics of this moment."""
        present = GaugeMetricFamily(
            "baleen_sources", "Sources that are known, by whether content comes", labels=["state"]
        )
        for presence, count in self._sources.present().items():
            present.add_metric([presence.value], count)
        yield present
        yield CounterMetricFamily(
            "baleen_source_contents", "Pieces of content with a source", value=self._sources.contents
        )
        yield CounterMetricFamily("baleen_source_errors", "Those that have no decision", value=self._sources.errors)
