"""The decision log as a chain of hashes: each row's link covers the row and the link before it.

    personal_digest = SHA-256(salt ‖ JSON(content_digest, author) ‖ personal)
    digest          = SHA-256(personal_digest ‖ JSON(id, time, decision, surface, origin, keep_days) ‖ record)
    link            = SHA-256(link before ‖ digest)

The bytes that are on disk are hashed, not what they mean, so that a newer release verifies what an older one wrote. A
row's place is not hashed: a row that stands where it was not written fits nothing around it. Once the personal part is
erased, `personal_digest` stands for it; without the salt, which goes with it, nothing can be guessed from that. Of a
row that retention dropped, `digest` stays for as long as older rows do.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

import msgspec

from baleen_core.errors import InvalidError, Problem

SALT_BYTES: Final = 16
LINK_BYTES: Final = 32
_HEAD: Final = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
_ENCODE: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest row of a chain, or the one before its first: its place, and its link; written `place:link`."""

    sequence: int
    link: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.link.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a head that was noted.

        Raises:
            InvalidError: it is not a place, a colon and 64 hexadecimal digits.
        """
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            message = f"{text!r} is no head of a decision log; one is a number, a colon and 64 hexadecimal digits"
            raise InvalidError([Problem(field="", message=message)])
        return cls(sequence=int(match[1]), link=bytes.fromhex(match[2]))


def personal_digest(salt: bytes, *, content_digest: str, author: str | None, personal: bytes) -> bytes:
    """Hash the part of a row that can be erased; returns 32 bytes."""
    return hashlib.sha256(salt + _ENCODE((content_digest, author)) + personal).digest()


def row_digest(
    personal: bytes,
    *,
    id: str,
    time: str,
    decision: str,
    surface: str | None,
    origin: str | None,
    keep_days: int | None,
    record: bytes,
) -> bytes:
    """Hash a row; `personal` is the `personal_digest` of its other part. Returns 32 bytes."""
    return hashlib.sha256(personal + _ENCODE((id, time, decision, surface, origin, keep_days)) + record).digest()


def next_link(link: bytes, digest: bytes) -> bytes:
    """Return the link of the row with this digest, after the row with `link`."""
    return hashlib.sha256(link + digest).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedRow:
    """A row as it stands in the log now: its place, its name, what it hashes to, and the link that it has.

    `digest` is None where the row lacks what would have to be hashed, `link` where it has none.
    """

    sequence: int
    id: str
    time: str
    digest: bytes | None
    link: bytes | None
    is_erased: bool = False

    def __str__(self) -> str:
        return f"decision {self.id} ({self.time})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedRow:
    """What is left of a row that retention dropped between rows that are kept."""

    sequence: int
    digest: bytes

    def __str__(self) -> str:
        return f"row {self.sequence}, which retention dropped"


class FaultKind(StrEnum):
    """What is wrong with a log."""

    ALTERED = "Altered"
    MISSING = "Missing"
    INSERTED = "Inserted"
    CUT = "Cut"
    """It ends before a head that was noted."""
    REWRITTEN = "Rewritten"
    """It is consistent, and another one than that of a head that was noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first row that is not as it was written: its place, its id and time where they are known, and words."""

    kind: FaultKind
    sequence: int
    id: str = ""
    time: str = ""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What became of a log: rows that were looked at, what is not in the chain any more or never was, its two ends.

    `head` is the last row that is as it was written. Of `passed_heads`, which were noted, retention dropped what was
    there: they can be neither confirmed nor refuted.
    """

    start: Head
    head: Head
    rows: int = 0
    erased: int = 0
    dropped: int = 0
    outside: int = 0
    first: ChainedRow | None = None
    last: ChainedRow | None = None
    passed_heads: tuple[Head, ...] = ()
    fault: Fault | None = None


def verify(start: Head, rows: Iterable[ChainedRow | DroppedRow], *, noted: Sequence[Head] = ()) -> Verification:
    """Follow a chain from `start` on, through all rows in the order of their places, up to the first fault.

    Rows up to `start` without a link were there before the chain and are counted alone. `noted` are heads that were
    kept elsewhere: each must be on the way.
    """
    counts = {"rows": 0, "erased": 0, "dropped": 0, "outside": 0}
    first: ChainedRow | None = None
    last: ChainedRow | None = None
    head, fault = start, None
    expected = {each.sequence: each for each in noted if each.sequence >= start.sequence}
    passed = tuple(each for each in noted if each.sequence < start.sequence)
    fault = _check_noted(start, last, expected)
    if fault is None:
        for row, following in _with_next(rows):
            if row.sequence <= start.sequence and isinstance(row, ChainedRow) and row.link is None:
                counts["outside"] += 1
                continue
            link, fault = _judge(head, row, following, last)
            if fault is not None:
                break
            head = Head(sequence=row.sequence, link=link)
            if isinstance(row, ChainedRow):
                counts["rows"] += 1
                counts["erased"] += row.is_erased
                first, last = first or row, row
            else:
                counts["dropped"] += 1
            fault = _check_noted(head, last, expected)
            if fault is not None:
                break
    if fault is None:
        fault = _find_cut(head, last, expected)
    return Verification(start=start, head=head, first=first, last=last, passed_heads=passed, fault=fault, **counts)


def _with_next(
    rows: Iterable[ChainedRow | DroppedRow],
) -> Iterator[tuple[ChainedRow | DroppedRow, ChainedRow | DroppedRow | None]]:
    before: ChainedRow | DroppedRow | None = None
    for row in rows:
        if before is not None:
            yield before, row
        before = row
    if before is not None:
        yield before, None


def _judge(
    head: Head, row: ChainedRow | DroppedRow, following: ChainedRow | DroppedRow | None, last: ChainedRow | None
) -> tuple[bytes, Fault | None]:
    """Return a row's link, and what is wrong with the row if anything is."""
    if row.sequence > head.sequence + 1:
        return head.link, _missing(head, row, last)
    if row.sequence <= head.sequence:
        return head.link, _fault(FaultKind.INSERTED, row, "stands where the log had no row: it was inserted")
    if isinstance(row, DroppedRow):
        return next_link(head.link, row.digest), None
    if row.link is None:
        return head.link, _fault(
            FaultKind.INSERTED, row, "has no link in the chain: it was inserted, or its link erased"
        )
    if row.digest is not None and next_link(head.link, row.digest) == row.link:
        return row.link, None
    if isinstance(following, ChainedRow) and _follows(head.link, following):
        return head.link, _fault(FaultKind.INSERTED, row, f"was inserted: {following} was written right before it")
    if row.digest is None:
        return head.link, _fault(FaultKind.ALTERED, row, "was altered: a part of it is gone that was not erased")
    before = str(last) if last else "the beginning"
    words = f"does not follow {before}: it was altered, or rows before it were taken out and the rest numbered anew"
    return head.link, _fault(FaultKind.ALTERED, row, words)


def _follows(link: bytes, row: ChainedRow) -> bool:
    return row.digest is not None and next_link(link, row.digest) == row.link


def _missing(head: Head, row: ChainedRow | DroppedRow, last: ChainedRow | None) -> Fault:
    count = row.sequence - head.sequence - 1
    rows = "one row is" if count == 1 else f"{count:,} rows are"
    after = str(last) if last else "the beginning"
    return Fault(
        kind=FaultKind.MISSING,
        sequence=head.sequence + 1,
        id=row.id if isinstance(row, ChainedRow) else "",
        time=row.time if isinstance(row, ChainedRow) else "",
        text=f"{rows} missing after {after} and before {row}",
    )


def _fault(kind: FaultKind, row: ChainedRow | DroppedRow, words: str) -> Fault:
    name, time = (row.id, row.time) if isinstance(row, ChainedRow) else ("", "")
    return Fault(kind=kind, sequence=row.sequence, id=name, time=time, text=f"{row} {words}")


def _check_noted(head: Head, last: ChainedRow | None, expected: dict[int, Head]) -> Fault | None:
    """Compare with a head that was noted here, if one was."""
    noted = expected.pop(head.sequence, None)
    if noted is None or noted.link == head.link:
        return None
    where = str(last) if last else "the beginning"
    return Fault(
        kind=FaultKind.REWRITTEN,
        sequence=head.sequence,
        id=last.id if last else "",
        time=last.time if last else "",
        text=f"the log was written anew up to {where}: the link there is not the one that was noted",
    )


def _find_cut(head: Head, last: ChainedRow | None, expected: dict[int, Head]) -> Fault | None:
    """Find a head that was noted beyond the last row."""
    if not expected:
        return None
    furthest = max(expected)
    count = furthest - head.sequence
    rows = "one row is" if count == 1 else f"{count:,} rows are"
    where = str(last) if last else "the beginning"
    return Fault(
        kind=FaultKind.CUT,
        sequence=head.sequence + 1,
        id=last.id if last else "",
        time=last.time if last else "",
        text=f"the log ends with {where}, and a head was noted beyond it: {rows} missing at its end",
    )
