"""Hits of the cache of scores over those of a perfect LFU with room for as many entries, on Zipf's law.

The perfect one (Perfect-LFU of Breslau and others: Web caching and Zipf-like distributions, 1999) counts every request
that there ever was, also for what it does not have, and keeps what has been asked for most often so far. The peer is
that one measured again with another seed: how much of a figure is the luck of the load.
"""

import asyncio
import heapq
import time

import numpy as np
from numpy.typing import NDArray

from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_core.records import ModelIdentity
from baleen_sidecar.adapters.levelled_scores import LevelledScores
from baleen_sidecar.adapters.process_scores import SLOT_BYTES, ProcessScores
from baleen_sidecar.ports import ModelScores

EXPONENTS = (0.8, 1.0, 1.2)
FIGURES = {
    "cache_ratio_lfu": Aim(
        what="hits of the process's cache over those of a perfect LFU of its size, Zipf: the worst of three exponents",
        goal=">= 0.95",
    )
}
_CONTENTS = 100_000
_ENTRIES = 2_000
_REQUESTS = 100_000
"""The first half fills the cache, the second half counts."""
_SCORES = ModelScores(
    model=ModelIdentity(name="text-safety", version="1", sha256="0" * 64),
    signals={f"text-safety.signal_{place}": 100_000 * place for place in range(6)},
)


def measure(effort: Effort) -> Outcome:
    """Give the cache and the perfect one the same loads."""
    requests = _REQUESTS // 10 if effort.quick else _REQUESTS
    pairs = [
        (_perfect(load(1.0, requests, 2 * seed)), _perfect(load(1.0, requests, 2 * seed + 1)))
        for seed in range(effort.noise_pairs)
    ]
    turns = []
    for seed in range(effort.repetitions):
        loads = {exponent: load(exponent, requests, 100 + seed) for exponent in EXPONENTS}
        turns.append(
            {str(exponent): (asyncio.run(_cached(asked)), _perfect(asked)) for exponent, asked in loads.items()}
        )
    ratios = [min(ours / perfect for ours, perfect in turn.values()) for turn in turns]
    return Outcome(
        figures=(Figure.of("cache_ratio_lfu", ratios, "ratio", aims=FIGURES, noise=noise_of(pairs)),),
        raw={"contents": _CONTENTS, "entries": _ENTRIES, "peer_against_itself": pairs, "hit_ratios": turns},
    )


def load(exponent: float, requests: int, seed: int) -> NDArray[np.int64]:
    """Return which content each request has: the n-th most popular one in proportion to n to the minus `exponent`."""
    weights = np.arange(1, _CONTENTS + 1) ** -exponent
    return np.random.default_rng(seed).choice(_CONTENTS, size=requests, p=weights / weights.sum())


def _perfect(asked: NDArray[np.int64]) -> float:
    """Return the share of requests, in the second half, that a perfect LFU answers."""
    counts = [0] * _CONTENTS
    kept: set[int] = set()
    least: list[tuple[int, int]] = []
    hits, half = 0, len(asked) // 2
    for place, content in enumerate(asked.tolist()):
        counts[content] += 1
        if content in kept:
            hits += place >= half
            continue
        if len(kept) == _ENTRIES:
            # Counts in the heap are those of when each was put there.
            while counts[least[0][1]] != least[0][0]:
                heapq.heapreplace(least, (counts[least[0][1]], least[0][1]))
            if counts[content] <= least[0][0]:
                continue
            kept.remove(heapq.heappop(least)[1])
        kept.add(content)
        heapq.heappush(least, (counts[content], content))
    return hits / (len(asked) - half)


async def _cached(asked: NDArray[np.int64]) -> float:
    """Return the share of requests, in the second half, that the product's cache answers."""
    cache = LevelledScores([_process()], ttl_seconds=3600.0, wall_seconds=time.time, chance=lambda: 0.5)
    hits, half = 0, len(asked) // 2
    for place, content in enumerate(asked.tolist()):
        key = content.to_bytes(32, "big")
        if await cache.get([key]):
            hits += place >= half
        else:
            await cache.put({key: _SCORES})
    return hits / (len(asked) - half)


def _process() -> ProcessScores:
    limit = _ENTRIES * SLOT_BYTES
    return ProcessScores(limit_bytes=limit, tenant_limit_bytes=limit, wall_seconds=time.time)
