"""Every recipe by its name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from baleen_core.canonical import digest_of
from baleen_core.errors import ModelError
from baleen_core.model.recipes import me5, pictures, tox_block
from baleen_core.model.recipes.windows import TextRecipe
from baleen_core.model.schema import DataType

ImageRecipe = Callable[[Image.Image], NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeInfo:
    """What a recipe takes: pictures or text, the names of the tensors it makes, and the assets it needs.

    `inputs` is empty for images, whose one tensor goes to the model's one input; `data_type` is that of all tensors.
    `padding` has the value by which each of them may be made longer on the right without changing a score; empty where
    rows are all of one length.
    """

    name: str
    accepts: Literal["image", "text"]
    data_type: DataType
    inputs: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    padding: Mapping[str, int] = field(default_factory=dict)


_IMAGE_RECIPES: Final[Mapping[str, ImageRecipe]] = {
    "centerface/1": pictures.prepare_centerface,
    "centerface/2": pictures.letterbox_levels,
    "clp-det/1": pictures.prepare_clp_det,
    "clp-det/2": pictures.letterbox_levels,
    "nsfwjs/1": pictures.prepare_nsfwjs,
    "nsfwjs/2": pictures.nsfwjs_levels,
    "open-nsfw/1": pictures.prepare_open_nsfw,
    "open-nsfw/2": pictures.open_nsfw_levels,
    "owen-s/1": pictures.prepare_owen_s,
    "owen-s/2": pictures.owen_s_levels,
}

_OF_LEVELS: Final = frozenset({"centerface/2", "clp-det/2", "nsfwjs/2", "open-nsfw/2", "owen-s/2"})

_TEXT_RECIPES: Final[Mapping[str, Callable[[Mapping[str, bytes]], TextRecipe]]] = {
    "me5/1": me5.read_recipe,
    "tox-block/1": tox_block.read_recipe,
}

_built: Final[WeakValueDictionary[tuple[str, ...], TextRecipe]] = WeakValueDictionary()
"""The text recipes that somebody has, by their name and the digests of their assets."""

_INFOS: Final[Mapping[str, RecipeInfo]] = {
    **{
        name: RecipeInfo(name=name, accepts="image", data_type=DataType.UINT8 if name in _OF_LEVELS else DataType.FP32)
        for name in _IMAGE_RECIPES
    },
    "me5/1": RecipeInfo(
        name="me5/1",
        accepts="text",
        data_type=DataType.INT64,
        inputs=("input_ids", "attention_mask"),
        assets=("norm.json", "tokenizer.json"),
        padding={"input_ids": me5.PADDING, "attention_mask": me5.UNSEEN},
    ),
    "tox-block/1": RecipeInfo(
        name="tox-block/1",
        accepts="text",
        data_type=DataType.INT64,
        inputs=("input_ids",),
        assets=("vocab.json",),
    ),
}


def find_recipe(name: str) -> RecipeInfo:
    """Look a recipe up.

    Raises:
        ModelError: no recipe has that name; the nearest one is suggested.
    """
    if info := _INFOS.get(name):
        return info
    near = difflib.get_close_matches(name, _INFOS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the recipes are {', '.join(sorted(_INFOS))}"
    raise ModelError(f"there is no recipe {name!r}; {hint}")


def image_recipe(name: str) -> ImageRecipe:
    """Return the function that turns an RGB picture of any size into one row (no batch axis) of the model's input.

    Raises:
        ModelError: no recipe has that name, or it takes text.
    """
    if find_recipe(name).accepts != "image":
        raise ModelError(f"recipe {name} takes text, not images")
    return _IMAGE_RECIPES[name]


def text_recipe(name: str, assets: Mapping[str, bytes]) -> TextRecipe:
    """Return a text recipe of these assets: the one that somebody has, or one that is built.

    To build one takes up to seconds, in which a tokenizer's library lets no other thread run. So a model that is
    declared anew with the assets that it had, or another one with the same, shares what is there.

    Raises:
        ModelError: no recipe has that name, it takes images, or an asset is missing or not what it should be.
    """
    info = find_recipe(name)
    if info.accepts != "text":
        raise ModelError(f"recipe {name} takes images, not text")
    if missing := [asset for asset in info.assets if asset not in assets]:
        raise ModelError(f"recipe {name} needs the assets {', '.join(info.assets)}; missing: {', '.join(missing)}")
    key = (name, *(digest_of(assets[asset]) for asset in info.assets))
    if (recipe := _built.get(key)) is None:
        recipe = _built[key] = _TEXT_RECIPES[name](assets)
    return recipe
