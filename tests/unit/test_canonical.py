"""Canonical JSON and digests."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.canonical import canonical_json, digest_of

texts = st.text(st.characters(codec="utf-8"))
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}', id="sorted, without spaces"),
        pytest.param({"é": "ü\n"}, '{"é":"ü\\n"}', id="letters as they are, controls escaped"),
        # By UTF-16 code units, as RFC 8785 says: the surrogates of U+10000 sort before U+FB33.
        pytest.param({"\ufb33": 1, "\U00010000": 2}, '{"\U00010000":2,"\ufb33":1}', id="order of code units"),
        pytest.param(1e21, "1e+21", id="a number as ECMAScript writes it"),
        pytest.param(-0.0, "0", id="negative zero"),
    ],
)
def test_a_value_has_one_form(value: object, expected: str) -> None:
    assert canonical_json(value).decode() == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="not a number"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(2**53 + 1, id="an integer that JavaScript cannot hold"),
        pytest.param({1: 2}, id="a key that is no text"),
        pytest.param(object(), id="an object"),
        pytest.param("\ud800", id="half of a surrogate pair"),
    ],
)
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


@given(values)
def test_nothing_is_lost(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(texts, scalars, min_size=2))
def test_the_order_of_keys_makes_no_difference(value: dict[str, Any]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_a_digest_names_bytes_by_sha_256() -> None:
    assert digest_of(b"hello") == "sha256:" + hashlib.sha256(b"hello").hexdigest()
