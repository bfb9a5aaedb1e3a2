"""The private folder of one running server, and the clearing away of what dead ones left."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  where the Python backend's regions are, on every Linux
_PREFIX: Final = "baleen-"


@contextlib.contextmanager
def run_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder; it, and the shared memory that bears its name, is gone afterwards.

    Folders whose owner died without that are cleared away first, with the processes that are left of its server: a lock
    tells, which dies with its process.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent / ".lock"):
        _clear_dead(parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        owner = (folder / ".owner").open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        _remove(folder)
        owner.close()


def remove_shared_memory(prefix: str) -> None:
    """Remove the regions that a killed server left; one that ends by itself removes its own."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _clear_dead(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), (folder / ".owner").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _end_processes(folder.name)
            _remove(folder)


def _end_processes(name: str) -> None:
    """End what is left of a server whose folder has this name: a stub that is just starting may outlive its server."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.name().startswith("triton") and any(name in each for each in process.cmdline()):
                process.kill()


def _remove(folder: Path) -> None:
    remove_shared_memory(folder.name)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
