"""How often a rollout of a candidate that changes nothing is rolled back, with a look at every interval.

Peers on the same streams: a z-test at every look, with the same confidence, and a threshold for each interval alone, as
Flagger has it. (Figures that are rates of simulated rollouts do not depend on the machine.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baleen_bench.form import Aim, Effort, Figure, Outcome, judge, noise_of, significant
from baleen_bench.streams import STREAMS, Rollouts, simulate
from baleen_core.analysis.estimate import hull, light, paired
from baleen_core.analysis.metrics import MIN_SCALE
from baleen_core.analysis.verdict import MIN_GROUPS
from baleen_core.ratio import MILLION

ROLLOUTS: Final = 10_000
LOOKS: Final = 100
DECISIONS: Final = 250
"""Between two looks."""
ALPHA: Final = 0.005
"""Of one metric's two sides at 99 % confidence."""
LIMIT: Final = 0.01
"""Of the threshold, and of the metric in the documentation."""
SCALES: Final = {"limit of 0 %": MIN_SCALE / MILLION, "limit of 1 %": 2 * LIMIT}
"""What the analysis looks for first with such limits (`Metric.scale`)."""
FAILED_CHECKS: Final = 5
"""With so many, Flagger gives up."""
_Z: Final = 2.5758293035489004
"""Quantile of the normal, both sides at 99 %."""
_NAMES: Final = ("independent", "zipf_5", "zipf_50", "tenants_40")
_WHERE: Final = {
    "independent": "independent decisions",
    "zipf_5": "authors by Zipf's law, one with 5 % of the traffic",
    "zipf_50": "the same, one with half of the traffic",
    "tenants_40": "40 tenants, each one unit",
}
FIGURES: Final = {
    "analysis_false_rollback": Aim(
        what="rolled back of 10,000 simulated rollouts without a change, at 99 % and 100 looks each: the worst stream",
        goal="<= 0.01",
    ),
    **{f"analysis_false_rollback_{name}": Aim(what=f"the same: {where}") for name, where in _WHERE.items()},
    "analysis_false_rollback_z_test": Aim(what="the same by a z-test at each look: the worst stream"),
    "analysis_false_rollback_z_test_independent": Aim(what="the same by a z-test at each look: independent decisions"),
    "analysis_false_rollback_threshold": Aim(what="the same by five intervals off by over 1 %: the worst stream"),
    "analysis_false_rollback_threshold_independent": Aim(
        what="the same by five intervals off by over 1 %: independent decisions"
    ),
}


def measure(effort: Effort) -> Outcome:
    """Simulate rollouts of each stream, and count those in which each method has seen a change at any look."""
    rollouts = 50 if effort.quick else ROLLOUTS
    halves = {name: [_count(name, rollouts // 2, seed=seed) for seed in (1, 2)] for name in STREAMS}
    one, other = halves["independent"]
    # The peer against itself: the same stream with other draws.
    noise = noise_of([(_rate(one["z_test"], rollouts // 2), _rate(other["z_test"], rollouts // 2))])
    found = {
        name: {method: first[method] + second[method] for method in first} for name, (first, second) in halves.items()
    }
    rates = {name: {method: _rate(count, rollouts) for method, count in each.items()} for name, each in found.items()}
    values = {f"analysis_false_rollback_{name}": _worst(rates, name, SCALES) for name in _NAMES}
    values["analysis_false_rollback"] = max(values.values())
    for peer in ("z_test", "threshold"):
        values[f"analysis_false_rollback_{peer}"] = _worst(rates, "", [peer])
        values[f"analysis_false_rollback_{peer}_independent"] = rates["independent"][peer]
    figures = tuple(_figure(name, values[name], rollouts, noise) for name in FIGURES)
    return Outcome(figures=figures, raw={"rollouts": rollouts, "rolled_back_by_halves": halves})


def _worst(rates: Mapping[str, Mapping[str, float]], stream: str, methods: Iterable[str]) -> float:
    return max(rates[name][method] for name in rates if name.startswith(stream) for method in methods)


def _rate(count: int, rollouts: int) -> float:
    """Return the part that was rolled back, one more counted, so that none is not taken for never."""
    return (count + 1) / (rollouts + 1)


def _figure(name: str, value: float, rollouts: int, noise: float) -> Figure:
    """Make a figure whose spread is the 99 % interval of a rate of so many rollouts (Wilson)."""
    slack = _Z**2 / rollouts
    middle, half = value + slack / 2, float(np.sqrt(slack * value * (1 - value) + slack**2 / 4))
    goal = FIGURES[name].goal
    value, noise = significant(value), round(noise, 3)
    return Figure(
        id=name,
        value=value,
        unit="of rollouts",
        goal=goal,
        spread=(significant((middle - half) / (1 + slack)), significant((middle + half) / (1 + slack))),
        noise=noise,
        verdict=judge(value, goal, noise),
    )


def _count(name: str, rollouts: int, *, seed: int) -> dict[str, int]:
    """Return of how many rollouts each method thinks that something has changed, at any look."""
    total: Counter[str] = Counter()
    simulated = simulate(STREAMS[name], rollouts=rollouts, looks=LOOKS, decisions=DECISIONS, increase=0.0, seed=seed)
    for some in simulated:
        for method, alarms in _alarms(some).items():
            total[method] += int(alarms.any(axis=1).sum())
    return dict(total)


def _alarms(some: Rollouts) -> dict[str, NDArray[Any]]:
    """Say of each rollout and look whether a method sees a change there; shapes `(rollouts, looks)`."""
    counts = (some.decisions, some.lost, some.gained, some.gained + some.lost)
    kept = light(some.decisions)
    every, lighter = paired(*counts), paired(*(each * kept for each in counts))
    alarms = {"z_test": np.abs(every.change) > _Z * np.sqrt(every.independent)}
    for name, scale in SCALES.items():
        change = hull(every, lighter, alpha=ALPHA, scale=scale)
        alarms[name] = ((change.lower > 0) | (change.upper < 0)) & (change.groups >= MIN_GROUPS)
    decided, differing = (
        np.diff(each.sum(axis=-1), axis=1, prepend=0) for each in (some.decisions, some.gained - some.lost)
    )
    failed = np.abs(differing) > LIMIT * decided
    alarms["threshold"] = np.cumsum(failed, axis=1) >= FAILED_CHECKS
    return alarms
