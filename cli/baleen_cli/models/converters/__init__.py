"""One converter a model: packaged files in, `model.onnx` and its assets out; no code of a package is imported or run.

This table is cheap to import: a converter and its heavy libraries are loaded only when something is made.
"""

import importlib
import importlib.resources
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

from baleen_cli.models.catalog import Converter, Levels, ModelSource
from baleen_cli.models.progress import FetchProgress
from baleen_core.canonical import digest_of
from baleen_core.model.python_backend import SILENT

# Raise a version (of TextSafety also for heads.py and rows.py) whenever a change of the code may change what it makes.
_MODULES: Final[Mapping[Converter, tuple[str, int]]] = {
    Converter.COPY: ("copy", 1),
    Converter.CENTER_FACE: ("centerface", 1),
    Converter.PLATES: ("plates", 1),
    Converter.NSFWJS: ("nsfwjs", 1),
    Converter.TEXT_SAFETY: ("text_safety", 1),
    Converter.TOX_BLOCK: ("tox_block", 1),
}


class Convert(Protocol):
    """What each converter module has as `convert`."""

    def __call__(self, inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
        """Write `model.onnx` and the assets into the empty folder `into`, and return what was measured on the way.

        `inputs` are the files of all the model's archives, by their path there.

        Raises:
            ModelError: a file does not have the form that the converter knows.
        """


_LEVELS_VERSION: Final = 1
"""Raise it whenever a change of levels.py may change what it makes."""


def fingerprint(source: ModelSource) -> str:
    """Name all code that decides what is made of a source by its version, and the sentences that it trains on."""
    converter = source.converter
    version = f"{converter} {_MODULES[converter][1]}"
    if source.levels:
        version += f" levels {_LEVELS_VERSION}"
    if converter is not Converter.TEXT_SAFETY:
        return version
    seeds = importlib.resources.files("baleen_cli.models").joinpath("seeds.yaml").read_bytes()
    return f"{version} {digest_of(seeds)}"


def load_converter(converter: Converter) -> Convert:
    """Import a converter."""
    os.environ.update(SILENT)
    module = importlib.import_module(f"{__name__}.{_MODULES[converter][0]}")
    return cast(Convert, module.convert)


def load_levels() -> Callable[[Path, Levels], None]:
    """Import what lets a converted file take levels."""
    return cast(Callable[[Path, Levels], None], importlib.import_module(f"{__name__}.levels").take_levels)
