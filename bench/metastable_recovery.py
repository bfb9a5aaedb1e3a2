"""After an outage of half a minute whose callers try again all the while: how long until all is well.

The stand-in `stub` answers 400 texts a second, and 0.8 times that is asked for. Each request that is not answered by
the model within half a second is made again, up to three times, after a tenth of a second or so and whatever
`Retry-After` says: without a model there are four times as many, more than it can answer once it is back. The model
server is stopped (SIGSTOP) for 30 s with all its connections open, and goes on with what it was asked before.

What an answer is worth is whether the model gave it: a decision without the model is `spoiled` here, and is asked for
again, though it is one. There is no peer. Noise is how far one recovery is from the other.
"""

import os
import signal
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from baleen_bench import policies
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_bench.load import HttpSide, Meter, generator
from baleen_bench.models import STUB, STUB_PER_SECOND, load
from baleen_bench.sides import bench
from baleen_bench.slots import GOOD_SHARE, SLOT_SECONDS, Slot, read_slots, recovery_seconds
from baleen_bench.texts import messages, requests, write_lines
from baleen_bench.triton import triton
from baleen_sidecar.settings import Durability

LOAD: Final = 0.8
RETRIES: Final = 3
GIVE_UP_SECONDS: Final = 0.5
WELL_SECONDS: Final = 5.0
"""It counts as well when it is so in every second for so long: a system that is metastable falls back."""
_TEXTS: Final = 8_192
"""All different: equal ones at a time would be answered together."""
FIGURES = {
    "metastable_recovery_s": Aim(
        what=f"the model is back after 30 s in which callers tried again, until {GOOD_SHARE:.0%} of what is due is "
        f"answered by it within {GIVE_UP_SECONDS} s; {LOAD} times its capacity, the worst of two; "
        f"stand-in `{STUB.name}`",
        goal="<= 5",
    ),
    "metastable_attempts": Aim(
        what=f"attempts for each request, before, meanwhile and after; stand-in `{STUB.name}`",
    ),
    "metastable_attempt_cpu_us": Aim(
        what=f"the sidecar's processor time of an attempt; stand-in `{STUB.name}`",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds under load before the outage, of the outage, and after it; of those, for how long it must be well."""

    before: float
    outage: float
    after: float
    well: float

    @property
    def all(self) -> float:
        return self.before + self.outage + self.after


FULL: Final = Times(before=4.0, outage=30.0, after=12.0, well=WELL_SECONDS)
QUICK: Final = Times(before=0.3, outage=0.5, after=1.0, well=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One outage, and what came of it; `back_at` is in seconds from the start of the load."""

    times: Times
    slots: tuple[Slot, ...]
    back_at: float
    attempts: int
    failures: dict[str, int]
    server_cpu_seconds: float
    generator_cpu_seconds: float

    @property
    def recovery_seconds(self) -> float:
        return recovery_seconds(
            self.slots,
            after_seconds=self.back_at,
            never_seconds=len(self.slots) * SLOT_SECONDS - self.back_at,
            well_seconds=self.times.well,
        )

    @property
    def due(self) -> int:
        return sum(slot.due for slot in self.slots)

    def summary(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {
            "recovery_s": round(self.recovery_seconds, 3),
            "back_at_s": round(self.back_at, 3),
            "due": self.due,
            "attempts": self.attempts,
            "failures": self.failures,
            "due_good_by_slot": [(slot.due, slot.in_time) for slot in self.slots],
            "server_cpu_seconds": round(self.server_cpu_seconds, 3),
            "generator_cpu_seconds": round(self.generator_cpu_seconds, 3),
        }


def measure(effort: Effort) -> Outcome:
    """Have the model away twice, or once and for a moment."""
    times = QUICK if effort.quick else FULL
    with bench() as here, triton(STUB.name, cpu=here.cores.other) as server:
        subject = here.sidecar(
            "metastable",
            Durability.INTERVAL,
            policies.threshold(*load(STUB.name).signal_names()),
            triton=server,
            model=STUB.name,
            has_golden=True,
        )
        asked = write_lines(here.folder / "insistent.jsonl", requests(messages(_TEXTS, seed=11)))
        subject = replace(subject, requests=asked, headers=(f"X-Baleen-Deadline-Ms: {round(GIVE_UP_SECONDS * 1000)}",))
        found = [_go_away(subject, times, seed) for seed in range(1 if effort.quick else 2)]
    seconds = [each.recovery_seconds for each in found]
    attempts = [each.attempts / max(1, each.due) for each in found]
    costs = [each.server_cpu_seconds / max(1, each.attempts) * 1e6 for each in found]
    one, other = found[0], found[-1]
    noise = noise_of([(one.recovery_seconds, other.recovery_seconds)])
    return Outcome(
        figures=(
            Figure.of("metastable_recovery_s", [max(seconds)], "s", aims=FIGURES, noise=noise, stand_in=STUB.name),
            Figure.of("metastable_attempts", attempts, "ratio", aims=FIGURES, stand_in=STUB.name),
            Figure.of("metastable_attempt_cpu_us", costs, "µs", aims=FIGURES, stand_in=STUB.name),
        ),
        raw={"times": {"before": times.before, "outage": times.outage}, "outages": [each.summary() for each in found]},
    )


def _go_away(subject: HttpSide, times: Times, seed: int) -> Outage:
    """Stop the model server under load, and have it go on."""
    assert subject.triton is not None
    meter = Meter(subject.server.pid)
    command = subject.command(
        f"-rate={LOAD * STUB_PER_SECOND}",
        f"-seconds={times.all}",
        f"-seed={seed}",
        f"-retries={RETRIES}",
        f"-slot-seconds={SLOT_SECONDS}",
        f"-deadline-seconds={GIVE_UP_SECONDS}",
        f'-spoiled-by="degraded":["{STUB.name}"]',
    )
    with generator(command) as report:
        time.sleep(times.before)
        os.kill(subject.triton, signal.SIGSTOP)
        try:
            time.sleep(times.outage)
        finally:
            back_at = time.time()
            os.kill(subject.triton, signal.SIGCONT)
        found = report(times.after)
    return Outage(
        times=times,
        slots=read_slots(found),
        back_at=back_at - found["started_at"],
        attempts=found["attempts"],
        failures=found["failures"],
        server_cpu_seconds=meter.used() or 0.0,
        generator_cpu_seconds=found["own_cpu_seconds"],
    )
