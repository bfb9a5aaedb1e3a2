"""Pods on a node of this machine: what they use of it, and load that comes out of the network of one of them."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from baleen_bench.build import loadgen
from baleen_bench.children import BENCH
from baleen_bench.form import CannotMeasure
from baleen_bench.load import CONNECTIONS, run_generator

# The node and the images are those of the tests: there is one way to make each.
sys.path.insert(0, str(BENCH.parent / "tests" / "support"))

import node_cluster
from debian_packages import PackagesMissing
from node_cluster import NodeCluster, NodeUnavailable

DRAIN_SECONDS: Final = 20.0


@contextmanager
def containers() -> Iterator[None]:
    """Make the machine ready to run containers.

    Raises:
        CannotMeasure: it cannot, here or within the block: nobody is root, or something cannot be installed.
    """
    try:
        node_cluster.prepare()
        yield
    except (NodeUnavailable, PackagesMissing) as exc:
        raise CannotMeasure(str(exc)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A running pod, by its name and its control groups; in version 2 these two are one."""

    name: str
    memory: Path
    cpu: Path

    @classmethod
    def find(cls, cluster: NodeCluster, name: str, namespace: str) -> Self:
        """Look a pod up that runs."""
        memory, cpu = (cluster.control_group(name, namespace, controller) for controller in ("memory", "cpuacct"))
        return cls(name=name, memory=memory, cpu=cpu)

    def pid(self) -> int:
        """Return this machine's number of one of its processes, which all have the pod's network."""
        found = (pid for file in sorted(self.cpu.rglob("cgroup.procs")) for pid in file.read_text().split())
        return int(next(found))

    def memory_mib(self) -> float:
        """Return its working set, as `kubectl top` does: all that is charged to it, without files not used lately."""
        return working_set(self.memory) / 2**20

    def anonymous_mib(self) -> float:
        """Return how much of that belongs to no file: what the processes have allocated."""
        return anonymous(self.memory) / 2**20

    def cpu_seconds(self) -> float:
        """Return the processor time that all its processes have used."""
        return used_seconds(self.cpu)


def working_set(group: Path) -> int:
    """Return the bytes of a control group's working set."""
    unified = group / "memory.current"
    if unified.exists():
        return int(unified.read_text()) - _stat(group / "memory.stat")["inactive_file"]
    return int((group / "memory.usage_in_bytes").read_text()) - _stat(group / "memory.stat")["total_inactive_file"]


def anonymous(group: Path) -> int:
    """Return the bytes of a control group's memory that belong to no file."""
    stat = _stat(group / "memory.stat")
    return stat["total_rss"] if "total_rss" in stat else stat["anon"]


def used_seconds(group: Path) -> float:
    """Return the processor time of a control group and those below it."""
    unified = group / "cpu.stat"
    if unified.exists():
        return _stat(unified)["usage_usec"] / 1e6
    return int((group / "cpuacct.usage").read_text()) / 1e9


def _stat(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in lines}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The load generator in a pod's network, on one core; `requests` has one body a line."""

    pid: int
    requests: Path
    cpu: int
    headers: Mapping[str, str]

    def offer(
        self, url: str, *, rate: float, seconds: float, seed: int, connections: int = CONNECTIONS, fresh: bool = False
    ) -> dict[str, Any]:
        """Offer Poisson arrivals, wait for the last answers, and return the generator's report."""
        headers = {"Content-Type": "application/json", **self.headers}
        command: Sequence[str | Path] = [
            *("nsenter", f"--target={self.pid}", "--net"),
            loadgen(),
            f"-target={url}",
            "-private",
            f"-lines={self.requests}",
            *(f"-header={name}: {value}" for name, value in headers.items()),
            f"-cpu={self.cpu}",
            f"-rate={rate}",
            f"-seconds={seconds}",
            f"-seed={seed}",
            f"-connections={connections}",
            # A late answer is late and has not failed.
            f"-drain-seconds={DRAIN_SECONDS}",
            *(["-fresh"] if fresh else []),
        ]
        return run_generator(command)


def failed(report: Mapping[str, Any]) -> int:
    """Return how many of the requests that were due got no good answer, whatever the reason."""
    return int(report["due"] - report["ok"])


def told(report: Mapping[str, Any]) -> str:
    """Say what became of the requests, in a line."""
    counted = ("due", "ok", "errors", "unfinished", "unsent", "latency_ms")
    return ", ".join(f"{name} {report[name]}" for name in counted)
