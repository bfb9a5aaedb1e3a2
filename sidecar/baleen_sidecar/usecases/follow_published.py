"""Follow what is published: start from the last good state, adopt every change, tell the source, keep the state."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus
from baleen_core.errors import BaleenError
from baleen_core.records import POLICY_SOURCE
from baleen_sidecar.ports import Kept, LastGood, PolicySource, Published
from baleen_sidecar.usecases.adopt_routes import AdoptRoutes
from baleen_sidecar.usecases.report_health import Component
from baleen_sidecar.usecases.serve_models import ServeModels

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""How soon something that failed unexpectedly is tried again."""
SAVE_SECONDS: Final = 15.0
"""How soon a state that could not be saved is tried to be saved again."""
LOOK_SECONDS: Final = 1.0
"""How often is looked whether the source is lost, to say since when."""


class FollowPublished:
    """Keeps policies and models equal to what a source publishes; no failure of anything ends it."""

    def __init__(
        self,
        source: PolicySource,
        adopt: AdoptRoutes,
        models: ServeModels,
        last_good: LastGood,
        *,
        wall_seconds: Callable[[], float],
    ) -> None:
        self._source = source
        self._adopt = adopt
        self._models = models
        self._last_good = last_good
        self._wall_seconds = wall_seconds
        self._newest: Published | None = None
        self._served: Published | None = None
        self._woken = asyncio.Event()
        self._lacks = asyncio.Event()
        self._saved = Kept()
        self._unsaved = ""
        self._logged = PolicySnapshot()
        self._lost_at: float | None = None

    async def restore(self) -> None:
        """Put in force what was when the process ended last, whether the source is in reach or not."""
        try:
            self._saved = await self._last_good.load()
        except BaleenError as exc:
            log.error("last good state not read", extra={"cause": str(exc)})
        await self._models.serve(self._saved.deployments)
        await self._adopt.restore(self._saved.policies)
        self._log_changes()
        # It is enforced from now on, though the source may be out of reach for long.
        await self._source.report(self._adopt.adopted())

    async def run(self) -> None:
        """Follow the source until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self._take), name="take what is published")
            group.create_task(self._for_ever(self._follow), name="adopt what is published")
            group.create_task(self._for_ever(self._fetch), name="fetch lists")
            group.create_task(self._for_ever(self._look_at_source), name="look at the source")

    def components(self) -> tuple[Component, ...]:
        """Say how the source is, and what is wrong with what it says of models."""
        problem = self._source.problem
        since = datetime.fromtimestamp(self._lost_at or self._wall_seconds(), UTC).isoformat(timespec="seconds")
        detail = f"lost since {since}: {problem}; what was good last is enforced" if problem else ""
        wrong = "; ".join(map(str, self._models.problems))
        return (
            Component(name="source", healthy=not problem, detail=detail),
            Component(name="deployments", healthy=not wrong, detail=wrong),
        )

    def degraded(self) -> tuple[str, ...]:
        """Name the source while it is lost: newer policies may not have arrived."""
        return (POLICY_SOURCE,) if self._source.problem else ()

    async def _for_ever(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                log.exception("following failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _take(self) -> None:
        async for published in self._source.published():
            self._newest = published
            self._woken.set()

    async def _follow(self) -> None:
        wake_at: datetime | None = None
        # Whatever woke us before a failure is looked at again after it.
        self._woken.set()
        while True:
            await self._wait(wake_at)
            if self._newest is None:
                wake_at = None
                continue
            wake_at = await self._adopt_now(self._newest)

    async def _wait(self, wake_at: datetime | None) -> None:
        seconds = None if wake_at is None else wake_at.timestamp() - self._wall_seconds()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    async def _adopt_now(self, published: Published) -> datetime | None:
        if published is not self._served:
            # First, since policies are compiled by the signals that models are declared to offer.
            await self._models.serve(published.deployments, is_whole=not published.problems)
            self._served = published
        wake_at = await self._adopt.adopt(published)
        self._log_changes()
        if self._adopt.lacks_lists:
            self._lacks.set()
        # What is said to be enforced must be so after a restart too.
        await self._save()
        await self._source.report(self._adopt.adopted())
        if not self._unsaved:
            return wake_at
        again_at = datetime.fromtimestamp(self._wall_seconds(), UTC) + timedelta(seconds=SAVE_SECONDS)
        return min(wake_at or again_at, again_at)

    async def _fetch(self) -> None:
        # Apart from adopting: an override must not wait for a list that takes long.
        while True:
            await self._lacks.wait()
            self._lacks.clear()
            if await self._adopt.fetch_lists():
                self._woken.set()

    async def _save(self) -> None:
        kept = Kept(policies=self._adopt.kept(), deployments=self._models.kept())
        if kept == self._saved:
            self._unsaved = ""
            return
        try:
            await self._last_good.save(kept)
            self._saved, self._unsaved = kept, ""
        except BaleenError as exc:
            if str(exc) != self._unsaved:
                log.error("last good state not kept", extra={"cause": str(exc)})
            self._unsaved = str(exc)

    async def _look_at_source(self) -> None:
        while True:
            # First of all it has to be reached at all, which is nothing to report.
            await asyncio.sleep(LOOK_SECONDS)
            problem = self._source.problem
            if problem and self._lost_at is None:
                self._lost_at = self._wall_seconds()
                log.warning("policy source lost", extra={"problem": problem})
            elif not problem and self._lost_at is not None:
                seconds = round(self._wall_seconds() - self._lost_at, 3)
                self._lost_at = None
                log.info("policy source followed", extra={"lost_seconds": seconds})

    def _log_changes(self) -> None:
        snapshot = self._adopt.current()
        if snapshot is self._logged:
            return
        before, now = _by_key(self._logged), _by_key(snapshot)
        known, self._logged = self._logged.problems, snapshot
        for key, status in now.items():
            if before.get(key) is not status and before.get(key) != status:
                log.log(
                    logging.WARNING if status.problems else logging.INFO,
                    "policy adopted",
                    extra={
                        "policy": "/".join(key),
                        "epoch": status.epoch,
                        "digest": status.digest,
                        "standing": status.standing.value,
                        "problems": [str(problem) for problem in status.problems],
                    },
                )
        for key in before.keys() - now.keys():
            log.info("policy removed", extra={"policy": "/".join(key)})
        for problem in snapshot.problems:
            if problem not in known:
                log.warning("published", extra={"problem": str(problem)})


def _by_key(snapshot: PolicySnapshot) -> Mapping[tuple[str, str], PolicyStatus]:
    return {(status.namespace, status.name): status for status in snapshot.statuses}
