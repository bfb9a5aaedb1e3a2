"""The slowest hundredth of rule-only decisions at half of what one core can answer, with a log synced each half second.

The peer is the server without the decision, at half of what it can answer: it says how noisy the machine was.
"""

from dataclasses import asdict

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, half_load, noise_of
from baleen_bench.sides import bench
from baleen_sidecar.settings import Durability

NAME = "decide_p99_ms_at_half_load"
FIGURES = {
    NAME: Aim(
        what="p99 of rule-only decisions at half of one core's capacity, log synced each half second", goal="< 10"
    )
}


def measure(effort: Effort) -> Outcome:
    """Offer half of what each can answer."""
    with bench() as here:
        peer = here.floor("codec")
        subject = here.sidecar("interval", Durability.INTERVAL, policies.rule_only())
        pairs = list(half_load(peer, effort, times=2 * effort.noise_pairs))
        found = list(half_load(subject, effort, times=effort.repetitions))
    noise = noise_of(
        (one.latency_ms["p99"], other.latency_ms["p99"]) for one, other in zip(pairs[::2], pairs[1::2], strict=True)
    )
    figure = Figure.of(NAME, [load.latency_ms["p99"] for load in found], "ms", aims=FIGURES, noise=noise)
    raw = {"peer_against_itself": [asdict(load) for load in pairs], "interval": [asdict(load) for load in found]}
    return Outcome(figures=(figure,), raw=raw)
