"""Which trace a caller's request belongs to: what is not in order counts as nothing said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.traceparent import read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "read"),
    [
        pytest.param(GOOD, GOOD, id="in order"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00", id="not sampled"),
        pytest.param(f"01-{TRACE}-{SPAN}-01", GOOD, id="a later version"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-more", GOOD, id="a later version that goes on"),
        pytest.param(f"01-{TRACE}-{SPAN}-01more", "", id="a later version that is glued"),
        pytest.param("", "", id="nothing"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", "", id="the version that is none"),
        pytest.param(f"{GOOD}-more", "", id="version 0 that goes on"),
        pytest.param(f"{GOOD}\r\nx: y", "", id="a second header"),
        pytest.param(GOOD.upper(), "", id="upper case"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", "", id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", "", id="no span"),
        pytest.param(f" {GOOD}", "", id="a space"),
        pytest.param(f"00-{TRACE[:-1]}g-{SPAN}-01", "", id="no digit"),
    ],
)
def test_what_is_in_order_is_read(header: str, read: str) -> None:
    assert read_traceparent(header.encode()) == read


@given(header=st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*"))
def test_nothing_but_a_harmless_line_of_55_characters_is_ever_read(header: bytes) -> None:
    assert re.fullmatch(r"|00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", read_traceparent(header))
