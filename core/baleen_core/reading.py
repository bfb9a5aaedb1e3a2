"""Reading what a person wrote: walk it with a path, collect every problem at once, and return typed values.

A parser made with this reads like the schema:

    problems: list[Problem] = []
    fields = Reader(manifest, "", problems)
    spec = fields.mapping("spec")
    colour = spec.required("colour", one_of(Colour), Colour.RED)
    limit = spec.optional("limit", ratio, None)
    parts = tuple(read_part(part) for part in spec.mappings("parts", limit=16))
    spec.done()
    if problems:
        raise PolicyError(problems)

A wrong or missing value becomes its placeholder and a problem: reading goes on, and a result is used only when there
are no problems. A converter is any function from a plain value to a typed one that raises ValueError, its message
beginning with what was found. Every key that is asked for is a known key; `done` reports the others.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, TypeVar

from baleen_core.errors import Problem
from baleen_core.ratio import parse_number, parse_ratio

MAX_NAME_LENGTH: Final = 63
_MAX_UNKNOWN_FIELDS: Final = 10
_MAX_SHOWN: Final = 60
_MAX_NUMBER_LENGTH: Final = 24

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=StrEnum)
H = TypeVar("H", bound=Hashable)


class Reader:
    """The fields of one mapping, where it stands, and the list of problems that all readers of a document share.

    A value that is not a mapping is reported, and then read as an empty one whose missing fields are not.
    """

    def __init__(self, value: object, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.is_mapping = isinstance(value, Mapping)
        self._fields: Mapping[object, object] = value if isinstance(value, Mapping) else {}
        self._problems = problems
        self._known: set[str] = set()
        if not self.is_mapping:
            problems.append(Problem(field=path, message=f"{show(value)} is not a mapping of fields"))

    def has(self, key: str) -> bool:
        """Say whether the field is written, whatever its value."""
        self._known.add(key)
        return key in self._fields

    def required(self, key: str, convert: Callable[[object], T], placeholder: T) -> T:
        """Read a field that must be there."""
        if not self.has(key):
            self._report_missing(key)
            return placeholder
        return self._converted(self.path_of(key), self._fields[key], convert, placeholder)

    def optional(self, key: str, convert: Callable[[object], T], default: D) -> T | D:
        """Read a field that may be left out."""
        if not self.has(key):
            return default
        return self._converted(self.path_of(key), self._fields[key], convert, default)

    def mapping(self, key: str, *, required: bool = False) -> "Reader":
        """Go down into a mapping; one that is left out is read as an empty one."""
        if not self.has(key):
            if required:
                self._report_missing(key)
            absent = Reader({}, self.path_of(key), self._problems)
            absent.is_mapping = not required
            return absent
        return Reader(self._fields[key], self.path_of(key), self._problems)

    def mappings(self, key: str, *, limit: int) -> list["Reader"]:
        """Go down into each of a list of at most `limit` mappings; a list that is left out is read as an empty one."""
        return [Reader(value, path, self._problems) for path, value in self._items(key, limit)]

    def values(self, key: str, convert: Callable[[object], T], *, limit: int) -> tuple[T, ...]:
        """Read a list of at most `limit` plain values; wrong ones are reported and left out."""
        converted = (self._converted(path, value, convert, None) for path, value in self._items(key, limit))
        return tuple(value for value in converted if value is not None)

    def entries(
        self, key: str, convert_key: Callable[[object], str], convert: Callable[[object], T], *, limit: int
    ) -> dict[str, T]:
        """Read a mapping whose keys the author chooses, with at most `limit` of them; wrong ones are left out."""
        if not self.has(key):
            return {}
        return Reader(self._fields[key], self.path_of(key), self._problems)._all(convert_key, convert, limit)

    def report(self, key: str, message: str) -> None:
        """Say what is wrong with the field `key`, or with the whole mapping when `key` is empty."""
        self._known.add(key)
        self._problems.append(Problem(field=self.path_of(key) if key else self.path, message=message))

    def refuse(self, key: str, message: str) -> None:
        """Report the field when it is written at all: a known name that is not for now."""
        if self.has(key):
            self.report(key, message)

    def done(self) -> None:
        """Report every field that nothing asked for, with the nearest known name."""
        unknown = [key for key in self._fields if key not in self._known]
        for key in unknown[:_MAX_UNKNOWN_FIELDS]:
            self._problems.append(Problem(field=self.path_of(key), message=unknown_name(key, self._known, "field")))
        if len(unknown) > _MAX_UNKNOWN_FIELDS:
            more = len(unknown) - _MAX_UNKNOWN_FIELDS
            self._problems.append(Problem(field=self.path, message=f"and {more} more unknown fields"))

    def path_of(self, key: object) -> str:
        """Return the path of one of this mapping's fields."""
        if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
            return f"{self.path}.{key}" if self.path else key
        return f"{self.path}[{show(key)}]"

    def _report_missing(self, key: str) -> None:
        # A value that is no mapping was reported already; its missing fields would only be noise.
        if self.is_mapping:
            self.report(key, "is required")

    def _converted(self, path: str, value: object, convert: Callable[[object], T], placeholder: D) -> T | D:
        try:
            if value is None:
                raise ValueError("is empty; give it a value or leave the field out")
            return convert(value)
        except ValueError as wrong:
            self._problems.append(Problem(field=path, message=str(wrong)))
            return placeholder

    def _items(self, key: str, limit: int) -> Iterable[tuple[str, object]]:
        if not self.has(key):
            return ()
        value = self._fields[key]
        if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
            self.report(key, f"{show(value)} is not a list")
            return ()
        if len(value) > limit:
            self.report(key, f"has {len(value)} entries; at most {limit} are allowed")
        return [(f"{self.path_of(key)}[{index}]", item) for index, item in enumerate(value[:limit])]

    def _all(self, convert_key: Callable[[object], str], convert: Callable[[object], T], limit: int) -> dict[str, T]:
        if len(self._fields) > limit:
            self.report("", f"has {len(self._fields)} entries; at most {limit} are allowed")
            return {}
        found = {
            self._converted(self.path_of(key), key, convert_key, None): self._converted(
                self.path_of(key), value, convert, None
            )
            for key, value in self._fields.items()
        }
        return {key: value for key, value in found.items() if key is not None and value is not None}


def report_duplicates(readers: Sequence[Reader], keys: Sequence[H], field: str) -> None:
    """Report, at the second and later reader, each key that an earlier one has too; empty keys are placeholders."""
    seen: set[H] = set()
    for reader, key in zip(readers, keys, strict=True):
        if key and key in seen:
            reader.report(field, f"{show(key)} is there twice; it must be unique in its list")
        seen.add(key)


def unknown_name(name: object, known: Iterable[str], what: str) -> str:
    """Say that `name` is not a known `what`, and which known one is nearest or which there are."""
    names = sorted(known)
    near = get_close_matches(name[:_MAX_SHOWN], names, n=1) if isinstance(name, str) else []
    if near:
        return f"unknown {what} {show(name)}; did you mean {near[0]!r}?"
    return f"unknown {what} {show(name)}; known are {', '.join(names) or 'none'}"


def show(value: object) -> str:
    """Show a value in a message: short, and without ever failing, whatever it is."""
    match value:
        case str():
            return repr(value if len(value) <= _MAX_SHOWN else value[: _MAX_SHOWN - 1] + "…")
        case None:
            return "an empty value"
        case bool():
            return str(value).lower()
        case int():
            # Python refuses to print integers of more than 4300 digits.
            return str(value) if value.bit_length() <= 64 else "a very large number"
        case float():
            return repr(value)
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a value of type {type(value).__name__}"


def text(*, max_length: int, min_length: int = 1) -> Callable[[object], str]:
    """Read a string of so many characters; what YAML made a number or a boolean is refused, with a hint."""

    def convert(value: object) -> str:
        if not isinstance(value, str):
            hint = "; write it in quotes" if isinstance(value, bool | int | float) else ""
            raise ValueError(f"{show(value)} is not a string{hint}")
        if len(value) < min_length:
            raise ValueError(f"has {len(value)} characters; at least {min_length} must be given")
        if len(value) > max_length:
            raise ValueError(f"has {len(value)} characters; at most {max_length} are allowed")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("has half of a surrogate pair, which is not a character")
        return value

    return convert


def pattern(regex: str, expected: str, *, max_length: int, min_length: int = 1) -> Callable[[object], str]:
    """Read a string that matches the whole `regex`; `expected` says what it is, in words."""
    compiled, read_text = re.compile(regex), text(max_length=max_length, min_length=min_length)

    def convert(value: object) -> str:
        string = read_text(value)
        if not compiled.fullmatch(string):
            raise ValueError(f"{show(string)} is not {expected}")
        return string

    return convert


def name(value: object) -> str:
    """Read a DNS-1123 label: lower-case letters, digits and `-`, at most 63."""
    string = text(max_length=MAX_NAME_LENGTH)(value)
    if not _LABEL.fullmatch(string):
        better = re.sub(r"[^a-z0-9]+", "-", string.lower()).strip("-")
        hint = f", such as {better!r}" if better else ""
        raise ValueError(f"{show(string)} is not a name; use lower-case letters, digits and '-' between them{hint}")
    return string


SIGNAL_NAME: Final = "[a-z][a-z0-9_]{0,62}"
"""A signal's name is an identifier, so that rules can read `<model>.<signal>`."""

CEL_KEYWORDS: Final = frozenset({"false", "in", "null", "true"})
"""Words that a rule cannot read as `<model>.<signal>` or `params.<name>`."""


def readable(convert: Callable[[object], str]) -> Callable[[object], str]:
    """Read a name that rules are to read after a dot."""

    def convert_readable(value: object) -> str:
        string = convert(value)
        if string in CEL_KEYWORDS:
            raise ValueError(f"{show(string)} is a keyword of CEL, so no rule could read it; use another name")
        return string

    return convert_readable


signal_name = readable(
    pattern(
        SIGNAL_NAME,
        "a signal's name; use lower-case letters, digits and '_', such as self_harm",
        max_length=MAX_NAME_LENGTH,
    )
)


def one_of(enum: type[E]) -> Callable[[object], E]:
    """Read a member of an enum by its exact spelling."""

    def convert(value: object) -> E:
        members = [member.value for member in enum]
        if isinstance(value, str) and value in members:
            return enum(value)
        nearest = {member.lower(): member for member in members}.get(value.lower()) if isinstance(value, str) else None
        hint = f" (did you mean {nearest}?)" if nearest else ""
        raise ValueError(f"{show(value)} is not one of {', '.join(members)}{hint}")

    return convert


def integer(low: int, high: int) -> Callable[[object], int]:
    """Read a whole number from `low` to `high`, both included."""

    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{show(value)} is not a whole number; give one from {low} to {high}")
        if not low <= value <= high:
            raise ValueError(f"{show(value)} is out of range; give a whole number from {low} to {high}")
        return value

    return convert


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{show(value)} is not true or false")
    return value


def ratio(value: object) -> int:
    """Read `85%` or `"0.85"` as millionths."""
    if isinstance(value, str) and len(value) <= _MAX_SHOWN:
        return parse_ratio(value)
    unquoted = " (unquoted)" if isinstance(value, int | float) and not isinstance(value, bool) else ""
    raise ValueError(
        f'{show(value)}{unquoted} is not a ratio; write a percentage such as 85% or a quoted decimal such as "0.85"'
    )


def number(value: object) -> int:
    """Read `"0.02"`, `"-3"` or `2%` as millionths."""
    return parse_number(text(max_length=_MAX_NUMBER_LENGTH)(value))


def instant(value: object) -> str:
    """Read a time with its zone (RFC 3339), and write it in UTC."""
    string = text(max_length=MAX_NAME_LENGTH)(value)
    try:
        found = datetime.fromisoformat(string)
    except ValueError:
        raise ValueError(f"{show(string)} is not a time; write one such as 2026-01-31T18:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{show(string)} has no time zone; write Z behind it for UTC")
    try:
        return found.astimezone(UTC).isoformat()
    except OverflowError:
        raise ValueError(f"{show(string)} is beyond the year 9999; to mean for ever, leave the field out") from None
