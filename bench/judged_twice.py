"""What a rollout costs each decision in process: finding its side, judging by both revisions, counting.

The peer is the same decision without a rollout, measured in turns with it, and against itself for the noise.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import engine
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_core.assignment import FULL, Assignment, Exposure
from baleen_core.decision.engine import decide
from baleen_core.decision.snapshot import InForce, LoadedTrial
from baleen_core.records import Cohort, Decision, DecisionRecord, Evidence
from baleen_sidecar.flow.counters import RolloutCounts

VARIANTS: Final = {"threshold": "six categories with thresholds", "rule": "and one rule"}
FIGURES: Final = {
    f"judged_twice_{name}": Aim(what=f"processor time of a decision in a rollout over that without one: {what}")
    for name, what in VARIANTS.items()
} | {
    "judged_twice_us": Aim(what="a decision with thresholds in a rollout"),
    "judged_twice_count_us": Aim(
        what="counting it in a gateway once it is on record, with making a record to be counted"
    ),
}
_CHUNK: Final = 100

Work = Callable[[Evidence], object]
"""One decision about some evidence."""


def measure(effort: Effort) -> Outcome:
    """Decide without a rollout and with one in turns, and count what was decided."""
    evidences = [evidence for _, evidence in engine.examples()]
    with engine.pinned():
        alone = {variant: deciding(engine.prepare(variant)) for variant in VARIANTS}
        tried = {variant: deciding(with_trial(variant)) for variant in VARIANTS}
        counted = counting(with_trial("threshold"), evidences)

        def spent(work: Work) -> float:
            return microseconds(work, evidences, seconds=effort.seconds / 4)

        for work in (*alone.values(), *tried.values(), counted):
            spent(work)  # warms up
        pairs = [(spent(alone["threshold"]), spent(alone["threshold"])) for _ in range(effort.noise_pairs)]
        turns = [
            {f"alone_{variant}": spent(alone[variant]) for variant in VARIANTS}
            | {f"tried_{variant}": spent(tried[variant]) for variant in VARIANTS}
            | {"counted": spent(counted)}
            for _ in range(effort.repetitions)
        ]
    noise = noise_of(pairs)
    ratios = {
        f"judged_twice_{variant}": [turn[f"tried_{variant}"] / turn[f"alone_{variant}"] for turn in turns]
        for variant in VARIANTS
    }
    spans = {
        "judged_twice_us": [turn["tried_threshold"] for turn in turns],
        "judged_twice_count_us": [turn["counted"] for turn in turns],
    }
    figures = [Figure.of(name, values, "ratio", aims=FIGURES, noise=noise) for name, values in ratios.items()]
    figures += [Figure.of(name, values, "CPU us", aims=FIGURES, noise=noise) for name, values in spans.items()]
    return Outcome(figures=tuple(figures), raw={"peer_against_itself": pairs, "turns": turns})


def with_trial(variant: str) -> InForce:
    """Put a policy in force whose edit is rolled out to half of the content."""
    stable = engine.prepare(variant)
    candidate = engine.prepare(variant, block="80%")
    trial = LoadedTrial(
        compiled=replace(candidate.winners[0], cohort=Cohort.CANDIDATE),
        lists=candidate.lists,
        exposure=Exposure(weight_basis_points=FULL // 2),
        assignment=Assignment(salt="of a benchmark" * 3),
        rollout="of a benchmark",
    )
    return replace(stable, rollouts=((stable.winners[0], trial),))


def deciding(in_force: InForce) -> Work:
    """Return what decides."""
    return lambda evidence: _decide(in_force, evidence)


def counting(in_force: InForce, evidences: list[Evidence]) -> Work:
    """Return what counts a decision that was made before."""
    counts, numbers = RolloutCounts("of a benchmark", key=b"of a benchmark"), itertools.count()
    decisions = {evidence.content.digest: _decide(in_force, evidence) for evidence in evidences}

    def work(evidence: Evidence) -> None:
        # Another time each, or it would be taken for what a client sent again.
        time, decision = f"{next(numbers):016}", decisions[evidence.content.digest]
        counts.count(DecisionRecord(id="", time=time, evidence=evidence, decision=decision, latency_microseconds=4_000))

    return work


def _decide(in_force: InForce, evidence: Evidence) -> Decision:
    return decide(in_force.assigned(evidence.context, evidence.content.digest), evidence)


def microseconds(work: Work, evidences: list[Evidence], *, seconds: float) -> float:
    """Return microseconds of processor time for each decision."""
    endless = itertools.cycle(evidences)
    count, begun, ends = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < ends:
        for evidence in itertools.islice(endless, _CHUNK):
            work(evidence)
        count += _CHUNK
    return 1e6 * (time.process_time() - begun) / count
