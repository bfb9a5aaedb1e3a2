"""What the sidecar spares Triton: its processor time for a text, each a call of its own, over through the sidecar.

Both sides are offered more than they can answer, the same raw texts, and Triton's own batching is on for both. Directly
each text is one call over gRPC; the sidecar batches over its callers. It also asks for a second row where a text has
disguised words, which counts against it. `echo` costs nothing but the call, `accelerator` sleeps as a GPU would.
"""

from collections.abc import Sequence
from typing import Any

from baleen_bench.form import Aim, Effort, Figure, Outcome, compare, noise_of
from baleen_bench.models import ACCELERATOR, ECHO
from baleen_bench.sides import beside_direct
from baleen_sidecar.settings import Durability

NAME = "triton_front_cpu_ratio"
STAND_INS = {ECHO.name: NAME, ACCELERATOR.name: f"{NAME}_accelerator"}
FIGURES = {
    name: Aim(
        what=f"Triton's processor time a text, direct calls over through the sidecar; stand-in `{model}`", goal=">= 4"
    )
    for model, name in STAND_INS.items()
}


def measure(effort: Effort) -> Outcome:
    """Compare what both cost Triton, for each stand-in; when quick, for one."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for model, name in list(STAND_INS.items())[: 1 if effort.quick else None]:
        ratios, noise, found = _compare_on(model, effort)
        figures.append(Figure.of(name, ratios, "ratio", aims=FIGURES, noise=noise, stand_in=model))
        raw[model] = found
    return Outcome(figures=tuple(figures), raw=raw)


def _compare_on(model: str, effort: Effort) -> tuple[list[float], float, Any]:
    with beside_direct(model, "interval", Durability.INTERVAL) as (subject, direct):
        raw = compare(subject, direct, effort).raw
    pairs = zip(_costs(raw[direct.name]), _costs(raw[subject.name]), strict=True)
    noise = noise_of((one, other) for one, other in map(_costs, raw["peer_against_itself"]))
    return [one / other if one and other else 0.0 for one, other in pairs], noise, raw


def _costs(loads: Sequence[dict[str, Any]]) -> list[float]:
    return [load["triton_cpu_us"] or 0.0 for load in loads]
