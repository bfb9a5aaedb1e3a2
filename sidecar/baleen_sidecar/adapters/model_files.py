"""The files that recipes and golden questions are made of, for models that a cluster declares."""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from baleen_core.errors import IntegrityError, NotFound
from baleen_core.model.loaded import LoadedModel, load_model
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model
from baleen_models.files import read_file

log = logging.getLogger(__name__)


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
        read = {asset.name: self.read(model, asset.name, asset.sha256) for asset in assets}
        return load_model(model, model.source.sha256 or "", read)

    def golden_file(self, model: Model, name: str) -> bytes:
        """Read a golden file.

        Raises:
            NotFound, IntegrityError: it is not there, or not the promised one.
        """
        digests = [golden.input.sha256 for golden in model.golden if golden.input.name == name]
        return self.read(model, name, digests[0] if digests else None)

    def read(self, model: Model, name: str, sha256: str | None) -> bytes:
        """Read a file that a model names.

        Raises:
            NotFound, IntegrityError: it is not there, or not the promised one.
        """
        data, found = read_file(self._root, model.name, name, sha256 or "")
        if data is not None:
            return data
        if found:
            raise IntegrityError(f"file {name} of model {model.name}", expected=str(sha256), found=found)
        raise NotFound(
            f"model {model.name}: there is no file {name!r} with SHA-256 {sha256}, "
            f"neither below {self._root} nor shipped"
        )


class FetchedModelFiles(FolderModelFiles):
    """Takes what is not in the folder from elsewhere, and keeps it in another one for the next start."""

    def __init__(self, root: Path, kept: Path, fetch: Callable[[str], bytes]) -> None:
        """`fetch` returns the file of a SHA-256, or raises BaleenError; it may take seconds."""
        super().__init__(root)
        self._kept = kept
        self._fetch = fetch

    def load(self, model: Model) -> LoadedModel:
        """Make a model's recipe ready, and have its golden files at hand.

        Raises:
            As in the folder, and what fetching raises.
        """
        for golden in model.golden:
            if golden.input.name is not None:
                self.read(model, golden.input.name, golden.input.sha256)
        return super().load(model)

    def read(self, model: Model, name: str, sha256: str | None) -> bytes:
        """Read a file that a model names, wherever it is.

        Raises:
            As in the folder, and what fetching raises.
        """
        try:
            return super().read(model, name, sha256)
        except (NotFound, IntegrityError):
            if not sha256:
                raise
        path = self._kept / sha256
        try:
            kept = path.read_bytes()
            if hashlib.sha256(kept).hexdigest() == sha256:
                return kept
        except OSError:
            pass
        data = self._fetch(sha256)
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise IntegrityError(f"file {name} of model {model.name}", expected=sha256, found=found)
        self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(exist_ok=True)
            draft.write_bytes(data)
            draft.replace(path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                draft.unlink()
            log.warning("file not kept", extra={"file": path.name, "cause": str(exc)})
