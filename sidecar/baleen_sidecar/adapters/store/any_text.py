"""Text with any character, also in a database that cannot hold them all."""

import re
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Dialect, Text, TypeDecorator
from sqlalchemy.types import TypeEngine

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def escape(text: str) -> str:
    """Write a text without the character zero, which PostgreSQL refuses in whatever form."""
    if "\\" in text or "\0" in text:
        return text.replace("\\", "\\\\").replace("\0", "\\0")
    return text


def unescape(text: str) -> str:
    """Read what `escape` wrote."""
    return _ESCAPED.sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    return "\0" if found[1] == "0" else found[1]


def _bound(value: str | None) -> str | None:
    return None if value is None else escape(value)


def _read(value: str | None) -> str | None:
    return None if value is None else unescape(value)


class AnyText(TypeDecorator[str]):
    """A column of text: as it is in SQLite; escaped, and ordered by code points as there, in PostgreSQL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Order by code points everywhere: times are compared as text."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        """Escape where it is needed."""
        return _bound if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], str | None] | None:
        """Undo that."""
        return _read if dialect.name == "postgresql" else None
