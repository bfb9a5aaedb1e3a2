"""The cache of scores as settings want it: in this process, and in a Redis where there is one."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baleen_sidecar.adapters.levelled_scores import Level, LevelledScores
from baleen_sidecar.adapters.process_scores import ProcessScores
from baleen_sidecar.ports import ScoreCache
from baleen_sidecar.settings import Settings
from baleen_sidecar.usecases.report_health import Component

if TYPE_CHECKING:
    from baleen_sidecar.adapters.redis_scores import RedisScores


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCache:
    """The cache, unless there is none, and what it shares with other replicas."""

    scores: ScoreCache | None = None
    shared: "RedisScores | None" = None

    def components(self) -> tuple[Component, ...]:
        """Say how the shared part is."""
        return () if self.shared is None else (self.shared.component(),)

    def degraded(self) -> tuple[str, ...]:
        """Say what decisions say while the shared part is away."""
        return () if self.shared is None else self.shared.degraded()


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[OpenedCache]:
    """Open the cache of scores; Redis is asked for nothing yet.

    Raises:
        InvalidError: the file of Redis' URL has none.
    """
    if not settings.cache_enabled:
        yield OpenedCache()
        return
    levels: list[Level] = [
        ProcessScores(
            limit_bytes=settings.cache_limit_bytes,
            tenant_limit_bytes=settings.cache_limit_bytes * settings.cache_tenant_percent // 100,
            wall_seconds=time.time,
        )
    ]
    if settings.redis_url_file is None:
        yield OpenedCache(scores=_join(levels, settings))
        return
    # Its client takes half a second of processor time to import, which whoever has no Redis shall not pay.
    from baleen_sidecar.adapters.redis_scores import RedisScores
    from baleen_sidecar.adapters.shared_redis import open_redis

    client = open_redis(settings.redis_url_file)
    async with client:
        shared = RedisScores(
            client,
            wall_seconds=time.time,
            monotonic_seconds=time.monotonic,
            jitter=random.random,
            timeout_seconds=settings.cache_redis_timeout_seconds,
        )
        yield OpenedCache(scores=_join([*levels, shared], settings), shared=shared)


def _join(levels: list[Level], settings: Settings) -> LevelledScores:
    return LevelledScores(levels, ttl_seconds=settings.cache_ttl_seconds, wall_seconds=time.time, chance=random.random)
