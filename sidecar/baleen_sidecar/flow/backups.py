"""How backups are called, and which of them have had their time."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

_FORM: Final = "%Y%m%dT%H%M%SZ.db"


def name_of(taken: datetime) -> str:
    """Return the name of a backup's file; names order as their times do."""
    return taken.astimezone(UTC).strftime(_FORM)


def time_of(name: str) -> datetime | None:
    """Return when a backup was taken; None for a file that is none."""
    try:
        return datetime.strptime(name, _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None


def find_outdated(names: Iterable[str], newest: str, keep_days: int) -> tuple[str, ...]:
    """Return the backups that are more than so many days older than `newest`, which was just taken and found good.

    Time is counted from that one, and not from a clock: where no new backup comes, no old one goes.
    """
    taken = time_of(newest)
    if taken is None:
        return ()
    start = taken - timedelta(days=keep_days)
    return tuple(sorted(name for name in names if (time := time_of(name)) is not None and time < start))
