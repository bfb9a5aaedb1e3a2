"""How much longer a caller waits for a decision that is on disk than the disk takes: p99 over p99, at half load.

The whole answer is timed, from the instant at which the request was due. The peer is the disk itself: 4 KiB appended
and synced, again and again, before each load; it is first compared with itself.
"""

import statistics
from dataclasses import asdict

from baleen_bench import policies
from baleen_bench.disk import fdatasync_ms
from baleen_bench.form import Aim, Effort, Figure, Outcome, half_load, noise_of
from baleen_bench.sides import bench
from baleen_sidecar.settings import Durability

NAME = "durable_ack_ratio"
FIGURES = {
    NAME: Aim(what="p99 of decisions on disk before their answer, at half load, over p99 of `fdatasync`", goal="<= 3"),
    "durable_ack_p99_ms": Aim(what="the same p99 by itself"),
    "fdatasync_p99_ms": Aim(what="p99 of appending 4 KiB to a file on the same disk and syncing it"),
}


def measure(effort: Effort) -> Outcome:
    """Time the disk and the decisions in turns."""
    syncs = 50 if effort.quick else 400
    with bench() as here:
        pairs = [
            (fdatasync_ms(here.folder, syncs), fdatasync_ms(here.folder, syncs)) for _ in range(effort.noise_pairs)
        ]
        subject = here.sidecar("fsync", Durability.FSYNC, policies.rule_only())
        found, disk = [], []
        for load in half_load(subject, effort, times=effort.repetitions):
            found.append(load)
            disk.append(fdatasync_ms(here.folder, syncs))
    noise = noise_of((one["p99"], other["p99"]) for one, other in pairs)
    # Of a handful of syncs the slowest says little; all of them are one measurement.
    sync = statistics.median(each["p99"] for each in disk)
    waits = [load.latency_ms["p99"] for load in found]
    figures = (
        Figure.of(NAME, [wait / sync for wait in waits], "ratio", aims=FIGURES, noise=noise),
        Figure.of("durable_ack_p99_ms", waits, "ms", aims=FIGURES, noise=noise),
        Figure.of("fdatasync_p99_ms", [each["p99"] for each in disk], "ms", aims=FIGURES, noise=noise),
    )
    raw = {"disk_against_itself": pairs, "fdatasync_ms": disk, "fsync": [asdict(load) for load in found]}
    return Outcome(figures=figures, raw=raw)
