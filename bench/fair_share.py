"""How far seven tenants, who together ask for seven eighths of a model's capacity, are from it while an eighth floods.

The stand-in `stub` answers 400 texts a second. Each of the seven asks for its fair share, an eighth, and gets it when
all that it asks for is answered well within half a second of the instant at which it was due; the eighth tenant asks
for eight times capacity. There is no peer: noise is the worst of the seven in two runs of the same load. What is due in
the first second is left out: until the flood has come to everything there is enough for all.
"""

from dataclasses import dataclass
from typing import Any, Final

from baleen_bench.flows import Flow, Front, Offered, offer
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.models import STUB, STUB_PER_SECOND
from baleen_bench.saturable import DEADLINE_SECONDS, Caller, stage

CALM: Final = tuple(f"tenant-{number}" for number in range(1, 8))
FLOOD: Final = "tenant-8"
FLOOD_TIMES: Final = 8
_FAIR: Final = STUB_PER_SECOND / 8
_SINCE_SECONDS: Final = 1.0
_LENGTHENED: Final = 2.4
"""By what a run is longer than others: each of the seven sends no more than 50 requests a second."""
FIGURES = {
    "fair_share_error": Aim(
        what=f"the worst deviation of seven tenants from their fair share of a model while an eighth asks for "
        f"{FLOOD_TIMES} times its capacity; stand-in `{STUB.name}`",
        goal="<= 0.10",
    ),
    "fair_share_goodput": Aim(
        what=f"part of the model's capacity answered within the deadline meanwhile; stand-in `{STUB.name}`"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load of all eight."""

    since: float
    seconds: float
    offered: Offered

    @property
    def shares(self) -> dict[str, float]:
        """For each of the seven, what it got of what it asked for."""
        return {name: self.offered.flows[name].between(self.since, self.seconds).share for name in CALM}

    @property
    def error(self) -> float:
        return max(abs(1 - share) for share in self.shares.values())

    @property
    def goodput(self) -> float:
        return self.offered.in_time_per_second(self.since, self.seconds) / STUB_PER_SECOND

    def summary(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {"shares": self.shares, "goodput": self.goodput, **self.offered.summary()}


def measure(effort: Effort) -> Outcome:
    """Offer the same load several times."""
    with stage(quick=effort.quick) as on:
        front = on.sidecar({name: Caller(tenant=name) for name in (*CALM, FLOOD)})
        _offer(front, effort, 0)  # warms up
        pairs = [(_offer(front, effort, seed), _offer(front, effort, seed)) for seed in range(effort.noise_pairs)]
        runs = [_offer(front, effort, 100 + repetition) for repetition in range(effort.repetitions)]
    noise = noise_of((1 - one.error, 1 - other.error) for one, other in pairs)
    figures = (
        Figure.of(
            "fair_share_error",
            [each.error for each in runs],
            "ratio",
            aims=FIGURES,
            noise=noise,
            stand_in=STUB.name,
        ),
        Figure.of(
            "fair_share_goodput",
            [each.goodput for each in runs],
            "ratio",
            aims=FIGURES,
            noise=noise_of((one.goodput, other.goodput) for one, other in pairs),
            stand_in=STUB.name,
        ),
    )
    raw = {
        "against_itself": [[one.summary(), other.summary()] for one, other in pairs],
        "runs": [each.summary() for each in runs],
    }
    return Outcome(figures=figures, raw=raw)


def _offer(front: Front, effort: Effort, seed: int) -> Run:
    since = 0.0 if effort.quick else _SINCE_SECONDS
    seconds = since + effort.seconds * (1.0 if effort.quick else _LENGTHENED)
    flows = [
        Flow(caller=name, rate=_FAIR, seconds=seconds, connections=64, seed=100 * seed + number)
        for number, name in enumerate(CALM)
    ]
    flood = Flow(
        caller=FLOOD, rate=FLOOD_TIMES * STUB_PER_SECOND, seconds=seconds, connections=512, seed=100 * seed + 99
    )
    offered = offer(front, [*flows, flood], deadline_seconds=DEADLINE_SECONDS)
    return Run(since=since, seconds=seconds, offered=offered)
