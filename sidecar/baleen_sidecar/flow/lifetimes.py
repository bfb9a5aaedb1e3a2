"""How long what is remembered counts."""

from typing import Final

SPREAD: Final = 0.1
"""Entries of one moment must not all end in one moment: then all would be asked anew at once."""


def expiry(now: float, *, ttl_seconds: float, chance: float) -> float:
    """Return until when what is made now counts: never longer than `ttl_seconds`; `chance` is 0 to 1."""
    return now + ttl_seconds * (1 - SPREAD * chance)


def counts(until: float, *, now: float, ttl_seconds: float) -> bool:
    """Say whether an entry with this end counts.

    One that ends later than any made now was made under a longer time to live, or by a clock that is ahead.
    """
    return now < until <= now + ttl_seconds
