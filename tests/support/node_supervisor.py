"""A cluster of one node inside namespaces of its own, so that the kernel takes all of it away with its first process.

`python node_supervisor.py FOLDER` stays outside: it takes a slot of the machine, starts itself anew as the first
process (`--inside`) of a network, a mount and a process namespace, and removes what the kernel does not. The one inside
starts the parts: those of the control plane, containerd, kubelet, kube-proxy, CoreDNS.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import httpx
import psutil

from control_plane import (
    Supervisor,
    bindings_of_people,
    die_with_parent,
    leave_on_signals,
    run_openssl,
    try_lock,
)
from tiny_images import PAUSE

NODE_NAME: Final = "node1"
DNS_ADDRESS: Final = "10.96.0.10"
"""Where pods ask for names; of the services' range, as is 10.96.0.1, the API server."""
NAMESPACES: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
"""What `unshare` is told: the first process inside ends with it, and all others with the first."""
_PODS: Final = "10.244.0.0/24"
_SERVICES: Final = "10.96.0.0/16"
_SLOTS: Final = 64
_LOCKS: Final = Path("/run/baleen-nodes")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_LINK_SECONDS: Final = 30
_IN_MEMORY_BYTES: Final = 8 << 30
"""With so much free memory, images (2 GiB) are unpacked there, and go with the mount; on a disk both take long."""
_DNS_USER: Final = "baleen-test:dns"


def host_address(slot: int) -> str:
    """Return the machine's address as pods see it: of the range for benchmarks, which nobody else should use."""
    return f"198.18.{slot}.1"


def node_address(slot: int) -> str:
    """Return the node's address as the machine sees it."""
    return f"198.18.{slot}.2"


def control_group(slot: int, controller: str) -> Path:
    """Return the node's control group as the machine sees it; in version 2 it is the same one for all controllers."""
    hierarchy = _CGROUPS if _is_unified() else _CGROUPS / controller
    return hierarchy / _cgroup(slot)


class NodeSupervisor(Supervisor):
    """The first process inside: starts the parts, adopts what containers leave, and ends when nobody is left."""

    def __init__(self, folder: Path, users: IO[str], slot: int) -> None:
        self.address = node_address(slot)
        super().__init__(folder, users)
        # A certificate for another address may be left of an earlier start.
        (folder / "accounts.pub").unlink(missing_ok=True)
        self.commands["kube-apiserver"] += _api_flags(folder, self.address)
        # A claim that comes before its volume is seen waits for the next look, every 15 s by default.
        self.commands["kube-controller-manager"] += ["--controllers=*", "--pvclaimbinder-sync-period=1s"]
        self.binaries = {**self.binaries, "containerd": "containerd"}
        self.commands["containerd"] = [f"--config={folder / 'containerd.toml'}"]
        self.commands["kube-scheduler"] = _scheduler_flags(folder)
        self.commands["kubelet"] = _kubelet_flags(folder, self.address)
        self.commands["kube-proxy"] = _proxy_flags(folder)
        self.commands["coredns"] = [f"-conf={folder / 'Corefile'}"]
        self.slot = slot

    def ports(self) -> Sequence[int]:
        """Return the usual ones: the network namespace has them to itself."""
        return 2379, 2380, 6443

    def static_users(self) -> dict[str, str]:
        """Return the users of the control plane and of the node; the latters' rights are Kubernetes' own roles."""
        parts = {"system:kube-scheduler": "", "system:kube-proxy": "", f"system:node:{NODE_NAME}": "system:nodes"}
        return super().static_users() | parts | {_DNS_USER: ""}

    def objects(self) -> list[dict[str, Any]]:
        """Return what a cluster has before anything is installed: people's bindings and its DNS."""
        return [*bindings_of_people(), *_dns_objects(self.address)]

    def start_more(self, client: httpx.Client) -> None:
        """Start the parts of the node, and return when pods can be run and names be asked for."""
        self.start("containerd")
        self.start("kube-scheduler")
        if not self.wait_until(lambda: _ctr("version") is not None):
            return
        if _ctr("--namespace", "k8s.io", "images", "import", self.wanted["pauseArchive"]) is None:
            sys.exit(f"containerd does not take {self.wanted['pauseArchive']}")
        for name in ("kubelet", "kube-proxy", "coredns"):
            self.start(name)
        self.wait_until(lambda: _is_node_ready(client) and _answers_names(self.address))

    def prepare(self) -> None:
        """Make the network and the files that the parts read."""
        for name, text in _files(self.folder, self.address, self.slot).items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)
        # The API server proves to the kubelet that it is the API server; nobody else may talk to it.
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        made = ["-keyout", "kubelet-client.key", "-out", "kubelet-client.crt"]
        run_openssl(self.folder, "req", "-x509", *curve, "-nodes", "-days", "30", "-subj", "/CN=kube-apiserver", *made)

    def check(self) -> None:
        """Reap what was orphaned: this is the first process, to which the kernel gives them."""
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in {process.pid for process in self.running.values()}:
                break
            os.waitpid(found.si_pid, 0)
        super().check()


def _api_flags(folder: Path, address: str) -> list[str]:
    # Given once more, a flag of one value is replaced, and a list goes on.
    return [
        "--bind-address=0.0.0.0",
        f"--advertise-address={address}",
        "--endpoint-reconciler-type=lease",
        "--authorization-mode=Node",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={folder / 'kubelet-client.crt'}",
        f"--kubelet-client-key={folder / 'kubelet-client.key'}",
    ]


def _scheduler_flags(folder: Path) -> list[str]:
    kubeconfig = folder / "kubeconfigs" / "system:kube-scheduler.yaml"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def _kubelet_flags(folder: Path, address: str) -> list[str]:
    return [
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={folder / 'kubeconfigs' / f'system:node:{NODE_NAME}.yaml'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={address}",
    ]


def _proxy_flags(folder: Path) -> list[str]:
    return [
        f"--kubeconfig={folder / 'kubeconfigs' / 'system:kube-proxy.yaml'}",
        f"--hostname-override={NODE_NAME}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={_PODS}",
        # Only the machine's own network namespace may set these.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def _files(folder: Path, address: str, slot: int) -> Mapping[str, str]:
    """Return the files that the parts read, by name."""
    # A link of its own for each pod, and no bridge: so all between pods is routed, and a reply cannot go round the
    # translation of a service's address.
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {"type": "host-local", "ranges": [[{"subnet": _PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
            }
        ],
    }
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_cgroup(slot)}",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(folder / "kubelet-client.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},  # who has the one certificate
        "failSwapOn": False,
        "address": address,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
    }
    containerd = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder / "net.d"}"
"""
    corefile = f"""cluster.local:53 in-addr.arpa:53 {{
    bind {address}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {folder / "kubeconfigs" / f"{_DNS_USER}.yaml"}
        pods verified
        ttl 5
    }}
}}
.:53 {{
    bind {address}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""
    return {
        "net.d/10-pods.conflist": json.dumps(network),
        "kubelet.json": json.dumps(kubelet),
        "containerd.toml": containerd,
        "Corefile": corefile,
        "resolv.conf": f"nameserver {address}\n",
    }


def _dns_objects(address: str) -> list[dict[str, Any]]:
    """Return the service of the cluster's DNS, which is a process on the node, and what that may read."""
    group = "rbac.authorization.k8s.io"
    system = {"namespace": "kube-system"}
    readable = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("tcp", "TCP"))]
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": _DNS_USER}, "rules": readable},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _DNS_USER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _DNS_USER},
            "subjects": [{"apiGroup": group, "kind": "User", "name": _DNS_USER}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}, **system},
            "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}, **system},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]


def _is_node_ready(client: httpx.Client) -> bool:
    answer = client.get(f"/api/v1/nodes/{NODE_NAME}")
    conditions = answer.json().get("status", {}).get("conditions", []) if answer.is_success else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _answers_names(address: str) -> bool:
    """Ask for the API server's name, over TCP, which needs no library."""
    name = b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\0"
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"
    try:
        with socket.create_connection((address, 53), timeout=1) as connection:
            connection.sendall(len(question).to_bytes(2) + question)
            return bytes((10, 96, 0, 1)) in connection.recv(512)
    except OSError:
        return False


def _ctr(*arguments: str) -> str | None:
    """Return what containerd answers, or None when it refuses or is not there yet."""
    done = subprocess.run(["ctr", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    sys.stderr.write(done.stderr)
    return None if done.returncode else done.stdout


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")


def _cgroup(slot: int) -> str:
    return f"baleen-node-{slot}"


def _link(slot: int) -> str:
    return f"baleen{slot}"


def _supervise_inside(folder: Path, slot: int, outside: int) -> None:
    """Be the first process of the namespaces; `outside` is a descriptor of the machine's own network namespace."""
    _make_mounts(folder)
    _make_network(slot, outside)
    with (folder / "users").open("a") as users:
        supervisor = NodeSupervisor(folder, users, slot)
        supervisor.prepare()
        supervisor.run()


def _make_mounts(folder: Path) -> None:
    """Give the parts the paths that they are built to write to, below the folder."""
    _run("mount", "--make-rshared", "/")  # among pods; the machine's own mounts were left behind
    for name in ("var/lib", "var/log", "var/run", "var/tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(folder / "var"), "/var")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    if psutil.virtual_memory().available >= _IN_MEMORY_BYTES:
        images = Path("/var/lib/containerd")
        images.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", str(images))


def _make_network(slot: int, outside: int) -> None:
    """Make the one link to the machine, over which pods reach it and nothing beyond."""
    link, there = _link(slot), f"/proc/{os.getpid()}/fd/{outside}"
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", link)
    _run("ip", "link", "set", link, "netns", there)
    for command in (
        ["ip", "address", "add", f"{host_address(slot)}/30", "dev", link],
        ["ip", "link", "set", link, "up"],
    ):
        _run("nsenter", f"--net={there}", *command)
    _run("ip", "address", "add", f"{node_address(slot)}/30", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    os.close(outside)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Without a route the API server's calls of webhooks would be refused before their service's address is translated.
    _run("ip", "route", "add", _SERVICES, "dev", "eth0")
    # The machine knows no way back to pods.
    _run("nft", "add", "table", "ip", "baleen")
    _run("nft", "add", "chain", "ip", "baleen", "out", "{ type nat hook postrouting priority srcnat; }")
    _run("nft", "add", "rule", "ip", "baleen", "out", "ip", "saddr", _PODS, "oifname", "eth0", "masquerade")


@contextlib.contextmanager
def _slot() -> Iterator[int]:
    """Take a number that no other cluster of this machine has, and clean up what who had it before could not.

    Those with something to clean up come first, whatever ended meanwhile.
    """
    _LOCKS.mkdir(exist_ok=True)
    for number in sorted(range(_SLOTS), key=lambda number: not (_hierarchies()[0] / _cgroup(number)).exists()):
        with (_LOCKS / str(number)).open("a") as lock:
            if not try_lock(lock, fcntl.LOCK_EX):
                continue
            _clean(number)
            _make_cgroups(number)
            try:
                yield number
            finally:
                _clean(number)
            return
    sys.exit(f"{_SLOTS} clusters run on this machine already")


def _make_cgroups(slot: int) -> None:
    for hierarchy in _hierarchies():
        (hierarchy / _cgroup(slot)).mkdir(exist_ok=True)


def _clean(slot: int) -> None:
    """Remove the control groups and the link, when the kernel has ended the processes in them."""
    give_up = time.monotonic() + _LINK_SECONDS
    while (Path("/sys/class/net") / _link(slot)).exists():
        subprocess.run(["ip", "link", "delete", _link(slot)], capture_output=True)
        if time.monotonic() > give_up:
            sys.exit(f"the link {_link(slot)} does not go away")
    for hierarchy in _hierarchies():
        # Depth first: a control group is removed only when it has none below it.
        for folder, _, _ in os.walk(hierarchy / _cgroup(slot), topdown=False):
            _remove_cgroup(Path(folder), give_up)


def _remove_cgroup(folder: Path, give_up: float) -> None:
    while True:
        try:
            folder.rmdir()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def _hierarchies() -> list[Path]:
    """Return where control groups are made: one folder in version 2, one for each hierarchy in version 1."""
    if _is_unified():
        return [_CGROUPS]
    return [folder for folder in sorted(_CGROUPS.iterdir()) if not folder.is_symlink()]


def _is_unified() -> bool:
    return (_CGROUPS / "cgroup.controllers").exists()


def _supervise_outside(folder: Path, *, detached: bool) -> None:
    """Run the cluster until its users are gone, or, detached, until a signal; then remove what is left of it."""
    with contextlib.ExitStack() as stack:
        # Before the lock: with it, an earlier cluster's would say that this one is up.
        (folder / "ready").unlink(missing_ok=True)
        stack.enter_context(_locked(folder / "supervising", fcntl.LOCK_EX))
        if detached:
            stack.enter_context(_locked(folder / "users", fcntl.LOCK_SH))
        slot = stack.enter_context(_slot())
        (folder / "slot").write_text(str(slot))
        _forget(folder)
        stack.callback(_forget, folder)
        outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        inside = [sys.executable, __file__, str(folder), f"--inside={slot}", f"--outside={outside}"]
        process = subprocess.Popen(
            ["unshare", *NAMESPACES, *inside],
            stdin=subprocess.DEVNULL,
            pass_fds=[outside],
            preexec_fn=die_with_parent(os.getpid()),
        )
        stack.callback(_kill, process)
        (folder / "outside").write_text(str(os.getpid()))
        (folder / "first").write_text(_first_child(process))
        if status := process.wait():
            sys.exit(status)


def _forget(folder: Path) -> None:
    """Remove what the cluster stored. Outside none of its mounts is seen, so that nothing is removed through one."""
    for name in ("var", "etcd", "volumes"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _first_child(process: subprocess.Popen[bytes]) -> str:
    """Return the machine's number of the first process inside."""
    while process.poll() is None:
        if found := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            return found[0]
        time.sleep(0.01)
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detached", action="store_true")
    parser.add_argument("--inside", type=int)
    parser.add_argument("--outside", type=int)
    given = parser.parse_args()
    leave_on_signals()
    if given.inside is None:
        _supervise_outside(given.folder, detached=given.detached)
    else:
        _supervise_inside(given.folder, given.inside, given.outside)


if __name__ == "__main__":
    _main()
