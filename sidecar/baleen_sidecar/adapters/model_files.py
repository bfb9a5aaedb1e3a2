"""The files that recipes and golden questions are made of, for models that a cluster declares."""

from pathlib import Path

from baleen_core.errors import IntegrityError, NotFound
from baleen_core.model.loaded import LoadedModel, load_model
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model
from baleen_models.files import read_file


class FolderModelFiles:
    """Finds files below `root` and among those that are shipped; whatever is found counts only with its SHA-256."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self, model: Model) -> LoadedModel:
        """Make a model's recipe ready; the model's own file is Triton's business, and its digest is taken as declared.

        Raises:
            NotFound, IntegrityError, ModelError: an asset is not there, not the promised one or cannot be used.
        """
        is_picture = find_recipe(model.preprocessing.recipe).accepts == "image"
        assets = () if is_picture else model.preprocessing.assets
        read = {asset.name: self._read(model, asset.name, asset.sha256) for asset in assets}
        return load_model(model, model.source.sha256 or "", read)

    def golden_file(self, model: Model, name: str) -> bytes:
        """Read a golden file.

        Raises:
            NotFound, IntegrityError: it is not there, or not the promised one.
        """
        digests = [golden.input.sha256 for golden in model.golden if golden.input.name == name]
        return self._read(model, name, digests[0] if digests else None)

    def _read(self, model: Model, name: str, sha256: str | None) -> bytes:
        data, found = read_file(self._root, model.name, name, sha256 or "")
        if data is not None:
            return data
        if found:
            raise IntegrityError(f"file {name} of model {model.name}", expected=str(sha256), found=found)
        raise NotFound(
            f"model {model.name}: there is no file {name!r} with SHA-256 {sha256}, "
            f"neither below {self._root} nor shipped"
        )
