"""Equal content has equal bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.canonical import canonical_json, digest_of

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values))
def test_the_order_of_keys_makes_no_difference(content):
    other = dict(reversed(content.items()))

    assert canonical_json(content) == canonical_json(other)


def test_the_form_is_that_of_rfc_8785():
    """The RFC's own example of sorting, in UTF-16 code units."""
    content = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}

    assert canonical_json(content).decode() == '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}'


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integers_that_other_languages_cannot_hold_are_refused(number):
    with pytest.raises(ValueError, match="domain"):
        canonical_json({"number": number})


def test_a_digest_names_its_algorithm():
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
