"""Throughput of rule-only decisions on one core, over a server that only reads and writes with the same codec.

The subject is the whole product in one process: parsing, language, rules, metrics, and the decision on disk before its
answer. The floor is raw ASGI on the same uvicorn, settings and core.
"""

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, compare
from baleen_bench.sides import bench
from baleen_sidecar.settings import Durability

NAME = "decide_ratio_floor"
FIGURES = {
    NAME: Aim(what="rule-only decisions a second on one core, over a server that only reads and writes", goal=">= 0.4")
}


def measure(effort: Effort) -> Outcome:
    """Compare the product with its floor."""
    with bench() as here:
        floor = here.floor("codec")
        subject = here.sidecar("fsync", Durability.FSYNC, policies.rule_only())
        found = compare(subject, floor, effort)
    figure = Figure.of(NAME, found.ratios, "ratio", aims=FIGURES, noise=found.noise)
    return Outcome(figures=(figure,), raw=found.raw)
