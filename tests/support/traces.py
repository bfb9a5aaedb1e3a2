"""What a cluster of one node leaves on this machine, or has there while it runs."""

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def traces(folder: Path, slot: str) -> Mapping[str, Sequence[str]]:
    """Return by kind what of a cluster is to be seen on this machine, but for the files in its folder."""
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command or f"/baleen-node-{slot}/" in (path / "cgroup").read_text():
                processes.append(command)
    lines = {
        "processes": processes,
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line],
        "links": [path.name for path in Path("/sys/class/net").glob(f"baleen{slot}")],
        "control groups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/baleen-node-{slot}")],
        "stored": [str(path) for name in ("var", "etcd", "volumes") for path in folder.glob(name)],
        "tables": subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.splitlines(),
        "elsewhere": [
            str(p) for place in ("/run/netns", "/var/lib/cni", "/run/containerd/s") for p in Path(place).glob("*")
        ],
    }
    return {kind: found for kind, found in lines.items() if found}


def traces_in_the_end(
    folder: Path, slot: str, expected: Mapping[str, Sequence[str]], seconds: float = 5
) -> Mapping[str, Sequence[str]]:
    """Return what is to be seen as soon as it is what is expected, or in the end; the kernel may still be at its work.

    A process whose files are closed, by which others know that it has ended, is in its control group for a moment yet.
    """
    end = time.monotonic() + seconds
    while (found := traces(folder, slot)) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return found
