"""Files that golden questions are made of, from a folder and from the package of the shipped models."""

import asyncio
import functools
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

from PIL import Image

from baleen_core.errors import BaleenError, IntegrityError, ModelError, ModelUnavailable, NotFound
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


def one_process() -> Executor:
    """Return a process that begins with its first task, and ends with this one however that ends.

    A thread would not do: a tokenizer of megabytes is read in one call, for seconds, in which no other thread runs, not
    even the one that renews the Lease.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=1, mp_context=spawn, initializer=_end_with_parent)


def _end_with_parent() -> None:
    # Ctrl-C is for the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is the initializer of a child"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class FolderModelFiles:
    """Finds files below `root` as `baleen models fetch` keeps them, `<model>/<key>/` with a manifest, or `<model>/`.

    Golden files may also be those that are shipped. Whatever is found counts only with the SHA-256 that the deployment
    names. Questions are made where `start` says.
    """

    def __init__(self, root: Path, start: Callable[[], Executor] = one_process) -> None:
        self._root = root
        self._start = start
        self._executor: Executor | None = None

    async def questions(self, model: Model) -> Sequence[Sequence[Tensors]]:
        """Return the batches of tensors that each of the model's golden inputs becomes.

        Raises:
            NotFound, IntegrityError, ModelError: a file is not there, not the promised one or cannot be read.
            ModelUnavailable: the process that makes them was ended by somebody else; the next time is another one's.
        """
        if self._executor is None:
            self._executor = self._start()
        executor = self._executor
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, make_questions, self._root, model)
        except BrokenProcessPool as exc:
            if self._executor is executor:
                self._executor = None
            raise ModelUnavailable(f"the process that makes golden questions ended ({exc})") from exc

    def close(self) -> None:
        """End the process, if there is one; what it is making is still made."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def make_questions(root: Path, model: Model) -> Sequence[Sequence[Tensors]]:
    """Make the questions of `FolderModelFiles.questions`."""
    loaded = _load(root, model)
    return [golden_rows(loaded, golden.input, _picture(root, model, golden.input)) for golden in model.golden]


def _load(root: Path, model: Model) -> LoadedModel:
    recipe, sha256 = model.preprocessing.recipe, model.source.sha256 or ""
    if find_recipe(recipe).accepts == "image":
        return load_model(model, sha256, {})
    return LoadedModel(
        model=model, sha256=sha256, text=_make_recipe(root, model.name, recipe, model.preprocessing.assets)
    )


@functools.lru_cache(maxsize=_RECIPES_KEPT)
def _make_recipe(root: Path, model: str, recipe: str, assets: tuple[Asset, ...]) -> TextRecipe:
    return text_recipe(recipe, {asset.name: _read(root, model, asset.name, asset.sha256) for asset in assets})


def _picture(root: Path, model: Model, question: GoldenInput) -> Image.Image | None:
    if question.name is None or question.sha256 is None:
        return None
    data = _read(root, model.name, question.name, question.sha256)
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


def _read(root: Path, model: str, name: str, sha256: str) -> bytes:
    data, found = read_file(root, model, name, sha256)
    if data is not None:
        return data
    if found:
        raise IntegrityError(f"file {name} of model {model}", expected=sha256, found=found)
    raise NotFound(f"there is no file {name!r} with SHA-256 {sha256}, neither below {root} nor shipped")
