"""What every request is counted in: plain numbers, which become metrics when somebody reads them.

A counter of the library takes a lock, and its histogram checks the names of each exemplar's labels: together a tenth of
what a decision by rules costs.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import time

from prometheus_client.core import Exemplar, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(slots=True)
class _Series:
    counts: list[int]
    """How many were in each bucket, and in no lower one."""
    exemplars: list[tuple[str, str, float, float] | None]
    """For each bucket the last decision in it: its id and its trace, its seconds, and when it was (seconds of 1970)."""
    seconds: float = 0.0
    created: float = field(default_factory=time)


class SecondsTally(Collector):
    """A histogram of seconds by one label, with the decision that was last in each bucket as its exemplar."""

    def __init__(self, name: str, documentation: str, label: str, bounds: Sequence[float]) -> None:
        """The last of the `bounds` is infinite."""
        self._name = name
        self._documentation = documentation
        self._label = label
        self._bounds = bounds
        self._series: dict[str, _Series] = {}

    def observe(self, label: str, seconds: float, decision_id: str, trace_id: str) -> None:
        """Count a decision; `trace_id` is empty where there is no trace."""
        series = self._series.get(label)
        if series is None:
            series = self._series[label] = _Series([0] * len(self._bounds), [None] * len(self._bounds))
        index = bisect_left(self._bounds, seconds)
        series.counts[index] += 1
        series.seconds += seconds
        series.exemplars[index] = (decision_id, trace_id, seconds, time())

    def read(self) -> dict[str, tuple[tuple[float, ...], float]]:
        """Return, by label, how many took up to each bound, and the sum of all their seconds."""
        return {
            label: (tuple(map(float, accumulate(series.counts))), series.seconds)
            for label, series in sorted(self._series.items())
        }

    def collect(self) -> Iterable[Metric]:
        """Make the metric of this moment."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        for label, series in self._series.items():
            buckets = [
                (_render(bound), float(count)) if last is None else (_render(bound), float(count), _exemplar(*last))
                for bound, count, last in zip(self._bounds, accumulate(series.counts), series.exemplars, strict=True)
            ]
            family.add_metric([label], buckets, series.seconds)
            family.add_sample(f"{self._name}_created", {self._label: label}, series.created)
        yield family

    def describe(self) -> Iterable[Metric]:
        """Say what it is called."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=[self._label])]


class BeforeReading(Collector):
    """No metric: it is told when those that were registered after it are about to be read."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        """Tell."""
        self._settle()
        return ()

    def describe(self) -> Iterable[Metric]:
        """Name nothing."""
        return ()


def _render(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(float(bound))


def _exemplar(decision_id: str, trace_id: str, seconds: float, at: float) -> Exemplar:
    labels = {"decision_id": decision_id}
    if trace_id:
        labels["trace_id"] = trace_id
    return Exemplar(labels, seconds, at)
