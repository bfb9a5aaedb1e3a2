"""The time of a record, written by hand for its speed, is what the standard library writes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.usecases.moderate import render_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(milliseconds=st.integers(0, 4_102_444_800_000))
def test_a_moment_is_written_as_the_standard_library_does(milliseconds: int) -> None:
    moment = EPOCH + timedelta(milliseconds=milliseconds)

    assert render_time(milliseconds) == moment.isoformat(timespec="milliseconds")
