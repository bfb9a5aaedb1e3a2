"""What the files of control groups say, of version 1 and 2 alike: where ours are, what they allow, what was used.

See the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, and proc(5) on mountinfo.
"""

from dataclasses import dataclass
from typing import Final

_NONE_FROM: Final = 2**60
"""Version 1 has no word for no limit, but a number of pages that no machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files of a controller are: `mount` and the path of our group below it, empty where it is the root."""

    version: int
    mount: str
    path: str = ""

    def folders(self) -> tuple[str, ...]:
        """Return our group's folder, and those of the groups that it is in: each of them may set a limit."""
        parts = self.path.split("/") if self.path else []
        return tuple("/".join((self.mount, *parts[:count])) for count in range(len(parts), -1, -1))


def find_place(controller: str, groups: str, mounts: str) -> Place | None:
    """Find a controller by /proc/self/cgroup and /proc/self/mountinfo; None where there is none.

    Where one machine has both versions, a controller is of the first one, if that has it.
    """
    paths = {}
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(",") if controllers else [""] * (number == "0"):
            paths[name] = path
    found: dict[int, Place] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, mount = fields[3], fields[4]
        if kind[0] == "cgroup" and controller in kind[2].split(",") and controller in paths:
            found[1] = Place(version=1, mount=mount, path=_below(paths[controller], root))
        elif kind[0] == "cgroup2" and "" in paths:
            found[2] = Place(version=2, mount=mount, path=_below(paths[""], root))
    return found.get(1) or found.get(2)


def _below(path: str, root: str) -> str:
    """Return where a group is below a mount of the group `root`; a container sees its own group as the whole."""
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            return ""
        path = path[len(root) :]
    # Above what is mounted, and so out of sight: /../.. is how that is written.
    return "" if ".." in path.split("/") else path.strip("/")


def cpu_limit(version: int, said: str, period: str = "") -> float | None:
    """Return how many CPUs may be used: by cpu.max, or by cpu.cfs_quota_us and cpu.cfs_period_us; None: any."""
    quota, _, rest = said.strip().partition(" ")
    microseconds, every = _number(quota), _number(rest if version == 2 else period)
    return None if microseconds is None or not every or microseconds <= 0 else microseconds / every


def cpu_seconds(version: int, said: str) -> float | None:
    """Return the CPU time that was used: by cpu.stat, or by cpuacct.usage."""
    if version == 1:
        nanoseconds = _number(said.strip())
        return None if nanoseconds is None else nanoseconds / 1e9
    microseconds = _row(said, "usage_usec")
    return None if microseconds is None else microseconds / 1e6


def memory_limit(said: str) -> int | None:
    """Return the bytes that may be used: by memory.max or memory.limit_in_bytes; None: any."""
    limit = _number(said.strip())
    return None if limit is None or limit >= _NONE_FROM else limit


def working_set(version: int, usage: str, stat: str) -> int | None:
    """Return the bytes in use that cannot simply be dropped, as the kubelet counts them.

    What was read of files and not been looked at again is no reason to refuse anybody.
    """
    used = _number(usage.strip())
    if used is None:
        return None
    return max(used - (_row(stat, "inactive_file" if version == 2 else "total_inactive_file") or 0), 0)


def _row(said: str, name: str) -> int | None:
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value.strip())
    return None


def _number(said: str) -> int | None:
    # The length first: no file of the kernel's has more digits than that.
    return int(said) if len(said) <= 20 and said.lstrip("-").isdigit() else None
