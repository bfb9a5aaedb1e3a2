"""A model repository on disk, as Triton wants it: rendered text, and links to the stored ONNX files."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from baleen_core.model.rendering import MODEL_FILE, render_model
from baleen_core.model.schema import Backend, Model


def write_repository(
    folder: Path, models: Iterable[Model], locate: Callable[[Model], Path], *, backend: Backend = Backend.PYTHON
) -> None:
    """Write the models into `folder`, one below the other; `locate` says where a model's ONNX file is."""
    for model in models:
        for path, text in render_model(model, backend).items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
        version = folder / model.name / model.version
        version.mkdir(parents=True, exist_ok=True)
        _link(locate(model), version / MODEL_FILE)


def _link(source: Path, target: Path) -> None:
    # A hard link keeps the bytes even when the stored file is replaced while they are served.
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source.resolve())
