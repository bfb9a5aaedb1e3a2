"""What is decided about rows for PostgreSQL before they go there."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision_chain import SALT_BYTES
from baleen_sidecar.adapters.store.any_text import escape, unescape
from baleen_sidecar.adapters.store.decision_rows import Row, StoredRecord, to_chained_row
from baleen_sidecar.adapters.store.group_writer import Waiting
from baleen_sidecar.adapters.store.postgres_rows import sort_out
from decision_records import make_record

texts = st.text(alphabet=st.sampled_from("\0\\0a😀"))


@given(text=texts | st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_has_no_zero_character_on_the_way(text: str) -> None:
    assert unescape(escape(text)) == text
    assert "\0" not in escape(text)


@given(one=texts, other=texts)
def test_two_texts_are_never_written_alike(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


def make_row(name: str, score: int) -> Row:
    return to_chained_row(make_record(name, score=score), bytes(SALT_BYTES))


def queue(rows: Sequence[Row]) -> list[Waiting]:
    loop = asyncio.new_event_loop()
    waiting = [Waiting(row, loop.create_future()) for row in rows]
    loop.close()
    return waiting


@given(
    given_rows=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 2)), max_size=8),
    on_record=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2)),
)
def test_each_row_is_new_once_or_known_or_refused(given_rows: list[tuple[str, int]], on_record: dict[str, int]) -> None:
    group = queue([make_row(name, score) for name, score in given_rows])
    stored = {}
    for name, score in on_record.items():
        row = make_row(name, score)
        stored[name] = StoredRecord(row.record, row.personal, None)
    fresh = sort_out(group, stored)

    kept = dict(on_record)
    for (name, score), waiting in zip(given_rows, group, strict=True):
        is_new = name not in kept
        first = kept.setdefault(name, score)
        assert (waiting in fresh) == is_new
        assert waiting.is_new == is_new
        assert (waiting.error is None) == (first == score)
