"""Offer load to a server and read what came back, together with the processor time that everybody spent on it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from baleen_bench.build import loadgen
from baleen_bench.children import Child
from baleen_bench.machine import cpu_seconds

CONNECTIONS: Final = 64
OVERLOAD: Final = 1.3
"""Capacity is what is answered while this much of it is offered."""
_LONGEST_SECONDS: Final = 600.0
"""The longest load, or search for the most, that a generator takes."""
GRACE_SECONDS: Final = 60.0
"""How much longer than its load a generator may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One offered load: requests a second offered and well answered, latencies from the instant due, who paid for it.

    Costs are microseconds of processor time for each answer; None where there is no such process.
    """

    offered_per_second: float
    achieved_per_second: float
    answered: int
    errors: dict[str, int]
    latency_ms: dict[str, float]
    histogram: list[dict[str, float]]
    server_cpu_us: float | None
    generator_cpu_us: float | None = None
    triton_cpu_us: float | None = None


class Side(Protocol):
    """A subject or its peer: something that takes load."""

    @property
    def name(self) -> str:
        """What stands in the results."""

    def calibrate(self, *, step_seconds: float, max_seconds: float) -> tuple[float, Any]:
        """Return about how many requests a second it can answer, and how that was found."""

    def offer(self, *, rate: float, seconds: float, seed: int) -> Load:
        """Offer Poisson arrivals, and wait for the last answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSide:
    """A server that answers POSTs; `requests` has one body a line, `triton` is the process id of what it asks."""

    name: str
    server: Child
    requests: Path
    cpu: int
    path: str = "/v1/moderate"
    triton: int | None = None
    start_rate: float = 500.0
    headers: tuple[str, ...] = ()
    """More of them, such as `X-API-Key: …`."""

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.server.port}{self.path}"

    def calibrate(self, *, step_seconds: float, max_seconds: float) -> tuple[float, Any]:
        """See Side."""
        found = run_generator(
            self.command(
                "-max", f"-rate={self.start_rate}", f"-step-seconds={step_seconds}", f"-max-seconds={max_seconds}"
            )
        )
        steps = [(round(step["offered_per_second"]), round(step["achieved_per_second"])) for step in found["steps"]]
        return found["saturation_per_second"], {"reached": found["reached"], "offered_achieved": steps}

    def offer(self, *, rate: float, seconds: float, seed: int) -> Load:
        """See Side."""
        server, triton = Meter(self.server.pid), Meter(self.triton)
        report = run_generator(self.command(f"-rate={rate}", f"-seconds={seconds}", f"-seed={seed}"))
        return read_load(report, server=server.used(), generator=report["own_cpu_seconds"], triton=triton.used())

    def command(self, *arguments: str) -> Sequence[str | Path]:
        """Return what runs the load generator against it, with more arguments."""
        return [
            loadgen(),
            f"-target={self.url}",
            f"-lines={self.requests}",
            "-header=Content-Type: application/json",
            *(f"-header={each}" for each in self.headers),
            f"-connections={CONNECTIONS}",
            f"-cpu={self.cpu}",
            *arguments,
        ]


class Meter:
    """Processor time of a process and those below it, from now on; None measures nothing."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._before = cpu_seconds(pid) if pid is not None else 0.0

    def used(self) -> float | None:
        """Return the seconds that were used since."""
        return None if self._pid is None else cpu_seconds(self._pid) - self._before


@contextmanager
def generator(command: Sequence[str | Path]) -> Iterator[Callable[[float], dict[str, Any]]]:
    """Run a load generator until the end of the block; call what is given with the seconds of its load.

    That returns its report, or raises RuntimeError where it could not do its work.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:

        def report(seconds: float) -> dict[str, Any]:
            said, errors = process.communicate(timeout=seconds + GRACE_SECONDS)
            if process.returncode:
                raise RuntimeError(f"the load generator failed: {errors.strip()}")
            found: dict[str, Any] = json.loads(said)
            return found

        try:
            yield report
        finally:
            process.kill()


def run_generator(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run a load generator, and read its report.

    Raises:
        RuntimeError: it could not do its work.
    """
    with generator(command) as report:
        return report(_LONGEST_SECONDS)


def read_load(
    report: dict[str, Any], *, server: float | None, generator: float | None = None, triton: float | None = None
) -> Load:
    """Put a generator's report and the seconds of processor time that everybody used together."""
    answered = report["ok"] + sum(report["errors"].values())

    def each(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds / max(1, answered) * 1e6, 1)

    return Load(
        offered_per_second=round(report["offered_per_second"], 1),
        achieved_per_second=round(report["achieved_per_second"], 1),
        answered=answered,
        errors=report["errors"],
        latency_ms=report["latency_ms"],
        histogram=report["histogram"],
        server_cpu_us=each(server),
        generator_cpu_us=each(generator),
        triton_cpu_us=each(triton),
    )
