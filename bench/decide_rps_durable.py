"""Rule-only decisions a second on one core, every one of them on disk before its answer.

The peer is the same server without the decision: it says how noisy the machine was. How long the disk takes for one
`fdatasync` is in the raw data.
"""

from baleen_bench import policies
from baleen_bench.disk import fdatasync_ms
from baleen_bench.form import Aim, Effort, Figure, Outcome, compare
from baleen_bench.sides import bench
from baleen_sidecar.settings import Durability

NAME = "decide_rps_durable"
FIGURES = {NAME: Aim(what="rule-only decisions a second on one core, each on disk before its answer", goal=">= 5000")}
_SYNCS = 50


def measure(effort: Effort) -> Outcome:
    """Measure the product's capacity with a durable log."""
    with bench() as here:
        disk = fdatasync_ms(here.folder, _SYNCS)
        floor = here.floor("codec")
        subject = here.sidecar("fsync", Durability.FSYNC, policies.rule_only())
        found = compare(subject, floor, effort)
    figure = Figure.of(NAME, found.subject, "requests/s", aims=FIGURES, noise=found.noise)
    return Outcome(figures=(figure,), raw=found.raw | {"fdatasync_ms": disk})
