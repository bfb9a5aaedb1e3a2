"""Virtual environments of peers, each its own: what they need does not fit together, nor with what we need."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from baleen_bench.build import cache_folder
from baleen_bench.form import CannotMeasure

_SECONDS: Final = 900


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of an environment with these packages, made at its first use and kept in the cache.

    Raises:
        CannotMeasure: the packages cannot be installed; what pip said is in the message.
    """
    asked = "\n".join([sys.version, *requirements])
    folder = cache_folder() / "peers" / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            _make(Path(made) / name, requirements)
            if not folder.exists():
                # Found by `bin/python` alone, it may stand elsewhere than where it was made.
                (Path(made) / name).rename(folder)
    return folder / "bin" / "python"


def _make(folder: Path, requirements: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    if requirements:
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise CannotMeasure(f"{' '.join(command)} did not end within {_SECONDS} s") from exc
    if done.returncode:
        raise CannotMeasure(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
