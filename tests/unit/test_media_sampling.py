import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_sidecar.media.sampling import Broken, Picked, Shown, Tally, instants, sample

rates = st.integers(min_value=1, max_value=600)
gaps = st.lists(st.integers(min_value=1, max_value=4000), max_size=40)


def show(times: Sequence[int], *, lasts: int = 40, names: Sequence[bytes] = ()) -> list[Shown[int]]:
    """Pictures at these times, each one its own time."""
    named = itertools.zip_longest(times, names, fillvalue=b"")
    return [Shown(at=int(at), until=int(at) + lasts, picture=int(at), name=bytes(name)) for at, name in named]


def pick(shown, **options) -> tuple[list[tuple[int, int]], Tally]:
    *picked, tally = sample(shown, **{"frames_per_minute": 120, **options})
    assert all(isinstance(item, Picked) for item in picked)
    return [(item.at, item.picture) for item in picked], tally


@pytest.mark.parametrize(
    ("duration", "rate", "expected"),
    [
        pytest.param(0, 120, (0,), id="a single picture"),
        pytest.param(1, 120, (0, 1), id="the end is an instant"),
        pytest.param(1000, 120, (0, 500, 1000), id="the end falls on the grid"),
        pytest.param(1100, 120, (0, 500, 1000, 1100), id="the tail is covered"),
        pytest.param(1000, 7, (0, 1000), id="shorter than the interval"),
        pytest.param(20_000, 7, (0, 8571, 17142, 20_000), id="an interval that is not whole does not drift"),
    ],
)
def test_instants_are_the_start_the_grid_and_the_end(duration, rate, expected):
    assert instants(duration, rate) == expected


@pytest.mark.parametrize(("duration", "rate"), [(-1, 120), (1000, 0)])
def test_what_cannot_be_sampled_is_refused(duration, rate):
    with pytest.raises(ValueError, match="cannot be sampled"):
        instants(duration, rate)


@given(duration=st.integers(min_value=0, max_value=120_000), rate=rates)
def test_no_stretch_longer_than_the_interval_is_left_out(duration, rate):
    found = instants(duration, rate)

    assert (found[0], found[-1]) == (0, duration)
    assert all(later - earlier <= 60_000 // rate + 1 for earlier, later in itertools.pairwise(found))


@given(gaps=gaps, rate=rates)
def test_every_instant_gets_the_picture_that_was_on_display(gaps, rate):
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)

    picked, tally = pick(show(times), frames_per_minute=rate)

    assert tuple(at for at, _ in picked) == instants(tally.duration, rate)
    assert all(picture == max(time for time in times if time <= at) for at, picture in picked)
    assert tally == Tally(skipped=0, duration=times[-1] + 40)


@given(gaps=gaps, rate=rates, broken=st.sets(st.integers(min_value=0, max_value=40)), claimed=st.integers(0, 90_000))
def test_an_instant_is_picked_or_skipped_and_never_lost(gaps, rate, broken, claimed):
    shown: list[Shown[int] | Broken] = show([sum(gaps[:count]) for count in range(1, len(gaps) + 1)])
    for place in sorted(broken, reverse=True):
        shown.insert(place, Broken())

    picked, tally = pick(shown, frames_per_minute=rate, claimed_milliseconds=claimed)

    expected = instants(tally.duration, rate)
    assert {at for at, _ in picked} <= set(expected)
    assert len(picked) + tally.skipped >= len(expected)


def test_a_picture_that_stays_is_picked_again_and_marked():
    items = list(sample(show([0, 1400]), frames_per_minute=120))

    assert [(item.at, item.again) for item in items if isinstance(item, Picked)] == [
        (0, False),
        (500, True),
        (1000, True),
        (1440, False),
    ]


def test_a_picture_that_stands_between_two_that_are_due_is_not_missed():
    picked, _ = pick(show([0, 40, 5040]))

    assert (2500, 40) in picked


def test_a_late_first_picture_stands_for_the_beginning():
    picked, tally = pick(show([80, 480]))

    assert picked == [(0, 80), (500, 480), (520, 480)]
    assert tally.skipped == 0


def test_a_missing_beginning_is_skipped():
    picked, tally = pick(show([1200]))

    assert picked == [(1240, 1200)]
    assert tally.skipped == 3


def test_instants_within_a_broken_stretch_are_not_guessed():
    picked, tally = pick([*show([0]), Broken(), *show([1200])])

    assert picked == [(1240, 1200)]
    assert tally.skipped == 3


def test_a_file_that_ends_before_it_said_so_is_not_covered():
    picked, tally = pick(show([0, 1200]), claimed_milliseconds=3000)

    assert [at for at, _ in picked] == [0, 500, 1000]
    assert tally == Tally(skipped=4, duration=3000)


def test_a_claim_within_one_interval_of_the_end_is_rounding():
    _, tally = pick(show([0, 1200]), claimed_milliseconds=1500)

    assert tally == Tally(skipped=0, duration=1240)


def test_a_broken_end_without_a_claim_leaves_a_mark():
    _, tally = pick([*show([0]), Broken()])

    assert tally.skipped == 1


def test_on_demand_no_picture_hides_between_two_instants():
    picked, tally = pick(show([0, 100, 120, 140, 900], lasts=100), between=2)

    assert {picture for _, picture in picked} == {0, 100, 120, 140, 900}
    assert [at for at, _ in picked] == sorted(at for at, _ in picked)
    assert tally.skipped == 0


@pytest.mark.parametrize(
    ("names", "skipped"),
    [
        pytest.param((), 2, id="each counts"),
        pytest.param((b"a", b"b", b"c", b"d", b"e", b"f"), 2, id="each counts by its name"),
        pytest.param((b"a", b"b", b"a", b"b", b"a", b"b"), 0, id="not one like a picture picked before"),
        pytest.param((b"a", b"b", b"f", b"f", b"e", b"f"), 0, id="not one like a picture picked after"),
        pytest.param((b"a", b"b", b"c", b"c", b"e", b"f"), 1, id="not one like a picture counted already"),
    ],
)
def test_pictures_between_two_instants_above_the_limit_count_as_skipped(names, skipped):
    picked, tally = pick(show([0, 100, 120, 140, 160, 600], names=names), between=1)

    assert {picture for _, picture in picked} == {0, 100, 160, 600}
    assert tally.skipped == skipped


@given(gaps=gaps, rate=rates, between=st.integers(0, 20))
def test_of_all_pictures_each_is_picked_or_counted_as_skipped(gaps, rate, between):
    times = [0, *itertools.accumulate(gaps)]

    picked, tally = pick(show(times), frames_per_minute=rate, between=between)

    assert len({picture for _, picture in picked}) + tally.skipped == len(set(times))
    assert len(picked) <= len(instants(tally.duration, rate)) + between


def test_each_broken_picture_at_an_end_without_a_claim_is_skipped():
    _, tally = pick([*show([0]), Broken(7)], between=100)

    assert tally.skipped == 7


def test_nothing_decoded_is_nothing_picked():
    picked, tally = pick([Broken()], claimed_milliseconds=1000)

    assert picked == []
    assert tally == Tally(skipped=3, duration=1000)
