"""A small Debian with Python 3.11 as a container image: what the Dockerfiles stand on where no registry is.

Their default base comes from a registry of images; this one is made of the packages that apt is set up with.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from debian_packages import need_commands

_SUITE: Final = "bookworm"
_PACKAGES: Final = ("ca-certificates", "python3", "python3-distutils", "python3-venv")
_LEFT_OUT: Final = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
"""Folders that are emptied: every layer on top copies all of what is below it."""
_NAME: Final = "localhost/baleen-base"
_COMMANDS: Final = {"buildah": "buildah", "debootstrap": "debootstrap", "runc": "runc"}
_LOG_TAIL_CHARACTERS: Final = 3000


class BuildFailed(Exception):
    """A command that makes an image failed; the message says which and ends with what it said."""


def storage_folder() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/baleen/buildah`, where images are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "buildah"


def buildah(*arguments: str | Path) -> str:
    """Run buildah as root on the storage folder, without a daemon; return its output.

    Raises BuildFailed.
    """
    # Options of the storage belong before the command; the storage's lock files make concurrent calls safe.
    driver = _driver()
    storage = ["--root", storage_folder() / driver, "--runroot", storage_folder() / "run", "--storage-driver", driver]
    if driver == "overlay":
        # A mount for all its containers would stay when the command has ended.
        storage += ["--storage-opt", "overlay.skip_mount_home=true"]
    return run_command(["buildah", *map(str, storage), *map(str, arguments)], {"BUILDAH_ISOLATION": "chroot"})


@cache
def _driver() -> str:
    """Return how layers are kept: `overlay` where it can be mounted, else `vfs`, which copies all for each of them."""
    storage_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=storage_folder()) as tried:
        folders = {name: Path(tried) / name for name in ("lowerdir", "upperdir", "workdir", "merged")}
        for folder in folders.values():
            folder.mkdir()
        options = ",".join(f"{name}={folder}" for name, folder in folders.items() if name != "merged")
        mount = ["mount", "--types", "overlay", "--options", options, "overlay", folders["merged"]]
        # In a namespace of its own, which takes the mount along.
        mounted = subprocess.run(["unshare", "--mount", *mount], stdin=subprocess.DEVNULL, capture_output=True)
    return "vfs" if mounted.returncode else "overlay"


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command to its end and return its output; raise BuildFailed with what it said."""
    done = subprocess.run(
        command, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-_LOG_TAIL_CHARACTERS:]
        raise BuildFailed(f"{' '.join(command)}: status {done.returncode}\n{said}")
    return done.stdout


def base_image() -> str:
    """Return the name by which `buildah` knows the base image (for `--build-arg BASE=`); the first call makes it.

    Raises PackagesMissing where it cannot be made, and BuildFailed.
    """
    name = f"{_NAME}:{_recipe_digest()}"
    need_commands(_COMMANDS)
    storage_folder().mkdir(parents=True, exist_ok=True)
    with (storage_folder() / "base.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not buildah("images", "--quiet", "--filter", f"reference={name}").strip():
            _make(name)
    return name


def _recipe_digest() -> str:
    recipe = "\0".join((_SUITE, *_PACKAGES, *_LEFT_OUT))
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _make(name: str) -> None:
    with tempfile.TemporaryDirectory(dir=storage_folder()) as made:
        root = Path(made) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root), _mirror()]
        run_command(command, {"DEBIAN_FRONTEND": "noninteractive"})
        for folder in _LEFT_OUT:
            run_command(["find", str(root / folder), "-mindepth", "1", "-delete"], {})
        container = buildah("from", "--name", f"making-{root.parent.name}", "scratch").strip()
        try:
            buildah("add", "--quiet", container, root, "/")
            buildah("config", "--cmd", "python3.11", container)
            buildah("commit", "--quiet", container, name)
        finally:
            buildah("rm", container)


def _mirror() -> str:
    """Return the archive that apt has the release from: debootstrap's own default need not be reachable."""
    listed = run_command(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {_SUITE}"], {}
    )
    if not listed.strip():
        raise BuildFailed(f"apt knows no archive of {_SUITE}")
    return listed.split()[0]
