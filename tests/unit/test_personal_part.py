"""What of a record is personal: it can be taken out and put back, and nothing of it is left where it was taken out."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from baleen_core.records import (
    Context,
    DecisionRecord,
    ListHit,
    decode_personal,
    decode_record,
    encode,
    join_personal,
    split_personal,
)
from decision_records import make_record

words = st.text("abcdefxyz0123456789-", min_size=8, max_size=20).map("personal-".__add__)
hits = st.builds(ListHit, list_digest=words, entry=words, distance=st.none() | st.integers(0, 31))
authors = st.dictionaries(st.sampled_from(["id", "verified", "ageDays"]), words | st.booleans() | st.integers(0, 99))


@st.composite
def records(draw: st.DrawFn) -> DecisionRecord:
    """Give records whose personal words all begin alike."""
    made = make_record()
    context = Context(tenant="acme", surface="comments", session=draw(st.none() | words), author=draw(authors))
    evidence = structs.replace(
        made.evidence,
        content=structs.replace(made.evidence.content, digest=draw(words)),
        context=context,
        lists=tuple(draw(st.lists(hits, max_size=3))),
    )
    return structs.replace(made, evidence=evidence, request_id=draw(st.just("") | words))


@given(record=records())
def test_a_record_is_whole_again_once_its_personal_part_is_put_back(record: DecisionRecord) -> None:
    rest, part = split_personal(record)
    stored = decode_record(encode(rest)), decode_personal(encode(part))

    assert join_personal(*stored) == record
    assert encode(join_personal(*stored)) == encode(record)


@given(record=records())
def test_without_its_personal_part_a_record_says_nothing_personal(record: DecisionRecord) -> None:
    rest, _ = split_personal(record)

    assert b"personal-" in encode(record)
    assert b"personal-" not in encode(rest)
    assert (rest.id, rest.time, rest.decision) == (record.id, record.time, record.decision)
    assert split_personal(rest)[0] == rest
