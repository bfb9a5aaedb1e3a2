"""What Prometheus scrapes of the cache of scores: its own numbers, read when they are asked for."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from baleen_sidecar.ports import ScoreCache


class CacheMetrics(Collector):
    """Says how often scores were found at each level, and how much there is."""

    def __init__(self, cache: ScoreCache | None, *, joined: Callable[[], int]) -> None:
        """`joined` is how many contents waited for the scores of an equal one."""
        self._cache = cache
        self._joined = joined

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now; the library asks for this."""
        yield CounterMetricFamily(
            "baleen_cache_joined", "Contents scored with an equal one that was being scored already", self._joined()
        )
        hits = CounterMetricFamily("baleen_cache_hits", "Scores that were found, by level", labels=["level"])
        misses = CounterMetricFamily("baleen_cache_misses", "Scores that were not found, by level", labels=["level"])
        failures = CounterMetricFamily(
            "baleen_cache_failures", "Times that a level could not be asked or written", labels=["level"]
        )
        entries = GaugeMetricFamily("baleen_cache_entries", "Entries of this process, by level", labels=["level"])
        size = GaugeMetricFamily("baleen_cache_size_bytes", "Bytes of this process's entries", labels=["level"])
        for level in () if self._cache is None else self._cache.stats().levels:
            hits.add_metric([level.name], level.hits)
            misses.add_metric([level.name], level.misses)
            failures.add_metric([level.name], level.failures)
            if level.entries is not None:
                entries.add_metric([level.name], level.entries)
            if level.size_bytes is not None:
                size.add_metric([level.name], level.size_bytes)
        yield from (hits, misses, failures, entries, size)
