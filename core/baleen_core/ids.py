"""Names for decisions: sortable by time, unguessable in the rest."""

from functools import lru_cache
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# Two digits at a time: every request needs an id.
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS: Final = tuple(range(70, -1, -10))


def decision_id(milliseconds: int, chance: bytes) -> str:
    """Write a ULID in lower case: 48 bits of time, 80 bits of chance, 26 characters of Crockford's base 32.

    Raises:
        ValueError: `chance` is not 10 bytes, or the time does not fit 48 bits.
    """
    if len(chance) != 10 or not 0 <= milliseconds < 1 << 48:
        raise ValueError("a decision id is made of 48 bits of milliseconds and 10 bytes of chance")
    number = int.from_bytes(chance)
    return _render_time(milliseconds) + "".join([_PAIRS[(number >> shift) & 1023] for shift in _SHIFTS])


@lru_cache(maxsize=16)
def _render_time(milliseconds: int) -> str:
    # Many decisions are made within a millisecond.
    return "".join([_PAIRS[(milliseconds >> shift) & 1023] for shift in range(40, -1, -10)])
