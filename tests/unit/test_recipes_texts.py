import json
import struct
import time
import weakref
from base64 import b64encode
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from baleen_core.errors import ModelError
from baleen_core.model.recipes import find_recipe, text_recipe
from baleen_core.model.recipes.me5 import read_recipe as read_me5
from baleen_core.model.recipes.windows import PIECE_LENGTH, cut, pad, pieces

PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "▁query",
    ":",
    "▁bad",
    "▁good",
    "a",
    "b",
    "c",
    "d",
    "g",
    "o",
    "aaaa",
    "s",
    "<",
]
QUERY = (0, 5, 6)
NESTED = b'{"a":' * 100_000
END = 2


def me5_assets(*more: str, unk_id: int | None = 3) -> dict[str, bytes]:
    """A tokenizer of a few pieces in the shape of the real one; fewer characters in a piece cost more."""
    scores = [(piece, -10.0 if len(piece) == 1 else -1.0) for piece in (*PIECES, *more)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=unk_id, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "norm.json": json.dumps({str(ord("\t")): " ", str(ord("\n")): " ", str(ord("Ａ")): "a", "8203": ""}).encode(),
    }


def word_level() -> bytes:
    """A tokenizer whose vocabulary lacks the token of what is unknown."""
    return Tokenizer(models.WordLevel({"bad": 0}, unk_token="[UNK]")).to_str().encode()


def panicking(units: int, *added: str) -> bytes:
    """A tokenizer that panics at each byte from `units` on, which its normalizer's map does not have."""
    charsmap = struct.pack("<I", 4 * units) + bytes(4 * units)
    tokenizer = json.loads(me5_assets()["tokenizer.json"])
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": b64encode(charsmap).decode()}
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    tokenizer["added_tokens"] = [{"id": len(PIECES) + i, "content": token} | kind for i, token in enumerate(added)]
    return json.dumps(tokenizer).encode()


def vocabulary(word_id: int, num_words: int | None = None) -> dict[str, bytes]:
    """A vocabulary of one word."""
    vocab = {"word_index": {"bad": word_id}, "num_words": num_words, "filters": "", "lower": True}
    return {"vocab.json": json.dumps(vocab).encode()}


ME5 = text_recipe("me5/1", me5_assets())
TOX = text_recipe(
    "tox-block/1",
    {
        "vocab.json": json.dumps(
            {
                "word_index": {"bad": 1, "good": 2, "it's": 3, "rare": 4},
                "num_words": 4,
                "filters": '!"#.,-\t\n',
                "lower": True,
            }
        ).encode()
    },
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("bad", (7,), id="a word"),
        pytest.param("bad good", (7, 8), id="two words"),
        pytest.param("  bad \t\n good", (7, 8), id="white space of any kind and length is one space"),
        pytest.param("bad ", (7, 4), id="a space at the end"),
        pytest.param("", (4,), id="nothing"),
        pytest.param("b\u200bad", (7,), id="what is normalised away"),
        pytest.param("Ａ", (4, 9), id="what is normalised to something else"),
        pytest.param("語語", (4, 3), id="neighbouring unknown characters are one unknown token"),
        pytest.param("\ud800", (4, 3), id="a lone surrogate is unknown"),
    ],
)
def test_e5_reads_a_text_as_a_query(text, tokens):
    assert ME5.windows(text).rows == ((*QUERY, *tokens, END),)


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>"])
def test_a_control_token_in_a_text_is_only_text(token):
    (row,) = ME5.windows(f"bad{token}bad").rows

    assert not {0, 1, 2} & set(row[1:-1])


def test_e5_rows_are_padded_on_the_right_and_masked():
    batch = ME5.collate([(0, 5, 2), (0, 5, 6, 7, 2)])

    assert batch["input_ids"].tolist() == [[0, 5, 2, 1, 1], [0, 5, 6, 7, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("BAD, good!", (1, 2), id="case and punctuation"),
        pytest.param("it's", (3,), id="what is no separator stays in the word"),
        pytest.param("rare bad", (1,), id="words beyond the limit are left out"),
        pytest.param("unheard-of", (), id="unknown words are left out"),
        pytest.param("", (), id="nothing"),
    ],
)
def test_tox_block_reads_known_words(text, tokens):
    assert TOX.windows(text).rows == (tokens,)


def test_tox_block_rows_are_padded_on_the_left():
    batch = TOX.collate([(1, 2), ()])

    assert batch["input_ids"].tolist() == [[0] * 98 + [1, 2], [0] * 100]
    assert batch["input_ids"].dtype == np.int64


@pytest.mark.parametrize("recipe", ["me5/1", "tox-block/1"])
def test_the_tensors_are_those_that_the_recipe_names(recipe):
    built = {"me5/1": ME5, "tox-block/1": TOX}[recipe]

    assert set(built.collate(built.windows("bad").rows)) == set(find_recipe(recipe).inputs)


@pytest.mark.parametrize("recipe", [ME5, TOX], ids=["me5", "tox-block"])
def test_abuse_behind_any_padding_is_in_a_window_or_the_text_is_said_to_be_cut(recipe):
    bad = recipe.windows("bad").rows[0][3 if recipe is ME5 else 0]
    for count in (10, 479, 480, 481, 5000):
        windows = recipe.windows("good " * count + "bad")
        assert any(bad in row for row in windows.rows)
        assert not windows.truncated

    far = recipe.windows("good " * 130_000 + "bad")

    assert far.truncated
    assert len(far.rows) == 64


@given(
    tokens=st.lists(st.integers(4, 99), max_size=400),
    size=st.integers(2, 20),
    overlap=st.integers(0, 10),
    limit=st.integers(1, 12),
)
def test_windows_cover_all_tokens_up_to_the_limit(tokens, size, overlap, limit):
    overlap = min(overlap, size - 1)

    windows = cut(tokens, size=size, overlap=overlap, limit=limit)

    room = size + (limit - 1) * (size - overlap)
    held = tokens[:room]
    assert windows.truncated == (len(tokens) > room)
    assert 1 <= len(windows.rows) <= limit
    assert all(len(row) == min(size, len(held)) for row in windows.rows)
    assert list(windows.rows[0]) == held[:size]
    assert list(windows.rows[-1]) == held[-size:]
    neighbours = (held[i : i + overlap + 1] for i in range(len(held) - overlap))
    assert all(any(_contains(row, run) for row in windows.rows) for run in neighbours)


def _contains(row: tuple[int, ...], run: list[int]) -> bool:
    return any(list(row[i : i + len(run)]) == run for i in range(len(row) - len(run) + 1))


@given(text=st.text(alphabet="ab ", max_size=300), scale=st.integers(1, 60))
def test_pieces_lose_nothing_but_the_spaces_between_them(text, scale):
    long = text * scale

    found = list(pieces(long))

    assert all(len(piece) <= PIECE_LENGTH for piece in found)
    assert "".join(found).replace(" ", "") == long.replace(" ", "")


def test_a_word_is_not_cut_where_a_space_is_near():
    text = "bad " * 5000

    assert {word for piece in pieces(text) for word in piece.split()} == {"bad"}


@pytest.mark.parametrize("recipe", [ME5, TOX], ids=["me5", "tox-block"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 1_000_000, id="1 MB of one letter"),
        pytest.param("a " * 500_000, id="1 MB of one-letter words"),
        pytest.param(" " * 1_000_000, id="1 MB of spaces"),
        pytest.param("語" * 350_000, id="1 MB of unknown characters"),
        pytest.param("<s" * 500_000, id="1 MB that almost spells control tokens"),
    ],
)
def test_a_megabyte_costs_a_moment(recipe, text):
    begun = time.perf_counter()

    windows = recipe.windows(text)

    assert time.perf_counter() - begun < 2  # about 0.05 s on an idle core; a quadratic law would need minutes
    assert len(windows.rows) <= 64


@given(rows=st.lists(st.lists(st.integers(2, 9), max_size=6).map(tuple), max_size=5), left=st.booleans())
def test_padding_keeps_every_token(rows, left):
    batch = pad(rows, width=6, value=0, left=left)

    assert batch.shape == (len(rows), 6)
    assert [tuple(token for token in line if token) for line in batch.tolist()] == rows


@pytest.mark.parametrize(
    ("name", "assets", "message"),
    [
        pytest.param("me5/1", {"norm.json": b"{}"}, "missing: tokenizer.json", id="a missing asset"),
        pytest.param("me5/1", {**me5_assets(), "tokenizer.json": b"{"}, "tokenizer.json is not", id="no tokenizer"),
        pytest.param(
            "me5/1",
            {**me5_assets(), "tokenizer.json": word_level()},
            r"tokenizer.json has no tokens for a text: .*Missing \[UNK\]",
            id="a tokenizer that cannot take the prefix",
        ),
        pytest.param(
            "me5/1",
            {**me5_assets(), "tokenizer.json": panicking(128, "é")},
            "tokenizer.json is not a tokenizer: .*out of",
            id="a tokenizer that panics when it is read",
        ),
        pytest.param(
            "me5/1",
            {**me5_assets(), "tokenizer.json": panicking(0)},
            "tokenizer.json has no tokens for a text: .*out of",
            id="a tokenizer that panics at the prefix",
        ),
        pytest.param("me5/1", {**me5_assets(), "norm.json": b"[1]"}, "norm.json is not", id="no map"),
        pytest.param("me5/1", {**me5_assets(), "norm.json": NESTED}, "norm.json is not", id="a map without end"),
        pytest.param("tox-block/1", {"vocab.json": b"{}"}, "vocab.json is not", id="no vocabulary"),
        pytest.param("tox-block/1", {"vocab.json": NESTED}, "vocab.json is not", id="a vocabulary without end"),
        pytest.param(
            "tox-block/1",
            {"vocab.json": b'{"word_index": {"bad": Infinity}, "num_words": 4, "filters": "", "lower": true}'},
            "vocab.json is not",
            id="an infinite id",
        ),
        pytest.param("tox-block/1", vocabulary(2**31), "ids of words are 1 to 2147483647", id="an id too large"),
        pytest.param("tox-block/1", vocabulary(0), "ids of words are 1 to 2147483647", id="the id of padding"),
        pytest.param("tox-block/1", vocabulary(-1, 4), "ids of words are 1 to 2147483647", id="an id below all"),
        pytest.param("owen-s/1", {}, "takes images, not text", id="an image recipe"),
        pytest.param("me5/2", {}, "did you mean me5/1", id="a version that is not there"),
    ],
)
def test_a_text_recipe_that_cannot_be_built_says_why(name, assets, message):
    with pytest.raises(ModelError, match=message):
        text_recipe(name, assets)


def test_tox_block_takes_the_largest_id_and_leaves_out_larger_ones_beyond_the_limit():
    recipe = text_recipe("tox-block/1", vocabulary(2**31 - 1))

    assert recipe.collate(recipe.windows("bad").rows)["input_ids"].max() == 2**31 - 1
    assert text_recipe("tox-block/1", vocabulary(2**63, num_words=4)).windows("bad").rows == ((),)


def test_a_text_that_the_tokenizer_has_no_tokens_for_is_an_error_of_the_model():
    recipe = text_recipe("me5/1", me5_assets(*"query", unk_id=None))

    assert recipe.windows("bad").rows == ((*QUERY, 7, END),)
    with pytest.raises(ModelError, match=r"tokenizer.json has no tokens for a text: .*`unk_id` is missing"):
        recipe.windows("zzz")


def test_a_text_that_the_tokenizer_panics_at_is_an_error_of_the_model_and_the_next_is_read():
    recipe = text_recipe("me5/1", {**me5_assets(), "tokenizer.json": panicking(128)})

    for _ in range(2):
        assert recipe.windows("bad").rows == ((*QUERY, 7, END),)
        with pytest.raises(ModelError, match=r"tokenizer.json has no tokens for a text: .*out of"):
            recipe.windows("été")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_is_no_error_of_the_model(ending):
    class Interrupted:
        def encode(self, *args, **options):
            raise ending

    recipe = replace(ME5, tokenizer=Interrupted())

    with pytest.raises(ending):
        recipe.windows("bad")


def test_a_tokenizer_with_settings_of_its_own_does_not_cut_or_pad():
    assets = me5_assets()
    tokenizer = Tokenizer.from_buffer(assets["tokenizer.json"])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32)
    assets["tokenizer.json"] = tokenizer.to_str().encode()

    assert read_me5(assets).windows("bad " * 600) == ME5.windows("bad " * 600)


@pytest.mark.parametrize("changed", ["norm.json", "tokenizer.json"])
def test_equal_assets_are_read_once_for_as_long_as_somebody_has_the_recipe(changed):
    assets = {**me5_assets(), "norm.json": b'{"64": "at"}'}
    first = text_recipe("me5/1", assets)

    assert text_recipe("me5/1", dict(assets)) is first
    assert text_recipe("me5/1", {**assets, changed: assets[changed] + b" "}) is not first

    gone = weakref.ref(first)
    del first

    assert gone() is None
