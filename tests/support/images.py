"""Container images of this project, built by buildah once for each content and kept as OCI archives."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from debian_packages import need_commands
from oci_base import BuildFailed, base_image, buildah

ROOT: Final = Path(__file__).parents[2]
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_KEPT: Final = 2
"""Archives of one image that are kept: somebody may work on two branches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A Dockerfile, and what of the repository goes into it; both by their path in the repository."""

    dockerfile: str
    sources: tuple[str, ...]


_PROJECT: Final = ("pyproject.toml", "LICENSE", "NOTICE", "scripts/image_content.py")
RECIPES: Final[Mapping[str, Recipe]] = {
    "operator": Recipe(
        dockerfile="Dockerfile.operator",
        sources=(*_PROJECT, "requirements/operator.lock", "core", "operator", "models"),
    ),
    "sidecar": Recipe(
        dockerfile="Dockerfile.sidecar",
        sources=(
            *(*_PROJECT, "requirements/sidecar.lock", "requirements/sidecar-build.lock"),
            *("core", "sidecar", "models"),
        ),
    ),
    "models": Recipe(
        dockerfile="Dockerfile.models", sources=(*_PROJECT, "requirements/models.lock", "core", "cli", "models")
    ),
    "triton": Recipe(
        dockerfile="tests/images/Dockerfile.triton",
        sources=(
            *("core/baleen_core/__init__.py", "core/baleen_core/errors.py"),
            *("cli/baleen_cli/__init__.py", "cli/baleen_cli/triton"),
        ),
    ),
}
"""What can be built, by the name that comes after `baleen-`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image by its full name, and the OCI archive that holds it under that name."""

    name: str
    archive: Path

    def config(self) -> dict[str, Any]:
        """Return the image's configuration, as the OCI specification has it."""
        with tarfile.open(self.archive) as tar:
            return self._blob(tar, self._manifest(tar)["config"]["digest"])

    def layer_sizes(self) -> tuple[int, ...]:
        """Return the bytes of each layer once it is unpacked; the first one is the base."""
        kept = self.archive.with_suffix(".sizes")
        if not kept.exists():
            sizes = [int(self._read_unpacked(layer, "wc -c")) for layer in self._layers()]
            with tempfile.TemporaryDirectory(dir=images_folder()) as scratch:
                (Path(scratch) / "sizes").write_text(json.dumps(sizes))
                (Path(scratch) / "sizes").rename(kept)
        return tuple(json.loads(kept.read_text()))

    @property
    def root(self) -> Path:
        """The folder of the root file system that the layers make; nobody may write there, and runs share it."""
        root = self.archive.with_suffix(".root")
        if not root.exists():
            with _locked(images_folder() / "lock"), tempfile.TemporaryDirectory(dir=images_folder()) as scratch:
                if not root.exists():
                    made = Path(scratch) / "root"
                    self._unpack(made)
                    made.rename(root)
        return root

    def _unpack(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        for layer in self._layers():
            self._read_unpacked(layer, 'tar -xC "$3"', folder)
            # A layer takes NAME of one below it away by a file .wh.NAME.
            for mark in folder.rglob(".wh.*"):
                gone = mark.with_name(mark.name.removeprefix(".wh."))
                subprocess.run(["rm", "-rf", "--", gone, mark], check=True)

    def _layers(self) -> list[str]:
        with tarfile.open(self.archive) as tar:
            return [_path(layer["digest"]) for layer in self._manifest(tar)["layers"]]

    def _read_unpacked(self, layer: str, command: str, *more: Path) -> str:
        """Give a layer to a command of the shell, and return what that says."""
        need_commands({"zstd": "zstd"})
        script = f'set -o pipefail; tar -xOf "$1" "$2" | zstd -dcq | {command}'
        read = ["bash", "-c", script, "bash", self.archive, layer, *more]
        return subprocess.run(read, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _manifest(self, tar: tarfile.TarFile) -> dict[str, Any]:
        index = json.load(_file(tar, "index.json"))
        return self._blob(tar, index["manifests"][0]["digest"])

    @staticmethod
    def _blob(tar: tarfile.TarFile, digest: str) -> dict[str, Any]:
        found: dict[str, Any] = json.load(_file(tar, _path(digest)))
        return found


def image(name: str) -> Image:
    """Return an image of `RECIPES`; the first call for its content builds it, which takes minutes.

    Raises PackagesMissing where images cannot be built, and BuildFailed.
    """
    recipe = RECIPES[name]
    full = f"localhost/baleen-{name}:{_key(recipe)}"
    archive = images_folder() / f"{full.removeprefix('localhost/').replace(':', '-')}.tar"
    if not archive.exists():
        images_folder().mkdir(parents=True, exist_ok=True)
        with _locked(images_folder() / "lock"):
            if not archive.exists():
                _build(name, recipe, full, archive)
    return Image(name=full, archive=archive)


def images_folder() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/baleen/images`."""
    kept = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(kept) / "baleen" / "images"


def _build(name: str, recipe: Recipe, full: str, archive: Path) -> None:
    base = base_image()
    with tempfile.TemporaryDirectory(dir=images_folder()) as scratch:
        context = Path(scratch) / "context"
        _copy(recipe, context)
        settings = Path(scratch) / "pip.conf"
        settings.write_text(_pip_settings(), encoding="utf-8")
        options: list[str | Path] = [
            *("--quiet", "--layers", "--force-rm", "--pull-never", "--file", context / recipe.dockerfile),
            *("--build-arg", f"BASE={base}"),
            # How this machine reaches its registries; nothing of it stays in the image.
            *("--volume", f"{settings}:/etc/pip.conf:ro", "--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"),
        ]
        # Under a name of their own the dependencies outlive the clearing up below, for the next edit of a source.
        kept = f"localhost/baleen-{name}-dependencies"
        buildah("build", *options, "--target", "dependencies", "--tag", kept, context)
        buildah("build", *options, "--tag", full, context)
        made = Path(scratch) / "image.tar"
        # With gzip nearly half of what containerd does to import an image is to unpack it.
        buildah("push", "--quiet", "--compression-format", "zstd", full, f"oci-archive:{made}:{full}")
        made.rename(archive)
    _clear_up(name, full)


def _clear_up(name: str, full: str) -> None:
    """Remove what was built before: each layer is a whole file system, hundreds of megabytes."""
    archives = sorted(images_folder().glob(f"baleen-{name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for old in archives[:-_KEPT]:
        old.unlink()
        old.with_suffix(".sizes").unlink(missing_ok=True)
        shutil.rmtree(old.with_suffix(".root"), ignore_errors=True)
    listed = buildah("images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference=localhost/baleen-{name}")
    for each in listed.split():
        if each != full:
            buildah("rmi", each)
    # What somebody else is building on cannot be removed now, and need not.
    with contextlib.suppress(BuildFailed):
        buildah("rmi", "--prune")


@cache
def _key(recipe: Recipe) -> str:
    """Return the digest of all that decides what the image is, but for the packages of Debian's release."""
    digest = hashlib.sha256()
    for path in (Path(__file__).with_name("oci_base.py"), *_files(recipe)):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(recipe: Recipe) -> Iterator[Path]:
    yield ROOT / recipe.dockerfile
    for source in recipe.sources:
        path = ROOT / source
        found = sorted(path.rglob("*")) if path.is_dir() else (path,)
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


def _copy(recipe: Recipe, context: Path) -> None:
    """Copy what goes in. Neither times nor modes of a checkout decide what is built anew."""
    for path in _files(recipe):
        copied = context / path.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
        copied.chmod(0o644)
    for each in (context, *context.rglob("*")):
        os.utime(each, (0, 0))


def _pip_settings() -> str:
    """Return where pip finds packages on this machine, as a pip.conf."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    settings = dict(line.split("=", 1) for line in listed.splitlines())
    names = ("cert", "extra-index-url", "index-url", "timeout", "trusted-host")
    found = {
        name: value.strip("'")
        for name in names
        for place in ("global", "install", ":env:")
        if (value := settings.get(f"{place}.{name}"))
    }
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _file(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return file


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RECIPES:
        print(image(wanted).archive)
