"""Several callers at a time, each with a load of its own, against one server; what counts is answered in time.

Each is a load generator of its own, and all of them share a core with the model server, which sleeps.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baleen_bench.build import loadgen
from baleen_bench.load import Meter, generator
from baleen_bench.slots import SLOT_SECONDS, Slot, read_slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A server that several callers load; `callers` are the generator's arguments for each of them, by its name.

    `pid` is the server's process, `triton` that of the model server behind it, `cpu` the core of the generators.
    """

    name: str
    url: str
    pid: int
    triton: int
    cpu: int
    callers: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one caller sends: so many requests a second for so long, beginning a while after the first caller."""

    caller: str
    rate: float
    seconds: float
    connections: int
    seed: int
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of one flow: how many were due and answered well in time, and all answers by their kind.

    `started_at` is in seconds since 1970; slots are SLOT_SECONDS each.
    """

    due: int
    in_time: int
    answered: int
    errors: Mapping[str, int]
    unanswered: int
    latency_ms: Mapping[str, float]
    started_at: float
    slots: tuple[Slot, ...]
    generator_cpu_seconds: float

    def between(self, begin_seconds: float, end_seconds: float) -> Slot:
        """Return what was due between two moments, in seconds from the start."""
        return Slot.all_of(self.slots[round(begin_seconds / SLOT_SECONDS) : round(end_seconds / SLOT_SECONDS)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What came of several flows at a time, and the processor time that was spent on them."""

    flows: Mapping[str, Sent]
    server_cpu_seconds: float
    triton_cpu_seconds: float

    @property
    def refused(self) -> int:
        """How many requests were answered, and not well."""
        return sum(sum(sent.errors.values()) for sent in self.flows.values())

    @property
    def answered(self) -> int:
        """How many requests were answered well, in time or not."""
        return sum(sent.answered for sent in self.flows.values())

    def in_time_per_second(self, begin_seconds: float, end_seconds: float) -> float:
        """Return good answers in time a second, to what was due between two moments."""
        found = sum(sent.between(begin_seconds, end_seconds).in_time for sent in self.flows.values())
        return found / (end_seconds - begin_seconds)

    def summary(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {
            "flows": {
                name: {
                    "due": sent.due,
                    "in_time": sent.in_time,
                    "answered": sent.answered,
                    "errors": dict(sent.errors),
                    "unanswered": sent.unanswered,
                    "latency_ms": dict(sent.latency_ms),
                    "in_time_by_slot": [slot.in_time for slot in sent.slots],
                }
                for name, sent in self.flows.items()
            },
            "server_cpu_seconds": round(self.server_cpu_seconds, 3),
            "triton_cpu_seconds": round(self.triton_cpu_seconds, 3),
            "generator_cpu_seconds": round(sum(sent.generator_cpu_seconds for sent in self.flows.values()), 3),
        }


def offer(front: Front, flows: Sequence[Flow], *, deadline_seconds: float) -> Offered:
    """Send several flows side by side, and wait for the last answers of all.

    Raises:
        RuntimeError: a generator could not do its work.
    """
    server, triton = Meter(front.pid), Meter(front.triton)
    begun, reports = time.monotonic(), []
    with ExitStack() as stack:
        for flow in sorted(flows, key=lambda each: each.after_seconds):
            time.sleep(max(0.0, begun + flow.after_seconds - time.monotonic()))
            reports.append((flow, stack.enter_context(generator(_command(front, flow, deadline_seconds)))))
        found = {flow.caller: _read(report(flow.seconds)) for flow, report in reports}
    return Offered(flows=found, server_cpu_seconds=server.used() or 0.0, triton_cpu_seconds=triton.used() or 0.0)


def _command(front: Front, flow: Flow, deadline_seconds: float) -> list[str | Path]:
    return [
        loadgen(),
        f"-target={front.url}",
        *front.callers[flow.caller],
        f"-rate={flow.rate}",
        f"-seconds={flow.seconds}",
        f"-seed={flow.seed}",
        f"-connections={flow.connections}",
        f"-deadline-seconds={deadline_seconds}",
        f"-slot-seconds={SLOT_SECONDS}",
        # Whoever has no answer by then has none in time, however long it is waited for.
        f"-drain-seconds={deadline_seconds + 0.1}",
        f"-cpu={front.cpu}",
    ]


def _read(report: Mapping[str, Any]) -> Sent:
    return Sent(
        due=report["due"],
        in_time=report["in_deadline"],
        answered=report["ok"],
        errors=report["errors"],
        unanswered=report["unfinished"] + report["unsent"],
        latency_ms=report["latency_ms"],
        started_at=report["started_at"],
        slots=read_slots(report),
        generator_cpu_seconds=report["own_cpu_seconds"],
    )
