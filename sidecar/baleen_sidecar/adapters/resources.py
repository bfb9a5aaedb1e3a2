"""Read a folder of YAML files as resources; a file that cannot be read is a problem that names it, never a crash."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from baleen_core.errors import Problem
from baleen_sidecar.usecases.policy_documents import Document, Documents

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_FILES: Final = 10_000
MAX_DOCUMENTS: Final = 10_000
MAX_DEPTH: Final = 64


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a date stays the text that it is, since JSON knows none, and `<<` is a plain key."""


_FOREIGN: Final = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _FOREIGN]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


UNREADABLE: Final = (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError)
"""What reading a file, or its documents, raises when it is not a list of resources."""


def read_folder(folder: Path) -> Documents:
    """Read every YAML and JSON file of a folder and those below it, in the order of their names.

    Names that begin with a dot are passed over (a mounted ConfigMap has such folders for its own use).
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    if not folder.is_dir():
        return Documents(problems=(Problem(field=str(folder), message="is not a folder that can be read"),))
    for path in _files(folder):
        name = str(path.relative_to(folder))
        try:
            documents += read_file(path, name)
        except UNREADABLE as exc:
            problems.append(Problem(field=name, message=f"cannot be read: {one_line(exc)}"))
    return Documents(documents=tuple(documents), problems=tuple(problems))


def read_file(path: Path, name: str) -> Iterator[Document]:
    """Read the documents of one file; empty ones are passed over.

    Raises:
        One of UNREADABLE: the file is not a list of resources.
    """
    return read_documents(read_text(path), name)


def read_text(path: Path, limit_bytes: int = MAX_FILE_BYTES) -> str:
    """Read a regular file that is neither empty nor over a limit.

    Raises:
        One of UNREADABLE: it is something else, or not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if not status.st_size:
        # An editor that is saving, or a disk that was full: nobody deletes policies like that.
        raise ValueError("it is empty; delete the file if that is meant")
    if status.st_size > limit_bytes:
        raise ValueError(f"it has {status.st_size} bytes; the limit is {limit_bytes}")
    return path.read_text(encoding="utf-8")


def read_documents(text: str, name: str, expected: str = "a resource with apiVersion and kind") -> Iterator[Document]:
    """Read the documents of a file's text, each `expected` to be a mapping; empty ones are passed over.

    Raises:
        One of UNREADABLE: one of them is something else, or the text is not YAML.
    """
    found = []
    for body in _documents(text):
        if body is None:
            continue
        if not isinstance(body, Mapping):
            raise ValueError(f"a document is a {type(body).__name__}, not {expected}")
        found.append(Document(file=name, body=body))
        if len(found) > MAX_DOCUMENTS:
            raise ValueError(f"it has more than {MAX_DOCUMENTS} documents")
    return iter(found)


def _documents(text: str) -> Iterator[object]:
    _check_shape(text)
    loader = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said that there is one"
            _check_keys(node)
            yield loader.construct_document(node)
    finally:
        loader.dispose()


def _check_shape(text: str) -> None:
    """Refuse what would crash or swamp us: libyaml recurses, and a few aliases can stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(event.start_mark, f"the alias *{event.anchor} is not accepted; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _wrong(event.start_mark, f"it is nested more than {MAX_DEPTH} levels deep")


def _check_keys(root: yaml.Node) -> None:
    """Refuse what only misleads: a key that is there twice, or that is not text."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if key.tag != "tag:yaml.org,2002:str":
                    raise _wrong(key.start_mark, f"the key {key.value!r} is not a string; put it in quotes")
                if key.value in keys:
                    raise _wrong(key.start_mark, f"the key {key.value!r} is there twice")
                keys.add(key.value)
                waiting.append(value)


def _wrong(mark: Any, message: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, message, mark)


def _files(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found)[:MAX_FILES]


def one_line(error: Exception) -> str:
    """Say what is wrong with a file, and where, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split()) or type(error).__name__
