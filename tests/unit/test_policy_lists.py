import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError, PolicyError
from baleen_core.policy import lists
from baleen_core.policy.lists import canonical_list, read_list, restore_list
from baleen_core.policy.schema import ListType
from baleen_core.textnorm import fold

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("type", "text", "entries"),
    [
        pytest.param(ListType.TERMS, "b\na\nb\n", ("a", "b"), id="unique and sorted"),
        pytest.param(
            ListType.TERMS, "\ufeff# slurs\r\n\r\n  two words \r\n\t# x\nx # y", ("two words", "x # y"), id="lines"
        ),
        pytest.param(ListType.TERMS, "#\n# #kys\n#kys\n#\tx\n## x\n##", ("#kys",), id="hashtags are no comments"),
        pytest.param(ListType.DIGEST, f"#{HASH}\n# x", (), id="a digest that is commented out"),
        pytest.param(ListType.TERMS, "a\rb", ("a", "b"), id="old line ends"),
        pytest.param(ListType.TERMS, "Idiot\nидиот\n🍆", ("Idiot", "идиот", "🍆"), id="as they are written"),
        pytest.param(ListType.TERMS, "", (), id="empty"),
        pytest.param(ListType.DIGEST, f"sha256:{HASH}\n{HASH.upper()}", (f"sha256:{HASH}",), id="digests"),
        pytest.param(ListType.PERCEPTUAL_HASH, f"{HASH.upper()}\n{HASH}", (HASH,), id="hashes"),
    ],
)
def test_a_list_is_read_as_people_write_it(type: ListType, text: str, entries: tuple[str, ...]) -> None:
    assert read_list(type, text).entries == entries


@pytest.mark.parametrize(
    ("type", "text", "field", "message"),
    [
        pytest.param(ListType.TERMS, "a\n" + "x" * 257, "line 2", "at most 256", id="long"),
        pytest.param(ListType.TERMS, "\n\n\u200b\u200d", "line 3", "no visible character", id="nothing to see"),
        pytest.param(ListType.TERMS, "\u00ad", "line 1", "no visible character", id="only a soft hyphen"),
        pytest.param(ListType.TERMS, "a\ud800", "", "character 1 is half of a surrogate pair", id="not UTF-8"),
        pytest.param(ListType.DIGEST, "md5:" + HASH, "line 1", "64 hexadecimal digits, with or without", id="digest"),
        pytest.param(ListType.DIGEST, HASH[1:], "line 1", "is not a SHA-256", id="a short digest"),
        pytest.param(
            ListType.PERCEPTUAL_HASH, "sha256:" + HASH, "line 1", "is not a PDQ hash", id="a digest as a hash"
        ),
    ],
)
def test_a_wrong_entry_is_named_by_its_line(type: ListType, text: str, field: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_list(type, text)

    [problem] = refused.value.problems
    assert problem.field == field
    assert message in problem.message


def test_of_many_wrong_entries_twenty_are_named() -> None:
    with pytest.raises(PolicyError) as refused:
        read_list(ListType.DIGEST, "x\n" * 50)

    assert len(refused.value.problems) == 21
    assert refused.value.problems[0].field == "line 1"
    assert refused.value.problems[-1].message == "and 30 more"


def test_limits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_LIST_ENTRIES", 2)
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 10)

    with pytest.raises(PolicyError, match="has 3 entries; at most 2 are allowed"):
        read_list(ListType.TERMS, "a\nb\nc")
    with pytest.raises(PolicyError, match="has 11 bytes; at most 10 are allowed"):
        read_list(ListType.TERMS, "# long one.")


def test_the_digest_names_the_canonical_text() -> None:
    content = read_list(ListType.TERMS, "b\n# comment\na\n")

    assert canonical_list(content) == "a\nb"
    assert content.digest == digest_of(b"Terms\na\nb")


def test_equal_texts_of_two_types_are_two_lists() -> None:
    digests, terms = read_list(ListType.DIGEST, HASH), read_list(ListType.TERMS, f"sha256:{HASH}")

    assert canonical_list(digests) == canonical_list(terms)
    assert digests.digest != terms.digest
    with pytest.raises(IntegrityError):
        restore_list(ListType.TERMS, digests.digest, canonical_list(digests))


texts = st.text(st.one_of(st.sampled_from("ab# \n\r\t\u200b\ufeff\u2028\x1c\x0b"), st.characters(codec="utf-8")))


@given(text=texts)
def test_a_list_survives_its_canonical_text(text: str) -> None:
    try:
        content = read_list(ListType.TERMS, text)
    except PolicyError:
        return

    assert restore_list(content.type, content.digest, canonical_list(content)) == content


@given(text=texts)
def test_every_term_is_something_that_can_be_found(text: str) -> None:
    try:
        content = read_list(ListType.TERMS, text)
    except PolicyError:
        return

    assert all(fold(entry) for entry in content.entries)


@given(entries=st.lists(st.text("abc", min_size=1, max_size=3)), order=st.randoms(use_true_random=False))
def test_order_and_repeats_do_not_change_the_digest(entries: list[str], order: Random) -> None:
    shuffled = entries * 2
    order.shuffle(shuffled)

    assert read_list(ListType.TERMS, "\n".join(entries)) == read_list(ListType.TERMS, " \r\n# x\n".join(shuffled))


@pytest.mark.parametrize(
    ("type", "digest", "text"),
    [
        pytest.param(ListType.TERMS, digest_of(b"a\nb"), "a\nc", id="altered"),
        pytest.param(ListType.TERMS, digest_of(b"Terms\nb\na"), "b\na", id="not in order"),
        pytest.param(ListType.TERMS, digest_of(b"Terms\na\n"), "a\n", id="not canonical"),
        pytest.param(ListType.DIGEST, digest_of(b"Digest\na"), "a", id="of another type"),
    ],
)
def test_a_list_that_is_not_what_its_digest_names_is_refused(type: ListType, digest: str, text: str) -> None:
    with pytest.raises(IntegrityError):
        restore_list(type, digest, text)


def test_a_million_terms_take_seconds() -> None:
    text = "\n".join(f"term {number:x}" for number in range(1_000_000))
    start = time.process_time()

    assert len(read_list(ListType.TERMS, text).entries) == 1_000_000
    assert time.process_time() - start < 15
