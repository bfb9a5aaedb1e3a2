"""The spool of a sidecar that follows, in its file: what waits, what was sent, what goes, and what a restart finds."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from baleen_core.errors import LogUnavailable
from baleen_core.policy.schema import Verdict
from baleen_core.records import encode
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteSpool
from baleen_sidecar.adapters.store import spool as spool_module
from baleen_sidecar.settings import Durability
from decision_records import make_record
from store_files import make_database
from waiting import until

SIZE = len(encode(make_record("000")))
EVERYTHING = {"limit_rows": 1000, "limit_bytes": 100_000_000}


@asynccontextmanager
async def opened(path: Path, *, limit_rows: int = 1000) -> AsyncIterator[SqliteSpool]:
    async with (
        SqliteDecisionLog(path, durability=Durability.INTERVAL) as log,
        SqliteSpool(path, log, limit_bytes=limit_rows * SIZE) as spool,
    ):
        yield spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_database(tmp_path)


async def fill(spool: SqliteSpool, *numbers: int, decision: Verdict = Verdict.ALLOW) -> None:
    for number in numbers:
        await spool.append(make_record(f"{number:03}", decision=decision))


async def waiting(spool: SqliteSpool) -> list[str]:
    return [each.id for each in await spool.waiting(**EVERYTHING)]


def kept(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT id FROM decisions ORDER BY sequence")]
    finally:
        connection.close()


def copy_database(folder: Path) -> Path:
    """Copy a file that is in use, as the end of its process would leave it."""
    copy = folder / "copy"
    copy.mkdir()
    for file in folder.glob("baleen.db*"):
        (copy / file.name).write_bytes(file.read_bytes())
    return copy / "baleen.db"


async def test_what_waits_comes_in_its_order_in_batches_bounded_by_rows_and_bytes(path: Path) -> None:
    async with opened(path) as spool:
        await fill(spool, *range(10))
        rows = await spool.waiting(limit_rows=4, limit_bytes=100_000_000)
        by_bytes = await spool.waiting(limit_rows=100, limit_bytes=2 * SIZE)
        one = await spool.waiting(limit_rows=100, limit_bytes=1)
        await spool.mark(rows)

        assert [each.id for each in rows] == ["000", "001", "002", "003"]
        assert rows[0].record == encode(make_record("000"))
        assert (len(by_bytes), len(one)) == (2, 1)
        assert await waiting(spool) == [f"{number:03}" for number in range(4, 10)]
        assert spool.waiting_bytes == 6 * SIZE


async def test_a_restart_finds_what_waits_and_what_was_sent(path: Path) -> None:
    async with opened(path) as spool:
        await fill(spool, *range(10))
        await spool.mark(await spool.waiting(limit_rows=4, limit_bytes=100_000_000))
    async with opened(path) as spool:
        assert spool.waiting_bytes == 6 * SIZE
        await fill(spool, 10)

        assert await waiting(spool) == [f"{number:03}" for number in range(4, 11)]


async def test_what_was_sent_is_dropped_for_what_is_new_and_what_waits_never(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "DROP_ROWS", 4)
    async with opened(path, limit_rows=16) as spool:
        await fill(spool, *range(10))
        await spool.mark(await spool.waiting(**EVERYTHING))
        assert len(kept(path)) == 10
        await fill(spool, *range(10, 20))
        await spool.mark(await spool.waiting(limit_rows=1, limit_bytes=1))

        assert kept(path) == [f"{number:03}" for number in range(4, 20)]
        assert await spool.get("000") is None
        assert await waiting(spool) == [f"{number:03}" for number in range(11, 20)]


async def test_after_everything_was_dropped_what_is_new_is_not_taken_for_sent(path: Path) -> None:
    async with opened(path, limit_rows=2) as spool:
        for number in range(6):
            await fill(spool, number, decision=Verdict.BLOCK)
            await spool.mark(await spool.waiting(**EVERYTHING))
    assert kept(path)[-1] == "005"
    async with opened(path, limit_rows=2) as spool:
        await fill(spool, 6, decision=Verdict.BLOCK)

        assert await waiting(spool) == ["006"]


async def test_a_full_spool_refuses_allow_first_and_then_everything_and_takes_again_once_it_was_sent(
    path: Path,
) -> None:
    async with opened(path, limit_rows=8) as spool:
        await fill(spool, *range(7))
        with pytest.raises(LogUnavailable, match="is kept for Review and Block"):
            await fill(spool, 7)
        await spool.append(make_record("007", decision=Verdict.BLOCK, score=1))
        with pytest.raises(LogUnavailable, match=r"0\.0 MiB wait for the gateway; BALEEN_SPOOL_LIMIT_BYTES"):
            await fill(spool, 8, decision=Verdict.BLOCK)
        assert len(kept(path)) == 8
        await spool.mark(await spool.waiting(**EVERYTHING))
        await fill(spool, 9)

        assert await waiting(spool) == ["009"]


async def test_a_row_whose_caller_left_waits_like_others_and_room_that_was_taken_in_vain_comes_back(
    path: Path,
) -> None:
    async with opened(path) as spool:
        leaving = asyncio.ensure_future(spool.append(make_record("000")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        async def is_there() -> bool:
            return await waiting(spool) == ["000"]

        await until(is_there)
        await spool.mark(await spool.waiting(**EVERYTHING))
        # As if another one had left, and the disk had failed then.
        spool._room.waiting_bytes = SIZE
        await waiting(spool)

        assert spool.waiting_bytes == 0


async def test_the_mark_is_never_ahead_of_the_rows_when_nothing_was_closed(path: Path, tmp_path: Path) -> None:
    async with opened(path) as spool:
        await fill(spool, *range(3))
        await spool.mark(await spool.waiting(limit_rows=2, limit_bytes=100_000_000))
        await spool.mark(await spool.waiting(limit_rows=1, limit_bytes=100_000_000))
        copy = copy_database(tmp_path)
    async with opened(copy) as spool:
        # The second mark came within a second of the first, so that its row is sent again.
        assert await waiting(spool) == ["002"]
