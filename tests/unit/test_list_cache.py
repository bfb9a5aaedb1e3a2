"""A gateway's cache of lists: each is read once however many ask, and it holds what it says that it holds."""

import asyncio
import gc

import pytest

from baleen_core.errors import ClusterError
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType
from baleen_sidecar.web.policy_stream import _ListCache
from waiting import until

TERMS = read_list(ListType.TERMS, "idiot\nmoron")
TEXT = canonical_list(TERMS)


class Reads:
    """Reads that end when the test says how; `under_way` are those that did not."""

    def __init__(self) -> None:
        self.count = 0
        self.under_way: list[asyncio.Future[str | None]] = []

    async def __call__(self, namespace: str, digest: str, type: ListType) -> str | None:
        self.count += 1
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.under_way.append(answer)
        try:
            return await answer
        finally:
            self.under_way.remove(answer)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_list_is_read_by_one_caller_at_a_time_and_counted_once_when_the_first_of_them_fails() -> None:
    reads = Reads()
    cache = _ListCache(reads, limit_bytes=2 * len(TEXT) - 1)

    def get() -> asyncio.Task[bytes | None]:
        return asyncio.create_task(cache.get(TERMS.digest, [("trust-safety", ListType.TERMS)]))

    first, second = get(), get()
    await until(lambda: reads.count == 1)
    reads.under_way[0].set_exception(ClusterError("get configmaps: the API server did not answer"))
    with pytest.raises(ClusterError):
        await first
    await until(lambda: reads.count == 2)
    third = get()
    await settle()

    assert len(reads.under_way) == 1
    reads.under_way[0].set_result(TEXT)
    assert await asyncio.gather(second, third) == [TEXT.encode()] * 2
    assert await get() == TEXT.encode()
    assert reads.count == 2
    assert cache._size == sum(map(len, cache._texts.values())) == len(TEXT)
    del first
    gc.collect()
    assert not cache._reading
