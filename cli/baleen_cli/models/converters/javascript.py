"""Reading the one literal that a bundled JavaScript data module exports, without running any of it."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from baleen_core.errors import ModelError

T = TypeVar("T")

_MAX_DEPTH: Final = 64
_START: Final = re.compile(r"\(\{1:\[function\(\w+,\w+,\w+\)\{\w+\.exports=")
_END: Final = "},{}]},{},[1])(1)});"
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_NUMBER: Final = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_KEY: Final = re.compile(r"[A-Za-z_$][\w$]*")
_WORDS: Final = {"null": None, "true": True, "false": False, "!0": True, "!1": False}


def read_bundle(text: str) -> Any:
    """Return what the only module of a browserify bundle exports; it must be a plain literal up to the bundle's end.

    Objects, arrays, double-quoted strings, numbers, null and minified booleans (`!0`, `!1`) are a literal.

    Raises:
        ModelError: there is no such module, or it holds anything else, such as code.
    """
    start = _START.search(text)
    if start is None:
        raise ModelError("the bundle has no module that exports a value; expected `({1:[function(a,b,c){a.exports=`")
    literal = _Literal(text, start.end())
    value = literal.value(0)
    if text[literal.at :].rstrip() != _END:
        raise literal.unexpected(f"the bundle's end {_END!r}")
    return value


class _Literal:
    """A recursive-descent reader that stands `at` a character of `text`."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise self.unexpected(f"at most {_MAX_DEPTH} levels")
        if self._take("{"):
            return dict(self._items("}", depth, self._entry))
        if self._take("["):
            return list(self._items("]", depth, self.value))
        return self._plain()

    def unexpected(self, expected: str) -> ModelError:
        found = self._text[self.at : self.at + 20]
        return ModelError(f"the bundle is not plain data: expected {expected} at character {self.at}, found {found!r}")

    def _items(self, end: str, depth: int, read: Callable[[int], T]) -> Iterator[T]:
        if self._take(end):
            return
        yield read(depth + 1)
        while not self._take(end):
            if not self._take(","):
                raise self.unexpected(f"',' or {end!r}")
            yield read(depth + 1)

    def _entry(self, depth: int) -> tuple[str, Any]:
        if (key := self._match(_KEY)) is None:
            key = self._decoded(self._match(_STRING) or "")
        if not self._take(":"):
            raise self.unexpected("':'")
        return key, self.value(depth)

    def _plain(self) -> Any:
        if string := self._match(_STRING):
            return self._decoded(string)
        if number := self._match(_NUMBER):
            return float(number) if re.search(r"[.eE]", number) else int(number)
        for word, value in _WORDS.items():
            if self._take(word):
                return value
        raise self.unexpected("a value")

    def _decoded(self, string: str) -> str:
        try:
            return str(json.loads(string))
        except ValueError:
            raise self.unexpected("a double-quoted string with JSON's escapes before this") from None

    def _take(self, token: str) -> bool:
        if self._text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]
