"""The metrics that alerts and dashboards of other systems ask for by name, out of our own numbers.

They are computed when they are read, so that they cost no request anything. See
docs/adr/0032-operations-are-read-not-counted.md.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from baleen_core.percentiles import percentile
from baleen_sidecar.ports import QueueTotals
from baleen_sidecar.web.metrics import Durations, RequestMetrics, count_errors

COARSE: Final = (0.1, 0.5, 1.0, 2.0)
"""Seconds; each is a bound of `BUCKETS`, too, since between bounds nothing is known."""


class NamedMetrics(Collector):
    """Says what happened to requests in other systems' words; a piece of a batch is a request."""

    def __init__(self, metrics: RequestMetrics, queues: Callable[[], QueueTotals]) -> None:
        self._metrics = metrics
        self._queues = queues

    def collect(self) -> Iterable[Metric]:
        """Make the metrics of this moment."""
        durations = self._metrics.all_durations()
        queues = self._queues()
        refusals = self._metrics.refusals()
        successful, failed = self._metrics.answered(), sum(refusals.values())
        yield HistogramMetricFamily(
            "moderation_processing_time_histogram",
            "Seconds from the first byte to the decision",
            buckets=_buckets(durations, COARSE),
            sum_value=durations.seconds,
        )
        yield HistogramMetricFamily(
            "moderation_requests_duration_seconds",
            "Seconds from the first byte to the decision",
            buckets=_buckets(durations, durations.bounds),
            sum_value=durations.seconds,
        )
        yield CounterMetricFamily(
            "moderation_requests", "Requests, with a decision or without", value=successful + failed
        )
        # Of no type: whoever named these counters left out the _total that a counter has to have.
        yield UnknownMetricFamily(
            "moderation_requests_successful", "Requests that were answered with a decision; only grows", successful
        )
        yield UnknownMetricFamily(
            "moderation_requests_failed", "Requests without a decision, whatever the reason; only grows", failed
        )
        yield CounterMetricFamily(
            "moderation_requests_errors",
            "Requests without a decision through no fault of the caller",
            value=count_errors(refusals),
        )
        yield GaugeMetricFamily(
            "moderation_processing_time_p95",
            "Seconds within which 95 % of the decisions of this process were given, since it began; for alerts, take "
            "histogram_quantile of the histogram instead",
            value=percentile(durations.bounds, durations.cumulative, 0.95) or 0.0,
        )
        yield GaugeMetricFamily("moderation_queue_depth", "Rows that wait for a model", value=queues.waiting_rows)
        yield GaugeMetricFamily(
            "moderation_workers_active",
            "Batches that models are asked at the moment",
            value=queues.batches_under_way,
        )


def _buckets(durations: Durations, bounds: Sequence[float]) -> list[tuple[str, float]]:
    known = dict(zip(durations.bounds, durations.cumulative, strict=True))
    wanted = bounds if bounds[-1] == durations.bounds[-1] else (*bounds, durations.bounds[-1])
    return [("+Inf" if bound == inf else str(bound), known[bound]) for bound in wanted]
