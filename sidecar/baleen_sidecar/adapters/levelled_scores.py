"""The cache of scores: the memory of this process first, then what replicas share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from baleen_sidecar.adapters.score_wire import TimedScores
from baleen_sidecar.flow.lifetimes import counts, expiry
from baleen_sidecar.ports import CacheLevel, CacheStats, ModelScores


class Level(Protocol):
    """A place of scores, such as ProcessScores; what is away has nothing, keeps nothing, and says so in `level`."""

    @property
    def name(self) -> str:
        """How people call it."""

    async def fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, TimedScores]:
        """Return what is there, whether it is too old or not."""

    async def keep(self, scores: Mapping[bytes, TimedScores], *, tenant: str) -> None:
        """Keep scores until their time is over, or less long."""

    async def clear(self) -> int:
        """Forget everything; raises UpstreamError when that cannot be done."""

    def level(self) -> CacheLevel:
        """Return the numbers so far."""


class LevelledScores:
    """The ScoreCache port: a level is asked for what those before it do not have, and they keep what it has."""

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        ttl_seconds: float,
        wall_seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`chance` returns a number from 0 to 1."""
        self._levels = tuple(levels)
        self._ttl_seconds = ttl_seconds
        self._wall_seconds = wall_seconds
        self._chance = chance
        self._hits = self._misses = 0

    async def get(self, keys: Sequence[bytes], *, tenant: str = "") -> Mapping[bytes, ModelScores]:
        """See ports.ScoreCache."""
        found: dict[bytes, ModelScores] = {}
        left: Sequence[bytes] = keys
        for place, level in enumerate(self._levels):
            fetched = await level.fetch(left)
            now = self._wall_seconds()
            good = {
                key: timed
                for key, timed in fetched.items()
                if counts(timed.until, now=now, ttl_seconds=self._ttl_seconds)
            }
            if good and place:
                # With the end that they had: what goes from level to level does not get younger.
                for before in self._levels[:place]:
                    await before.keep(good, tenant=tenant)
            found |= {key: timed.scores for key, timed in good.items()}
            left = [key for key in left if key not in found]
            if not left:
                break
        self._hits += len(found)
        self._misses += len(left)
        return found

    async def put(self, scores: Mapping[bytes, ModelScores], *, tenant: str = "") -> None:
        """See ports.ScoreCache."""
        until = expiry(self._wall_seconds(), ttl_seconds=self._ttl_seconds, chance=self._chance())
        timed = {key: TimedScores(scores=each, until=until) for key, each in scores.items()}
        for level in self._levels:
            await level.keep(timed, tenant=tenant)

    async def clear(self) -> Mapping[str, int]:
        """See ports.ScoreCache."""
        return {level.name: await level.clear() for level in self._levels}

    def stats(self) -> CacheStats:
        """See ports.ScoreCache."""
        return CacheStats(hits=self._hits, misses=self._misses, levels=tuple(level.level() for level in self._levels))
