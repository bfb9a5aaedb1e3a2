"""What is counted in plain numbers says what the library's own metrics would say."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from baleen_sidecar.web.tally import BeforeReading, SecondsTally

BOUNDS = (0.5, 1.0, 2.5)
observations = st.lists(
    st.tuples(st.sampled_from(["text", "image"]), st.floats(0, 4) | st.sampled_from(BOUNDS)), max_size=20
)


def tally(registry: CollectorRegistry) -> SecondsTally:
    made = SecondsTally("seconds", "Some", "kind", (*BOUNDS, inf))
    registry.register(made)
    return made


def told(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], object]:
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): (
            sample.value,
            sample.exemplar and (sample.exemplar.labels, sample.exemplar.value),
        )
        for sample in samples
        if not sample.name.endswith("_created")
    }


@given(observations)
def test_it_says_what_the_library_says_of_the_same_seconds(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counted = tally(ours)
    histogram = Histogram("seconds", "Some", ["kind"], buckets=BOUNDS, registry=theirs)
    for index, (kind, seconds) in enumerate(observed):
        exemplar = {"decision_id": f"d{index}"} | ({"trace_id": f"t{index}"} if index % 2 else {})
        counted.observe(kind, seconds, f"d{index}", exemplar.get("trace_id", ""))
        histogram.labels(kind).observe(seconds, exemplar)

    assert told(ours) == told(theirs)
    assert {line for line in generate_latest(ours).splitlines() if line.startswith(b"#")} == {
        line for line in generate_latest(theirs).splitlines() if line.startswith(b"#")
    }


def test_when_it_began_is_told_too() -> None:
    registry = CollectorRegistry()
    tally(registry).observe("text", 1.0, "d", "")

    assert b"seconds_created" in generate_latest(registry)


def test_what_is_told_before_reading_is_in_what_is_read() -> None:
    registry, counted = CollectorRegistry(), []
    registry.register(BeforeReading(lambda: counted.append(1)))
    made = tally(registry)
    made.observe("text", 0.5, "d", "")

    assert told(registry)
    assert len(counted) == 1
    assert made.read() == {"text": ((1.0, 1.0, 1.0, 1.0), pytest.approx(0.5))}
