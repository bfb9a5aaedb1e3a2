"""What Prometheus scrapes of breakers: read off their reports at each scrape, so that what has left is gone here too.

Sources are counted together: there may be thousands of them, and a series each would be too many.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from baleen_sidecar.flow.breaker import State
from baleen_sidecar.ports import BreakerKind, BreakerReport

VALUES: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


class BreakerMetrics(Collector):
    """Tells a registry how breakers are."""

    def __init__(self, reports: Callable[[], Sequence[BreakerReport]], registry: CollectorRegistry) -> None:
        self._reports = reports
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Name the metrics before there is a breaker."""
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        """Make the metrics of this moment."""
        families = _families()
        sources: Counter[State] = Counter()
        for report in self._reports():
            if report.kind is BreakerKind.SOURCE:
                sources[report.state] += 1
            else:
                _add(families, report)
        for state in State:
            families["sources"].add_metric([state.value], sources[state])
        return families.values()


def _families() -> dict[str, CounterMetricFamily | GaugeMetricFamily]:
    return {
        "state": GaugeMetricFamily(
            "baleen_breaker_state",
            "0 while a breaker of a model, or of it at one server, is closed, 1 while half-open, 2 while open",
            labels=["breaker"],
        ),
        "sources": GaugeMetricFamily(
            "baleen_source_breakers",
            "Sources that had failures of late, by the state of their breaker",
            labels=["state"],
        ),
        "changes": CounterMetricFamily(
            "baleen_breaker_transitions", "How often a breaker became what", labels=["breaker", "state"]
        ),
        "tried": CounterMetricFamily(
            "baleen_breaker_trials",
            "Live calls that tried a half-open breaker, by how they ended",
            labels=["breaker", "outcome"],
        ),
        "ejections": CounterMetricFamily(
            "baleen_replica_ejections",
            "How often a replica was left alone for doing worse than others",
            labels=["breaker"],
        ),
        "let_go": CounterMetricFamily(
            "baleen_inference_let_go",
            "Calls that were given up since the server hung, before their time budget was over",
            labels=["breaker"],
        ),
        "retries": CounterMetricFamily(
            "baleen_inference_retries", "Calls made again, at another server", labels=["model"]
        ),
        "hedges": CounterMetricFamily(
            "baleen_inference_hedges", "Calls made at another server too, since the first took long", labels=["model"]
        ),
    }


def _add(families: dict[str, CounterMetricFamily | GaugeMetricFamily], report: BreakerReport) -> None:
    families["state"].add_metric([report.name], VALUES[report.state])
    if report.kind is BreakerKind.MODEL:
        model = report.name.partition("/")[2]
        families["retries"].add_metric([model], report.retries)
        families["hedges"].add_metric([model], report.hedges)
        return
    families["ejections"].add_metric([report.name], report.ejections)
    families["let_go"].add_metric([report.name], report.let_go)
    for state, times in report.changes.items():
        families["changes"].add_metric([report.name, state.value], times)
    for outcome, times in report.tried.items():
        families["tried"].add_metric([report.name, outcome.value], times)
