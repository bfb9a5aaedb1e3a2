"""Which pictures of a video are looked at: the one on display at each of evenly spaced instants, and at the end.

Pictures are chosen by their decoded times, never by the container's word for its length or frame rate. What counts is
the picture *on display* at an instant, not the first one decoded after it: in a video of variable frame rate a
picture may stand for many seconds between two that are due.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P")

MILLISECONDS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Generic[P]):
    """A decoded picture, on display from `at` until the next one, or until `until` if none follows (milliseconds)."""

    at: int
    until: int
    picture: P


@dataclass(frozen=True, slots=True)
class Broken:
    """Something between the last decoded picture and the next one could not be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked(Generic[P]):
    """The picture on display at an instant (milliseconds); `again` if the instant before showed the same one."""

    at: int
    picture: P
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The end: how many instants had no picture, and the video's length (milliseconds)."""

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
    shown: Iterable[Shown[P] | Broken], *, frames_per_minute: int, claimed_milliseconds: int = 0, every: bool = False
) -> Iterator[Picked[P] | Tally]:
    """Pick the picture on display at each instant, then tally; holds one picture at a time.

    Times must rise. Instants that fall between pictures where something was broken are skipped, not guessed from the
    picture before. The length is `claimed_milliseconds` if that is more than one interval beyond the last picture's
    end: the instants of the missing rest are skipped too. With `every`, each picture is picked at least once, also
    between instants.
    """
    interval = _instant(1, frames_per_minute)
    last: Shown[P] | None = None
    index = skipped = 0
    fresh = broken = False
    for item in shown:
        if isinstance(item, Broken):
            broken = True
            continue
        if last is None and item.at <= interval:
            # Many encoders start a few frames late; the first picture stands for the beginning.
            last, fresh, broken = Shown(at=0, until=item.until, picture=item.picture), True, False
            continue
        while (at := _instant(index, frames_per_minute)) < item.at:
            index += 1
            if last is None or broken:
                skipped += 1
                continue
            yield Picked(at=at, picture=last.picture, again=not fresh)
            fresh = False
        if every and fresh and last is not None:
            yield Picked(at=last.at, picture=last.picture, again=False)
        last, fresh, broken = item, True, False
    end = last.until if last is not None else 0
    duration = claimed_milliseconds if claimed_milliseconds > end + interval else end
    if broken and not claimed_milliseconds:
        skipped += 1  # Nothing says how much is missing, only that something is.
    for at in instants(duration, frames_per_minute)[index:]:
        if last is None or at > end:
            skipped += 1
            continue
        yield Picked(at=at, picture=last.picture, again=not fresh)
        fresh = False
    yield Tally(skipped=skipped, duration=duration)


def _instant(index: int, frames_per_minute: int) -> int:
    return index * MILLISECONDS_PER_MINUTE // frames_per_minute
