"""Lists: from the text that people write to checked entries whose digest depends on nothing but them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError, PolicyError, Problem
from baleen_core.policy.schema import MAX_LIST_BYTES, MAX_LIST_ENTRIES, ListContent, ListType
from baleen_core.reading import show
from baleen_core.textnorm import clean

MAX_TERM_LENGTH: Final = 256
MAX_PROBLEMS: Final = 20

_COMMENT: Final = re.compile(r"#+(?:\s|$)")
_SHA256: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_PDQ: Final = re.compile(r"[0-9a-fA-F]{64}")


def read_list(type: ListType, text: str) -> ListContent:
    """Read a list as people write it: one entry a line; blank lines and comments say nothing.

    A comment begins with `#`; in a list of terms a space or nothing follows it, for `#word` is a term.

    Raises:
        PolicyError: over a limit, or wrong entries, the first 20 of them by the numbers of their lines.
    """
    size = len(_encode(text))
    if size > MAX_LIST_BYTES:
        raise PolicyError(f"the list has {size} bytes; at most {MAX_LIST_BYTES} are allowed")
    lines = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    read = _READERS[type]
    entries: set[str] = set()
    wrong: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or _is_comment(type, entry):
            continue
        try:
            entries.add(read(entry))
        except ValueError as exc:
            wrong.append(Problem(field=f"line {number}", message=str(exc)))
    if wrong:
        raise PolicyError(_first(wrong))
    if len(entries) > MAX_LIST_ENTRIES:
        raise PolicyError(f"the list has {len(entries)} entries; at most {MAX_LIST_ENTRIES} are allowed")
    return _content(type, entries)


def canonical_list(content: ListContent) -> str:
    """Write a list's entries one a line: the text that its digest names, together with its type."""
    return "\n".join(content.entries)


def name_list(type: ListType, text: str) -> str:
    """Return the digest of a list by its canonical text."""
    # What a line means depends on the type: a digest that one policy clears may be a term that another one blocks.
    return digest_of(f"{type.value}\n{text}".encode(errors="surrogatepass"))


def restore_list(type: ListType, digest: str, text: str) -> ListContent:
    """Read a list back from its canonical text.

    Raises:
        IntegrityError: type and text are not what the digest names, or the text is not in canonical form.
    """
    found = name_list(type, text)
    if found != digest:
        raise IntegrityError("list", expected=digest, found=found)
    try:
        content = read_list(type, text)
    except PolicyError as exc:
        raise IntegrityError("list", expected=f"entries of type {type.value}", found=str(exc)) from None
    if content.digest != digest:
        raise IntegrityError("canonical form of the list", expected=content.digest, found=digest)
    return content


def _content(type: ListType, entries: Iterable[str]) -> ListContent:
    unnamed = ListContent(digest="", type=type, entries=tuple(sorted(entries)))
    return replace(unnamed, digest=name_list(type, canonical_list(unnamed)))


def _is_comment(type: ListType, entry: str) -> bool:
    return bool(_COMMENT.match(entry)) if type is ListType.TERMS else entry.startswith("#")


def _read_term(entry: str) -> str:
    if len(entry) > MAX_TERM_LENGTH:
        raise ValueError(f"has {len(entry)} characters; a term may have at most {MAX_TERM_LENGTH}")
    # Terms are folded to be matched, and of what `clean` leaves something, `fold` does too, at three times the cost.
    if not (entry.isascii() and entry.isprintable()) and not clean(entry):
        raise ValueError(f"{show(entry)} has no visible character, so it could match anything")
    return entry


def _read_digest(entry: str) -> str:
    match = _SHA256.fullmatch(entry)
    if not match:
        raise ValueError(f"{show(entry)} is not a SHA-256; write 64 hexadecimal digits, with or without sha256: before")
    return "sha256:" + match[1].lower()


def _read_hash(entry: str) -> str:
    if not _PDQ.fullmatch(entry):
        raise ValueError(f"{show(entry)} is not a PDQ hash; write 64 hexadecimal digits")
    return entry.lower()


_READERS: Final[dict[ListType, Callable[[str], str]]] = {
    ListType.TERMS: _read_term,
    ListType.DIGEST: _read_digest,
    ListType.PERCEPTUAL_HASH: _read_hash,
}


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise PolicyError(f"character {exc.start} is half of a surrogate pair; the list must be valid UTF-8") from None


def _first(problems: list[Problem]) -> list[Problem]:
    more = len(problems) - MAX_PROBLEMS
    rest = [Problem(field="", message=f"and {more} more")] if more > 0 else []
    return [*islice(problems, MAX_PROBLEMS), *rest]
