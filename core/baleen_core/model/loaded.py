"""A model with its recipe at hand, ready to turn content, or a golden question, into tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from baleen_core.errors import IntegrityError, ModelError
from baleen_core.model.recipes import TextRecipe, find_recipe, image_recipe, text_recipe
from baleen_core.model.schema import GoldenInput, Model
from baleen_core.records import ModelIdentity

ImageRecipe = Callable[[Image.Image], NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model with its recipe at hand: one of `text` and `image` is set."""

    model: Model
    sha256: str
    text: TextRecipe | None = None
    image: ImageRecipe | None = None

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name=self.model.name, version=self.model.version, sha256=self.sha256)

    def signal_names(self) -> tuple[str, ...]:
        """Return the signals as policies name them."""
        return tuple(f"{self.model.name}.{signal.name}" for signal in self.model.signals)


def load_model(model: Model, sha256: str, assets: Mapping[str, bytes]) -> LoadedModel:
    """Make a model's recipe ready; `sha256` is that of the file that Triton loads, `assets` by name are as promised.

    Raises:
        IntegrityError: the model's file is not the one that the deployment names.
        ModelError: an asset is missing or cannot be used.
    """
    if model.source.sha256 not in (None, sha256):
        raise IntegrityError(f"model {model.name}", expected=str(model.source.sha256), found=sha256)
    recipe = model.preprocessing.recipe
    if find_recipe(recipe).accepts == "image":
        return LoadedModel(model=model, sha256=sha256, image=image_recipe(recipe))
    return LoadedModel(model=model, sha256=sha256, text=text_recipe(recipe, assets))


def golden_rows(
    loaded: LoadedModel, question: GoldenInput, picture: Image.Image | None
) -> tuple[Mapping[str, NDArray[np.generic]], ...]:
    """Turn a golden question into batches of tensors by input name; `picture` is that of a question that is a file.

    Raises:
        ModelError: the question is neither a text for a text recipe nor a picture for an image recipe, or the recipe's
        assets have no tokens for it.
    """
    model = loaded.model
    if question.text is not None and loaded.text is not None:
        rows = loaded.text.windows(question.text).rows
        size = model.batching.max_batch_size
        return tuple(loaded.text.collate(rows[start : start + size]) for start in range(0, len(rows), size))
    if picture is not None and loaded.image is not None:
        return ({model.inputs[0].name: loaded.image(picture)[np.newaxis]},)
    raise ModelError("the golden input is neither a text for a text recipe nor a file for an image recipe")
