"""What the product adds to how long a caller waits, over asking the same Triton directly, at a load that both take.

Both are offered the same arrivals: 30 % of what the slower one can answer, latency from the instant at which each was
due. Directly an application tokenises and calls; the product answers over HTTP, and also looks for disguised words,
judges, and keeps a log synced each half second. Of two p99 only the ratio says something; they are not subtracted.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from baleen_bench.form import Aim, Effort, Figure, Outcome, in_turns, noise_of
from baleen_bench.load import Load, Side
from baleen_bench.models import ACCELERATOR
from baleen_bench.sides import beside_direct
from baleen_sidecar.settings import Durability

SHARE = 0.3
P50, P99 = "added_latency_p50_ms", "added_latency_p99_ratio"
SHIPPED = "toxicity"
_LOAD = f"at {SHARE:.0%} of what the slower of both can answer"
FIGURES = {
    P50: Aim(what=f"p50 through the product minus p50 directly, {_LOAD}; stand-in `{ACCELERATOR.name}`", goal="<= 2.5"),
    P99: Aim(what=f"p99 through the product over p99 directly, {_LOAD}; stand-in `{ACCELERATOR.name}`", goal="<= 1.5"),
    f"{P50}_{SHIPPED}": Aim(what=f"the same p50; `{SHIPPED}` on the CPU"),
    f"{P99}_{SHIPPED}": Aim(what=f"the same p99; `{SHIPPED}` on the CPU"),
}


_SHIPPED_REPETITIONS = 3
_SHIPPED_NOISE_PAIRS = 2


def measure(effort: Effort) -> Outcome:
    """Compare latencies, model by model."""
    figures, raw = compare_on(ACCELERATOR.name, effort, names=(P50, P99), stand_in=ACCELERATOR.name)
    of_each: dict[str, Any] = {ACCELERATOR.name: raw}
    if not effort.quick:
        less = replace(effort, repetitions=_SHIPPED_REPETITIONS, noise_pairs=_SHIPPED_NOISE_PAIRS)
        more, of_each[SHIPPED] = compare_on(SHIPPED, less, names=(f"{P50}_{SHIPPED}", f"{P99}_{SHIPPED}"))
        figures += more
    return Outcome(figures=figures, raw=of_each)


def compare_on(
    model: str, effort: Effort, *, names: tuple[str, str], stand_in: str | None = None
) -> tuple[tuple[Figure, ...], Any]:
    """Offer both the same arrivals, in turns; before that, directly against directly."""
    with beside_direct(model, "interval", Durability.INTERVAL) as (subject, direct):
        capacities = {
            side.name: side.calibrate(step_seconds=effort.step_seconds, max_seconds=effort.calibration_seconds)
            for side in (direct, subject)
        }
        # On a busy machine almost nothing may have been answered; some requests there must be.
        rate = max(20 / effort.seconds, SHARE * min(capacity for capacity, _ in capacities.values()))

        def measure(side: Side, seed: int) -> Load:
            return side.offer(rate=rate, seconds=effort.seconds, seed=seed)

        pairs = [(measure(direct, seed), measure(direct, seed)) for seed in range(effort.noise_pairs)]
        loads = in_turns({side.name: side for side in (direct, subject)}, effort.repetitions, measure)
    turns = list(zip(loads[direct.name], loads[subject.name], strict=True))
    added = [_latency(through, "p50") - _latency(alone, "p50") for alone, through in turns]
    ratios = [_latency(through, "p99") / _latency(alone, "p99") for alone, through in turns]
    p50, p99 = names
    figures = (
        Figure.of(p50, added, "ms", aims=FIGURES, noise=_noise_of_added(pairs, added), stand_in=stand_in),
        Figure.of(
            p99,
            ratios,
            "ratio",
            aims=FIGURES,
            noise=noise_of((_latency(one, "p99"), _latency(other, "p99")) for one, other in pairs),
            stand_in=stand_in,
        ),
    )
    raw = {
        "calibration": {name: how for name, (_, how) in capacities.items()},
        "peer_against_itself": [[asdict(one), asdict(other)] for one, other in pairs],
        **{name: [asdict(load) for load in measured] for name, measured in loads.items()},
    }
    return figures, raw


def _noise_of_added(pairs: Sequence[tuple[Load, Load]], added: Sequence[float]) -> float:
    """Return by how much the same p50 differed, relative to what is added, as a figure's noise is to its value."""
    apart = max(abs(_latency(one, "p50") - _latency(other, "p50")) for one, other in pairs)
    value = abs(statistics.median(added))
    return apart / value if value else 1.0


def _latency(load: Load, percentile: str) -> float:
    """Return milliseconds.

    Raises:
        RuntimeError: nothing was answered.
    """
    if percentile not in load.latency_ms:
        raise RuntimeError(f"nothing was answered, so there is no {percentile}; errors: {load.errors}")
    return load.latency_ms[percentile]
