"""The decision log as a chain of hashes: each row's link covers the row and the link before it.

    personal_digest = SHA-256(salt ‖ JSON(content_digest, author) ‖ personal)
    digest          = SHA-256(personal_digest ‖ JSON(id, time, decision, surface, origin, keep_days) ‖ record)
    link            = SHA-256(link before ‖ digest)

The bytes that are on disk are hashed, not what they mean, so that a newer release verifies what an older one wrote. A
row's place is not hashed: a row that stands where it was not written fits nothing around it. Once the personal part is
erased, `personal_digest` stands for it; without the salt, which goes with it, nothing can be guessed from that. Of a
row that retention dropped, `digest` stays for as long as older rows do. Where rows follow that are in no chain, because
the log was a spool for a while, the chain passes over their places with a link of its own: that of a Gap.
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
_HEAD: Final = re.compile(r"(?:([A-Za-z0-9._-]{1,300})/)?(\d{1,18}):([0-9a-f]{64})")
_ENCODE: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest row of a chain, or the one before its first: its place, and its link; written `place:link`.

    Where several write one log, it is the head of one `writer`, and written `writer/place:link`.
    """

    sequence: int
    link: bytes
    writer: str = ""

    def __str__(self) -> str:
        return f"{self.writer}{'/' if self.writer else ''}{self.sequence}:{self.link.hex()}"

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
        return cls(sequence=int(match[2]), link=bytes.fromhex(match[3]), writer=match[1] or "")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Places after `sequence`, up to `last`, whose rows are in no chain: those of a spool, some of which are gone."""

    sequence: int
    last: int

    def __str__(self) -> str:
        return f"the rows of a spool, {self.sequence + 1} to {self.last}"

    @property
    def digest(self) -> bytes:
        """What the chain goes on with, so that nobody passes over places unseen; 32 bytes."""
        return hashlib.sha256(_ENCODE(("gap", self.sequence, self.last))).digest()

    def after(self, link: bytes) -> Head:
        """Return the head behind it, after the row with `link`."""
        return Head(sequence=self.last, link=next_link(link, self.digest))


Step = ChainedRow | DroppedRow | Gap
"""What a chain goes on with."""


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


def verify(start: Head, rows: Iterable[Step], *, noted: Sequence[Head] = ()) -> Verification:
    """Follow a chain from `start` on, through all rows in the order of their places, up to the first fault.

    Rows up to `start` without a link were there before the chain, those in a Gap are in none: they are counted alone.
    A Gap comes after the row in its own place. `noted` are heads that were kept elsewhere: each must be on the way.
    """
    walk = _Walk(start, noted)
    for row, following in _with_next(rows):
        if walk.fault is not None:
            break
        walk.take(row, following)
    walk.end()
    return Verification(
        start=start,
        head=walk.head,
        rows=walk.rows,
        erased=walk.erased,
        dropped=walk.dropped,
        outside=walk.outside,
        first=walk.first,
        last=walk.last,
        passed_heads=tuple(each for each in noted if each.sequence < start.sequence),
        fault=walk.fault,
    )


class _Walk:
    """How far a chain was followed, and what was counted and found on the way."""

    def __init__(self, start: Head, noted: Sequence[Head]) -> None:
        self._outside_to = start.sequence
        self._expected: dict[int, set[bytes]] = {}
        for each in noted:
            if each.sequence >= start.sequence:
                self._expected.setdefault(each.sequence, set()).add(each.link)
        self.head = start
        self.rows = self.erased = self.dropped = self.outside = 0
        self.first: ChainedRow | None = None
        self.last: ChainedRow | None = None
        self.fault = self._compare()

    def take(self, row: Step, following: Step | None) -> None:
        """Go on to a row, or find its fault."""
        if isinstance(row, ChainedRow) and row.sequence <= self._outside_to and row.link is None:
            self.outside += 1
            return
        if isinstance(row, Gap):
            self._pass(row)
            return
        link, self.fault = _judge(self.head, row, following, self.last)
        if self.fault is not None:
            return
        self.head = Head(sequence=row.sequence, link=link)
        if isinstance(row, ChainedRow):
            self.rows += 1
            self.erased += row.is_erased
            self.first, self.last = self.first or row, row
        else:
            self.dropped += 1
        self.fault = self._compare()

    def _pass(self, gap: Gap) -> None:
        """Go on behind places that are in no chain, or find that they do not begin here."""
        if gap.sequence > self.head.sequence:
            self.fault = _missing(self.head, gap, self.last, places=gap.sequence - self.head.sequence)
        elif gap.sequence < self.head.sequence or gap.last <= gap.sequence:
            text = f"{gap}, were put where the log has others: they were inserted"
            self.fault = Fault(kind=FaultKind.INSERTED, sequence=gap.sequence + 1, text=text)
        else:
            self.head = gap.after(self.head.link)
            self._outside_to = gap.last
            self.fault = self._compare()

    def end(self) -> None:
        """Find a head that was noted beyond the last row, unless another fault was found before."""
        if self.fault is None and self._expected:
            rows = _number(max(self._expected) - self.head.sequence)
            text = f"the log ends with {self._where()}, and a head was noted beyond it: {rows} missing at its end"
            self.fault = self._fault(FaultKind.CUT, self.head.sequence + 1, text)

    def _compare(self) -> Fault | None:
        """Compare with what was noted for this place, if anything was."""
        noted = self._expected.pop(self.head.sequence, None)
        if noted is None or noted == {self.head.link}:
            return None
        text = f"the log was written anew up to {self._where()}: the link there is not the one that was noted"
        return self._fault(FaultKind.REWRITTEN, self.head.sequence, text)

    def _where(self) -> str:
        return str(self.last) if self.last else "the beginning"

    def _fault(self, kind: FaultKind, sequence: int, text: str) -> Fault:
        name, time = (self.last.id, self.last.time) if self.last else ("", "")
        return Fault(kind=kind, sequence=sequence, id=name, time=time, text=text)


def _with_next(rows: Iterable[Step]) -> Iterator[tuple[Step, Step | None]]:
    before: Step | None = None
    for row in rows:
        if before is not None:
            yield before, row
        before = row
    if before is not None:
        yield before, None


def _judge(
    head: Head, row: ChainedRow | DroppedRow, following: Step | None, last: ChainedRow | None
) -> tuple[bytes, Fault | None]:
    """Return a row's link, and what is wrong with the row if anything is."""
    if row.sequence > head.sequence + 1:
        return head.link, _missing(head, row, last, places=row.sequence - head.sequence - 1)
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
        return head.link, _fault(
            FaultKind.INSERTED, row, f"was inserted: what stands before it and {following} were written together"
        )
    if row.digest is None:
        return head.link, _fault(FaultKind.ALTERED, row, "was altered: a part of it is gone that was not erased")
    before = str(last) if last else "the beginning"
    words = f"does not follow {before}: it was altered, or rows before it were taken out and the rest numbered anew"
    return head.link, _fault(FaultKind.ALTERED, row, words)


def _follows(link: bytes, row: ChainedRow) -> bool:
    return row.digest is not None and next_link(link, row.digest) == row.link


def _missing(head: Head, row: Step, last: ChainedRow | None, *, places: int) -> Fault:
    rows = _number(places)
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


def _number(count: int) -> str:
    return "one row is" if count == 1 else f"{count:,} rows are"
