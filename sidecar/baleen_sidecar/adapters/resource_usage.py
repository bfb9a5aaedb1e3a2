"""How much of the CPU and memory that it may have is used, by the control group or, without limits, by the process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from baleen_sidecar.flow import cgroup
from baleen_sidecar.flow.cgroup import Place, find_place
from baleen_sidecar.ports import Usage

_PROCESS: Final = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cpu:
    source: str
    cpus: float
    seconds: float


def thread_busy_seconds(root: Path = Path("/")) -> float | None:
    """Return for how long this thread has run, or wanted to and had to wait for a CPU; None where no kernel says it."""
    try:
        ran, waited, _ = (root / "proc/thread-self/schedstat").read_text().split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        return None


class ResourceUsage:
    """Looks at the files of the kernel each time: a pod's limits may change while it runs.

    Where no group has a limit, what others on the machine use is their affair: this process alone is looked at, and
    what the machine has is what it may use.
    """

    def __init__(self, root: Path = Path("/"), monotonic_seconds: Callable[[], float] = time.monotonic) -> None:
        """`root` is the folder that has `proc` and `sys`."""
        self._root = root
        self._monotonic_seconds = monotonic_seconds
        self._process = psutil.Process()
        self._machine_bytes = psutil.virtual_memory().total
        groups, mounts = self._text("/proc/self/cgroup"), self._text("/proc/self/mountinfo")
        self._cpu = find_place("cpu", groups, mounts)
        self._accounts = self._cpu
        if self._cpu is not None and self._cpu.version == 1:
            accounts = find_place("cpuacct", groups, mounts)
            # Only of the same group is the time that which the limit is about.
            self._accounts = accounts if accounts is not None and accounts.path == self._cpu.path else None
        self._memory = find_place("memory", groups, mounts)
        self._last: tuple[float, _Cpu] | None = None

    def read(self) -> Usage:
        """See ports.ResourceReader."""
        now, cpu = self._monotonic_seconds(), self._cpu_now()
        percent = 0.0
        if self._last is not None and self._last[1].source == cpu.source and now > self._last[0]:
            then, before = self._last
            percent = max(cpu.seconds - before.seconds, 0.0) / ((now - then) * cpu.cpus) * 100
        self._last = (now, cpu)
        memory_source, used, limit = self._memory_now()
        return Usage(
            cpu_percent=percent,
            memory_percent=used / limit * 100,
            cpus=cpu.cpus,
            memory_bytes=limit,
            cpu_source=cpu.source.partition(":")[0],
            memory_source=memory_source,
        )

    def _cpu_now(self) -> _Cpu:
        machine = float(len(self._process.cpu_affinity()))
        limits = [] if self._cpu is None else [
            (limit, number)
            for number, folder in enumerate(self._cpu.folders())
            if (limit := self._cpu_limit(self._cpu, folder)) is not None and limit < machine
        ]  # fmt: skip
        cpus, number = min(limits, default=(machine, -1))
        if self._accounts is not None and number >= 0:
            folder = self._accounts.folders()[number]
            name = "cpu.stat" if self._accounts.version == 2 else "cpuacct.usage"
            seconds = cgroup.cpu_seconds(self._accounts.version, self._text(f"{folder}/{name}"))
            if seconds is not None:
                return _Cpu(source=f"cgroup-v{self._accounts.version}:{folder}", cpus=cpus, seconds=seconds)
        times = self._process.cpu_times()
        return _Cpu(source=_PROCESS, cpus=cpus, seconds=times.user + times.system)

    def _cpu_limit(self, place: Place, folder: str) -> float | None:
        if place.version == 2:
            return cgroup.cpu_limit(2, self._text(f"{folder}/cpu.max"))
        period = self._text(f"{folder}/cpu.cfs_period_us").strip()
        return cgroup.cpu_limit(1, self._text(f"{folder}/cpu.cfs_quota_us"), period)

    def _memory_now(self) -> tuple[str, int, int]:
        """Return the source, and the bytes used and allowed, of whatever is nearest to its limit."""
        machine = self._machine_bytes
        found = [(_PROCESS, self._process.memory_info().rss, machine)]
        for folder in () if self._memory is None else self._memory.folders():
            version = self._memory.version if self._memory is not None else 0
            limit_name, usage_name = (
                ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            )
            limit = cgroup.memory_limit(self._text(f"{folder}/{limit_name}"))
            if limit is None or not 0 < limit < machine:
                continue
            stat = self._text(f"{folder}/memory.stat")
            used = cgroup.working_set(version, self._text(f"{folder}/{usage_name}"), stat)
            if used is not None:
                found.append((f"cgroup-v{version}", used, limit))
        # A group's count has this process in it.
        return max(found[1:] or found, key=lambda each: each[1] / each[2])

    def _text(self, path: str) -> str:
        try:
            return (self._root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
