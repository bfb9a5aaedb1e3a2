"""Names for decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.ids import decision_id

times = st.integers(0, 2**48 - 1)
chances = st.binary(min_size=10, max_size=10)


def test_an_id_is_a_ulid_in_lower_case() -> None:
    # The timestamp of the ULID specification's example, 01ARYZ6S41.
    assert decision_id(1_469_918_176_385, bytes(10)) == "01aryz6s41" + "0" * 16


@given(times, chances)
def test_an_id_has_26_letters_that_cannot_be_misread(milliseconds: int, chance: bytes) -> None:
    found = decision_id(milliseconds, chance)

    assert len(found) == 26
    assert set(found) <= set("0123456789abcdefghjkmnpqrstvwxyz")


@given(times, chances, times, chances)
def test_ids_sort_as_their_times_do(one: int, first: bytes, other: int, second: bytes) -> None:
    assert (decision_id(one, first) < decision_id(other, second)) == ((one, first) < (other, second))


@pytest.mark.parametrize(
    ("milliseconds", "chance"),
    [
        pytest.param(-1, bytes(10), id="before the beginning of time"),
        pytest.param(2**48, bytes(10), id="after its end"),
        pytest.param(0, bytes(9), id="too little chance"),
        pytest.param(0, bytes(11), id="too much"),
    ],
)
def test_what_does_not_fit_is_refused(milliseconds: int, chance: bytes) -> None:
    with pytest.raises(ValueError, match="48 bits of milliseconds and 10 bytes of chance"):
        decision_id(milliseconds, chance)
