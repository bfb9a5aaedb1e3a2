"""See how the sources of content do, by what is judged of them and by what they tell."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.flow.breaker import State
from baleen_sidecar.flow.sources import (
    Presence,
    Source,
    SourceReport,
    Sources,
    Told,
    after_content,
    after_message,
    presence_of,
    report,
)
from baleen_sidecar.usecases.guard_sources import GuardSources
from baleen_sidecar.usecases.moderate import Caller

_TIMER_SECONDS: Final = 0.005
"""A timer may be early by as much as its clock is coarse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSource:
    """How a source is, and its breaker, if it has one: it has once something of it could not be read."""

    report: SourceReport
    breaker: State | None


class WatchSources:
    """Knows the sources of this process, until it ends or there are too many."""

    def __init__(self, guards: GuardSources, *, offline_seconds: float, monotonic_seconds: Callable[[], float]) -> None:
        self._guards = guards
        self._monotonic_seconds = monotonic_seconds
        self._sources = Sources()
        self.offline_seconds = offline_seconds
        self.contents = 0
        """How many pieces of content with a source there were."""
        self.errors = 0
        """How many of them have no decision."""

    async def watch(self, context: Context, caller: Caller, judging: Awaitable[DecisionRecord]) -> DecisionRecord:
        """Count content of a source while it is judged; if its caller gives up before the deadline, it counts not."""
        if context.source is None:
            return await judging
        try:
            record = await judging
        except asyncio.CancelledError:
            left = caller.received_seconds + caller.deadline_seconds - self._monotonic_seconds()
            if left <= _TIMER_SECONDS:
                self._count(context, caller, frames=0, failed=True)
            raise
        except Exception:
            self._count(context, caller, frames=0, failed=True)
            raise
        self._count(context, caller, frames=_frames(record), failed=False)
        return record

    def told(self, context: Context, told: Told) -> WatchedSource:
        """Take note of what a source tells of itself."""
        now = self._monotonic_seconds()
        source = self._sources.change(
            context.tenant, context.source or "", lambda each: after_message(each, told, now=now), now=now
        )
        return self._watched(source, now)

    def reports(self, tenant: str | None = None) -> Sequence[WatchedSource]:
        """Return the sources of a tenant, or all, by tenant and name."""
        now = self._monotonic_seconds()
        found = (each for each in self._sources if tenant is None or each.tenant == tenant)
        in_order = sorted(found, key=lambda each: (each.tenant or "", each.name))
        return [self._watched(each, now) for each in in_order]

    def present(self) -> dict[Presence, int]:
        """Return how many sources are there, and not."""
        now, found = self._monotonic_seconds(), dict.fromkeys(Presence, 0)
        for source in self._sources:
            found[presence_of(source, now=now, offline_seconds=self.offline_seconds)] += 1
        return found

    def _count(self, context: Context, caller: Caller, *, frames: int, failed: bool) -> None:
        now = self._monotonic_seconds()
        seconds = now - caller.received_seconds
        self.contents += 1
        self.errors += failed
        self._sources.change(
            context.tenant,
            context.source or "",
            lambda each: after_content(each, now=now, seconds=seconds, frames=frames, failed=failed),
            now=now,
        )

    def _watched(self, source: Source, now: float) -> WatchedSource:
        found = report(source, now=now, offline_seconds=self.offline_seconds)
        breaker = self._guards.state(Context(tenant=source.tenant, source=source.name))
        return WatchedSource(report=found, breaker=breaker)


def _frames(record: DecisionRecord) -> int:
    """Return how many pictures were judged."""
    evidence = record.evidence
    return len(evidence.frames) or int(evidence.content.type == "image")
