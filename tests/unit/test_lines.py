"""Lines out of chunks, and no line without end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.flow.lines import LineSplitter, LineTooLong


@given(st.lists(st.binary(max_size=9).map(lambda data: data.replace(b"\n", b"")), max_size=9), st.data())
def test_however_bytes_are_cut_the_same_lines_come_out(lines: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    splitter = LineSplitter(9)
    found = [
        line
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for line in splitter.feed(text[start:end])
    ]

    assert found == [line for line in lines if line]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"x" * 9], id="at once"),
        pytest.param([b"xxxx", b"xxxx", b"x"], id="bit by bit"),
        pytest.param([b"a\n" + b"x" * 9 + b"\nb\n"], id="between others"),
    ],
)
def test_a_line_over_the_limit_is_refused(chunks: list[bytes]) -> None:
    splitter = LineSplitter(8)

    with pytest.raises(LineTooLong, match="8 bytes"):
        [splitter.feed(chunk) for chunk in chunks]
