"""The chain of decisions on disk: what is done to the file by hand is named, and what we do to it keeps the chain."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

import baleen_sidecar.adapters.store
from baleen_core.decision_chain import Fault, FaultKind, Head
from baleen_core.errors import IntegrityError, NotFound
from baleen_core.records import decode_record, encode
from baleen_sidecar.adapters.store import (
    SqliteDecisionLog,
    SqliteDecisionReader,
    SqliteSpool,
    erase_subject,
    erasure,
    migrate,
    read_head,
    verify_log,
)
from baleen_sidecar.adapters.store.engine import open_engine
from baleen_sidecar.adapters.store.retention import drop_expired
from decision_records import make_record
from store_files import SizeLimit, check_integrity, make_database, write_lock

MIGRATIONS = Path(baleen_sidecar.adapters.store.__file__).parent / "migrations"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(days: float) -> str:
    """Return a time so many days before NOW, as records have it."""
    return (NOW - timedelta(days=days)).isoformat(timespec="milliseconds")


def execute(path: Path, statement: str, *values: object) -> int:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).rowcount


def scalars(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute(statement)]


@asynccontextmanager
async def opened(path: Path, **more: Any) -> AsyncIterator[SqliteDecisionLog]:
    async with SqliteDecisionLog(path, **{"checkpoint_seconds": 60, **more}) as log:
        yield log


async def write(path: Path, count: int, *, first: int = 1, **more: Any) -> list[Head]:
    """Put decisions called 01, 02, … on record, one after the other, and return the head after each."""
    heads = []
    async with opened(path) as log:
        for number in range(first, first + count):
            await log.append(make_record(f"{number:02}", **more))
            head = log.head()
            assert head is not None
            heads.append(head)
    return heads


def read_both(path: Path) -> list[bytes]:
    """Return what is in the database and in its write-ahead log."""
    return [path.read_bytes(), Path(f"{path}-wal").read_bytes()]


def fault_in(path: Path, *noted: Head) -> Fault:
    found = verify_log(path, noted).fault
    assert found is not None
    return found


async def test_a_log_that_was_written_in_groups_is_whole_and_ends_where_it_says(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with opened(path) as log:
        assert log.head() is None
        await log.append(make_record("0007", score=1))
        with write_lock(path):
            appending = [asyncio.ensure_future(log.append(make_record(f"{number:04}"))) for number in range(300)]
            await asyncio.sleep(0.05)
            for leaving in appending[::50]:
                leaving.cancel()
        outcomes = await asyncio.gather(*appending, return_exceptions=True)
        await log.append(make_record("0008"))
        head, running = log.head(), verify_log(path)
    closed = verify_log(path)

    # The one that another decision's id has is refused, and leaves no gap.
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [IntegrityError]
    assert (running.fault, running.rows, running.head) == (None, 300, head)
    assert closed == running
    assert read_head(path) == head


async def test_the_head_is_told_in_the_log_of_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    told = partial(heads_in, caplog)
    async with opened(make_database(tmp_path), checkpoint_seconds=0.01) as log:
        await asyncio.sleep(0.05)
        assert told() == []
        await log.append(make_record("1"))
        await until(lambda: told() == [str(log.head())])
        await log.append(make_record("2"))
        newest = str(log.head())

    assert told()[1:] == [newest]


def heads_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["head"] for record in caplog.records if record.message == "decision log head"]


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    heads = [*await write(path, 3), *await write(path, 3, first=4)]

    found = verify_log(path, heads)
    assert (found.fault, found.rows, found.head) == (None, 6, heads[-1])


async def test_the_chain_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    disk, path = SizeLimit(tmp_path), make_database(tmp_path)
    try:
        async with opened(path, floor_bytes=0) as log:
            await log.append(make_record("before"))
            disk.fill()
            lost = [log.append(make_record(f"{number}")) for number in range(50)]
            outcomes = await asyncio.gather(*lost, return_exceptions=True)
            disk.free()
            assert None not in outcomes
            await log.append(make_record("after"))
            head = log.head()
    finally:
        disk.close()

    found = verify_log(path)
    assert (found.fault, found.rows, found.head) == (None, 2, head)


ALTERATIONS = [
    pytest.param("time = '2026-03-01T12:00:01.000+00:00'", id="time"),
    pytest.param("content_digest = 'other'", id="content digest"),
    pytest.param("decision = 'Block'", id="decision"),
    pytest.param("author = 'somebody'", id="author"),
    pytest.param("author = NULL", id="no author"),
    pytest.param("surface = NULL", id="surface"),
    pytest.param("origin = 'shop/default/shop-1'", id="origin"),
    pytest.param("keep_days = 1", id="term"),
    pytest.param("record = replace(CAST(record AS TEXT), '730001', '130001')", id="record"),
    pytest.param("record = CAST(record AS TEXT)", id="another type"),
    pytest.param("record = x'ff00'", id="not a record"),
    pytest.param("decision = CAST(x'ff' AS TEXT)", id="not UTF-8"),
    pytest.param("personal = x'7b7d'", id="personal part"),
    pytest.param("personal = NULL", id="no personal part"),
    pytest.param("salt = NULL, personal = NULL", id="no salt"),
    pytest.param("salt = NULL, personal = NULL, personal_digest = zeroblob(32)", id="as if erased"),
    pytest.param("personal_digest = zeroblob(32)", id="as if erased, in part"),
]


@pytest.mark.parametrize("changed", ALTERATIONS)
async def test_an_altered_row_is_named_by_id_and_time(tmp_path: Path, changed: str) -> None:
    path = make_database(tmp_path)
    await write(path, 9)
    assert execute(path, f"UPDATE decisions SET {changed} WHERE id = '04'") == 1
    (time,) = scalars(path, "SELECT time FROM decisions WHERE id = '04'")

    fault = fault_in(path)
    assert (fault.kind, fault.sequence, fault.id, fault.time) == (FaultKind.ALTERED, 4, "04", time)


@pytest.mark.parametrize(
    ("statement", "kind", "named"),
    [
        pytest.param("UPDATE decisions SET id = 'new' WHERE id = '04'", FaultKind.ALTERED, "new", id="another id"),
        pytest.param("UPDATE decisions SET link = NULL WHERE id = '04'", FaultKind.INSERTED, "04", id="no link"),
        pytest.param("UPDATE decisions SET link = zeroblob(32) WHERE id = '04'", FaultKind.ALTERED, "04", id="link"),
        pytest.param("DELETE FROM decisions WHERE id = '04'", FaultKind.MISSING, "05", id="one is missing"),
        pytest.param("DELETE FROM decisions WHERE id < '04'", FaultKind.MISSING, "04", id="the oldest are missing"),
        pytest.param("UPDATE decisions SET sequence = 100 WHERE id = '04'", FaultKind.MISSING, "05", id="moved"),
        pytest.param(
            "INSERT INTO decisions (id, time, content_digest, decision, record) "
            "SELECT 'new', time, '', decision, record FROM decisions WHERE id = '04'",
            FaultKind.INSERTED,
            "new",
            id="one more at the end",
        ),
        pytest.param(
            "INSERT INTO decisions (sequence, id, time, content_digest, decision, record, link) "
            "SELECT -1, 'new', time, '', decision, record, link FROM decisions WHERE id = '04'",
            FaultKind.INSERTED,
            "new",
            id="one more at the beginning",
        ),
        pytest.param("DELETE FROM chain", FaultKind.INSERTED, "01", id="the beginning is missing"),
        pytest.param("UPDATE chain SET link = zeroblob(32)", FaultKind.ALTERED, "01", id="the beginning is another"),
        pytest.param("UPDATE chain SET link = 'x'", FaultKind.ALTERED, "01", id="the beginning is text"),
        pytest.param("UPDATE decisions SET link = 'x' WHERE id = '04'", FaultKind.ALTERED, "04", id="the link is text"),
        pytest.param(
            "UPDATE decisions SET id = x'ff' WHERE id = '04'", FaultKind.ALTERED, "b'\\xff'", id="id of bytes"
        ),
        pytest.param(
            "UPDATE chain SET sequence = 4, link = (SELECT link FROM decisions WHERE id = '04')",
            FaultKind.INSERTED,
            "01",
            id="a beginning behind rows that are there",
        ),
    ],
)
async def test_what_is_done_to_the_file_by_hand_is_named(
    tmp_path: Path, statement: str, kind: FaultKind, named: str
) -> None:
    path = make_database(tmp_path)
    await write(path, 9)
    assert execute(path, statement) > 0

    fault = fault_in(path)
    assert (fault.kind, fault.id) == (kind, named)


async def test_a_log_that_lost_its_newest_rows_is_found_by_a_head_that_was_noted(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    heads = await write(path, 9)
    execute(path, "DELETE FROM decisions WHERE id > '06'")

    assert verify_log(path).fault is None
    fault = fault_in(path, heads[-1])
    assert (fault.kind, fault.sequence, fault.id) == (FaultKind.CUT, 7, "06")
    # More decisions do not hide it.
    await write(path, 9, first=10)
    assert verify_log(path).fault is None
    assert fault_in(path, heads[-1]).kind is FaultKind.REWRITTEN


async def test_the_newest_rows_cannot_be_taken_from_under_a_running_log(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with opened(path) as log:
        for number in range(5):
            await log.append(make_record(f"{number}"))
        execute(path, "DELETE FROM decisions WHERE id > '2'")
        await log.append(make_record("5"))

    fault = fault_in(path)
    assert (fault.kind, fault.sequence, fault.id) == (FaultKind.MISSING, 4, "5")


def make_old_database(folder: Path, *ids: str) -> Path:
    """Make a file as the release before the chain left it, with decisions."""
    path = folder / "baleen.db"
    engine = open_engine(path, mode="rwc")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.commit()
    engine.dispose()
    for name in ids:
        record = make_record(name)
        execute(
            path,
            "INSERT INTO decisions (id, time, content_digest, decision, author, surface, record) "
            "VALUES (?, ?, ?, 'Allow', 'author-17', 'comments', ?)",
            *(name, record.time, record.evidence.content.digest, encode(record)),
        )
    return path


async def test_decisions_from_before_the_chain_are_kept_and_said_to_be_outside(tmp_path: Path) -> None:
    path = make_old_database(tmp_path, "old-1", "old-2")
    migrate(path)
    alone = verify_log(path)
    with_none = read_head(path)
    await write(path, 3)
    found = verify_log(path)

    assert (alone.fault, alone.rows, alone.outside, with_none) == (None, 0, 2, None)
    assert (found.fault, found.rows, found.outside) == (None, 3, 2)
    assert await SqliteDecisionReader(path).get("old-1") == make_record("old-1")


async def test_an_old_decision_that_is_sent_again_is_known(tmp_path: Path) -> None:
    path = make_old_database(tmp_path, "old-1")
    migrate(path)
    async with opened(path) as log:
        await log.append(make_record("old-1"))
        with pytest.raises(IntegrityError):
            await log.append(make_record("old-1", score=1))

        assert await log.count() == 1


async def test_a_subject_is_erased_from_decisions_before_the_chain_too(tmp_path: Path) -> None:
    path = make_old_database(tmp_path, "old-1")
    migrate(path)
    assert erase_subject(path, "author-17") == 1

    record = await SqliteDecisionReader(path).get("old-1")
    assert record is not None
    assert record.erased
    assert b"author-17" not in path.read_bytes()
    assert erase_subject(path, "author-17") == 0


async def test_after_an_erasure_the_chain_is_whole_and_nothing_of_the_subject_is_on_the_disk(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with opened(path) as log:
        for number in range(40):
            await log.append(make_record(f"{number:02}", author="jane" if number % 3 else "john"))
        head = log.head()
        salts = scalars(path, "SELECT salt FROM decisions WHERE author = 'jane'")
        assert await log.erase("jane") == 26
        files = read_both(path)
        await log.append(make_record("40"))
    found = verify_log(path, [head] if head else [])

    assert (found.fault, found.rows, found.erased) == (None, 41, 26)
    assert not any(word in file for file in files for word in (b"jane", *salts))
    assert any(b"john" in file for file in files)
    assert len({*salts}) == 26
    assert check_integrity(path) == "ok"


async def test_an_erasure_does_not_make_an_altered_row_whole(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 5)
    execute(path, "UPDATE decisions SET personal = x'7b7d' WHERE id = '03'")
    execute(path, "UPDATE decisions SET personal = NULL WHERE id = '04'")
    assert erase_subject(path, "author-17") == 5

    assert fault_in(path).id == "03"


async def test_an_erased_row_cannot_be_filled_again(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 5)
    erase_subject(path, "author-17")
    execute(path, "UPDATE decisions SET author = 'somebody' WHERE id = '03'")

    assert fault_in(path).id == "03"


async def test_an_erasure_beside_a_running_log_loses_nothing(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with opened(path) as log:
        await asyncio.gather(*(log.append(make_record(f"a-{number:04}")) for number in range(500)))
        erasing = asyncio.ensure_future(asyncio.to_thread(erase_subject, path, "author-17"))
        for start in range(0, 500, 50):
            await asyncio.gather(*(log.append(make_record(f"b-{start + number:04}")) for number in range(50)))
        assert await erasing >= 500

        assert await log.count() == 1000
    assert verify_log(path).fault is None


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 6), st.sampled_from([None, 1, 7, 30]), st.integers(0, 40)),
            st.tuples(st.just("erase"), st.integers(0, 2)),
            st.tuples(st.just("drop"), st.sampled_from([0, 5, 20]), st.integers(1, 4)),
        ),
        max_size=12,
    )
)
def test_whatever_we_do_to_a_log_it_stays_whole_and_no_head_is_refuted(steps: list[tuple[Any, ...]]) -> None:
    """Each step is a process of its own: it appends in one group, erases an author, or drops what is too old."""
    with TemporaryDirectory() as folder:
        path = make_database(Path(folder))
        heads: list[Head] = []
        for number, (step, *how) in enumerate(steps):
            match step:
                case "append":
                    heads.append(asyncio.run(append_group(path, number, *how)))
                case "erase":
                    erase_subject(path, f"author-{how[0]}")
                case "drop":
                    drop_all(path, days=how[0], limit=how[1])
            found = verify_log(path, heads)

            assert found.fault is None
            assert found.head == (heads[-1] if heads else found.start)
            assert len(found.passed_heads) == sum(head.sequence < found.start.sequence for head in heads)


async def append_group(path: Path, group: int, count: int, keep_days: int | None, age: int) -> Head:
    records = [
        make_record(f"{group}-{number}", author=f"author-{number % 3}", keep_days=keep_days, time=at(age))
        for number in range(count)
    ]
    async with opened(path) as log:
        await asyncio.gather(*map(log.append, records))
        head = log.head()
    assert head is not None
    return head


def drop_all(path: Path, *, days: int = 0, limit: int = 200) -> int:
    """Drop everything whose time is over at NOW."""
    total = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while dropped := drop_expired(connection, now_seconds=NOW.timestamp(), default_days=days, limit=limit):
            total += dropped
    return total


async def test_decisions_are_dropped_when_their_own_time_is_over_or_that_of_the_installation(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    terms = [(None, 31), (None, 29), (7, 8), (7, 6), (90, 91), (90, 89), (None, 30.001), (1, 0.5)]
    async with opened(path) as log:
        for number, (keep_days, age) in enumerate(terms):
            await log.append(make_record(f"{number}", keep_days=keep_days, time=at(age)))
        head = log.head()

    assert drop_all(path, days=30, limit=2) == 4
    assert scalars(path, "SELECT id FROM decisions ORDER BY sequence") == ["1", "3", "5", "7"]
    found = verify_log(path, [head] if head else [])
    assert (found.fault, found.rows, found.dropped) == (None, 4, 3)


async def test_without_a_term_decisions_are_kept_for_ever(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 3, time="1999-01-01T00:00:00.000+00:00")

    assert drop_all(path) == 0
    assert verify_log(path).rows == 3


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_the_chain_is_whole_from_the_oldest_decision_on_that_is_kept(tmp_path: Path, limit: int) -> None:
    path = make_old_database(tmp_path, "old-1")
    migrate(path)
    async with opened(path) as log:
        heads = []
        for number in range(12):
            # The third is kept longer than what comes after it, and the last third is young.
            keep_days = 90 if number == 2 else 7
            await log.append(make_record(f"{number:02}", keep_days=keep_days, time=at(30 if number < 8 else 1)))
            heads.append(log.head())
    noted = [head for head in heads if head]

    assert drop_all(path, days=0, limit=limit) == 7
    found = verify_log(path, noted)
    assert (found.fault, found.rows, found.dropped) == (None, 5, 5)
    assert found.first is not None
    assert found.first.id == "02"
    assert found.passed_heads == (noted[0],)
    # Once its time is over too, nothing is left of any of them.
    execute(path, "UPDATE decisions SET keep_days = 7 WHERE id = '02'")
    assert drop_all(path, days=7, limit=limit) == 1
    found = verify_log(path, noted)
    assert (found.fault, found.rows, found.dropped) == (None, 4, 0)
    assert scalars(path, "SELECT count(*) FROM dropped_decisions") == [0]
    assert found.head == noted[-1]


async def test_a_log_of_which_everything_was_dropped_goes_on_where_it_was(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    heads = await write(path, 5, time=at(30), keep_days=7)
    assert drop_all(path) == 5
    empty = verify_log(path)
    heads += await write(path, 2, first=6)

    assert (empty.fault, empty.rows, empty.head) == (None, 0, heads[4])
    found = verify_log(path, heads)
    assert (found.fault, found.rows, found.head.sequence) == (None, 2, 7)


async def test_a_log_whose_newest_decisions_were_dropped_goes_on_behind_them(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 1, time=at(30))
    heads = await write(path, 3, first=2, time=at(30), keep_days=7)
    assert drop_all(path) == 3
    assert read_head(path) == heads[-1]
    await write(path, 2, first=5)

    found = verify_log(path, heads)
    assert (found.fault, found.rows, found.dropped) == (None, 3, 3)


async def test_what_is_left_of_a_dropped_row_cannot_be_altered_or_taken_away(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 1, time=at(30))
    await write(path, 3, first=2, time=at(30), keep_days=7)
    await write(path, 2, first=5)
    drop_all(path)
    (digest,) = scalars(path, "SELECT digest FROM dropped_decisions WHERE sequence = 3")
    execute(path, "UPDATE dropped_decisions SET digest = zeroblob(32) WHERE sequence = 3")
    altered = fault_in(path)
    execute(path, "UPDATE dropped_decisions SET digest = ? WHERE sequence = 3", digest)
    assert verify_log(path).fault is None
    execute(path, "DELETE FROM dropped_decisions WHERE sequence = 3")
    missing = fault_in(path)

    assert (altered.kind, altered.id) == (FaultKind.ALTERED, "05")
    assert (missing.kind, missing.sequence) == (FaultKind.MISSING, 3)


async def test_a_running_log_drops_what_is_too_old_and_keeps_on_taking(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 50, time=at(31))
    later = NOW.timestamp()
    async with opened(path, checkpoint_seconds=0.01, decisions_days=30, wall_seconds=lambda: later) as log:
        await until(lambda: scalars(path, "SELECT count(*) FROM decisions") == [0])
        await log.append(make_record("new", time=at(0)))
        found = verify_log(path)

        assert (found.fault, found.rows, found.head) == (None, 1, log.head())
    assert check_integrity(path) == "ok"


async def test_what_is_dropped_while_decisions_pour_in_takes_no_other_with_it(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    later = NOW.timestamp()
    async with opened(path, checkpoint_seconds=0.01, wall_seconds=lambda: later) as log:
        for start in range(0, 2000, 100):
            # Every second one is too old as soon as it is there.
            records = [
                make_record(f"{number:04}", keep_days=7, time=at(30 * (number % 2)))
                for number in range(start, start + 100)
            ]
            await asyncio.gather(*map(log.append, records))
        await until(lambda: scalars(path, "SELECT count(*) FROM decisions") == [1000])
        head = log.head()

    assert head is not None
    found = verify_log(path, [head])
    assert (found.fault, found.rows, found.head, found.dropped) == (None, 1000, head, 1000)
    assert {int(each) % 2 for each in scalars(path, "SELECT id FROM decisions")} == {0}


async def test_an_erasure_does_not_wait_for_a_reader_that_stays_and_holds_up_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "CUT_PAUSE_SECONDS", 0.0)
    path = make_database(tmp_path)
    async with opened(path) as log:
        await log.append(make_record("1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM decisions").fetchone()
            assert await log.erase("author-17") == 1
            await log.append(make_record("2"))

            assert reader.execute("SELECT author FROM decisions").fetchall() == [("author-17",)]
    assert verify_log(path).fault is None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, for twenty seconds at most."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110, of a thread
            await asyncio.sleep(0.01)


async def test_a_spool_has_no_chain_and_keeps_what_waits_however_old_it_is(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    record = make_record("1", keep_days=1, time="1999-01-01T00:00:00.000+00:00")
    async with opened(path) as log, SqliteSpool(path, log, limit_bytes=1_000_000) as spool:
        await spool.append(record)
        assert log.head() is None
        assert drop_all(path, days=1) == 0
        (waiting,) = await spool.waiting(limit_rows=10, limit_bytes=1_000_000)

    assert waiting.record == encode(record)
    found = verify_log(path)
    assert (found.fault, found.rows, found.outside) == (None, 0, 1)


async def spool_for_a_while(path: Path, ids: str, *, limit_bytes: int = 1_000_000) -> None:
    """Let a log be a spool that sends these and drops what it has no room for."""
    async with opened(path) as log, SqliteSpool(path, log, limit_bytes=limit_bytes) as spool:
        await spool.mark(await spool.waiting(limit_rows=100, limit_bytes=1_000_000))
        for name in ids:
            await spool.append(make_record(name))
            await spool.mark(await spool.waiting(limit_rows=100, limit_bytes=1_000_000))
        head = log.head()

    assert read_head(path) == head


async def test_a_log_that_was_a_spool_in_between_is_whole(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    heads = await write(path, 3)
    await spool_for_a_while(path, "abc")
    while_a_spool = verify_log(path, heads)
    heads += await write(path, 2, first=4)
    await spool_for_a_while(path, "d")
    heads += await write(path, 1, first=6)
    found = verify_log(path, heads)

    assert while_a_spool.head == heads[2]
    assert (found.fault, found.rows, found.outside, found.head) == (None, 6, 4, heads[-1])
    assert read_head(path) == heads[-1]
    assert [head.sequence for head in heads] == [1, 2, 3, 7, 8, 10]


async def test_a_log_that_as_a_spool_dropped_what_it_had_sent_is_whole_from_the_oldest_that_is_left(
    tmp_path: Path,
) -> None:
    path = make_database(tmp_path)
    heads = await write(path, 4)
    await spool_for_a_while(path, "abcdef", limit_bytes=5000)
    kept = scalars(path, "SELECT id FROM decisions ORDER BY sequence")
    heads += await write(path, 2, first=5)
    found = verify_log(path, heads)

    assert len(kept) < 6
    assert set(kept) <= set("abcdef")
    assert (found.fault, found.rows, found.outside) == (None, 2, len(kept))
    assert found.head == heads[-1]


async def test_retention_moves_the_beginning_of_a_log_over_what_was_a_spool(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 2, time=at(30), keep_days=7)
    await spool_for_a_while(path, "ab")
    heads = await write(path, 1, first=3, time=at(30), keep_days=7)
    heads += await write(path, 1, first=4)
    assert drop_all(path) == 3
    found = verify_log(path, heads)

    assert (found.fault, found.rows, found.dropped, found.head) == (None, 1, 0, heads[-1])
    assert scalars(path, "SELECT count(*) FROM gaps") == [0]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        pytest.param("DELETE FROM gaps", FaultKind.INSERTED, id="is taken away"),
        pytest.param("UPDATE gaps SET last = last - 1", FaultKind.INSERTED, id="ends sooner"),
        pytest.param("UPDATE gaps SET last = last + 1", FaultKind.INSERTED, id="ends later"),
        pytest.param("UPDATE gaps SET sequence = sequence - 1", FaultKind.INSERTED, id="begins sooner"),
        pytest.param("UPDATE gaps SET sequence = sequence + 1", FaultKind.INSERTED, id="begins later"),
        pytest.param("DELETE FROM decisions WHERE id = '03'", FaultKind.MISSING, id="hides no row before it"),
        pytest.param("DELETE FROM decisions WHERE id = '04'", FaultKind.MISSING, id="hides no row after it"),
        pytest.param(
            "INSERT INTO gaps (sequence, last) VALUES (2, 3); UPDATE decisions SET link = NULL WHERE id = '03'",
            FaultKind.ALTERED,
            id="is put over a row",
        ),
        pytest.param("INSERT INTO gaps (sequence, last) VALUES (7, 6)", FaultKind.INSERTED, id="leads back"),
    ],
)
async def test_what_the_chain_passes_over_cannot_be_changed_unseen(
    tmp_path: Path, statement: str, kind: FaultKind
) -> None:
    path = make_database(tmp_path)
    await write(path, 3)
    await spool_for_a_while(path, "ab")
    await write(path, 2, first=4)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)

    assert fault_in(path).kind is kind


async def test_a_spool_sends_whole_what_was_put_on_record_before_it_was_one(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    await write(path, 1)
    async with opened(path) as log, SqliteSpool(path, log, limit_bytes=1_000_000) as spool:
        (waiting,) = await spool.waiting(limit_rows=10, limit_bytes=1_000_000)

    assert decode_record(waiting.record) == make_record("01")


def test_a_log_that_is_not_there_is_not_verified(tmp_path: Path) -> None:
    for ask in (verify_log, read_head, lambda path: erase_subject(path, "jane")):
        with pytest.raises(NotFound, match="no decisions or policies were kept here yet"):
            ask(tmp_path / "baleen.db")
    assert list(tmp_path.iterdir()) == []
