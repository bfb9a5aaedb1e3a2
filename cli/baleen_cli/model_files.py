"""Find the files of a ModelDeployment's models: shipped ones in the store, a user's own ones on disk."""

import importlib.resources
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from baleen_cli.models.archives import digest_file
from baleen_cli.models.catalog import ModelSource
from baleen_cli.models.fetch import fetch_source
from baleen_cli.models.placing import find_shipped
from baleen_cli.models.progress import FetchProgress
from baleen_cli.models.store import ModelStore
from baleen_core.errors import IntegrityError, NotFound
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model, SourceType
from baleen_sidecar.adapters.model_dir import load_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A model's ONNX file with its digest, and the folder-independent names of its assets."""

    onnx: Path
    sha256: str
    assets: Mapping[str, Path]


class ModelLocator:
    """Knows where each model's files are; paths of `File` sources are relative to the folder of the deployments."""

    def __init__(self, store: ModelStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def fetch(self, models: Iterable[Model], progress: FetchProgress) -> None:
        """Fetch what is not in the store yet.

        Raises:
            ModelError: a package source that no shipped model has.
            IntegrityError, UpstreamError: as for fetch_models.
        """
        for source in [self._source(model) for model in models if model.source.type is SourceType.PACKAGE]:
            fetch_source(source, self._store, progress)

    def locate(self, model: Model) -> Files:
        """Return a model's files.

        Raises:
            NotFound: they are not there.
            IntegrityError: a file of the user's own is not the one that the deployment names.
        """
        if model.source.type is SourceType.PACKAGE:
            found = self._store.files_of(self._source(model))
            return Files(onnx=found.onnx, sha256=found.sha256, assets=found.assets)
        onnx = self._folder / model.source.uri
        assets = {asset.name: onnx.parent / asset.name for asset in model.preprocessing.assets}
        for file in (onnx, *assets.values()):
            if not file.is_file():
                raise NotFound(f"model {model.name}: there is no file {file}")
        sha256 = digest_file(onnx)
        if model.source.sha256 not in (None, sha256):
            raise IntegrityError(f"model {model.name}", expected=str(model.source.sha256), found=sha256)
        return Files(onnx=onnx, sha256=sha256, assets=assets)

    def load(self, model: Model) -> LoadedModel:
        """Make a model ready to prepare content.

        Raises:
            NotFound, IntegrityError, ModelError: its files are not there or not the promised ones.
        """
        files = self.locate(model)
        return load_from(model, files.sha256, files.assets)

    def golden_file(self, model: Model, name: str) -> bytes:
        """Read a golden file: beside a user's own model, or shipped with ours (its own, or shared by several).

        Raises:
            NotFound: there is none of that name.
        """
        if model.source.type is SourceType.FILE:
            places = [self._folder / Path(model.source.uri).parent / name]
        else:
            shipped = importlib.resources.files("baleen_models")
            places = [Path(str(shipped / folder / "golden" / name)) for folder in (self._source(model).name, ".")]
        for place in places:
            if place.is_file():
                return place.read_bytes()
        raise NotFound(f"model {model.name}: there is no golden file {name!r}")

    def _source(self, model: Model) -> ModelSource:
        return find_shipped(self._store, model.name, model.source.uri, model.source.sha256)
