"""The text recipes of the shipped models that were fetched, kept for as long as the process lives.

Whoever has read a vocabulary shares it with all that read it again, there or in a process that was forked from it.
"""

from collections.abc import Iterator
from typing import Final

from baleen_cli.models.catalog import load_catalog
from baleen_cli.models.store import ModelStore
from baleen_core.errors import NotFound
from baleen_core.model.parse import parse_model
from baleen_core.model.recipes import TextRecipe, find_recipe, text_recipe


def _read() -> Iterator[TextRecipe]:
    store = ModelStore()
    for source in load_catalog():
        recipe = find_recipe(parse_model(source.entry).preprocessing.recipe)
        if recipe.accepts != "text":
            continue
        try:
            files = store.files_of(source)
        except NotFound:
            continue
        yield text_recipe(recipe.name, {name: files.assets[name].read_bytes() for name in recipe.assets})


RECIPES: Final = tuple(_read())
