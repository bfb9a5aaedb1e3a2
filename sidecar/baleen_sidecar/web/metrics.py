"""What Prometheus scrapes of the HTTP face; labels are bound once, values are in base units."""

from collections.abc import Callable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from baleen_core.percentiles import percentile
from baleen_core.records import RESCAN_DEBT, DecisionRecord

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a decision without a model to a minute of video."""


class RequestMetrics:
    """Counts decisions, refusals, frames and seconds."""

    def __init__(self, registry: CollectorRegistry, *, in_flight: Callable[[], int] = lambda: 0) -> None:
        self._decisions = Counter(
            "baleen_decisions", "Decisions given", ["content_type", "decision", "risk"], registry=registry
        )
        self._refusals = Counter(
            "baleen_requests_refused", "Requests refused, by HTTP status", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "baleen_request_duration_seconds",
            "Seconds from the first byte to the answer",
            ["content_type"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._frames = Counter("baleen_frames_processed", "Frames of moving pictures judged", registry=registry)
        self._degraded = Counter(
            "baleen_decisions_degraded", "Decisions given while a model had failed", ["model"], registry=registry
        )
        self._policies = Counter(
            "baleen_policy_decisions",
            "Decisions given, for each policy that judged",
            ["policy_namespace", "policy", "decision", "cohort"],
            registry=registry,
        )
        self._replays = Counter(
            "baleen_requests_replayed", "Requests answered with the decision of an earlier one", registry=registry
        )
        self._policy_label = cache(self._policies.labels)
        self._flips = Counter(
            "baleen_policy_flips",
            "Decisions during a rollout for which the stable revision said from, and the candidate to",
            ["policy_namespace", "policy", "from", "to"],
            registry=registry,
        )
        self._flip_label = cache(self._flips.labels)
        Gauge("baleen_requests_in_flight", "Requests being answered", registry=registry).set_function(in_flight)
        self._decision_label = cache(self._decisions.labels)
        self._seconds_label = cache(self._seconds.labels)

    def decided(self, record: DecisionRecord, seconds: float) -> None:
        """Count a decision that was given."""
        content_type, decision = record.evidence.content.type, record.decision
        self._decision_label(content_type, decision.decision, decision.risk).inc()
        self._seconds_label(content_type).observe(seconds)
        for policy in decision.policies:
            labels = (policy.namespace or "", policy.name, decision.decision.value, policy.cohort.value)
            self._policy_label(*labels).inc()
        for trial in decision.trials:
            if trial.stable_verdict is not trial.candidate_verdict:
                verdicts = (trial.stable_verdict.value, trial.candidate_verdict.value)
                self._flip_label(trial.namespace or "", trial.name, *verdicts).inc()
        if record.evidence.frames:
            self._frames.inc(len(record.evidence.frames))
        for name in decision.degraded:
            if name != RESCAN_DEBT and name not in record.evidence.degraded:
                self._degraded.labels(name).inc()

    def replayed(self) -> None:
        """Count a request that was answered with a decision that was given before."""
        self._replays.inc()

    def refused(self, status: int) -> None:
        """Count a request that got no decision."""
        self._refusals.labels(str(status)).inc()

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Return seconds at p50, p95 and p99 by content type, out of the histogram that is exported."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for metric in self._seconds.collect():
            for sample in metric.samples:
                if sample.name.endswith("_bucket"):
                    buckets = found.setdefault(sample.labels["content_type"], {}).setdefault("buckets", [])
                    buckets.append((float(sample.labels["le"]), sample.value))
        return {name: _percentiles(series["buckets"]) for name, series in sorted(found.items())}

    def totals(self) -> dict[str, int]:
        """Return how many decisions were given and how many requests were refused."""
        return {"decisions": _total(self._decisions), "refused": _total(self._refusals)}


def _percentiles(buckets: list[tuple[float, float]]) -> dict[str, float]:
    bounds, cumulative = zip(*sorted(buckets), strict=True)
    values = {f"p{int(ratio * 100)}": percentile(bounds, cumulative, ratio) for ratio in (0.5, 0.95, 0.99)}
    return {name: round(value, 6) for name, value in values.items() if value is not None}


def _total(counter: Counter) -> int:
    return int(sum(s.value for metric in counter.collect() for s in metric.samples if s.name.endswith("_total")))
