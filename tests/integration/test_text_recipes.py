import json
from pathlib import Path

import pytest

from baleen_cli.models.store import ModelStore
from baleen_core.model.recipes import TextRecipe, find_recipe, text_recipe

# One process reads the vocabularies, which takes a second.
pytestmark = pytest.mark.xdist_group("text-recipes")

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_tensors" / "tokens.json").read_text(encoding="utf-8"))


def load(model: str, recipe: str) -> TextRecipe:
    files = ModelStore().locate(model)
    return text_recipe(recipe, {name: files.assets[name].read_bytes() for name in find_recipe(recipe).assets})


@pytest.fixture(scope="module")
def e5() -> TextRecipe:
    return load("text-safety", "me5/1")


@pytest.fixture(scope="module")
def tox_block() -> TextRecipe:
    return load("toxicity", "tox-block/1")


@pytest.mark.parametrize("case", GOLDEN["me5/1"], ids=lambda case: case["id"])
def test_e5_tokens_are_those_of_its_own_package(case, e5):
    (row,) = e5.windows(case["text"]).rows

    assert list(row) == [0, *case["ids"], 2]


@pytest.mark.parametrize("case", GOLDEN["tox-block/1"], ids=lambda case: case["id"])
def test_tox_block_words_are_those_of_keras(case, tox_block):
    windows = tox_block.windows(case["text"])

    assert list(windows.rows[-1]) == case["ids"]


def test_a_row_fits_into_the_encoder(e5):
    windows = e5.windows("you are a wonderful person " * 2000)

    assert max(map(len, windows.rows)) <= 512
