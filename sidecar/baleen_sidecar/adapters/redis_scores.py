"""Scores in a Redis that replicas share: asked for a moment at most, and left alone for a while once it is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from baleen_core.errors import UpstreamError
from baleen_core.records import SHARED_CACHE
from baleen_sidecar.adapters.score_wire import LIMIT_BYTES, TimedScores, decode_scores, encode_scores
from baleen_sidecar.adapters.shared_redis import asking
from baleen_sidecar.flow.backoff import BackoffRules, wait_seconds
from baleen_sidecar.ports import CacheLevel
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)
T = TypeVar("T")

PREFIX: Final = b"baleen:scores:1:"
"""Before each key; the number is that of the form."""
CALLS_AT_ONCE: Final = 16
"""More than so many callers do not wait for a connection: for them it has nothing."""
CLEAR_SECONDS: Final = 30.0
CLEAR_ROWS: Final = 1000
PAUSES: Final = BackoffRules(first_seconds=0.5, highest_seconds=30.0)
"""How long it is left alone: then one call tries it, while others go on without."""
LOOK_SECONDS: Final = 0.5
"""How often it is looked whether it may be tried again: nobody may ask for what only Redis knows for hours."""


class RedisScores:
    """A level of a cache (`LevelledScores`); what is read is taken for scores only if it is in order."""

    name: Final = "Redis"

    def __init__(
        self,
        client: Redis,
        *,
        wall_seconds: Callable[[], float],
        monotonic_seconds: Callable[[], float],
        jitter: Callable[[], float],
        timeout_seconds: float,
    ) -> None:
        """`client` has CALLS_AT_ONCE connections, and is closed by whoever opened it; `jitter` is 0 to 1."""
        self._client = client
        self._wall_seconds = wall_seconds
        self._monotonic_seconds = monotonic_seconds
        self._jitter = jitter
        self._timeout_seconds = timeout_seconds
        self._calls = 0
        self._in_a_row = 0
        self._retry_at = 0.0
        self._hits = self._misses = self._failures = 0
        self._problem = ""

    async def fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, TimedScores]:
        """Return what is there and in order."""
        read = await self._call(lambda: self._read(keys)) or [b""] * len(keys)
        found: dict[bytes, TimedScores] = {}
        for key, data in zip(keys, read, strict=True):
            if data:
                try:
                    found[key] = decode_scores(key, data)
                except ValueError as exc:
                    self._failures += 1
                    log.warning("an entry of the shared cache is not in order", extra={"cause": str(exc)})
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def keep(self, scores: Mapping[bytes, TimedScores], *, tenant: str) -> None:
        """Keep scores for all replicas; how many of whom is Redis' own affair."""
        await self._call(lambda: self._write(scores))

    async def clear(self) -> int:
        """Forget everything.

        Raises:
            UpstreamError: Redis did not answer, or refused, or has more than can be cleared in CLEAR_SECONDS.
        """
        count, cursor = 0, -1
        with asking("clearing the shared cache"):
            async with asyncio.timeout(CLEAR_SECONDS):
                while cursor:
                    cursor, keys = await self._client.scan(max(cursor, 0), match=PREFIX + b"*", count=CLEAR_ROWS)
                    if keys:
                        count += await self._client.unlink(*keys)
        return count

    async def run(self) -> None:
        """Find out when it is back, for ever, although nobody asks."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._problem:
                await self._call(self._client.ping)

    def level(self) -> CacheLevel:
        """Return the numbers so far; what others keep there is not counted."""
        return CacheLevel(
            name=self.name, hits=self._hits, misses=self._misses, failures=self._failures, problem=self._problem
        )

    def component(self) -> Component:
        """Say whether it answered the last time that it was asked."""
        return Component(name="shared-cache", healthy=not self._problem, detail=self._problem)

    def degraded(self) -> tuple[str, ...]:
        """Say what decisions say while it is away."""
        return (SHARED_CACHE,) if self._problem else ()

    async def _read(self, keys: Sequence[bytes]) -> list[bytes]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                # One byte more than is read, whatever somebody put there.
                pipe.getrange(_name(key), 0, LIMIT_BYTES)
            return [each if isinstance(each, bytes) else b"" for each in await _run(pipe)]

    async def _write(self, scores: Mapping[bytes, TimedScores]) -> None:
        now = self._wall_seconds()
        async with self._client.pipeline(transaction=False) as pipe:
            for key, timed in scores.items():
                pipe.set(_name(key), encode_scores(key, timed), px=max(1, int((timed.until - now) * 1000)))
            await _run(pipe)

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return what came of it; None: it is away, or busy with others."""
        now = self._monotonic_seconds()
        if self._calls >= CALLS_AT_ONCE or now < self._retry_at:
            return None
        if self._in_a_row:
            # The others wait for what comes of this one try.
            self._retry_at = now + self._pause()
        self._calls += 1
        try:
            with asking("scores"):
                async with asyncio.timeout(self._timeout_seconds):
                    result = await work()
        except UpstreamError as exc:
            self._fail(str(exc))
            return None
        finally:
            self._calls -= 1
        if self._problem:
            log.info("the shared cache answers again")
        self._in_a_row, self._retry_at, self._problem = 0, 0.0, ""
        return result

    def _fail(self, cause: str) -> None:
        self._failures += 1
        self._in_a_row += 1
        self._retry_at = self._monotonic_seconds() + self._pause()
        if not self._problem:
            log.warning("the shared cache is away", extra={"cause": cause})
        self._problem = cause

    def _pause(self) -> float:
        return wait_seconds(self._in_a_row, jitter=self._jitter(), rules=PAUSES)


def _name(key: bytes) -> bytes:
    return PREFIX + key.hex().encode()


async def _run(pipe: Any) -> list[Any]:
    """Return the answers, errors among them; where all are errors, it is not the entries.

    Raises:
        RedisError: the first of them.
    """
    answers: list[Any] = await pipe.execute(raise_on_error=False)
    if answers and all(isinstance(each, RedisError) for each in answers):
        raise answers[0]
    return answers
