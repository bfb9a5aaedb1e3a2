"""The operator's own metrics: base units, few label values, prefix `baleen_operator_`."""

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Backlog(Protocol):
    """A queue that tells how full it is."""

    @property
    def depth(self) -> int:
        """How many wait for their turn."""

    @property
    def oldest_age_seconds(self) -> float:
        """How long the one that waits longest has waited."""


class Metrics:
    """All metrics of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leader = Gauge("baleen_operator_leader", "1 while this replica holds the Lease.", registry=self.registry)
        self.queue_depth = Gauge(
            "baleen_operator_queue_depth", "Resources that wait to be worked on.", ["kind"], registry=self.registry
        )
        self.queue_oldest_age = Gauge(
            "baleen_operator_queue_oldest_age_seconds",
            "How long the resource that waits longest has waited.",
            ["kind"],
            registry=self.registry,
        )
        self.seen = Gauge("baleen_operator_seen_objects", "Resources that are known.", ["kind"], registry=self.registry)
        self.reconcile_seconds = Histogram(
            "baleen_operator_reconcile_duration_seconds",
            "How long it took to look at a resource and do what it needs.",
            ["kind"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "baleen_operator_reconcile_errors",
            "Reconciles that failed and are tried again, by the class of the error.",
            ["kind", "error"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "baleen_operator_api_request_duration_seconds",
            "How long the API server took to answer.",
            ["verb"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "baleen_operator_api_requests",
            "Calls to the API server; the code is `none` where no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.forbidden = Counter(
            "baleen_operator_forbidden_requests",
            "Calls that RBAC refused.",
            ["verb", "resource"],
            registry=self.registry,
        )
        self.events_lost = Counter(
            "baleen_operator_events_lost",
            "Events for people that were not written: the queue was full, or the API server refused them.",
            registry=self.registry,
        )
        self.queries = Counter(
            "baleen_operator_queries",
            "Queries of PromQL metrics that were asked: `answered` by one number, or `failed`.",
            ["result"],
            registry=self.registry,
        )
        self.watched_events = Counter(
            "baleen_operator_watch_events", "Changes that the watches reported.", ["kind"], registry=self.registry
        )
        self.watch_restarts = Counter(
            "baleen_operator_watch_restarts", "Times that all watches were begun anew.", registry=self.registry
        )
        self.relists = Counter(
            "baleen_operator_relists", "Times that everything was listed anew.", registry=self.registry
        )
        self.gateways = Gauge(
            "baleen_operator_gateways",
            "Gateways that are known, by whether they answered last time.",
            ["answering"],
            registry=self.registry,
        )
        self.gateway_replicas = Gauge(
            "baleen_operator_gateway_replicas",
            "Gateways that are asked for, where they are scaled.",
            registry=self.registry,
        )
        self.gateway_replicas_desired = Gauge(
            "baleen_operator_gateway_replicas_desired",
            "Gateways that there should be, within the bounds and as fast as they may come and go.",
            registry=self.registry,
        )
        self.gateway_requests_in_flight = Gauge(
            "baleen_operator_gateway_requests_in_flight",
            "Requests in flight on all gateways that say theirs, as a mean since the round before.",
            registry=self.registry,
        )
        self.gateway_loads_unknown = Gauge(
            "baleen_operator_gateway_loads_unknown",
            "Gateways that do not say how busy they are; while there are any, none is taken away.",
            registry=self.registry,
        )

        self.admission_requests = Counter(
            "baleen_operator_admission_requests",
            "What API servers asked the webhooks; `allowed` is `none` where they got no answer that they could use.",
            ["webhook", "allowed"],
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "baleen_operator_webhook_certificate_expiry_timestamp_seconds",
            "When the webhooks' certificate ends, in seconds since 1970; 0 without one.",
            registry=self.registry,
        )

    def observe_queue(self, kind: str, queue: Backlog) -> None:
        """Read the two gauges of the queue for a kind from it."""
        self.queue_depth.labels(kind).set_function(lambda: queue.depth)
        self.queue_oldest_age.labels(kind).set_function(lambda: queue.oldest_age_seconds)

    def observe_seen(self, kind: str, count: Callable[[], float]) -> None:
        """Read how many resources of a kind are known from this function."""
        self.seen.labels(kind).set_function(count)

    def exposition(self) -> bytes:
        """Write all of them in Prometheus' text format."""
        return generate_latest(self.registry)
