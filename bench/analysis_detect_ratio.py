"""How many decisions it takes to find a real increase, over those that the best test at one fixed time needs.

The peer knows the increase beforehand and looks once, when it will find it in four of five rollouts, as studies are
planned; it may not look earlier, nor again. Where authors differ it takes the variance from the groups, too.
"""

from math import isfinite
from typing import Final

import numpy as np

from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.streams import STREAMS, Floats, simulate
from baleen_core.analysis.boundary import student_deviations
from baleen_core.analysis.estimate import paired, paired_change
from baleen_core.analysis.verdict import MIN_GROUPS

ROLLOUTS: Final = 500
LOOKS: Final = 150
ALPHA: Final = 0.005
"""Of one metric's two sides at 99 % confidence; the peer has as much for its one."""
LIMIT: Final = 0.01
INCREASE: Final = 0.02
POWER: Final = 0.8
_Z: Final = 2.5758293035489004
"""Quantile of the normal at 1 - ALPHA."""
_DECISIONS: Final = {"independent": 80, "zipf_5_5": 80, "zipf_50_5": 400}
"""Between two looks, by stream."""
_COMPARED: Final = ("independent", "zipf_5_5")
"""With half of the traffic by one author, no test that draws its variance from groups ever is sure enough alone."""
FIGURES: Final = {
    "analysis_detect_ratio": Aim(
        what="median decisions to find an increase of 2 % where 1 % is allowed, over those of the best test at a fixed "
        "time, with 80 % power: the worse of independent decisions and Zipf authors",
        goal="<= 1.5",
    ),
    "analysis_detect_ratio_half": Aim(what="the same over a test that finds it in half of all rollouts only"),
    "analysis_detect_ratio_most": Aim(what="decisions by which 80 % of rollouts have found it, over that test's"),
    "analysis_detect_decisions_independent": Aim(what="median decisions to find it: independent decisions"),
    "analysis_detect_decisions_zipf_5": Aim(what="the same: authors by Zipf's law, one with 5 % of the traffic"),
    "analysis_detect_decisions_zipf_50": Aim(what="the same: one with half of the traffic"),
}


def measure(effort: Effort) -> Outcome:
    """Simulate rollouts with an increase, and see at which look each method finds it."""
    rollouts = 50 if effort.quick else ROLLOUTS
    turns = [{name: _turn(name, rollouts, seed=seed) for name in _DECISIONS} for seed in range(effort.repetitions)]
    pairs = [
        (turns[0][name]["fixed"], _turn(name, rollouts, seed=100 + seed)["fixed"])
        for seed in range(effort.noise_pairs)
        for name in _COMPARED
    ]
    noise = noise_of(pairs)

    def ratios(above: str, below: str) -> list[float]:
        return [max(turn[name][above] / turn[name][below] for name in _COMPARED) for turn in turns]

    figures = [
        Figure.of(name, ratios(above, below), "ratio", aims=FIGURES, noise=noise)
        for name, above, below in (
            ("analysis_detect_ratio", "median", "fixed"),
            ("analysis_detect_ratio_half", "median", "fixed_half"),
            ("analysis_detect_ratio_most", "most", "fixed"),
        )
    ]
    for name in _DECISIONS:
        figure = f"analysis_detect_decisions_{name.removesuffix('_5')}"
        medians = [turn[name]["median"] for turn in turns]
        figures.append(Figure.of(figure, medians, "decisions", aims=FIGURES, noise=noise))
    # JSON has no infinity.
    kept = [
        {
            name: {key: value if isfinite(value) else None for key, value in found.items()}
            for name, found in turn.items()
        }
        for turn in turns
    ]
    return Outcome(figures=tuple(figures), raw={"rollouts": rollouts, "turns": kept, "peer_against_itself": pairs})


def _turn(name: str, rollouts: int, *, seed: int) -> dict[str, float]:
    """Return decisions: by which half and most rollouts have found it, and after which the fixed tests look."""
    decisions = _DECISIONS[name]
    looks: list[Floats] = []
    found: list[Floats] = []
    for some in simulate(
        STREAMS[name], rollouts=rollouts, looks=LOOKS, decisions=decisions, increase=INCREASE, seed=seed
    ):
        counts = (some.decisions, some.lost, some.gained, some.gained + some.lost)
        change = paired_change(*counts, alpha=ALPHA, scale=2 * LIMIT)
        alarms = (change.lower > LIMIT) & (change.groups >= MIN_GROUPS)
        looks.append(np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, np.inf))
        estimate = paired(*counts)
        if STREAMS[name].parts:
            margin = student_deviations(_Z, estimate.freedom) * np.sqrt(estimate.clustered)
        else:
            margin = _Z * np.sqrt(estimate.independent)
        found.append((estimate.change - margin > LIMIT).astype(np.float64))
    first, power = np.concatenate(looks), np.concatenate(found).mean(axis=0)
    return {
        "median": decisions * float(np.quantile(first, 0.5, method="higher")),
        "most": decisions * float(np.quantile(first, POWER, method="higher")),
        "found": float(np.isfinite(first).mean()),
        "fixed": decisions * _first(power >= POWER),
        "fixed_half": decisions * _first(power >= 0.5),
    }


def _first(enough: Floats) -> float:
    """Return the first look with enough power; infinite without one."""
    return float(enough.argmax() + 1) if enough.any() else float("inf")
