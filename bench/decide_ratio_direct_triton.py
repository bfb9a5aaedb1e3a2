"""Throughput of the whole product over an application that asks the same Triton itself, on the same raw texts.

Both tokenise, both make one call over gRPC for each text, and Triton batches for both. The product also looks for
disguised words (a second row, where there are any), judges, and has every decision on disk before its answer. Both run
on one core, Triton and the load generator on the other. `accelerator` sleeps as a GPU would take time; with shipped
models on a CPU the model is the cost, so those figures have no goal.
"""

from dataclasses import replace
from typing import Any

from baleen_bench.form import Aim, Comparison, Effort, Figure, Outcome, compare
from baleen_bench.models import ACCELERATOR
from baleen_bench.sides import beside_direct
from baleen_sidecar.settings import Durability

NAME = "decide_ratio_direct_triton"
SHIPPED = {"toxicity": f"{NAME}_toxicity", "text-safety": f"{NAME}_text_safety"}
_WHAT = "texts a second on one core, over an application that calls Triton itself"
FIGURES = {
    NAME: Aim(what=f"{_WHAT}; stand-in `{ACCELERATOR.name}`", goal=">= 1.0"),
    **{name: Aim(what=f"{_WHAT}; shipped model `{model}` on the CPU") for model, name in SHIPPED.items()},
}
_SHIPPED_REPETITIONS = 3
_SHIPPED_NOISE_PAIRS = 2


def measure(effort: Effort) -> Outcome:
    """Compare product and direct calls, model by model."""
    found = compare_on(ACCELERATOR.name, effort)
    figures = [Figure.of(NAME, found.ratios, "ratio", aims=FIGURES, noise=found.noise, stand_in=ACCELERATOR.name)]
    raw: dict[str, Any] = {ACCELERATOR.name: found.raw}
    less = replace(effort, repetitions=_SHIPPED_REPETITIONS, noise_pairs=_SHIPPED_NOISE_PAIRS)
    for model, name in SHIPPED.items() if not effort.quick else ():
        found = compare_on(model, less)
        figures.append(Figure.of(name, found.ratios, "ratio", aims=FIGURES, noise=found.noise))
        raw[model] = found.raw
    return Outcome(figures=tuple(figures), raw=raw)


def compare_on(model: str, effort: Effort) -> Comparison:
    """Compare both on one model; each signal of it is a category of the policy."""
    with beside_direct(model, "fsync", Durability.FSYNC) as (subject, direct):
        return compare(subject, direct, effort)
