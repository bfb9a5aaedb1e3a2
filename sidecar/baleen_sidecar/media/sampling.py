"""Which pictures of a video are looked at: the one on display at each of evenly spaced instants, and at the end.

Pictures are chosen by their decoded times, never by the container's word for its length or frame rate. What counts is
the picture *on display* at an instant, not the first one decoded after it: in a video of variable frame rate a
picture may stand for many seconds between two that are due.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

P = TypeVar("P")

MILLISECONDS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Generic[P]):
    """A decoded picture, on display from `at` until the next one, or until `until` if none follows (milliseconds).

    Pictures of one `name` look the same; an empty name says nothing.
    """

    at: int
    until: int
    picture: P
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something between the last decoded picture and the next one could not be decoded, `pictures` or more of it."""

    pictures: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked(Generic[P]):
    """The picture on display at an instant (milliseconds); `again` if the instant before showed the same one."""

    at: int
    picture: P
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The end: how many instants had no picture, plus the pictures passed over, and the length (milliseconds)."""

    skipped: int
    duration: int


def instants(duration_milliseconds: int, frames_per_minute: int) -> tuple[int, ...]:
    """Return 0, then every 60,000 / `frames_per_minute` milliseconds, and the end itself.

    No two neighbours are further apart than the sampling interval, so no longer stretch goes unseen.

    Raises:
        ValueError: the duration is negative or the rate is not positive.
    """
    if duration_milliseconds < 0 or frames_per_minute < 1:
        raise ValueError(
            f"a duration of {duration_milliseconds} ms at {frames_per_minute} frames a minute cannot be sampled; "
            "the duration must be 0 or more and the rate 1 or more"
        )
    inner: list[int] = []
    while (at := _instant(len(inner), frames_per_minute)) < duration_milliseconds:
        inner.append(at)
    return (*inner, duration_milliseconds)


def sample(
    shown: Iterable[Shown[P] | Broken],
    *,
    frames_per_minute: int,
    claimed_milliseconds: int = 0,
    between: int | None = None,
) -> Iterator[Picked[P] | Tally]:
    """Pick the picture on display at each instant, then tally; holds one picture at a time.

    Times must rise. Instants that fall between pictures where something was broken are skipped, not guessed from the
    picture before. The length is `claimed_milliseconds` if that is more than one interval beyond the last picture's
    end: the instants of the missing rest are skipped too.

    With `between`, every picture counts, also those between two instants: the first so many of them are picked too,
    and each further one counts as skipped, unless one of its name was picked before or after, or counted already.
    """
    interval = _instant(1, frames_per_minute)
    last: Shown[P] | None = None
    extras = _Extras(between)
    index = skipped = broken = 0
    fresh = False
    for item in shown:
        if isinstance(item, Broken):
            broken += item.pictures
            continue
        if last is None and item.at <= interval:
            # Many encoders start a few frames late; the first picture stands for the beginning.
            last, fresh, broken = replace(item, at=0), True, 0
            continue
        while (at := _instant(index, frames_per_minute)) < item.at:
            index += 1
            if last is None or broken:
                skipped += 1
                continue
            yield Picked(at=at, picture=last.picture, again=not fresh)
            extras.saw(last)
            fresh = False
        if last is not None and fresh and extras.wants(last):
            yield Picked(at=last.at, picture=last.picture, again=False)
            extras.saw(last)
        last, fresh, broken = item, True, 0
    end = last.until if last is not None else 0
    duration = claimed_milliseconds if claimed_milliseconds > end + interval else end
    if broken and not claimed_milliseconds:
        skipped += broken  # Nothing says how long it would have lasted.
    for at in instants(duration, frames_per_minute)[index:]:
        if last is None or at > end:
            skipped += 1
            continue
        yield Picked(at=at, picture=last.picture, again=not fresh)
        extras.saw(last)
        fresh = False
    yield Tally(skipped=skipped + extras.passed_over, duration=duration)


class _Extras:
    """The pictures that stand between two instants: whether they are picked, and how many were not."""

    def __init__(self, most: int | None) -> None:
        self._left = most
        self._seen: set[bytes | int] = set()
        self._passed: set[bytes | int] = set()

    def saw(self, shown: Shown[P]) -> None:
        if self._left is not None:
            self._seen.add(shown.name or shown.at)

    def wants(self, shown: Shown[P]) -> bool:
        name = shown.name or shown.at
        if self._left is None or name in self._seen:
            return False
        if self._left == 0:
            self._passed.add(name)
            return False
        self._left -= 1
        return True

    @property
    def passed_over(self) -> int:
        return len(self._passed - self._seen)


def _instant(index: int, frames_per_minute: int) -> int:
    return index * MILLISECONDS_PER_MINUTE // frames_per_minute
