"""What Prometheus scrapes of the HTTP face; labels are bound once, values are in base units."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.samples import Sample

from baleen_core.percentiles import percentile
from baleen_core.policy.schema import Verdict
from baleen_core.records import RESCAN_DEBT, DecisionRecord, PolicyRef, Risk
from baleen_sidecar.web.tally import BeforeReading, SecondsTally

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a decision without a model to a minute of video."""
MAX_UNSETTLED: Final = 256
"""Kinds of decisions that are counted beside the counters; there are a few, until policies change."""
OUR_FAULT: Final = 500
"""From this status on it was not for what the caller sent."""


_Kind = tuple[str, Verdict, Risk, tuple[PolicyRef, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How many decisions took up to each of the `bounds` (the last one is infinite); `seconds` is the sum of all."""

    bounds: tuple[float, ...] = (*BUCKETS, inf)
    cumulative: tuple[float, ...] = (0.0,) * (len(BUCKETS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> float:
        """How many there were."""
        return self.cumulative[-1]

    def __add__(self, other: "Durations") -> "Durations":
        both = zip(self.cumulative, other.cumulative, strict=True)
        return Durations(cumulative=tuple(map(sum, both)), seconds=self.seconds + other.seconds)


class RequestMetrics:
    """Counts decisions, refusals, frames and seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        in_flight: Callable[[], int] = lambda: 0,
        trace_id: Callable[[], str] = lambda: "",
    ) -> None:
        """`trace_id` names the trace that the current request is a part of, if it is of one."""
        self._trace_id = trace_id
        self._given: dict[_Kind, int] = {}
        """Decisions that are in no counter yet, by all that their counters tell apart."""
        self._refused: dict[int, int] = {}
        """Refusals that are not in their counter yet, by status."""
        registry.register(BeforeReading(self._settle))
        self._decisions = Counter(
            "baleen_decisions", "Decisions given", ["content_type", "decision", "risk"], registry=registry
        )
        self._refusals = Counter(
            "baleen_requests_refused", "Requests refused, by HTTP status", ["status"], registry=registry
        )
        self._seconds = SecondsTally(
            "baleen_request_duration_seconds",
            "Seconds from the first byte to the answer",
            "content_type",
            (*BUCKETS, inf),
        )
        registry.register(self._seconds)
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

    def decided(self, record: DecisionRecord, seconds: float, *, was_there: bool = False) -> None:
        """Count a decision that was given; of one that `was_there`, given to an earlier request, only that it was."""
        if was_there:
            self._replays.inc()
            return
        content_type, decision = record.evidence.content.type, record.decision
        kind = (content_type, decision.decision, decision.risk, decision.policies)
        given = self._given
        given[kind] = given.get(kind, 0) + 1
        if len(given) > MAX_UNSETTLED:
            self._settle()
        # By which one of them can be looked up that was slow.
        self._seconds.observe(content_type, seconds, record.id, self._trace_id())
        for trial in decision.trials:
            if trial.stable_verdict is not trial.candidate_verdict:
                verdicts = (trial.stable_verdict.value, trial.candidate_verdict.value)
                self._flip_label(trial.namespace or "", trial.name, *verdicts).inc()
        if record.evidence.frames:
            self._frames.inc(len(record.evidence.frames))
        for name in decision.degraded:
            if name != RESCAN_DEBT and name not in record.evidence.degraded:
                self._degraded.labels(name).inc()

    def refused(self, status: int) -> None:
        """Count a request that got no decision."""
        self._refused[status] = self._refused.get(status, 0) + 1

    def durations(self) -> dict[str, Durations]:
        """Return how long decisions took, by content type, out of the histogram that is exported."""
        return {
            name: Durations(cumulative=cumulative, seconds=seconds)
            for name, (cumulative, seconds) in self._seconds.read().items()
        }

    def all_durations(self) -> Durations:
        """Return how long decisions took, whatever they were about."""
        return sum(self.durations().values(), Durations())

    def refusals(self) -> dict[int, int]:
        """Return how many requests were refused, by status."""
        self._settle()
        found = (each for each in _samples(self._refusals) if each.name.endswith("_total"))
        return {int(sample.labels["status"]): int(sample.value) for sample in found}

    def error_ratio(self) -> float | None:
        """Return the part of all requests that errors are, by `count_errors`; None before the first request."""
        refusals = self.refusals()
        total = self.answered() + sum(refusals.values())
        return round(count_errors(refusals) / total, 6) if total else None

    def answered(self) -> int:
        """Return how many requests were answered with a decision, a new one or one that was given before."""
        self._settle()
        return _total(self._decisions) + _total(self._replays)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Return the mean of seconds, and p50, p95 and p99, by content type."""
        return {name: _percentiles(durations) for name, durations in self.durations().items()}

    def totals(self) -> dict[str, int]:
        """Return how many decisions were given and how many requests were refused."""
        self._settle()
        return {"decisions": _total(self._decisions), "refused": _total(self._refusals)}

    def _settle(self) -> None:
        """Move what was counted into the counters; on the event loop, where it is counted, too."""
        given, self._given = self._given, {}
        refused, self._refused = self._refused, {}
        for status, count in refused.items():
            self._refusals.labels(str(status)).inc(count)
        for (content_type, verdict, risk, policies), count in given.items():
            self._decisions.labels(content_type, verdict, risk).inc(count)
            for policy in policies:
                labels = (policy.namespace or "", policy.name, verdict.value, policy.cohort.value)
                self._policy_label(*labels).inc(count)


def count_errors(refusals: Mapping[int, int]) -> int:
    """Return how many of the requests that were refused, by status, had no decision through no fault of the caller."""
    return sum(count for status, count in refusals.items() if status >= OUR_FAULT)


def _percentiles(durations: Durations) -> dict[str, float]:
    found = {
        f"p{int(ratio * 100)}": percentile(durations.bounds, durations.cumulative, ratio) for ratio in (0.5, 0.95, 0.99)
    }
    mean = durations.seconds / durations.count if durations.count else None
    return {name: round(value, 6) for name, value in {"mean": mean, **found}.items() if value is not None}


def _samples(metric: Counter) -> Iterable[Sample]:
    return (sample for family in metric.collect() for sample in family.samples)


def _total(counter: Counter) -> int:
    return int(sum(sample.value for sample in _samples(counter) if sample.name.endswith("_total")))
