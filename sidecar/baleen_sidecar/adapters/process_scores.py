"""Scores in the memory of this process: what is asked for often stays, and no tenant fills it alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from theine_core import TlfuCore

from baleen_sidecar.adapters.score_wire import TimedScores, decode_scores, encode_scores
from baleen_sidecar.flow.shares import Shares
from baleen_sidecar.ports import CacheLevel

OVERHEAD_BYTES: Final = 640
"""What an entry takes beside its bytes: measured were 480, and 560 where it belongs to a tenant."""
SLOT_BYTES: Final = 2048
"""The most that an entry may take: the policy counts entries, so that room for one is room for the largest."""
_NO_TIME: Final = 0
"""The policy need not know when an entry ends: it is looked at when it is found."""


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    key: bytes
    data: bytes
    until: float
    tenant: str

    @property
    def size_bytes(self) -> int:
        return OVERHEAD_BYTES + len(self.data)


class ProcessScores:
    """A level of a cache (`LevelledScores`) that is bounded in bytes.

    By W-TinyLFU (Einziger, Friedman, Manes: TinyLFU, a highly efficient cache admission policy, 2017) what is new takes
    the place of what is old only if it was asked for more often: content that is sent once pushes nothing out.
    """

    name: Final = "Process"

    def __init__(self, *, limit_bytes: int, tenant_limit_bytes: int, wall_seconds: Callable[[], float]) -> None:
        self._policy = TlfuCore(max(1, limit_bytes // SLOT_BYTES))
        self._entries: dict[int, _Entry] = {}
        self._size_bytes = 0
        self._shares: Shares[_Entry] = Shares(tenant_limit_bytes)
        self._wall_seconds = wall_seconds
        self._hits = self._misses = 0

    async def fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, TimedScores]:
        """Return what is there; it never waits."""
        now = self._wall_seconds()
        found: dict[bytes, TimedScores] = {}
        for key in keys:
            number = _number(key)
            entry = self._entries.get(number)
            if entry is None or entry.key != key:
                continue
            if entry.until <= now:
                self._policy.remove(number)
                self._drop(number)
                continue
            self._policy.access([number])
            found[key] = decode_scores(key, entry.data)
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def keep(self, scores: Mapping[bytes, TimedScores], *, tenant: str) -> None:
        """Keep what is asked for often enough, and takes no more than SLOT_BYTES; it never waits."""
        for key, timed in scores.items():
            entry = _Entry(key, encode_scores(key, timed), timed.until, tenant)
            if entry.size_bytes > SLOT_BYTES:
                continue
            number = _number(key)
            self._drop(number)
            given_up = self._shares.add(tenant, key, entry, entry.size_bytes)
            self._entries[number] = entry
            self._size_bytes += entry.size_bytes
            for each in self._policy.set([(number, _NO_TIME)]):
                self._drop(each)
            for each in map(_number, given_up):
                self._policy.remove(each)
                self._drop(each)

    async def clear(self) -> int:
        """Forget everything."""
        count = len(self._entries)
        self._policy.clear()
        self._entries.clear()
        self._shares.clear()
        self._size_bytes = 0
        return count

    def level(self) -> CacheLevel:
        """Return the numbers so far."""
        return CacheLevel(
            name=self.name,
            hits=self._hits,
            misses=self._misses,
            entries=len(self._entries),
            size_bytes=self._size_bytes,
        )

    def tenant_bytes(self, tenant: str) -> int:
        """Return how many bytes a tenant has."""
        return self._shares.size_bytes(tenant)

    def _drop(self, number: int) -> None:
        entry = self._entries.pop(number, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes
            self._shares.remove(entry.tenant, entry.key, entry)


def _number(key: bytes) -> int:
    """Return what the policy knows a key by, which is a digest; two of one number are one place for it."""
    return int.from_bytes(key[-8:], "big")
