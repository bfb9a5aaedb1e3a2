import os
from math import isfinite

import pytest

from baleen_bench.children import Child
from baleen_bench.form import QUICK
from baleen_bench.scripts import IN_CLUSTER, NAMES, ON_NODE, load_script
from forked import ForkedProcess

DIFFERENCES = frozenset({"added_latency_p50_ms"})
"""What may be below zero."""
BEGUN_ANEW = "refuse_cpu_us"
"""Its servers begin as they do when they are measured: a floor and the product."""


def fork(module, arguments, **how):
    return ForkedProcess(module, *arguments, environment=os.environ, **how)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.cluster if name in IN_CLUSTER else pytest.mark.triton)
        for name in NAMES
        if name not in ON_NODE
    ],
)
def test_every_benchmark_runs_and_measures_what_it_declares(name, monkeypatch):
    if name != BEGUN_ANEW:
        monkeypatch.setattr(Child, "start", staticmethod(fork))
    script = load_script(name)

    outcome = script.measure(QUICK)

    measured = {figure.id for figure in outcome.figures}
    assert measured
    assert measured <= set(script.FIGURES)
    # Of so little time nothing may be left to count, where others are busy.
    assert all(isfinite(figure.value) for figure in outcome.figures)
    assert all(figure.value >= 0 for figure in outcome.figures if figure.id not in DIFFERENCES)
