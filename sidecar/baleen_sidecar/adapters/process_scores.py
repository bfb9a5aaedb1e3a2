"""Scores in the memory of this process: what is asked for often stays, and no tenant fills it alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moka_py import Moka

from baleen_sidecar.adapters.score_wire import TimedScores, decode_scores, encode_scores
from baleen_sidecar.flow.shares import Shares
from baleen_sidecar.ports import CacheLevel, ModelScores

ENTRY_BYTES: Final = 768
"""What an entry takes beside its bytes, as measured: 590, and 760 where it belongs to a tenant."""


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    data: bytes
    until: float
    tenant: str

    @property
    def size_bytes(self) -> int:
        return ENTRY_BYTES + len(self.data)


class ProcessScores:
    """A level of a cache (`LevelledScores`) that is bounded in bytes.

    By TinyLFU (Einziger, Friedman, Manes: TinyLFU, a highly efficient cache admission policy, 2017) what is new takes
    the place of what is old only if it was asked for more often: content that is sent once pushes nothing out.
    """

    name: Final = "Process"

    def __init__(self, *, limit_bytes: int, tenant_limit_bytes: int, wall_seconds: Callable[[], float]) -> None:
        self._entries: Moka[bytes, _Entry] = Moka(
            limit_bytes, weigher=lambda key, entry: entry.size_bytes, eviction_listener=self._left
        )
        self._shares: Shares[_Entry] = Shares(tenant_limit_bytes)
        self._limit_bytes = limit_bytes
        self._wall_seconds = wall_seconds
        self._hits = self._misses = 0

    @staticmethod
    def entry_bytes(key: bytes, scores: ModelScores) -> int:
        """Return what an entry counts for."""
        return _Entry(encode_scores(key, TimedScores(scores=scores, until=0.0)), 0.0, "").size_bytes

    async def fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, TimedScores]:
        """Return what is there; it never waits."""
        entries = ((key, self._entries.get(key)) for key in keys)
        found = {key: decode_scores(key, entry.data) for key, entry in entries if entry is not None}
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def keep(self, scores: Mapping[bytes, TimedScores], *, tenant: str) -> None:
        """Keep what is asked for often enough; it never waits."""
        now = self._wall_seconds()
        for key, timed in scores.items():
            entry = _Entry(encode_scores(key, timed), timed.until, tenant)
            given_up = self._shares.add(tenant, key, entry, entry.size_bytes)
            for each in given_up:
                self._entries.remove(each)
            if key not in given_up:
                # Without a time it would stay, of no use, until something more popular comes.
                self._entries.set(key, entry, ttl=max(0.001, timed.until - now))

    async def clear(self) -> int:
        """Forget everything."""
        self._entries.run_pending_tasks()
        count = self._entries.count()
        self._entries.clear()
        self._entries.run_pending_tasks()
        self._shares.clear()
        return count

    def level(self) -> CacheLevel:
        """Return the numbers so far."""
        self._entries.run_pending_tasks()
        return CacheLevel(
            name=self.name,
            hits=self._hits,
            misses=self._misses,
            entries=self._entries.count(),
            size_bytes=self._entries.weighted_size(),
        )

    def tenant_bytes(self, tenant: str) -> int:
        """Return how many bytes a tenant has."""
        self._entries.run_pending_tasks()
        return self._shares.size_bytes(tenant)

    def _left(self, key: bytes, entry: _Entry, cause: str) -> None:
        self._shares.remove(entry.tenant, key, entry)
