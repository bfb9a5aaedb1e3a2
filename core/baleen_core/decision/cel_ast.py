"""Reads the checked syntax tree that CEL serialises, so that what a rule uses is known and not guessed from its text.

The form is `cel.expr.CheckedExpr` within `google.protobuf.Any` (cel-spec, proto/cel/expr/{checked,syntax}.proto); the
few fields that matter are read from the wire here, which spares core a dependency on protobuf.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4
_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_CONST_STRING: Final = 6
_IDENT_NAME: Final = 1
_SELECT_OPERAND: Final = 1
_CALL_TARGET, _CALL_FUNCTION, _CALL_ARGUMENT = 1, 2, 3
_LIST_ELEMENT: Final = 1
_STRUCT_ENTRY, _ENTRY_KEY, _ENTRY_VALUE = 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A declared variable is read."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function or operator (`_>_`) is called; `last` is its last argument when that is a string literal."""

    function: str
    last: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A macro that loops is used: `all`, `exists`, `exists_one`, `filter` or `map`."""


Node = Variable | Call | Loop


def read_nodes(serialized: bytes) -> Iterator[Node]:
    """Yield what a serialised expression reads and calls; the inside of a loop is left out."""
    for number, checked in _read_fields(serialized):
        if number == _ANY_VALUE:
            for inner_number, expression in _read_fields(_message(checked)):
                if inner_number == _CHECKED_EXPR:
                    yield from _walk(_message(expression))


def _walk(expression: bytes) -> Iterator[Node]:
    for number, value in _read_fields(expression):
        if number == _IDENT:
            yield Variable(name=_text(_message(value), _IDENT_NAME))
        elif number == _SELECT:
            yield from _walk_parts(_message(value), {_SELECT_OPERAND})
        elif number == _CALL:
            yield from _walk_call(_message(value))
        elif number == _LIST:
            yield from _walk_parts(_message(value), {_LIST_ELEMENT})
        elif number == _STRUCT:
            for entry in _messages(_message(value), {_STRUCT_ENTRY}):
                yield from _walk_parts(entry, {_ENTRY_KEY, _ENTRY_VALUE})
        elif number == _COMPREHENSION:
            yield Loop()


def _walk_call(call: bytes) -> Iterator[Node]:
    arguments = list(_messages(call, {_CALL_ARGUMENT}))
    yield Call(function=_text(call, _CALL_FUNCTION), last=_string_literal(arguments[-1]) if arguments else None)
    yield from _walk_parts(call, {_CALL_TARGET, _CALL_ARGUMENT})


def _walk_parts(message: bytes, numbers: set[int]) -> Iterator[Node]:
    for part in _messages(message, numbers):
        yield from _walk(part)


def _string_literal(expression: bytes) -> str | None:
    for constant in _messages(expression, {_CONST}):
        for number, value in _read_fields(constant):
            if number == _CONST_STRING:
                return _message(value).decode()
    return None


def _text(message: bytes, wanted: int) -> str:
    return next((part.decode() for part in _messages(message, {wanted})), "")


def _messages(message: bytes, numbers: set[int]) -> Iterator[bytes]:
    return (_message(value) for number, value in _read_fields(message) if number in numbers)


def _message(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


def _read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Split a protobuf message into (field number, value): an integer, or the bytes of a string or message."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        match key & 7:
            case 0:
                value, at = _read_varint(message, at)
                yield key >> 3, value
            case 2:
                length, at = _read_varint(message, at)
                yield key >> 3, message[at : at + length]
                at += length
            case wire_type:
                at += 8 if wire_type == 1 else 4


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return result, at
