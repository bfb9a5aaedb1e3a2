"""What the machine is, what it does beside us, and how much processor time a process has used, all out of /proc."""

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`steal` and `other_load` are parts of all processor time during the run: taken by the host, used by others."""

    cpus: int
    memory_gib: int
    python: str
    kernel: str
    steal: float
    other_load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Processor time of the whole machine since its start, in ticks."""

    total: int
    idle: int
    steal: int

    @classmethod
    def read(cls) -> Self:
        """Read the first line of /proc/stat."""
        fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = fields
        return cls(total=user + nice + system + idle + iowait + irq + softirq + steal, idle=idle + iowait, steal=steal)


class Watch:
    """Looks at the machine from now on; `machine` says what happened, once our own processes have ended."""

    def __init__(self) -> None:
        self._ticks = Ticks.read()
        self._own_seconds = _own_seconds()

    def machine(self, orphans_cpu_seconds: float = 0.0) -> Machine:
        """Describe the machine, and its state since the watch began."""
        ticks = Ticks.read()
        total = max(1, ticks.total - self._ticks.total)
        steal = ticks.steal - self._ticks.steal
        busy = total - (ticks.idle - self._ticks.idle) - steal
        own = (_own_seconds() - self._own_seconds + orphans_cpu_seconds) * TICKS_PER_SECOND
        return Machine(
            cpus=os.cpu_count() or 1,
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            python=platform.python_version(),
            kernel=platform.release(),
            steal=round(steal / total, 3),
            other_load=round(max(0.0, busy - own) / total, 3),
        )


def _own_seconds() -> float:
    """Return the processor time of this process and of every child that has ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cpu_seconds(pid: int) -> float:
    """Return the processor time, in user and kernel, of a process and of all below it that still run."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(folder)):
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    waiting, used = [pid], 0
    while waiting:
        process = waiting.pop()
        used += ticks.get(process, 0)
        waiting += parents.get(process, [])
    return used / TICKS_PER_SECOND


def memory_mib(pid: int) -> dict[str, float]:
    """Return what a process has of memory now (`VmRSS`), and had at most (`VmHWM`)."""
    lines = (line.split() for line in (PROC / str(pid) / "status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[0] in ("VmRSS:", "VmHWM:")}


def _stat(folder: Path) -> list[str]:
    """Return the fields of a process from its state on, or none when it has ended meanwhile."""
    try:
        # The name stands in brackets and may hold anything, brackets and spaces included.
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which core is whose: the servers under test take turns on one, whatever drives or serves them has the other."""

    server: int
    other: int

    @classmethod
    def choose(cls) -> Self:
        """Take the first and the last core that we may use; on a machine with one core they are the same."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(server=allowed[0], other=allowed[-1])
