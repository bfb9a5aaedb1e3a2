"""Microseconds of processor time for a rule-only decision, stage by stage, all stages at the same modest rate.

`empty` is uvicorn and raw ASGI alone; `codec` also reads the request and writes an answer; `decide` also judges;
`interval` is the whole product with a log that is synced each half second; `fsync` the same with every decision on disk
before its answer. At a higher rate each costs less: a busy event loop takes several requests a turn.
"""

from dataclasses import asdict

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.load import HttpSide, Load
from baleen_bench.sides import bench
from baleen_sidecar.settings import Durability

STAGES = {
    "empty": "an empty server",
    "codec": "and reading the request, writing an answer",
    "decide": "and judging by one rule",
    "interval": "the whole product, log synced each half second",
    "fsync": "the whole product, each decision on disk before its answer",
}
FIGURES = {f"decide_cpu_us_{stage}": Aim(what=f"processor time of a request: {what}") for stage, what in STAGES.items()}
_REPETITIONS = 3
_RATE = 1000.0


def measure(effort: Effort) -> Outcome:
    """Give every stage the same load, in turns."""
    with bench() as here:
        sides = [
            here.floor("empty"),
            here.floor("codec"),
            here.floor("decide", policies.rule_only()),
            here.sidecar("interval", Durability.INTERVAL, policies.rule_only()),
            here.sidecar("fsync", Durability.FSYNC, policies.rule_only()),
        ]
        for side in sides:
            _offer(side, effort, seed=0)  # warms up
        pairs = [(_offer(sides[0], effort, seed), _offer(sides[0], effort, seed)) for seed in range(effort.noise_pairs)]
        turns = [
            [_offer(side, effort, 100 + seed) for side in sides]
            for seed in range(min(_REPETITIONS, effort.repetitions))
        ]
    noise = noise_of((one.server_cpu_us, other.server_cpu_us) for one, other in pairs)
    loads = dict(zip(STAGES, zip(*turns, strict=True), strict=True))
    figures = tuple(
        Figure.of(name, [load.server_cpu_us or 0.0 for load in loads[stage]], "µs/request", aims=FIGURES, noise=noise)
        for name, stage in zip(FIGURES, STAGES, strict=True)
    )
    raw = {"peer_against_itself": [[asdict(one), asdict(other)] for one, other in pairs]}
    return Outcome(
        figures=figures, raw=raw | {stage: [asdict(load) for load in found] for stage, found in loads.items()}
    )


def _offer(side: HttpSide, effort: Effort, seed: int) -> Load:
    return side.offer(rate=_RATE, seconds=effort.seconds, seed=seed)
