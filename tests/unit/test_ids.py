"""A decision's name sorts by time and cannot be guessed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.ids import decision_id

times = st.integers(0, 2**48 - 1)
chances = st.binary(min_size=10, max_size=10)


@given(times, chances)
def test_an_id_is_a_ulid_in_lower_case(milliseconds, chance):
    assert re.fullmatch("[0-7][0-9a-hjkmnp-tv-z]{25}", decision_id(milliseconds, chance))


@given(times, chances, times, chances)
def test_ids_sort_as_their_times_do_and_differ_when_anything_does(time, chance, other_time, other_chance):
    one, other = decision_id(time, chance), decision_id(other_time, other_chance)

    assert (one < other) == ((time, chance) < (other_time, other_chance))
    assert (one == other) == ((time, chance) == (other_time, other_chance))


def test_an_example_is_what_other_implementations_write():
    """The example of the ULID specification."""
    chance = bytes.fromhex("d6764c61efb99302bd5b")

    assert decision_id(1469922850259, chance) == "01ARZ3NDEKTSV4RRFFQ69G5FAV".lower()


@pytest.mark.parametrize(("milliseconds", "chance"), [(2**48, bytes(10)), (-1, bytes(10)), (0, bytes(9))])
def test_what_does_not_fit_is_refused(milliseconds, chance):
    with pytest.raises(ValueError, match="48 bits of milliseconds and 10 bytes of chance"):
        decision_id(milliseconds, chance)
