"""What Prometheus scrapes of quotas."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from baleen_sidecar.flow.quotas import Standing
from baleen_sidecar.ports import Quotas


class QuotaMetrics:
    """Counts what quotas let in and what they did not; whose they are is no label."""

    def __init__(self, registry: CollectorRegistry, quotas: Quotas) -> None:
        claims = Counter(
            "baleen_quota_claims",
            "Pieces of content that a quota was asked about: admitted by it, or refused",
            ["quota", "result"],
            registry=registry,
        )
        self._label = cache(claims.labels)
        Gauge(
            "baleen_quotas_counted_alone",
            "1 while replicas cannot count quotas together, as they should",
            registry=registry,
        ).set_function(lambda: float(bool(quotas.problem)))

    def claimed(self, standing: Standing) -> None:
        """Count how a quota stood after a claim."""
        self._label(standing.quota.name, "refused" if standing.is_used_up else "admitted").inc()
