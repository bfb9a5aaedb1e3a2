"""A packaged ONNX file that can be served as it is."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baleen_cli.models.progress import FetchProgress


def convert(inputs: Mapping[str, Path], into: Path, progress: FetchProgress) -> Mapping[str, Any]:
    """Copy the only input."""
    (source,) = inputs.values()
    shutil.copyfile(source, into / "model.onnx")
    return {}
