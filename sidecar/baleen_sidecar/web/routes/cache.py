"""The cache of scores: its numbers, and how to empty it."""

import logging

from fastapi import APIRouter
from fastapi.responses import Response
from msgspec import Struct

from baleen_sidecar.ports import CacheLevel, CacheStats, ScoreCache
from baleen_sidecar.web.openapi import answer, documented

log = logging.getLogger(__name__)


class CacheLevelAnswer(Struct, frozen=True, kw_only=True):
    """A place of scores; `entries` and `bytes` are null where others keep theirs, too.

    `ratio` is hits over look-ups, null before the first. `detail` says what is wrong.
    """

    name: str
    hits: int
    misses: int
    ratio: float | None
    entries: int | None
    bytes: int | None
    failures: int
    healthy: bool
    detail: str


class CacheStatsAnswer(Struct, frozen=True, kw_only=True):
    """What was found of what was looked for since this process began, at any level and at each."""

    enabled: bool
    hits: int
    misses: int
    ratio: float | None
    levels: tuple[CacheLevelAnswer, ...]


class CacheClearedAnswer(Struct, frozen=True):
    """About how many entries each level had."""

    entries: dict[str, int]


ANSWERS = {"CacheStatsAnswer": CacheStatsAnswer, "CacheClearedAnswer": CacheClearedAnswer}


def build_router(cache: ScoreCache | None) -> APIRouter:
    """Serve what there is to know of the cache; without one it is never anything but empty."""
    router = APIRouter(prefix="/v1/cache", tags=["operations"])

    @router.get("/stats", responses=documented(CacheStatsAnswer), summary="Show how often scores were remembered")
    async def stats() -> Response:
        return answer(describe(cache))

    @router.delete("", responses=documented(CacheClearedAnswer, 503), summary="Forget all scores")
    async def clear() -> Response:
        entries = {} if cache is None else dict(await cache.clear())
        log.info("cache cleared", extra={"entries": entries})
        return answer(CacheClearedAnswer(entries))

    return router


def describe(cache: ScoreCache | None) -> CacheStatsAnswer:
    """Say how often scores were remembered."""
    found = CacheStats() if cache is None else cache.stats()
    return CacheStatsAnswer(
        enabled=cache is not None,
        hits=found.hits,
        misses=found.misses,
        ratio=_ratio(found.hits, found.misses),
        levels=tuple(map(_level, found.levels)),
    )


def _level(level: CacheLevel) -> CacheLevelAnswer:
    return CacheLevelAnswer(
        name=level.name,
        hits=level.hits,
        misses=level.misses,
        ratio=_ratio(level.hits, level.misses),
        entries=level.entries,
        bytes=level.size_bytes,
        failures=level.failures,
        healthy=not level.problem,
        detail=level.problem,
    )


def _ratio(hits: int, misses: int) -> float | None:
    return round(hits / (hits + misses), 6) if hits + misses else None
