"""Files that golden questions are made of, from a folder and from the package of the shipped models."""

import asyncio
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from baleen_core.errors import BaleenError, IntegrityError, ModelError, NotFound
from baleen_core.model.loaded import LoadedModel, golden_rows, load_model
from baleen_core.model.pixels import flatten, turn_upright
from baleen_core.model.recipes import TextRecipe, find_recipe, text_recipe
from baleen_core.model.schema import Asset, GoldenInput, Model
from baleen_models.files import read_file
from baleen_operator.reconcile.model_ports import Tensors

_FORMATS: Final = ["JPEG", "PNG", "WEBP", "GIF"]
_MAX_PIXELS: Final = 50_000_000
_RECIPES_KEPT: Final = 8
"""Tokenizers have megabytes each, and most deployments share one."""
_AT_ONCE: Final = 2


class FolderModelFiles:
    """Finds files below `root` as `baleen models fetch` keeps them, `<model>/<key>/` with a manifest, or `<model>/`.

    Golden files may also be those that are shipped. Whatever is found counts only with the SHA-256 that the deployment
    names.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._recipe = functools.lru_cache(maxsize=_RECIPES_KEPT)(self._make_recipe)

    async def questions(self, model: Model) -> Sequence[Sequence[Tensors]]:
        """Return the batches of tensors that each of the model's golden inputs becomes.

        Raises:
            NotFound, IntegrityError, ModelError: a file is not there, not the promised one or cannot be read.
        """
        async with self._gate:
            return await asyncio.to_thread(self._questions, model)

    def _questions(self, model: Model) -> Sequence[Sequence[Tensors]]:
        loaded = self._load(model)
        return [golden_rows(loaded, golden.input, self._picture(model, golden.input)) for golden in model.golden]

    def _load(self, model: Model) -> LoadedModel:
        recipe, sha256 = model.preprocessing.recipe, model.source.sha256 or ""
        if find_recipe(recipe).accepts == "image":
            return load_model(model, sha256, {})
        return LoadedModel(
            model=model, sha256=sha256, text=self._recipe(model.name, recipe, model.preprocessing.assets)
        )

    def _make_recipe(self, model: str, recipe: str, assets: tuple[Asset, ...]) -> TextRecipe:
        return text_recipe(recipe, {asset.name: self._read(model, asset.name, asset.sha256) for asset in assets})

    def _picture(self, model: Model, question: GoldenInput) -> Image.Image | None:
        if question.name is None or question.sha256 is None:
            return None
        data = self._read(model.name, question.name, question.sha256)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise ModelError(f"golden file {question.name} has more than {_MAX_PIXELS:,} pixels")
                picture.load()
                return flatten(turn_upright(picture))
        except BaleenError:
            raise
        except Exception as exc:  # a decoder raises anything at bytes that are no picture
            raise ModelError(f"golden file {question.name} is not a picture that can be read ({exc})") from exc

    def _read(self, model: str, name: str, sha256: str) -> bytes:
        data, found = read_file(self._root, model, name, sha256)
        if data is not None:
            return data
        if found:
            raise IntegrityError(f"file {name} of model {model}", expected=sha256, found=found)
        raise NotFound(f"there is no file {name!r} with SHA-256 {sha256}, neither below {self._root} nor shipped")
