"""The documentation's pages: what they show, and a shell that types it in a copy of the project's folder."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 280


def blocks(page: Path, language: str) -> Sequence[str]:
    """Return the blocks of a page that are of a language, such as `sh`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def copy_project(folder: Path) -> None:
    """Make a folder look like a checkout after `make setup`, as far as pages use it."""
    for name in ("examples", "crds", "charts"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type commands in a folder, up to the first one that fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BALEEN_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    # In a session of its own, so that what a failed script left behind can be ended.
    process = subprocess.Popen(
        ["bash", "-e", "-c", f"set -m\n{script}"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=_SECONDS)
    finally:
        _end_session(process.pid)
    return subprocess.CompletedProcess(script, process.returncode, out, err)


def _end_session(session: int) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session:
                process.terminate()
