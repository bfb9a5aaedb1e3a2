"""The decision log on a real disk: how it writes, and what happens when it cannot."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baleen_core.errors import LogUnavailable, NotFound
from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store import (
    SqliteDecisionLog,
    SqliteDecisionReader,
    SqliteRevisionStore,
    durable_file,
    upkeep,
)
from baleen_sidecar.settings import Durability
from decision_records import make_record
from store_files import Disk, SizeLimit, TinyDisk, check_integrity, make_database, write_lock

FULL, NORMAL = 2, 1
"""What SQLite calls syncing at each commit, and at each checkpoint."""


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what another thread does, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not (await holds if isinstance(holds := condition(), Awaitable) else holds):  # noqa: ASYNC110, of a thread
            await asyncio.sleep(0.01)


async def is_written(log: SqliteDecisionLog, record: DecisionRecord) -> bool:
    try:
        await log.append(record)
    except LogUnavailable:
        return False
    return True


async def is_refused(log: SqliteDecisionLog, record: DecisionRecord) -> bool:
    return not await is_written(log, record)


@pytest.fixture(params=[TinyDisk, SizeLimit], ids=["full disk", "file size limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("durability", "synchronous"),
    [
        pytest.param(Durability.FSYNC, FULL, id="Fsync waits for the disk at each commit"),
        pytest.param(Durability.INTERVAL, NORMAL, id="Interval does not"),
    ],
)
async def test_durability_is_what_a_commit_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, synchronous: int
) -> None:
    connect, seen = durable_file.connect, []

    def spy(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        seen.extend(connection.execute("PRAGMA synchronous").fetchone())
        seen.extend(connection.execute("PRAGMA journal_mode").fetchone())
        return connection

    monkeypatch.setattr(durable_file, "connect", spy)
    async with SqliteDecisionLog(make_database(tmp_path), durability=durability, checkpoint_seconds=60) as log:
        await log.append(make_record("01-a"))

    assert seen[:2] == [synchronous, "wal"]  # the writer's connection, before that of the checkpoints


async def test_interval_durability_syncs_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fdatasync, synced = os.fdatasync, []

    def spy(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, durability=Durability.INTERVAL, checkpoint_seconds=0.01) as log:
        await log.append(make_record("01-a"))
        synced.clear()
        await until(lambda: "baleen.db-wal" in synced)


async def test_rows_that_wait_together_are_committed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    crossings: list[str] = []
    call_soon_threadsafe = loop.call_soon_threadsafe

    def spy(callback: Callable[..., Any], *arguments: Any, **options: Any) -> asyncio.Handle:
        crossings.append(callback.__name__)
        return call_soon_threadsafe(callback, *arguments, **options)

    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, max_rows=50) as log:
        monkeypatch.setattr(loop, "call_soon_threadsafe", spy)
        with write_lock(path):
            appending = asyncio.gather(*(log.append(make_record(f"{number:03}")) for number in range(200)))
            await asyncio.sleep(0.05)
        await appending

        # One group or two were taken before all rows had been put.
        assert 4 <= crossings.count("_settle") <= 6


async def test_a_lone_row_waits_for_no_other(tmp_path: Path) -> None:
    async with SqliteDecisionLog(make_database(tmp_path), max_wait_seconds=60) as log, asyncio.timeout(5):
        await log.append(make_record("01-a"))


async def test_nothing_is_acknowledged_before_its_commit(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path) as log:
        with write_lock(path):
            appending = asyncio.ensure_future(log.append(make_record("01-a")))
            await asyncio.sleep(0.1)

            assert not appending.done()
            assert await log.get("01-a") is None
        await appending
        assert await log.get("01-a") is not None


async def test_too_many_rows_are_refused_at_once_and_the_others_written(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, max_waiting_rows=3) as log:
        with write_lock(path):
            appending = [asyncio.ensure_future(log.append(make_record(f"{number}"))) for number in range(3)]
            await asyncio.sleep(0.05)
            with pytest.raises(LogUnavailable, match="decision log: 3 rows are waiting, which is the limit"):
                await log.append(make_record("3"))
        await asyncio.gather(*appending)

        await log.append(make_record("3"))
        assert await log.count() == 4


async def test_too_many_bytes_are_refused_at_once(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, max_waiting_bytes=4500) as log:
        with write_lock(path):
            appending = [asyncio.ensure_future(log.append(make_record(f"{number}"))) for number in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(LogUnavailable, match="over the limit of 4,500"):
                await log.append(make_record("2"))
        await asyncio.gather(*appending)

        await log.append(make_record("2"))


async def test_closing_writes_what_waits_and_refuses_what_comes(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    log = SqliteDecisionLog(path)
    await log.open()
    with write_lock(path):
        appending = [asyncio.ensure_future(log.append(make_record(f"{number:03}"))) for number in range(500)]
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(log.close())
        await asyncio.sleep(0.05)
        with pytest.raises(LogUnavailable, match="not open"):
            await log.append(make_record("late"))
    await closing
    await log.close()

    assert not (tmp_path / "baleen.db-wal").exists()
    assert await asyncio.gather(*appending) == [True] * 500
    assert await SqliteDecisionReader(path).count() == 500


async def test_a_log_that_was_not_opened_refuses(tmp_path: Path) -> None:
    log = SqliteDecisionLog(make_database(tmp_path))

    with pytest.raises(LogUnavailable, match="not open"):
        await log.append(make_record())
    with pytest.raises(LogUnavailable, match="not open"):
        await log.get("01-a")


async def test_a_log_without_its_file_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"baleen\.db"):
        await SqliteDecisionLog(tmp_path / "baleen.db").open()


async def test_a_full_disk_refuses_decisions_until_there_is_room(disk: Disk) -> None:
    path = make_database(disk.folder)
    # No checkpoint in between: it would make room in the write-ahead log.
    async with SqliteDecisionLog(path, floor_bytes=0, checkpoint_seconds=60) as log:
        await log.append(make_record("before"))
        disk.fill()
        try:
            lost = [make_record(f"{number}", decision=Verdict.BLOCK) for number in range(50)]
            outcomes = await asyncio.gather(*map(log.append, lost), return_exceptions=True)
        finally:
            disk.free()

        assert {type(outcome) for outcome in outcomes} == {LogUnavailable}
        assert "decision log: it cannot be written: " in str(outcomes[0])
        assert "baleen.db" not in str(outcomes[0])
        assert isinstance(outcomes[0], LogUnavailable)
        assert isinstance(outcomes[0].__cause__, sqlite3.Error)
        await log.append(make_record("after"))
        assert {record.id for record in await log.recent()} == {"before", "after"}
    assert check_integrity(path) == "ok"


@pytest.mark.parametrize(
    ("verdict", "is_written"), [(Verdict.ALLOW, False), (Verdict.REVIEW, True), (Verdict.BLOCK, True)]
)
async def test_the_last_room_is_kept_for_review_and_block(tmp_path: Path, verdict: Verdict, is_written: bool) -> None:
    async with SqliteDecisionLog(make_database(tmp_path), floor_bytes=2**60) as log:
        outcome = (await asyncio.gather(log.append(make_record("a", decision=verdict)), return_exceptions=True))[0]

        assert (outcome is True) is is_written
        assert (await log.get("a") is not None) is is_written
        if not is_written:
            assert "MiB are kept for Review and Block: Allow waits until there is room" in str(outcome)


async def test_allow_is_written_again_once_there_is_room(tmp_path: Path) -> None:
    disk = TinyDisk(tmp_path)
    try:
        path = make_database(tmp_path)
        async with SqliteDecisionLog(path, floor_bytes=4 * 1024 * 1024, checkpoint_seconds=0.01) as log:
            await log.append(make_record("before"))
            (tmp_path / "filler").write_bytes(bytes(5 * 1024 * 1024))
            await until(lambda: is_refused(log, make_record("before")))
            with pytest.raises(LogUnavailable, match=r"the last 4\.0 MiB are kept for Review and Block"):
                await log.append(make_record("allow"))
            await log.append(make_record("block", decision=Verdict.BLOCK))
            disk.free()
            await until(lambda: is_written(log, make_record("allow")))

            assert await log.count() == 3
    finally:
        disk.close()


@pytest.mark.parametrize("after", ["nothing", "another file"])
async def test_a_file_that_is_gone_takes_no_decision_with_it(tmp_path: Path, after: str) -> None:
    path, away = make_database(tmp_path), tmp_path / "away.db"
    async with SqliteDecisionLog(path, checkpoint_seconds=60) as log:
        await log.append(make_record("before"))
        path.rename(away)
        if after == "another file":
            path.write_bytes(b"")
        for number in range(3):
            with pytest.raises(LogUnavailable, match="cannot be written: "):
                await log.append(make_record(f"lost-{number}"))
        away.rename(path)

        await log.append(make_record("after"))
        assert await log.get("before") is not None
        assert await log.get("after") is not None


async def test_a_commit_never_stops_for_a_checkpoint(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    before = path.stat().st_size
    async with SqliteDecisionLog(path, checkpoint_seconds=60) as log:
        for start in range(0, 3000, 100):
            await asyncio.gather(*(log.append(make_record(f"{start + number:04}")) for number in range(100)))

        assert path.stat().st_size == before


async def test_the_write_ahead_log_is_cut_when_it_grows(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    wal = Path(f"{path}-wal")
    limit = 256 * 1024
    async with SqliteDecisionLog(path, checkpoint_seconds=0.01, truncate_bytes=limit) as log:
        for start in range(0, 1000, 100):
            await asyncio.gather(*(log.append(make_record(f"{start + number:04}")) for number in range(100)))
        await until(lambda: wal.stat().st_size <= limit)

        assert path.stat().st_size > 1000 * 1000
        assert await log.count() == 1000


async def test_the_write_ahead_log_is_begun_anew_while_rows_come_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "RESTART_SHARE", 1 / 256)
    path = make_database(tmp_path)
    wal, sizes = Path(f"{path}-wal"), list[int]()
    size_of = os.path.getsize

    async def pour(caller: int) -> None:
        for number in range(150):
            await log.append(make_record(f"{caller}-{number:03}"))
            sizes.append(size_of(wal))

    async with SqliteDecisionLog(path, checkpoint_seconds=0.001) as log:
        await asyncio.gather(*map(pour, range(8)))

    # Each row is in there with the page that it is on, and with those that the indexes have for it.
    assert max(sizes) < path.stat().st_size


async def test_nobody_waits_for_a_cut_that_a_reader_prevents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cuts, rounds = make_database(tmp_path), list[str](), list[None]()
    connect, copy_back = durable_file.connect, upkeep._copy_back

    def spy(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.set_trace_callback(lambda said: cuts.append(said) if "TRUNCATE" in said else None)
        return connection

    def count(connection: sqlite3.Connection) -> Any:
        rounds.append(None)
        return copy_back(connection)

    monkeypatch.setattr(durable_file, "connect", spy)
    monkeypatch.setattr(upkeep, "_copy_back", count)
    async with SqliteDecisionLog(path, checkpoint_seconds=0.001, truncate_bytes=0) as log:
        reader = sqlite3.connect(path, isolation_level=None)
        await log.append(make_record("before"))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM decisions").fetchone()
        await log.append(make_record("after"))
        rounds.clear()
        await until(lambda: len(rounds) > 1)
        cuts.clear()
        await until(lambda: len(rounds) > 9)

        assert not cuts
        reader.close()
        await until(lambda: bool(cuts))


async def test_rows_of_one_kind_are_one_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, seen = durable_file.connect, list[str]()

    def spy(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.set_trace_callback(lambda statement: seen.append(statement.partition(" ")[0]))
        return connection

    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, checkpoint_seconds=60) as log:
        await log.append(make_record("first"))  # which begins the chain
    monkeypatch.setattr(durable_file, "connect", spy)
    async with SqliteDecisionLog(path, checkpoint_seconds=60) as log:
        seen.clear()
        await log.append(make_record("second"))

        assert seen == ["INSERT"]


async def test_a_reader_that_stays_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, checkpoint_seconds=0.01, truncate_bytes=0) as log:
        await log.append(make_record("first"))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM decisions").fetchone()
        for number in range(5):
            async with asyncio.timeout(3):
                await log.append(make_record(f"{number}"))
            await asyncio.sleep(0.03)  # time for a checkpoint to begin, and to find the reader in its way

        assert reader.execute("SELECT count(*) FROM decisions").fetchone() == (1,)
        reader.close()
        assert await log.count() == 6


async def test_revisions_are_kept_while_decisions_pour_in(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    store = SqliteRevisionStore(path)
    async with SqliteDecisionLog(path) as log, asyncio.TaskGroup() as group:
        for number in range(2000):
            group.create_task(log.append(make_record(f"{number:04}")))
        for number in range(20):
            group.create_task(store.put_list(f"sha256:{number:02}", "word\n" * 1000))

    assert await store.get_list("sha256:19") == "word\n" * 1000
    assert await SqliteDecisionReader(path).count() == 2000


async def test_a_row_whose_appender_left_is_written_all_the_same(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path) as log:
        with write_lock(path):
            leaving = asyncio.ensure_future(log.append(make_record("left")))
            staying = asyncio.ensure_future(log.append(make_record("stayed")))
            await asyncio.sleep(0.05)
            leaving.cancel()
        await staying

        assert leaving.cancelled()
        assert {record.id for record in await log.recent()} == {"left", "stayed"}


@pytest.mark.parametrize("max_rows", [0, 4096])
async def test_a_group_has_a_size_that_sqlite_can_take(tmp_path: Path, max_rows: int) -> None:
    with pytest.raises(ValueError, match=f"max_rows is {max_rows}; it must be 1 to 4095"):
        SqliteDecisionLog(tmp_path / "baleen.db", max_rows=max_rows)


async def test_the_largest_group_is_one_that_sqlite_takes(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, max_rows=4095, max_wait_seconds=5) as log:
        with write_lock(path):
            appending = asyncio.gather(*(log.append(make_record(f"{number:04}")) for number in range(5000)))
            await asyncio.sleep(0.2)
        await appending

        assert await log.count() == 5000
