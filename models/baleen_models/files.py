"""Where the files of models are: in a folder as `baleen models fetch` keeps them, and those that are shipped here."""

import hashlib
import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MANIFEST: Final = "manifest.json"
MAX_FILE_BYTES: Final = 64 << 20


def read_file(root: Path, model: str, name: str, sha256: str) -> tuple[bytes | None, str]:
    """Return the bytes of a model's asset or golden file with this SHA-256 (hex digits); None where there are none.

    They are looked for in `<root>/<model>/`, among the shipped ones, and in every `<root>/<any>/<key>/` whose manifest
    names them. The second value is the SHA-256 of what was found under that name last, or empty.
    """
    found = ""
    for place in _places(root, model, name, sha256):
        try:
            if place.stat().st_size > MAX_FILE_BYTES:
                continue
            data = place.read_bytes()
        except OSError:
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == sha256:
            return data, found
    return None, found


def _places(root: Path, model: str, name: str, sha256: str) -> Iterator[Path]:
    yield root / model / name
    shipped = Path(str(importlib.resources.files("baleen_models")))
    yield from (shipped / model / "golden" / name, shipped / "golden" / name)
    for manifest in sorted(root.glob(f"*/*/{MANIFEST}")):
        if _names(manifest, name, sha256):
            yield manifest.parent / name
    # A model may have another name here than the one that is shipped.
    yield from sorted(shipped.glob(f"*/golden/{name}"))


def _names(manifest: Path, name: str, sha256: str) -> bool:
    try:
        return bool(json.loads(manifest.read_bytes())["digests"].get(name) == sha256)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
