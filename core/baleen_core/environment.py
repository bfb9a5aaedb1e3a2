"""Settings out of environment variables: each by its field's name, and everything that is wrong said at once."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from baleen_core.errors import Problem

T = TypeVar("T")

Readers = Mapping[str, Callable[[str], Any]]
"""How each field's text is read; a ValueError says what would be right."""


def read_variables(
    env: Mapping[str, str], prefix: str, readers: Readers, foreign: Collection[str] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values by field of all variables that begin with `prefix`, and what is wrong with the others.

    Wrong is a variable that is not a setting, unless it is `foreign`, and a value that is not of its kind.
    """
    known = {prefix + name.upper(): name for name in readers}
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for variable, text in sorted(env.items()):
        if not variable.startswith(prefix) or variable in foreign:
            continue
        if variable not in known:
            problems.append(Problem(field=variable, message=f"is not a setting; there are {', '.join(sorted(known))}"))
            continue
        try:
            values[known[variable]] = readers[known[variable]](text)
        except ValueError as exc:
            problems.append(Problem(field=variable, message=f"{text!r} is not valid: {exc}"))
    return values, problems


def read_positive(text: str) -> int:
    """Read a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError("it must be 1 or more")
    return number


def read_port(text: str) -> int:
    """Read the number of a port; 0 is any that is free."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError("a port is 0 to 65535")
    return number


def read_seconds(text: str) -> float:
    """Read a time of less than a day."""
    number = float(text)
    if not 0 < number < 86_400:
        raise ValueError("it must be above 0 and below 86400 seconds")
    return number


def read_days(text: str) -> int:
    """Read a whole number of days up to a century; 0 is for ever."""
    number = int(text)
    if not 0 <= number <= 36_500:
        raise ValueError("it must be 0 to 36500 days")
    return number


def read_switch(text: str) -> bool:
    """Read true or false."""
    if text not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text == "true"


def read_names(text: str) -> tuple[str, ...]:
    """Read words with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_pause(text: str) -> float:
    """Read a time of less than a day, or none at all."""
    return 0.0 if text.strip() == "0" else read_seconds(text)


def read_url(text: str) -> str:
    """Read a base address; no text is none."""
    if not text.strip():
        return ""
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    is_plain = url.isascii() and url.isprintable() and " " not in url
    # What only looks like an address would end whoever connects, who does not know which setting it came from; a port
    # is looked at when it is asked for.
    if not is_plain or parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is no address such as http://10.0.0.7:8081")
    return url


def read_urls(text: str) -> tuple[str, ...]:
    """Read base addresses with commas between them."""
    return tuple(read_url(part) for part in read_names(text))


def read_level(text: str) -> str:
    """Read a level of logging."""
    if text not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("a level is DEBUG, INFO, WARNING or ERROR")
    return text


def json_reader(example: str, type: type[T]) -> Callable[[str], T]:
    """Return a reader of JSON of this type; `example` is for those who wrote something else."""

    def read(text: str) -> T:
        try:
            return msgspec.json.decode(text or "{}", type=type)
        except msgspec.MsgspecError as exc:
            raise ValueError(f"write JSON such as {example}: {exc}") from None

    return read


read_tenants = json_reader('{"team-a": ["acme"]}', dict[str, frozenset[str]])
