"""Where fetched models are kept: whole and checked, or not at all."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from baleen_cli.models.archives import check_digest, digest_file
from baleen_cli.models.catalog import Archive, ModelSource, choose, load_catalog
from baleen_cli.models.converters import fingerprint
from baleen_core.canonical import canonical_json, digest_of
from baleen_core.errors import IntegrityError, NotFound

MODEL_FILE: Final = "model.onnx"
_MANIFEST: Final = "manifest.json"
_MAKING: Final = ".making-"
_KEY_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A whole model in the store: the ONNX file, its SHA-256, and its assets by name."""

    onnx: Path
    sha256: str
    assets: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """What the manifest beside a stored model says: digests and sizes of its files, and what training measured."""

    name: str
    version: str
    key: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int]
    figures: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The digest of the ONNX file."""
        return self.digests[MODEL_FILE]


def default_root() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/baleen/models`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "baleen" / "models"


class ModelStore:
    """Models below `root`, each in a folder named by what made it: `<name>/<key>/` with a manifest.

    A folder appears by one rename after everything in it was checked, so it is whole or it is not there. The key is
    the digest of the fetch section and of the converter's version: when either changes, a new folder is made.
    """

    def __init__(self, root: Path | None = None, catalog: Sequence[ModelSource] | None = None) -> None:
        self.root = root or default_root()
        self.archives = self.root.parent / "archives"
        self.catalog = tuple(catalog) if catalog is not None else load_catalog()

    def locate(self, name: str) -> ModelFiles:
        """Return the files of a fetched model.

        Raises:
            NotFound: there is no such model, or it was not fetched yet.
        """
        (source,) = choose([name], self.catalog)
        return self.files_of(source)

    def files_of(self, source: ModelSource) -> ModelFiles:
        """Return the files of a model of the catalogue, or of one that it replaced.

        Raises:
            NotFound: it was not fetched yet.
        """
        stored = self.find(source)
        if stored is None:
            raise NotFound(f"model {source.name!r} has not been fetched; run `baleen models fetch {source.name}`")
        folder = self.folder(source)
        assets = {file: folder / file for file in stored.digests if file != MODEL_FILE}
        return ModelFiles(onnx=folder / MODEL_FILE, sha256=stored.sha256, assets=assets)

    def find(self, source: ModelSource) -> StoredModel | None:
        """Return what is stored for a model, or None when it has to be made (again).

        A file whose size differs from the manifest counts as missing; `verify` reads the bytes.
        """
        folder = self.folder(source)
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            stored = StoredModel(**manifest)
            whole = all((folder / file).stat().st_size == size for file, size in stored.sizes.items())
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return stored if whole else None

    def verify(self, source: ModelSource) -> StoredModel:
        """Read every byte of a stored model and compare.

        Raises:
            NotFound: it was not fetched yet.
            IntegrityError: a byte is wrong; expected and found digest are named.
        """
        self.files_of(source)
        stored = self.find(source)
        assert stored is not None
        for file, expected in stored.digests.items():
            check_digest(self.folder(source) / file, expected, f"{file} of model {source.name}")
        return stored

    def folder(self, source: ModelSource) -> Path:
        """Return where the model is, or would be."""
        return self.root / source.name / recipe_key(source)[:_KEY_DIGITS]

    @contextlib.contextmanager
    def locked(self, source: ModelSource) -> Iterator[None]:
        """Hold the model for making it; a second process waits here. The lock dies with its process."""
        home = self.root / source.name
        home.mkdir(parents=True, exist_ok=True)
        with _flock(home / ".lock"):
            # Whatever is here now was left by a process that died, since we hold the lock.
            for left in home.glob(f"{_MAKING}*"):
                shutil.rmtree(left)
            yield

    @contextlib.contextmanager
    def workspace(self, source: ModelSource) -> Iterator[Path]:
        """Give an empty folder on the store's disk that is gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self.root / source.name))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, source: ModelSource, made: Path, figures: Mapping[str, Any]) -> StoredModel:
        """Check the folder `made` against the model's promises, and take it in with one rename.

        Raises:
            IntegrityError: a file is not the promised one.
        """
        stored = _describe(source, made, figures)
        _check_promises(source, stored)
        (made / _MANIFEST).write_bytes(canonical_json(_as_json(stored)))
        for file in made.iterdir():
            _sync(file)
        target = self.folder(source)
        if target.exists():  # damaged, or it would have been found
            shutil.rmtree(target)
        made.rename(target)
        _sync(target.parent)
        # One that was replaced is made for a deployment that still names it; the file says what is shipped.
        if source in self.catalog:
            self.record(stored)
        return stored

    def record(self, stored: StoredModel) -> None:
        """Write what was made into `models.lock`, the one file that says it for all models."""
        with _flock(self.root / ".lock"):
            path = self.root / "models.lock"
            models = json.loads(path.read_bytes())["models"] if path.exists() else {}
            models[stored.name] = _as_json(stored)
            text = json.dumps({"models": models}, indent=2, sort_keys=True) + "\n"
            _write_atomically(path, text.encode())

    def archive(self, archive: Archive) -> Path | None:
        """Return the kept archive, if there is one and its bytes are right."""
        path = self.archives / archive.sha256
        if not path.exists():
            return None
        return path if digest_file(path) == archive.sha256 else None

    def keep_archive(self, archive: Archive, downloaded: Path) -> Path:
        """Check a downloaded archive and keep it under its digest.

        Raises:
            IntegrityError: it is not the promised one; nothing is kept.
        """
        check_digest(downloaded, archive.sha256, str(archive))
        self.archives.mkdir(parents=True, exist_ok=True)
        _sync(downloaded)
        return downloaded.rename(self.archives / archive.sha256)


def recipe_key(source: ModelSource) -> str:
    """Name everything that decides what is made: the fetch section and the converter."""
    return digest_of(f"{source.fetch_digest} {fingerprint(source)}".encode()).removeprefix("sha256:")


def _describe(source: ModelSource, folder: Path, figures: Mapping[str, Any]) -> StoredModel:
    files = sorted(folder.iterdir())
    return StoredModel(
        name=source.name,
        version=source.version,
        key=recipe_key(source),
        digests={file.name: digest_file(file) for file in files},
        sizes={file.name: file.stat().st_size for file in files},
        figures=figures,
    )


def _check_promises(source: ModelSource, stored: StoredModel) -> None:
    promised = source.sha256 or stored.digests.get(MODEL_FILE, "")
    expected = {MODEL_FILE: promised, **source.assets}
    if set(stored.digests) != set(expected):
        raise IntegrityError(
            f"files of model {source.name}", expected=", ".join(sorted(expected)), found=", ".join(stored.digests)
        )
    for file, digest in expected.items():
        if stored.digests[file] != digest:
            raise IntegrityError(f"{file} of model {source.name}", expected=digest, found=stored.digests[file])


def _as_json(stored: StoredModel) -> dict[str, Any]:
    return {
        "name": stored.name,
        "version": stored.version,
        "key": stored.key,
        "digests": dict(stored.digests),
        "sizes": dict(stored.sizes),
        "figures": dict(stored.figures),
    }


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    _sync(temporary)
    temporary.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
