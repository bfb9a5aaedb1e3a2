"""How much a spool of decisions may hold, and how much of it is sent at once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict

T = TypeVar("T")

MIB: Final = 1024 * 1024


class SpoolRoom:
    """Counts bytes of decisions: those that wait to be sent are never given up, those that were sent make room.

    The last eighth is kept for Review and Block.
    """

    def __init__(self, limit_bytes: int, *, waiting_bytes: int = 0, sent_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self.waiting_bytes = waiting_bytes
        self.sent_bytes = sent_bytes

    def take(self, size: int, verdict: Verdict) -> None:
        """Count a decision that is to wait.

        Raises:
            LogUnavailable: there is no room for it.
        """
        limit = self._limit_bytes * 7 // 8 if verdict is Verdict.ALLOW else self._limit_bytes
        if self.waiting_bytes + size > limit:
            kept = ", and the last eighth is kept for Review and Block" if verdict is Verdict.ALLOW else ""
            raise LogUnavailable(
                f"decision spool: {self.waiting_bytes / MIB:.1f} MiB wait for the gateway; "
                f"BALEEN_SPOOL_LIMIT_BYTES is {self._limit_bytes:,}{kept}"
            )
        self.waiting_bytes += size

    def give_back(self, size: int) -> None:
        """Count a decision as not waiting after all."""
        self.waiting_bytes = max(0, self.waiting_bytes - size)

    def send(self, size: int) -> None:
        """Count what waited as sent."""
        self.give_back(size)
        self.sent_bytes += size

    def drop(self, size: int) -> None:
        """Count what was sent as gone."""
        self.sent_bytes = max(0, self.sent_bytes - size)

    @property
    def is_over(self) -> bool:
        """Whether some of what was sent has to go."""
        return bool(self.sent_bytes) and self.waiting_bytes + self.sent_bytes > self._limit_bytes


def take_while_fits(rows: Iterable[T], size_of: Callable[[T], int], *, limit_bytes: int) -> Iterator[T]:
    """Yield rows from the front, as many as fit; one at least, if there is one. No more is read than that."""
    total = 0
    for row in rows:
        total += size_of(row)
        yield row
        if total >= limit_bytes:
            return
