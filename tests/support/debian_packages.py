"""Debian packages that only some tests need: found, or installed where that is possible."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_LOCK: Final = Path("/run/baleen-apt.lock")
_LOG_TAIL_CHARACTERS: Final = 2000


class PackagesMissing(Exception):
    """Commands are missing that this machine cannot install; the message says which and why."""


def need_commands(packages: Mapping[str, str]) -> None:
    """Make sure that commands can be run; as root, install the Debian package of each that is missing.

    `packages` gives the package of each command, which is a name on the PATH or an absolute path.
    Raises PackagesMissing.
    """
    if not _missing(packages):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        wanted = ", ".join(sorted(set(_missing(packages).values())))
        raise PackagesMissing(f"these Debian packages are missing and only root can install them: {wanted}")
    with _LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if names := sorted(set(_missing(packages).values())):
            _install(names)
    if missing := _missing(packages):
        raise PackagesMissing(f"not there although their packages are installed: {', '.join(missing)}")


def _missing(packages: Mapping[str, str]) -> dict[str, str]:
    return {command: package for command, package in packages.items() if shutil.which(command) is None}


def _install(names: list[str]) -> None:
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        _run(["apt-get", "--quiet", *arguments])


def _run(command: list[str], folder: Path | None = None) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-_LOG_TAIL_CHARACTERS:]
        raise PackagesMissing(f"{' '.join(command)}: status {done.returncode}\n{said}")


def unpack(package: str, folder: Path, *, alone: bool = False) -> Path:
    """Unpack a Debian package, and what it needs that the machine has not, below a folder of ours; return that.

    Taken `alone` it is for commands that need nothing else. Nothing is installed, and no service started. What is there
    already is taken. Raises PackagesMissing.
    """
    done = folder / "root"
    if done.exists():
        return done
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PackagesMissing(f"the Debian package {package} is missing and only root can download it")
    with _LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return done
        archives, root = folder / "archives", folder / "unpacking"
        shutil.rmtree(root, ignore_errors=True)
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        where = f"Dir::Cache::archives={archives}"
        _run(["apt-get", "--quiet", "update"])
        if alone:
            _run(["apt-get", "--quiet", "download", package], folder=archives)
        else:
            _run(["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", "--download-only",
                  "--option", where, package])  # fmt: skip
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg", "--extract", str(archive), str(root)])
        shutil.rmtree(archives)
        root.rename(done)
    return done
