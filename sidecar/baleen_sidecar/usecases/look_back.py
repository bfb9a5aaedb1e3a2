"""Look back through the decision log, page by page and newest first.

Memory is bounded by a page, the time by a limit; between two pages requests go first, and whoever does not want to know
any more is noticed.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from baleen_core.decision.backtest import Ended
from baleen_core.errors import Overloaded, StateError
from baleen_core.records import DecisionRecord
from baleen_sidecar.ports import DecisionHistory, LoggedDecision

SCANNED_PER_DECISION: Final = 10
"""Decisions that are looked at for each that is wanted: in most of them other policies may have judged."""
LIMIT_SECONDS: Final = 30.0
PAGE_ROWS: Final = 100
"""Judged at once in a few milliseconds, for which a request may have to wait."""
BUSY_SECONDS: Final = 5

Wanted = Callable[[], Awaitable[bool]]
"""Says whether somebody wants to know still; asked between two pages."""


async def always() -> bool:
    """Want to know to the end."""
    return True


class Pages:
    """The pages of one look back; `scanned` is how many decisions were in those that were given."""

    def __init__(
        self,
        history: DecisionHistory,
        *,
        page_rows: int,
        max_scanned: int,
        limit_seconds: float,
        monotonic_seconds: Callable[[], float],
        is_wanted: Wanted,
    ) -> None:
        self._history = history
        self._page_rows = page_rows
        self._max_scanned = max_scanned
        self._monotonic_seconds = monotonic_seconds
        self._is_wanted = is_wanted
        self._give_up = monotonic_seconds() + limit_seconds
        self._before: int | None = None
        self.scanned = 0

    async def next(self) -> Sequence[LoggedDecision] | Ended:
        """Return the next page, or why there is none.

        Raises:
            StateError: the log cannot be read.
        """
        if not await self._is_wanted():
            return Ended.ABANDONED
        if self._monotonic_seconds() >= self._give_up:
            return Ended.TIME_LIMIT
        limit = min(self._page_rows, self._max_scanned - self.scanned)
        if limit <= 0:
            return Ended.SCAN_LIMIT
        page = await self._history.newest(before=self._before, limit=limit)
        if not page:
            return Ended.END_OF_LOG
        self.scanned, self._before = self.scanned + len(page), page[-1].sequence
        return page


class OneAtATime:
    """Refuses to begin what is under way already."""

    def __init__(self, what: str) -> None:
        """`what` is how it is called, such as `simulation`."""
        self._what = what
        self._is_busy = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one that is under way.

        Raises:
            Overloaded: another one is.
        """
        if self._is_busy:
            message = f"another {self._what} is under way; one runs at a time"
            raise Overloaded(message, retry_after_seconds=BUSY_SECONDS)
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False


def read_row(row: LoggedDecision) -> DecisionRecord:
    """Read a decision on record.

    Raises:
        StateError: it is damaged.
    """
    try:
        return row.read()
    except ValueError as exc:
        raise StateError(f"decision {row.id} cannot be read back: {exc}") from exc
