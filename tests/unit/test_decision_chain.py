"""The chain of the decision log: what follows it is found whole, and what does not is named."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision_chain import (
    ChainedRow,
    DroppedRow,
    FaultKind,
    Gap,
    Head,
    next_link,
    personal_digest,
    row_digest,
    verify,
)
from baleen_core.errors import InvalidError

START = Head(sequence=0, link=b"\x07" * 32)

digests = st.binary(min_size=32, max_size=32)
chains = st.lists(digests, min_size=1, max_size=12, unique=True)


def chain(written: Sequence[bytes], start: Head = START) -> list[ChainedRow]:
    """Write rows with these digests, as a log does."""
    rows, link = [], start.link
    for number, digest in enumerate(written, start.sequence + 1):
        link = next_link(link, digest)
        rows.append(
            ChainedRow(
                sequence=number, id=f"id-{number}", time=f"2026-03-01T12:00:{number:02}Z", digest=digest, link=link
            )
        )
    return rows


def head_of(rows: Sequence[ChainedRow]) -> Head:
    link = rows[-1].link
    assert link is not None
    return Head(sequence=rows[-1].sequence, link=link)


@st.composite
def chains_and_places(draw: st.DrawFn, *, last: bool = True) -> tuple[list[ChainedRow], int]:
    """Give a chain of two rows or more and the index of one of them; without `last`, not of the last one."""
    rows = chain(draw(st.lists(digests, min_size=2, max_size=12, unique=True)))
    return rows, draw(st.integers(0, len(rows) - (1 if last else 2)))


@given(written=st.lists(digests, max_size=12))
def test_what_was_written_is_found_whole(written: list[bytes]) -> None:
    rows = chain(written)
    found = verify(START, rows)

    assert found.fault is None
    assert found.rows == len(rows)
    assert found.head == (head_of(rows) if rows else START)


@given(place=chains_and_places(), digest=digests)
def test_an_altered_row_is_named(place: tuple[list[ChainedRow], int], digest: bytes) -> None:
    rows, at = place
    altered = rows[at]
    rows[at] = replace(altered, digest=digest)
    found = verify(START, rows)

    assert found.fault is None if digest == altered.digest else found.fault is not None
    if found.fault is not None:
        assert (found.fault.kind, found.fault.sequence) == (FaultKind.ALTERED, at + 1)
        assert (found.fault.id, found.fault.time) == (altered.id, altered.time)
        assert altered.id in found.fault.text


@given(place=chains_and_places())
def test_a_row_that_lost_a_part_or_its_link_is_named(place: tuple[list[ChainedRow], int]) -> None:
    rows, at = place
    without_part = [replace(row, digest=None) if index == at else row for index, row in enumerate(rows)]
    without_link = [replace(row, link=None) if index == at else row for index, row in enumerate(rows)]

    for altered, kind in ((without_part, FaultKind.ALTERED), (without_link, FaultKind.INSERTED)):
        fault = verify(START, altered).fault
        assert fault is not None
        assert (fault.kind, fault.sequence) == (kind, at + 1)


@given(place=chains_and_places(last=False), count=st.integers(1, 3))
def test_rows_that_are_missing_are_named_by_their_neighbours(place: tuple[list[ChainedRow], int], count: int) -> None:
    rows, at = place
    count = min(count, len(rows) - 1 - at)
    after = rows[at + count]
    fault = verify(START, rows[:at] + rows[at + count :]).fault

    assert fault is not None
    assert (fault.kind, fault.sequence, fault.id) == (FaultKind.MISSING, at + 1, after.id)
    assert (rows[at - 1].id if at else "the beginning") in fault.text


@given(place=chains_and_places(last=False))
def test_rows_that_were_numbered_anew_do_not_hide_that_one_is_missing(place: tuple[list[ChainedRow], int]) -> None:
    rows, at = place
    moved = [replace(row, sequence=row.sequence - 1) for row in rows[at + 1 :]]
    fault = verify(START, rows[:at] + moved).fault

    assert fault is not None
    assert (fault.sequence, fault.id) == (at + 1, rows[at + 1].id)


@given(place=chains_and_places(), digest=digests, link=digests)
def test_a_row_that_was_put_between_others_is_named(
    place: tuple[list[ChainedRow], int], digest: bytes, link: bytes
) -> None:
    rows, at = place
    forged = ChainedRow(sequence=at + 1, id="forged", time="then", digest=digest, link=link)
    moved = [replace(row, sequence=row.sequence + 1) for row in rows[at:]]
    fault = verify(START, [*rows[:at], forged, *moved]).fault

    assert fault is not None
    assert (fault.kind, fault.id) == (FaultKind.INSERTED, "forged")


@given(place=chains_and_places(), digest=digests)
def test_whoever_writes_a_link_anew_too_is_found_at_the_next_row(
    place: tuple[list[ChainedRow], int], digest: bytes
) -> None:
    rows, at = place
    before = rows[at - 1].link if at else START.link
    assert before is not None
    changed = digest != rows[at].digest
    rows[at] = replace(rows[at], digest=digest, link=next_link(before, digest))
    fault = verify(START, rows).fault

    if not changed or at == len(rows) - 1:
        assert fault is None
    else:
        assert fault is not None
        assert fault.sequence == at + 2
        assert rows[at].id in fault.text


@given(place=chains_and_places(last=False))
def test_rows_missing_at_the_end_are_found_by_a_head_that_was_noted_and_by_nothing_else(
    place: tuple[list[ChainedRow], int],
) -> None:
    rows, at = place
    cut = rows[: at + 1]

    assert verify(START, cut).fault is None
    fault = verify(START, cut, noted=[head_of(rows)]).fault
    assert fault is not None
    assert (fault.kind, fault.sequence, fault.id) == (FaultKind.CUT, at + 2, rows[at].id)


@given(written=chains, other=chains, at=st.integers(0, 11))
def test_a_log_that_was_written_anew_is_found_by_a_head_that_was_noted(
    written: list[bytes], other: list[bytes], at: int
) -> None:
    rows = chain(written)
    noted = head_of(rows[: at % len(rows) + 1])
    forged = chain((other + written)[: len(written)])
    is_other = [row.digest for row in forged][: noted.sequence] != written[: noted.sequence]
    found = verify(START, forged, noted=[noted])

    assert (found.fault is not None) == is_other
    if found.fault is not None:
        assert (found.fault.kind, found.fault.sequence) == (FaultKind.REWRITTEN, noted.sequence)


@given(place=chains_and_places(), link=digests)
def test_of_two_heads_that_were_noted_for_one_place_only_one_can_be_right(
    place: tuple[list[ChainedRow], int], link: bytes
) -> None:
    rows, at = place
    right = head_of(rows[: at + 1])
    fault = verify(START, rows, noted=[right, replace(right, link=link), right]).fault

    assert (fault is None) == (link == right.link)


@given(place=chains_and_places(), dropped=st.sets(st.integers(0, 11)))
def test_rows_that_were_dropped_leave_their_digest_and_the_chain_goes_on(
    place: tuple[list[ChainedRow], int], dropped: set[int]
) -> None:
    rows, at = place
    dropped -= {at}
    kept: list[ChainedRow | DroppedRow] = [
        DroppedRow(sequence=row.sequence, digest=row.digest or b"") if index in dropped else row
        for index, row in enumerate(rows)
    ]
    found = verify(START, kept, noted=[head_of(rows)])

    assert found.fault is None
    assert (found.rows, found.dropped) == (len(rows) - found.dropped, len(dropped & set(range(len(rows)))))
    assert found.head == head_of(rows)


@given(place=chains_and_places(last=False))
def test_a_chain_that_begins_later_is_followed_from_there(place: tuple[list[ChainedRow], int]) -> None:
    rows, at = place
    start, early = head_of(rows[: at + 1]), Head(sequence=0, link=START.link)
    found = verify(start, rows[at + 1 :], noted=[start, early, head_of(rows)])

    assert found.fault is None
    assert (found.rows, found.passed_heads) == (len(rows) - at - 1, (early,))


def test_rows_from_before_the_chain_are_counted_and_none_of_them_may_have_a_link() -> None:
    old = [ChainedRow(sequence=number, id=f"old-{number}", time="then", digest=None, link=None) for number in (1, 2)]
    start = Head(sequence=2, link=START.link)
    rows = chain([b"a" * 32, b"b" * 32], start)

    found = verify(start, [*old, *rows])
    forged = verify(start, [old[0], replace(old[1], link=b"x" * 32), *rows]).fault

    assert (found.fault, found.outside, found.rows) == (None, 2, 2)
    assert forged is not None
    assert (forged.kind, forged.id) == (FaultKind.INSERTED, "old-2")


ROW = {
    "id": "a",
    "time": "b",
    "decision": "Allow",
    "surface": "c",
    "origin": "d",
    "keep_days": 7,
    "record": b"{}",
}
PERSONAL = {"content_digest": "a", "author": "b", "personal": b"{}"}


@pytest.mark.parametrize(
    "changed",
    [
        *({name: None} for name in ("surface", "origin", "keep_days")),
        *({name: "x"} for name in ("id", "time", "decision", "surface", "origin")),
        {"keep_days": 8},
        {"record": b"{ }"},
        # What moves from one field to its neighbour is no longer the same.
        {"id": "ab", "time": ""},
        {"surface": "", "origin": "cd"},
    ],
    ids=str,
)
def test_every_field_of_a_row_counts(changed: dict[str, object]) -> None:
    assert row_digest(b"p" * 32, **ROW) != row_digest(b"p" * 32, **{**ROW, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"content_digest": "x"},
        {"author": None},
        {"author": "x"},
        {"personal": b"{ }"},
        {"content_digest": "ab", "author": ""},
    ],
    ids=str,
)
def test_every_part_of_what_can_be_erased_counts(changed: dict[str, object]) -> None:
    salt = b"s" * 16

    assert personal_digest(salt, **PERSONAL) != personal_digest(salt, **{**PERSONAL, **changed})  # type: ignore[arg-type]
    assert personal_digest(salt, **PERSONAL) != personal_digest(b"t" * 16, **PERSONAL)  # type: ignore[arg-type]


@given(sequence=st.integers(0, 10**18 - 1), link=digests)
def test_a_head_is_read_as_it_was_written(sequence: int, link: bytes) -> None:
    head = Head(sequence=sequence, link=link)

    assert Head.parse(f" {head}\n") == head


@pytest.mark.parametrize("text", ["", "7", "7:", ":" + "a" * 64, "7:" + "A" * 64, "-7:" + "a" * 64, "7:" + "a" * 63])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="is no head of a decision log"):
        Head.parse(text)


@st.composite
def chains_with_gaps(draw: st.DrawFn) -> list[ChainedRow | Gap]:
    """Give a chain that passes over places now and then."""
    steps: list[ChainedRow | Gap] = []
    head = START
    for number, (digest, passed) in enumerate(draw(st.lists(st.tuples(digests, st.integers(0, 3)), min_size=1))):
        if passed:
            gap = Gap(sequence=head.sequence, last=head.sequence + passed)
            steps.append(gap)
            head = gap.after(head.link)
        head = Head(sequence=head.sequence + 1, link=next_link(head.link, digest))
        steps.append(ChainedRow(sequence=head.sequence, id=f"{number}", time="then", digest=digest, link=head.link))
    return steps


@given(steps=chains_with_gaps())
def test_a_chain_that_passes_over_places_is_whole_with_or_without_the_rows_there(
    steps: list[ChainedRow | Gap],
) -> None:
    spooled = [
        ChainedRow(sequence=place, id="spooled", time="then", digest=None, link=None)
        for step in steps
        if isinstance(step, Gap)
        for place in range(step.sequence + 1, step.last + 1)
    ]
    # A gap comes after the row in its own place, and before those that it passes over.
    filled = sorted([*steps, *spooled], key=lambda step: step.sequence + isinstance(step, Gap) / 2)
    bare, full = verify(START, steps), verify(START, filled)

    assert (bare.fault, full.fault) == (None, None)
    assert (bare.outside, full.outside) == (0, len(spooled))
    assert bare.head == full.head
    assert bare.rows == sum(isinstance(step, ChainedRow) for step in steps)


@given(steps=chains_with_gaps(), data=st.data())
def test_no_step_of_a_chain_can_be_taken_away_unseen_but_the_last(
    steps: list[ChainedRow | Gap], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(steps) - 1))
    found = verify(START, steps[:at] + steps[at + 1 :])

    assert (found.fault is None) == (at == len(steps) - 1)


@given(steps=chains_with_gaps(), at=st.integers(0, 60), count=st.integers(1, 3))
def test_nobody_makes_a_chain_pass_over_places_unseen(steps: list[ChainedRow | Gap], at: int, count: int) -> None:
    at = min(at, len(steps) - 1)
    first = steps[at].sequence - isinstance(steps[at], ChainedRow)
    moved = [
        replace(step, sequence=step.sequence + count, last=step.last + count)
        if isinstance(step, Gap)
        else replace(step, sequence=step.sequence + count)
        for step in steps[at:]
    ]

    assert verify(START, [*steps[:at], Gap(sequence=first, last=first + count), *moved]).fault is not None
