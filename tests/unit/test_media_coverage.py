import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.media.coverage import coverage


def measure(**changed):
    return coverage(
        **{"duration_milliseconds": 3000, "frames_per_minute": 120, "judged": 7, "undecodable": 0, **changed}
    )


@pytest.mark.parametrize(
    ("changed", "ratio"),
    [
        pytest.param({}, 1_000_000, id="all seen"),
        pytest.param({"judged": 20}, 1_000_000, id="more frames than instants are not more than all"),
        pytest.param({"judged": 6}, 857_142, id="rounded down"),
        pytest.param({"judged": 6, "undecodable": 1}, 857_142, id="an undecodable instant counts once"),
        pytest.param({"judged": 7, "undecodable": 1}, 857_142, id="other frames do not make up for it"),
        pytest.param({"judged": 0, "undecodable": 9}, 0, id="nothing seen"),
        pytest.param({"duration_milliseconds": 0, "judged": 1}, 1_000_000, id="a single picture"),
    ],
)
def test_the_ratio_is_what_was_seen_of_what_should_have_been(changed, ratio):
    assert measure(**changed).ratio == ratio


def test_an_early_exit_is_said():
    found = measure(judged=2, early_exit=True)

    assert (found.frames_expected, found.frames_judged, found.early_exit) == (7, 2, True)


@given(judged=st.integers(0, 50), undecodable=st.integers(1, 50))
def test_a_video_with_an_undecodable_instant_is_never_wholly_covered(judged, undecodable):
    assert measure(judged=judged, undecodable=undecodable).ratio < 1_000_000
