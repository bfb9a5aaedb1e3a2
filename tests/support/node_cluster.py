"""A whole Kubernetes of one node for tests: pods are run, reach services by name, and are gone with the cluster.

It stands on `control_plane`, whose parts it has, and adds those of a node; see `node_supervisor` for what runs where.
Network policies are not enforced, host ports not offered, and pods reach nothing beyond this machine.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from cluster_tools import CONTROL_PLANE, NODE, OF_THE_SUITE, tools
from control_plane import ControlPlane, await_end, is_supervised
from debian_packages import PackagesMissing, need_commands
from node_supervisor import DNS_ADDRESS, NAMESPACES, NODE_NAME, control_group, host_address, node_address
from tiny_images import pause_archive

_SUPERVISOR: Final = Path(__file__).with_name("node_supervisor.py")
_END_SECONDS: Final = 120
"""Images of gigabytes are removed from the disk, after all processes."""
_PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "mount": "mount",
    "nsenter": "util-linux",
    "openssl": "openssl",
}


class NodeUnavailable(Exception):
    """This machine cannot run a node; the message says why."""


def prepare() -> None:
    """Find, build or install all that the cluster needs; the first time takes minutes.

    Raises NodeUnavailable where the machine cannot, and ToolsMissing when a build fails.
    """
    if os.geteuid() != 0:
        raise NodeUnavailable("a node needs root: namespaces, mounts, control groups")
    try:
        need_commands(_PACKAGES)
        pause_archive()
    except PackagesMissing as exc:
        raise NodeUnavailable(str(exc)) from None
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise NodeUnavailable(f"this machine gives no namespaces: {tried.stderr.strip()}")
    tools((*OF_THE_SUITE, *NODE))


def end_detached(folder: Path) -> bool:
    """End the detached cluster of a folder with all that is in it, and return whether there was one."""
    if not is_supervised(folder):
        return False
    os.kill(int((folder / "outside").read_text()), signal.SIGTERM)
    await_end(folder, _END_SECONDS)
    return True


class NodeCluster(ControlPlane):
    """The cluster of a folder; whoever enters it shares it, and it ends when the last one has left.

    Clusters of different folders do not see each other. The folder must not lie below /var or /run, for the node has
    others there. Process ids are those of the node's own namespace. A detached one goes on until `end_detached`.
    """

    binaries: ClassVar[Sequence[str]] = (*CONTROL_PLANE, *NODE)

    def __init__(
        self,
        folder: Path,
        *,
        manifests: Sequence[Path] = (),
        api_flags: Sequence[str] = (),
        shared: bool = False,
        detached: bool = False,
    ) -> None:
        for hidden in (Path("/var"), Path("/run")):
            if folder.resolve().is_relative_to(hidden):
                raise ValueError(f"folder: {folder} lies below {hidden}")
        super().__init__(folder, manifests=manifests, api_flags=api_flags, shared=shared)
        self._detached = detached

    @property
    def ends_with_its_users(self) -> bool:
        """Whether leaving it is waiting for its end."""
        return super().ends_with_its_users and not self._detached

    @property
    def host_address(self) -> str:
        """This machine, as pods reach it."""
        return host_address(self._slot)

    @property
    def node_address(self) -> str:
        """The node, as this machine reaches it: its node ports answer there."""
        return node_address(self._slot)

    @property
    def dns_address(self) -> str:
        """Where pods ask for names."""
        return DNS_ADDRESS

    def import_image(self, archive: Path) -> None:
        """Take the images of an OCI archive, by the names in it; there is nowhere to pull others from."""
        with archive.open("rb") as content:
            self._images("import", "-", stdin=content.fileno())

    def name_image(self, name: str, also: str) -> None:
        """Give an image one more name, which has to be whole, as in `docker.io/library/NAME:TAG`."""
        self._images("tag", name, also)

    def run_on_node(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine in the node's namespaces, and return how it ended."""
        first = (self.folder / "first").read_text()
        entered = ["nsenter", f"--target={first}", "--mount", "--net", "--pid", *command]
        return subprocess.run(entered, stdin=stdin, capture_output=True, text=True)

    def control_group(self, pod: str, namespace: str, controller: str) -> Path:
        """Return a pod's control group as this machine sees it; in version 2 it is the same one for all controllers."""
        uid = self.get_json("pod", pod, namespace)["metadata"]["uid"]
        return next(group for group in self.control_groups(controller) if group.name == f"pod{uid}")

    def control_groups(self, controller: str) -> list[Path]:
        """Return those of all pods that run."""
        return sorted(control_group(self._slot, controller).rglob("pod*-*-*"))

    def offer_volume(self, name: str, *, storage: str = "1Gi") -> Path:
        """Make a volume that a claim without a storage class may take, and return the folder with its content.

        It is a local one, not a path of the host: only so is its group what the pod's `fsGroup` says.
        """
        path = self.folder / "volumes" / name
        path.mkdir(parents=True)
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
        spec = {
            "capacity": {"storage": storage},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        self.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
        return path

    def supervisor_arguments(self) -> Sequence[str | Path]:
        """Return what Python runs as the supervisor."""
        return _SUPERVISOR, self.folder, *(["--detached"] if self._detached else [])

    def more_wanted(self) -> dict[str, Any]:
        """Return the image that holds a pod's namespaces."""
        return {"pauseArchive": str(pause_archive())}

    def _images(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        done = self.run_on_node("ctr", "--namespace", "k8s.io", "images", *arguments, stdin=stdin)
        if done.returncode:
            raise AssertionError(f"images {' '.join(arguments)}: status {done.returncode}\n{done.stderr}")

    @property
    def _slot(self) -> int:
        return int((self.folder / "slot").read_text())
