"""Preprocessing recipes: how a picture or a text becomes the tensors of one model, named and versioned.

A recipe never changes once released: a golden tensor pins it, and a different treatment gets the next number. No
files are read here: what a recipe needs beside the content comes in as bytes.
"""

from baleen_core.model.recipes.catalog import RecipeInfo, find_recipe, image_recipe, text_recipe
from baleen_core.model.recipes.windows import WINDOW_LIMIT, TextRecipe, Windows

__all__ = [
    "WINDOW_LIMIT",
    "RecipeInfo",
    "TextRecipe",
    "Windows",
    "find_recipe",
    "image_recipe",
    "text_recipe",
]
