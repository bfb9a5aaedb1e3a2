"""Keys in URLs: read for Google's clients alone, and gone for everybody who comes after."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.url_key import ANALYZE, DISCOVERY, SUGGEST, take_key

NAMES = st.sampled_from([b"key", b"alt", b"version", b"k%65y", b"keys", b""])
VALUES = st.text("abc%=_019", max_size=8).map(lambda text: quote(text).encode())
QUERIES = st.lists(st.tuples(NAMES, VALUES).map(b"=".join), max_size=5).map(b"&".join)


@pytest.mark.parametrize("path", [ANALYZE, SUGGEST, DISCOVERY])
@pytest.mark.parametrize(
    ("query", "rest", "key"),
    [
        pytest.param(b"key=k", b"", b"k", id="alone"),
        pytest.param(b"alt=json&key=k&surface=a", b"alt=json&surface=a", b"k", id="among others"),
        pytest.param(b"k%65y=%6b", b"", b"k", id="with escapes"),
        pytest.param(b"key=a&key=b", b"", b"a", id="twice"),
        pytest.param(b"keys=a&monkey=b", b"keys=a&monkey=b", b"", id="names that are longer"),
        pytest.param(b"key", b"", b"", id="without a value"),
        pytest.param(b"", b"", b"", id="no query"),
    ],
)
def test_a_key_is_taken_out_of_the_query(path, query, rest, key):
    assert take_key(path, query) == (rest, key)


@given(query=QUERIES)
def test_what_is_left_is_all_but_the_key_in_its_order(query):
    rest, _ = take_key(ANALYZE, query)

    assert rest == b"&".join(each for each in query.split(b"&") if each.split(b"=")[0] not in (b"key", b"k%65y"))
    assert take_key(ANALYZE, rest) == (rest, b"")


@given(query=QUERIES)
@pytest.mark.parametrize("path", ["/v1/moderate", "/v1/moderations", "/v1alpha1/comments", "/"])
def test_nowhere_else_is_a_key_in_a_url_read(path, query):
    assert take_key(path, query) == (query, b"")
