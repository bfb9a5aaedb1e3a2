"""How many requests are being answered at the same time: now, and added up over time."""

from collections.abc import Callable


class Concurrency:
    """Counts requests as they come and go; times are the caller's, in seconds of a clock that only goes forward.

    `request_seconds` adds up how long each of them has taken so far. Its growth over a span of time, divided by that
    span, is the mean number of requests in flight: exactly, however seldom it is looked at.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._since = self._last = seconds()
        self._total = 0.0
        self.in_flight = 0

    def enter(self) -> None:
        """Count a request that has begun."""
        self._add_up()
        self.in_flight += 1

    def leave(self) -> None:
        """Count one off."""
        self._add_up()
        self.in_flight -= 1

    @property
    def request_seconds(self) -> float:
        """The time that requests took, those under way included."""
        self._add_up()
        return self._total

    @property
    def measured_seconds(self) -> float:
        """How long it has been counted."""
        return self._seconds() - self._since

    def _add_up(self) -> None:
        now = self._seconds()
        self._total += self.in_flight * (now - self._last)
        self._last = now
