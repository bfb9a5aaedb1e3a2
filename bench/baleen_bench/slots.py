"""A load by the parts of it in which requests were due, and when after a disturbance it is well again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

SLOT_SECONDS: Final = 0.1
GOOD_SHARE: Final = 0.95
"""So much of what is due has to be answered well in time, or it is not well."""
WINDOW_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Requests that were due in one part of a load, and those of them with a good answer in time."""

    due: int
    in_time: int

    @classmethod
    def all_of(cls, slots: Iterable[Self]) -> Self:
        """Return several as one."""
        known = tuple(slots)
        return cls(due=sum(slot.due for slot in known), in_time=sum(slot.in_time for slot in known))

    @property
    def share(self) -> float:
        """What was answered well in time of what was due; 0 where nothing was."""
        return self.in_time / max(1, self.due)


def read_slots(report: Mapping[str, Any]) -> tuple[Slot, ...]:
    """Return the slots, of SLOT_SECONDS each, in a load generator's report."""
    return tuple(Slot(due=each["due"], in_time=each["in_deadline"]) for each in report["slots"])


def recovery_seconds(
    slots: Sequence[Slot],
    *,
    after_seconds: float,
    never_seconds: float,
    window_seconds: float = WINDOW_SECONDS,
    well_seconds: float = 0.0,
) -> float:
    """Return how long after a moment it is well, and then for `well_seconds`: in every window in them enough is good.

    That is for one window at the least. Where it is never so, it is `never_seconds`.
    """
    width = max(1, round(window_seconds / SLOT_SECONDS))
    span = max(width, round(well_seconds / SLOT_SECONDS))

    def is_well(place: int) -> bool:
        found = Slot.all_of(slots[place : place + width])
        return found.in_time >= GOOD_SHARE * found.due

    for first in range(round(after_seconds / SLOT_SECONDS), len(slots) - span + 1):
        if all(is_well(place) for place in range(first, first + span - width + 1)):
            return max(0.0, first * SLOT_SECONDS - after_seconds)
    return never_seconds
