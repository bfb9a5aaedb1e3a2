"""Lists: whole words in any disguise, digests, and pictures that look alike."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_core.decision.lists import MAX_HITS_PER_LIST, compile_list, find_hits, mark_words
from baleen_core.policy.schema import ListContent, ListType


def make_terms(*terms: str, digest: str = "sha256:terms"):
    return compile_list(ListContent(digest=digest, type=ListType.TERMS, entries=tuple(sorted(terms))))


def make_hashes(*hashes: str, max_distance: int | None = None):
    content = ListContent(digest="sha256:hashes", type=ListType.PERCEPTUAL_HASH, entries=tuple(sorted(hashes)))
    return compile_list(content, max_distance=max_distance)


def find_terms(text: str, *terms: str) -> list[str]:
    return [hit.entry for hit in find_hits([make_terms(*terms)], text=text, digest="sha256:0", pdq=None)]


def flip(hash_: str, bits: int) -> bytes:
    """A hash that differs in so many bits."""
    number = int(hash_, 16)
    for bit in range(bits):
        number ^= 1 << (bit * 7 % 256)
    return number.to_bytes(32)


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        pytest.param("fool", "you fool", True, id="word at the end"),
        pytest.param("fool", "Fool!", True, id="case and punctuation"),
        pytest.param("fool", "foolish and unfoolable", False, id="part of a word"),
        pytest.param("fool", "fool's gold", True, id="before an apostrophe"),
        pytest.param("fool", "you_fool_you", True, id="between underscores"),
        pytest.param("fool", "fools", False, id="another form"),
        pytest.param("fool", "fo\u200bol", True, id="invisible characters"),
        pytest.param("fool", "f0ol", True, id="leetspeak"),
        pytest.param("fool", "ｆｏｏｌ", True, id="fullwidth letters"),
        pytest.param("fool", "ƒool", True, id="f with a hook"),
        pytest.param("fool", "f\x00ool", True, id="control characters"),
        pytest.param("go away", "please  go\n away now", True, id="phrase over a line break"),
        pytest.param("go away", "cargo away", False, id="phrase within words"),
        pytest.param("c++", "I like C++.", True, id="term that ends in no letter"),
        pytest.param("c++", "abc++", False, id="but begins in the middle of a word"),
        pytest.param("idiot", "idiot你好", True, id="before a script without spaces"),
        pytest.param("笨蛋", "你这个笨蛋啊", True, id="Chinese has no spaces"),
        pytest.param("ばか", "おまえはばかだ", True, id="nor has Japanese"),
        pytest.param("바보", "그는 바보입니다", True, id="Korean particles"),
        pytest.param("โง่", "คุณโง่มาก", True, id="nor has Thai"),
        pytest.param("घटिया", "यह घटिया है", True, id="Hindi vowel signs belong to the word"),
        pytest.param("घटि", "यह घटिया है", False, id="so part of one is no hit"),
        pytest.param("дурак", "Ты ДУРАК?", True, id="Cyrillic"),
        pytest.param("дурак", "дураки", False, id="part of a Cyrillic word"),
    ],
)
def test_terms_are_whole_words_in_any_disguise(term, text, found):
    assert find_terms(text, term) == ([term] if found else [])


@pytest.mark.parametrize(
    ("term", "texts"),
    [
        pytest.param("fool", ["foool", "FOOOOOL", "fo0ol", "fffoooool", "foool1"], id="stretched"),
        pytest.param("boobs", ["booobs"], id="another double vowel"),
        pytest.param("coon", ["cooon"], id="and another"),
        pytest.param("booty", ["boooottty"], id="stretched vowels and consonants at once"),
        pytest.param(
            "fool", ["u f o o l", "u r a f o o l", "s t u p i d f o o l s", "u-f-0-o-l"], id="spelt out among more"
        ),
        pytest.param(
            "idiot", ["a i d i o t", "i - d - i - o - t", "i . d . i . o . t", "i d i i i o t"], id="spelt out"
        ),
        pytest.param("kill yourself", ["k.i.l.l yourself", "k i l l y o u r s e l f"], id="a phrase that is spelt out"),
        pytest.param("usa", ["U.S.A.", "u s a"], id="initials"),
        pytest.param("u.s.a", ["usa", "U.S.A."], id="a term of initials"),
        pytest.param("plan b", ["plan b c d", "plan-b"], id="a letter before letters"),
        pytest.param("plan b c d", ["plan b c d", "plan b, c, d"], id="letters within a term"),
        pytest.param("idiot", ["idiot1", "1idiot", "idiot0", "idiot123", "1d10t", "idiot$"], id="digits at a word"),
        pytest.param("fool", ["fool|idiot", "idiot|fool|you", "fool€"], id="bars between words"),
        pytest.param("1488", ["1488", "say 1488!", "1488lol"], id="a term of digits"),
        pytest.param("h8", ["i h8 you", "H8!"], id="a term with a digit at its end"),
        pytest.param("covid19", ["covid19"], id="a term with more digits"),
        pytest.param(
            "double your coins",
            [
                "double-your-coins",
                "Double your, coins",
                "double_your_coins",
                "double...your...coins",
                "double\nyour coins",
            ],
            id="a phrase with anything between its words",
        ),
        pytest.param("double-your-coins", ["double your coins"], id="a term with anything between its words"),
        pytest.param("c++", ["c++, or so", "c++ code"], id="punctuation that belongs to a term"),
        pytest.param(".net core", ["the .net core here"], id="also of a phrase"),
        pytest.param("笨蛋", ["笨 蛋", "笨.蛋", "你是笨-蛋"], id="Chinese with separators"),
        pytest.param("바보", ["바 보", "바.보"], id="Korean syllables with separators"),
        pytest.param("idiot", ["ꓲꓓꓲꓳꓔ", "ⲓⲇⲓⲟⲧ", "ꮖꭰꮖꮎꭲ", "ɩdɩot"], id="lookalikes of more scripts"),
        pytest.param("hell", ["h€ll", "he|l", "he||"], id="signs that look like letters"),
    ],
)
def test_a_term_is_found_however_it_is_written(term, texts):
    assert [text for text in texts if find_terms(text, term) != [term]] == []


@pytest.mark.parametrize(
    ("term", "text"),
    [
        pytest.param("ass", "as good as it gets", id="a double letter is not a single one"),
        pytest.param("to", "too good", id="nor the other way round"),
        pytest.param("god", "good", id="also of vowels within words"),
        pytest.param("go", "u g o t", id="terms of two letters are not looked for in what is spelt out"),
        pytest.param("시발", "다시 발견", id="a space between Korean words has a meaning"),
        pytest.param("fool you", "fool. them. you", id="another word between"),
    ],
)
def test_a_term_is_not_found_in_other_words(term, text):
    assert find_terms(text, term) == []


def test_of_terms_that_begin_together_the_longest_is_found():
    assert find_terms("go away now", "go", "go away") == ["go away"]
    assert find_terms("哈嘿哈", "哈", "哈嘿") == ["哈", "哈嘿"]
    assert find_terms("哈嘿", "哈", "哈嘿") == ["哈嘿"]


def test_a_term_within_another_does_not_hide_it():
    assert find_terms("what an assassin, you ass", "ass", "assassin") == ["ass", "assassin"]
    assert find_terms("go away you", "go", "go away now") == ["go"]


def test_at_most_sixteen_hits_in_the_order_of_the_list():
    words = [f"word{chr(97 + index)}x" for index in range(26)]

    found = find_terms(" ".join(reversed(words)), *words)

    assert found == sorted(words)[-MAX_HITS_PER_LIST:]


def test_the_order_of_lists_means_nothing():
    lists = [make_terms("fool", digest="sha256:b"), make_terms("fool", "you", digest="sha256:a")]

    one = find_hits(lists, text="you fool", digest="sha256:0", pdq=None)

    assert one == find_hits(lists[::-1], text="you fool", digest="sha256:0", pdq=None)
    assert [(hit.list_digest, hit.entry) for hit in one] == [
        ("sha256:a", "fool"),
        ("sha256:a", "you"),
        ("sha256:b", "fool"),
    ]


@settings(deadline=None)
@given(before=st.text(alphabet="kqx é漢.,!?\n"), after=st.text(alphabet="kqx é漢.,!?\n"))
def test_a_word_between_spaces_is_always_found(before, after):
    assert find_terms(f"{before} zebra {after}", "zebra") == ["zebra"]


@settings(deadline=None)
@given(st.text(alphabet="abc ß你é\u0301-_1", max_size=30))
def test_marks_stand_around_words_and_change_nothing_else(text):
    assert mark_words(text).replace("\x00", "") == text
    assert mark_words(text).count("\x00") % 2 == 0


def test_a_list_of_terms_that_fold_to_nothing_finds_nothing():
    assert find_terms("anything at all \u200b", "\u200b") == []


def test_long_hostile_text_is_matched_in_one_pass():
    nested = ["xy" * length for length in range(1, 200)] + ["哈嘿" * length for length in range(1, 200)]

    assert find_terms("xy" * 100_000, *nested) == []
    assert find_terms("哈嘿" * 100_000, *nested) == ["哈嘿" * (100_000 % 199), "哈嘿" * 199]


def test_a_million_terms_compile_and_match():
    letters = random.Random(7).randbytes(9_000_000).translate(bytes(ord("a") + byte % 26 for byte in range(256)))
    terms = {letters[at : at + 9].decode() for at in range(0, len(letters), 9)}
    content = ListContent(digest="sha256:million", type=ListType.TERMS, entries=tuple(sorted(terms)))

    found = find_hits([compile_list(content)], text=f"so {min(terms)}, {max(terms)}x", digest="", pdq=None)

    assert [hit.entry for hit in found] == [min(terms)]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        pytest.param("ab" * 32, True, id="plain"),
        pytest.param("sha256:" + "ab" * 32, True, id="with its prefix"),
        pytest.param("AB" * 32, True, id="upper case"),
        pytest.param("cd" * 32, False, id="another"),
    ],
)
def test_a_digest_is_that_of_the_whole_content(entry, found):
    digests = compile_list(ListContent(digest="sha256:d", type=ListType.DIGEST, entries=(entry,)))

    assert bool(find_hits([digests], text="text", digest="sha256:" + "ab" * 32, pdq=None)) is found


@pytest.mark.parametrize(
    ("bits", "max_distance", "found"),
    [
        pytest.param(0, 0, True, id="the same"),
        pytest.param(31, None, True, id="31 bits by default"),
        pytest.param(32, None, False, id="and no more"),
        pytest.param(10, 10, True, id="as far as asked"),
        pytest.param(11, 10, False, id="and no further"),
    ],
)
def test_pictures_look_alike_within_so_many_bits(bits, max_distance, found):
    known = "f0" * 32
    hashes = make_hashes(known, "0f" * 32, max_distance=max_distance)

    hits = find_hits([hashes], text=None, digest="", pdq=flip(known, bits))

    assert [(hit.entry, hit.distance) for hit in hits] == ([(known, bits)] if found else [])


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**256 - 1), min_size=1, max_size=8, unique=True), st.integers(0, 2**256 - 1))
def test_the_distance_is_that_of_hamming(known, asked):
    hashes = make_hashes(*(f"{each:064x}" for each in known), max_distance=256)

    hits = find_hits([hashes], text=None, digest="", pdq=asked.to_bytes(32))

    assert {hit.entry: hit.distance for hit in hits} == {f"{each:064x}": (each ^ asked).bit_count() for each in known}
    assert [hit.distance for hit in hits] == sorted(hit.distance or 0 for hit in hits)


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        make_hashes("abcd")


def test_content_without_text_or_hash_hits_nothing():
    assert find_hits([make_terms("a"), make_hashes("f0" * 32)], text=None, digest="", pdq=None) == ()
    assert find_hits([], text="a", digest="", pdq=None) == ()
