"""Benchmarks with the least effort: do they run, and measure what they declare?"""

import os
from math import isfinite
from typing import Any, Final

import pytest

from baleen_bench.children import Child
from baleen_bench.form import QUICK
from baleen_bench.scripts import load_script
from forked import ForkedProcess

DIFFERENCES: Final = frozenset({"added_latency_p50_ms"})
"""What may be below zero."""
BEGUN_ANEW: Final = "decide_ratio_floor"
"""Its servers begin as they do when they are measured: a floor and the product."""


def assert_measures_what_it_declares(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script of bench/."""
    if name != BEGUN_ANEW:
        monkeypatch.setattr(Child, "start", staticmethod(_fork))
    script = load_script(name)

    outcome = script.measure(QUICK)

    measured = {figure.id for figure in outcome.figures}
    assert measured
    assert measured <= set(script.FIGURES)
    # Of so little time nothing may be left to count, where others are busy.
    assert all(isfinite(figure.value) for figure in outcome.figures)
    assert all(figure.value >= 0 for figure in outcome.figures if figure.id not in DIFFERENCES)


def _fork(module: str, arguments: tuple[str, ...], **how: Any) -> ForkedProcess:
    return ForkedProcess(module, *arguments, environment=os.environ, **how)
