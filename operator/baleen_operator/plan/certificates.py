"""When the webhooks' certificate is made anew, and in which order: no API server may meet one it does not trust."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

BACKDATED: Final = timedelta(hours=1)
"""A certificate counts from so long before it was made, for API servers whose clock is behind."""
_SHARE_LEFT: Final = 1 / 3
"""A new one is made when so much of the life of the one that serves is left."""


class Step(StrEnum):
    """What comes next. A pair is a certificate with its key, and the authority that signed it alone."""

    KEEP = "Keep"
    """All is well, or an API server may not have the next one's authority yet."""
    REPLACE = "Replace"
    """Nothing serves: make a pair that serves at once."""
    PREPARE = "Prepare"
    """Make the next pair, and have API servers trust both."""
    PROMOTE = "Promote"
    """The next pair serves from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """From when to when a certificate is valid."""

    begin: datetime
    end: datetime

    def is_valid(self, now: datetime) -> bool:
        """Say whether it counts now."""
        return self.begin <= now < self.end

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time for the next one."""
        return self.end - now < (self.end - self.begin - BACKDATED) * _SHARE_LEFT


def next_step(serving: Life | None, following: Life | None, *, now: datetime, is_trusted: bool) -> Step:
    """Say what comes next; a pair that cannot be used is None.

    `is_trusted` is whether every API server has had the authorities of both for long enough.
    """
    has_following = following is not None and following.is_valid(now)
    if serving is None or not serving.is_valid(now):
        return Step.PROMOTE if has_following else Step.REPLACE
    if has_following:
        return Step.PROMOTE if is_trusted else Step.KEEP
    return Step.PREPARE if serving.is_due(now) else Step.KEEP
