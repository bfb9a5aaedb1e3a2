"""Sources of content, such as cameras: how much comes from each, how long it takes, and whether anything comes at all.

What is judged here is seen here. What a source does itself it tells: totals since it began, so that a message that is
lost loses nothing, and one that began again is told by a total that has become smaller.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from baleen_sidecar.flow.recent import Recent, Tally, covered_seconds

MAX_SOURCES: Final = 1000
SPAN_SECONDS: Final = 60.0
"""Rates and means are of so much time."""
_LEAST_SECONDS: Final = 1.0
"""One piece of content a moment ago is no rate of a thousand a second."""


class Presence(StrEnum):
    """Whether content comes from a source."""

    ONLINE = "Online"
    OFFLINE = "Offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a source tells of itself: frames and errors since it began, and milliseconds a frame takes on average."""

    frames_processed: int
    avg_latency_ms: float
    errors_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a source told last, when, and how many frames it had a second since the time before; None at first."""

    told: Told
    at: float
    frames_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of one source; times are monotonic seconds.

    `heard_at` is when content came last, None before. `frames` are pictures that were judged, `errors` pieces of
    content that have no decision.
    """

    tenant: str | None
    name: str
    since: float
    heard_at: float | None = None
    contents: int = 0
    frames: int = 0
    errors: int = 0
    recent: Recent = field(default_factory=Recent)
    recent_frames: Recent = field(default_factory=Recent)
    message: Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """A source as it is now. Rates, ratio and mean are of the last minute; the last two are None without content."""

    source: Source
    presence: Presence
    contents_per_second: float
    frames_per_second: float
    error_ratio: float | None
    mean_seconds: float | None


def after_content(source: Source, *, now: float, seconds: float, frames: int, failed: bool) -> Source:
    """Count a piece of content that took so long; one that `failed` has no decision."""
    tally = Tally(calls=1, failures=int(failed), seconds=0.0 if failed else seconds)
    recent_frames = source.recent_frames
    if frames:
        recent_frames = recent_frames.adding(Tally(calls=frames), now=now, span_seconds=SPAN_SECONDS)
    return replace(
        source,
        heard_at=now,
        contents=source.contents + 1,
        frames=source.frames + frames,
        errors=source.errors + failed,
        recent=source.recent.adding(tally, now=now, span_seconds=SPAN_SECONDS),
        recent_frames=recent_frames,
    )


def after_message(source: Source, told: Told, *, now: float) -> Source:
    """Take note of what a source tells; it is heard of by that only if it has had frames since the time before."""
    before = source.message
    new = told.frames_processed
    per_second = None
    if before is not None:
        if new >= before.told.frames_processed:
            new -= before.told.frames_processed
        # Two in one moment say nothing of a rate.
        per_second = new / (now - before.at) if now > before.at else before.frames_per_second
    message = Message(told=told, at=now, frames_per_second=per_second)
    return replace(source, message=message, heard_at=now if new else source.heard_at)


def presence_of(source: Source, *, now: float, offline_seconds: float) -> Presence:
    """Say whether content comes from a source: it did within the last `offline_seconds`."""
    if source.heard_at is None or now - source.heard_at > offline_seconds:
        return Presence.OFFLINE
    return Presence.ONLINE


def report(source: Source, *, now: float, offline_seconds: float) -> SourceReport:
    """Say how a source is."""
    seen = source.recent.total(now=now, span_seconds=SPAN_SECONDS)
    frames = source.recent_frames.total(now=now, span_seconds=SPAN_SECONDS)
    covered = covered_seconds(now=now, span_seconds=SPAN_SECONDS)
    seconds = max(_LEAST_SECONDS, min(covered, now - source.since))
    return SourceReport(
        source=source,
        presence=presence_of(source, now=now, offline_seconds=offline_seconds),
        contents_per_second=seen.calls / seconds,
        frames_per_second=frames.calls / seconds,
        error_ratio=seen.failures / seen.calls if seen.calls else None,
        mean_seconds=seen.mean_seconds if seen.calls > seen.failures else None,
    )


class Sources:
    """At most so many sources. For a new one, whoever has the most loses the one that was not heard of for longest.

    So a caller that makes up names pushes out its own tenant's first.
    """

    def __init__(self, limit: int = MAX_SOURCES) -> None:
        self._limit = limit
        self._count = 0
        self._by_tenant: dict[str | None, dict[str, Source]] = {}
        """Of each tenant, those that changed last at the end."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Source]:
        return (source for own in self._by_tenant.values() for source in own.values())

    def change(self, tenant: str | None, name: str, change: Callable[[Source], Source], *, now: float) -> Source:
        """Change what is known of a source, new or not, and return it."""
        known = self._by_tenant.get(tenant, {}).get(name)
        changed = change(known or Source(tenant=tenant, name=name, since=now))
        if known is not None:
            del self._by_tenant[tenant][name]
        else:
            if self._count >= self._limit:
                self._forget_one()
            self._count += 1
        self._by_tenant.setdefault(tenant, {})[name] = changed
        return changed

    def _forget_one(self) -> None:
        tenant = max(self._by_tenant, key=lambda each: len(self._by_tenant[each]))
        own = self._by_tenant[tenant]
        del own[next(iter(own))]
        if not own:
            del self._by_tenant[tenant]
        self._count -= 1
