"""Reading a pickle that holds plain containers, without importing or calling anything that it names."""

import collections
import pickle
from collections.abc import Collection
from typing import Any, BinaryIO

from baleen_core.errors import ModelError

_PLAIN = {
    ("builtins", "int"): int,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
}


class Record:
    """Stands in for an object of a foreign class: its attributes, and none of its code."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, records: Collection[str]) -> None:
        super().__init__(file)
        self._records = records

    def find_class(self, module: str, name: str) -> Any:
        if plain := _PLAIN.get((module, name)):
            return plain
        if f"{module}.{name}" in self._records:
            return Record
        raise ModelError(f"the pickle names {module}.{name}, which is refused: only plain containers are read")


def read_plain_pickle(file: BinaryIO, records: Collection[str]) -> Any:
    """Read a pickle; objects of the foreign classes `records` become plain `Record`s.

    Raises:
        ModelError: the pickle names any other class or function, or is broken.
    """
    try:
        return _PlainUnpickler(file, records).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError) as wrong:
        raise ModelError(f"the pickle cannot be read: {wrong}") from wrong
