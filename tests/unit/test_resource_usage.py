"""What a control group allows and uses is read of both versions, from the files as the kernel writes them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from baleen_sidecar.adapters.resource_usage import ResourceUsage, thread_busy_seconds
from baleen_sidecar.flow.cgroup import Place, cpu_limit, cpu_seconds, find_place, memory_limit, working_set

MIB = 2**20
V2_POD = (
    "0::/\n",
    "2181 1745 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
)
V2_HOST = (
    "0::/system.slice/baleen.service\n",
    "32 22 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
)
V1_DOCKER = (
    "12:cpu,cpuacct:/docker/0a1b\n9:memory:/docker/0a1b\n1:name=systemd:/docker/0a1b\n0::/system.slice/containerd.service\n",
    "981 970 0:30 /docker/0a1b /sys/fs/cgroup/cpu,cpuacct ro,relatime master:13 - cgroup cgroup rw,cpu,cpuacct\n"
    "984 970 0:33 /docker/0a1b /sys/fs/cgroup/memory ro,relatime master:16 - cgroup cgroup rw,memory\n"
    "985 970 0:34 /docker/0a1b /sys/fs/cgroup/systemd ro,relatime - cgroup cgroup rw,xattr,name=systemd\n",
)
V1_APART = (
    "4:memory:/jobs/7\n2:cpuacct:/\n1:cpu:/low\n0::/\n",
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
)


@pytest.mark.parametrize(
    ("said", "controller", "place"),
    [
        pytest.param(V2_POD, "cpu", Place(version=2, mount="/sys/fs/cgroup"), id="v2 in a pod"),
        pytest.param(
            V2_HOST,
            "memory",
            Place(version=2, mount="/sys/fs/cgroup", path="system.slice/baleen.service"),
            id="v2 on a host",
        ),
        pytest.param(V1_DOCKER, "cpu", Place(version=1, mount="/sys/fs/cgroup/cpu,cpuacct"), id="v1, cpu with cpuacct"),
        pytest.param(V1_DOCKER, "memory", Place(version=1, mount="/sys/fs/cgroup/memory"), id="v1, memory"),
        pytest.param(V1_APART, "cpu", Place(version=1, mount="/sys/fs/cgroup/cpu", path="low"), id="v1 beside v2"),
        pytest.param(V1_APART, "io", Place(version=2, mount="/sys/fs/cgroup/unified"), id="v2 beside v1"),
        pytest.param(("", ""), "cpu", None, id="no groups at all"),
        pytest.param(("0::/../..\n", V2_POD[1]), "cpu", Place(version=2, mount="/sys/fs/cgroup"), id="out of sight"),
        pytest.param(("nonsense\n::\n", "nonsense - cgroup2\n"), "cpu", None, id="nonsense"),
    ],
)
def test_where_a_controller_is(said: tuple[str, str], controller: str, place: Place | None) -> None:
    assert find_place(controller, *said) == place


def test_each_group_that_ours_is_in_may_have_a_limit() -> None:
    assert Place(version=2, mount="/m", path="a/b").folders() == ("/m/a/b", "/m/a", "/m")
    assert Place(version=1, mount="/m").folders() == ("/m",)


def test_what_the_files_say() -> None:
    assert [cpu_limit(2, said) for said in ("max 100000\n", "150000 100000\n", "", "x y", "1 0")] == [None, 1.5] + [
        None
    ] * 3
    assert [cpu_limit(1, said, "100000") for said in ("-1\n", "50000\n", "")] == [None, 0.5, None]
    assert cpu_seconds(2, "usage_usec 1500000\nuser_usec 1000000\n") == 1.5
    assert cpu_seconds(1, "2500000000\n") == 2.5
    assert (cpu_seconds(2, ""), cpu_seconds(1, "")) == (None, None)
    assert [memory_limit(said) for said in ("max\n", "9223372036854771712\n", "1048576\n", "")] == [
        None,
        None,
        MIB,
        None,
    ]
    assert working_set(2, "100\n", "anon 1\ninactive_file 30\ntotal_inactive_file 99\n") == 70
    assert working_set(1, "100\n", "inactive_file 1\ntotal_inactive_file 60\n") == 40
    assert (working_set(2, "10", "inactive_file 30"), working_set(2, "", "")) == (0, None)


class Clock:
    """Seconds that a test sets."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_root(root: Path, said: tuple[str, str], files: dict[str, str]) -> ResourceUsage:
    write(root, {"proc/self/cgroup": said[0], "proc/self/mountinfo": said[1], **files})
    return ResourceUsage(root, Clock())


def test_v2_a_pod_with_limits_and_limits_that_change_while_it_runs(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/"
    usage = make_root(
        tmp_path,
        V2_POD,
        {
            group + "cpu.max": "50000 100000\n",
            group + "cpu.stat": "usage_usec 7000000\n",
            group + "memory.max": f"{256 * MIB}\n",
            group + "memory.current": f"{200 * MIB}\n",
            group + "memory.stat": f"inactive_file {72 * MIB}\n",
        },
    )
    first = usage.read()
    assert (first.cpu_percent, first.memory_percent) == (0.0, 50.0)
    assert (first.cpus, first.memory_bytes) == (0.5, 256 * MIB)
    assert (first.cpu_source, first.memory_source) == ("cgroup-v2", "cgroup-v2")

    usage._monotonic_seconds.now += 2  # type: ignore[attr-defined]
    write(tmp_path, {group + "cpu.stat": "usage_usec 7500000\n", group + "memory.max": f"{128 * MIB}\n"})
    second = usage.read()
    assert (second.cpu_percent, second.memory_percent) == (50.0, 100.0)


def test_v2_the_group_that_is_nearest_to_its_limit_counts(tmp_path: Path) -> None:
    slice_, own = "sys/fs/cgroup/system.slice/", "sys/fs/cgroup/system.slice/baleen.service/"
    usage = make_root(
        tmp_path,
        V2_HOST,
        {
            own + "cpu.max": "max 100000\n",
            own + "cpu.stat": "usage_usec 1\n",
            own + "memory.max": "max\n",
            slice_ + "cpu.max": "30000 100000\n",
            slice_ + "cpu.stat": "usage_usec 1000000\n",
            slice_ + "memory.max": f"{100 * MIB}\n",
            slice_ + "memory.current": f"{80 * MIB}\n",
            slice_ + "memory.stat": "",
        },
    )
    usage.read()
    usage._monotonic_seconds.now += 1  # type: ignore[attr-defined]
    write(tmp_path, {slice_ + "cpu.stat": "usage_usec 1240000\n"})
    found = usage.read()

    assert found.cpus == 0.3
    assert found.cpu_percent == pytest.approx(80)
    assert found.memory_percent == 80


def test_v1_a_container_with_limits(tmp_path: Path) -> None:
    cpu, memory = "sys/fs/cgroup/cpu,cpuacct/", "sys/fs/cgroup/memory/"
    usage = make_root(
        tmp_path,
        V1_DOCKER,
        {
            cpu + "cpu.cfs_quota_us": "25000\n",
            cpu + "cpu.cfs_period_us": "100000\n",
            cpu + "cpuacct.usage": "4000000000\n",
            memory + "memory.limit_in_bytes": f"{64 * MIB}\n",
            memory + "memory.usage_in_bytes": f"{64 * MIB}\n",
            memory + "memory.stat": f"cache 1\ninactive_file 5\ntotal_inactive_file {16 * MIB}\n",
        },
    )
    usage.read()
    usage._monotonic_seconds.now += 4  # type: ignore[attr-defined]
    write(tmp_path, {cpu + "cpuacct.usage": "4900000000\n"})
    found = usage.read()

    assert (found.cpus, found.memory_percent) == (0.25, 75)
    assert found.cpu_percent == pytest.approx(90)
    assert (found.cpu_source, found.memory_source) == ("cgroup-v1", "cgroup-v1")


@pytest.mark.parametrize(
    ("said", "files"),
    [
        pytest.param(V2_POD, {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, id="v2"),
        pytest.param(
            V1_DOCKER,
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            id="v1",
        ),
        pytest.param(V2_POD, {"sys/fs/cgroup/memory.max": f"{2**50}\n"}, id="a limit above what there is"),
        pytest.param(("", ""), {}, id="no groups"),
    ],
)
def test_without_limits_this_process_is_looked_at_alone(
    tmp_path: Path, said: tuple[str, str], files: dict[str, str]
) -> None:
    found = make_root(tmp_path, said, files).read()

    assert (found.cpu_source, found.memory_source) == ("process", "process")
    assert found.memory_bytes == psutil.virtual_memory().total
    assert found.memory_percent == pytest.approx(psutil.Process().memory_percent(), rel=0.5)


def test_a_cpu_limit_of_a_group_whose_time_is_not_known_is_for_this_process(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu/low/cpu.cfs_quota_us": "10000\n", "sys/fs/cgroup/cpu/low/cpu.cfs_period_us": "100000\n"}
    found = make_root(tmp_path, V1_APART, {**files, "sys/fs/cgroup/cpuacct/cpuacct.usage": "1\n"}).read()

    assert (found.cpus, found.cpu_source) == (0.1, "process")


def test_on_this_machine_work_is_seen() -> None:
    usage = ResourceUsage()
    usage.read()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    found = usage.read()

    assert found.cpu_percent > 0
    assert 0 < found.memory_percent < 100


_CHILD = """
import os, sys
for group in sys.argv[1:]:
    open(f"{group}/cgroup.procs", "w").write(str(os.getpid()))
from baleen_sidecar.adapters.resource_usage import ResourceUsage
usage = ResourceUsage()
usage.read()
held = bytearray(os.urandom(1)) * (64 * 2**20)
found = usage.read()
print(found.cpus, found.memory_bytes, round(found.memory_percent), found.cpu_percent > 0)
"""


def make_groups(name: str) -> list[Path]:
    """Make groups of this machine with a limit of half a CPU and 512 MiB; skip where nobody may."""
    groups, mounts = Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    wanted = {"cpu": ("cpu.cfs_quota_us", "50000"), "memory": ("memory.limit_in_bytes", str(512 * MIB))}
    places = [find_place(controller, groups, mounts) for controller in wanted]
    if not all(place and place.version == 1 and os.access(place.mount, os.W_OK) for place in places):
        pytest.skip("only where control groups of version 1 can be made")
    made = []
    for place, (file, value) in zip(places, wanted.values(), strict=True):
        assert place is not None
        made.append(Path(place.mount) / name)
        made[-1].mkdir()
        (made[-1] / file).write_text(value)
    return made


def test_on_this_machine_real_groups_with_limits_are_read() -> None:
    made = make_groups(f"baleen-test-{os.getpid()}")
    try:
        done = subprocess.run([sys.executable, "-c", _CHILD, *made], capture_output=True, text=True, check=True)
    finally:
        for folder in made:
            folder.rmdir()
    cpus, memory_bytes, memory_percent, is_used = done.stdout.split()

    assert (cpus, memory_bytes, is_used) == ("0.5", str(512 * MIB), "True")
    assert 64 / 512 * 100 <= int(memory_percent) < 60


def test_a_thread_is_busy_while_it_computes_or_waits_for_a_cpu_and_not_while_it_sleeps():
    begun = time.monotonic()
    at_first = thread_busy_seconds()
    while time.monotonic() < begun + 0.05:
        pass
    computed = thread_busy_seconds()
    time.sleep(0.05)
    slept = thread_busy_seconds()

    assert computed - at_first > 0.04
    assert slept - computed < 0.04


@pytest.mark.parametrize("said", [None, "", "1 2", "a b c"])
def test_how_busy_a_thread_is_is_not_known_where_the_kernel_does_not_say_it(tmp_path, said):
    if said is not None:
        (tmp_path / "proc/thread-self").mkdir(parents=True)
        (tmp_path / "proc/thread-self/schedstat").write_text(said)

    assert thread_busy_seconds(tmp_path) is None
