"""Decisions in PostgreSQL: a chain a writer, what is done by hand, and a database that goes and comes back."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

import append_for_ever
from baleen_core.canonical import digest_of
from baleen_core.decision_chain import FaultKind, Head
from baleen_core.errors import IntegrityError, InvalidError, LogUnavailable, StateError
from baleen_core.policy.schema import Revision
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.store import (
    Database,
    PostgresDecisionLog,
    PostgresDecisionReader,
    PostgresRevisionStore,
    SharedRevisionStore,
    SqliteRevisionStore,
    StateFolder,
    VerifiedChain,
    erase_subject_of,
    read_heads,
    verify_database,
)
from baleen_sidecar.adapters.store import postgres as module
from baleen_sidecar.adapters.store import postgres_log as log_module
from baleen_sidecar.adapters.store.erasure import BATCH_ROWS, find_rows
from baleen_sidecar.adapters.store.postgres import RETENTION_LOCK, TRY_LOCK, PostgresConnection, Target
from baleen_sidecar.adapters.store.postgres_log import drop_expired_of_all
from baleen_sidecar.adapters.store.schema import SCHEMA_VERSION, metadata
from baleen_sidecar.ports import Activation
from baleen_sidecar.settings import ClusterSettings, Durability
from commands import baleen
from decision_records import make_record
from postgres_server import (
    PASSWORD,
    PATIENCE_SECONDS,
    PostgresServer,
    execute,
    make_database,
    running_server,
    scalars,
    write_url,
)
from store_files import make_database as make_file

pytestmark = pytest.mark.xdist_group("postgres")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UPKEEP_SECONDS = 60.0


def opened(database: Database, writer: str = "gateway-1", **more: Any) -> PostgresDecisionLog:
    return PostgresDecisionLog(database, writer=writer, **{"upkeep_seconds": UPKEEP_SECONDS, **more})


def at(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat(timespec="milliseconds")


async def write(
    database: Database, count: int, *, writer: str = "gateway-1", first: int = 1, **more: Any
) -> list[Head]:
    """Put decisions called WRITER-01, 02, … on record, and return the head after each."""
    heads = []
    async with opened(database, writer) as log:
        for number in range(first, first + count):
            await log.append(make_record(f"{writer}-{number:02}", **more))
            head = log.head()
            assert head is not None
            heads.append(head)
    return heads


def chain_of(database: Database, writer: str, *noted: Head) -> VerifiedChain:
    (found,) = (each for each in verify_database(database, noted) if each.writer == writer)
    return found


async def test_each_writer_has_a_chain_of_its_own_and_every_reader_sees_all_decisions(database: Database) -> None:
    async with opened(database, "gateway-1") as one, opened(database, "gateway-2") as two:
        for number in range(5):
            await asyncio.gather(one.append(make_record(f"a-{number}")), two.append(make_record(f"b-{number}")))
        heads = [log.head() for log in (one, two)]
        newest = [row.id for row in await one.newest(limit=4)]
        seen = await one.get("b-3")
    reader = PostgresDecisionReader(database)
    count = await reader.count()
    reader.close()

    assert seen == make_record("b-3")
    assert set(newest) == {"a-3", "a-4", "b-3", "b-4"}
    assert count == 10
    assert [head and (head.writer, head.sequence) for head in heads] == [("gateway-1", 5), ("gateway-2", 5)]
    assert read_heads(database) == heads
    found = verify_database(database, [head for head in heads if head])
    assert [(each.writer, each.found.rows, each.found.fault) for each in found] == [
        ("gateway-1", 5, None),
        ("gateway-2", 5, None),
    ]


async def test_all_readers_of_a_database_say_alike_which_log_it_is_whoever_writes_now(database: Database) -> None:
    reader = PostgresDecisionReader(database)
    said = [await reader.log_id()]
    async with opened(database, "gateway-2") as two, opened(database, "gateway-1") as one:
        said += [await each.log_id() for each in (reader, one, two)]
    async with opened(database, "gateway-1") as one:
        said.append(await one.log_id())
    reader.close()

    assert said == ["", *["gateway-2"] * 4]


async def test_a_chain_goes_on_after_a_restart(database: Database) -> None:
    heads = await write(database, 3)
    heads += await write(database, 3, first=4)
    found = chain_of(database, "gateway-1", *heads).found

    assert (found.fault, found.rows, found.head) == (None, 6, heads[-1])


async def test_the_same_decisions_sent_to_two_writers_at_once_are_on_record_once(database: Database) -> None:
    records = [make_record(f"{number:03}") for number in range(100)]
    async with opened(database, "gateway-1", max_rows=7) as one, opened(database, "gateway-2", max_rows=9) as two:
        taken = await asyncio.gather(
            *(log.take(record, origin="shop/default/shop-1") for record in records for log in (one, two)),
            # In the other order, so that each waits for what the other one is about to commit.
            *(two.take(record, origin="shop/default/shop-1") for record in reversed(records)),
        )
    found = verify_database(database)

    assert sum(taken) == 100
    assert [each.found.fault for each in found] == [None, None]
    assert sum(each.found.rows for each in found) == 100


async def test_another_record_under_an_id_of_another_writer_is_refused(database: Database) -> None:
    async with opened(database, "gateway-1") as one, opened(database, "gateway-2") as two:
        await one.append(make_record("1", score=1))
        with pytest.raises(IntegrityError, match="decision 1 is on record already"):
            await two.append(make_record("1", score=2))
        await two.append(make_record("2"))

    assert [each.found.fault for each in verify_database(database)] == [None, None]


async def test_two_processes_never_write_one_chain(url_file: Path, database: Database) -> None:
    async with opened(database) as log:
        with pytest.raises(StateError, match="another process writes as gateway-1: stop it, or give this one a state"):
            await opened(Database(url_file, timeout_seconds=1.0)).open()
        await log.append(make_record("1"))
    async with opened(database) as log:
        await log.append(make_record("2"))

    assert chain_of(database, "gateway-1").found.rows == 2


ALTERATIONS = [
    pytest.param("UPDATE decisions SET decision = 'Block' WHERE id = '{2}'", FaultKind.ALTERED, 2, id="a column"),
    pytest.param("UPDATE decisions SET author = 'somebody' WHERE id = '{2}'", FaultKind.ALTERED, 2, id="the author"),
    pytest.param("UPDATE decisions SET link = NULL WHERE id = '{2}'", FaultKind.INSERTED, 2, id="no link"),
    pytest.param("DELETE FROM decisions WHERE id = '{2}'", FaultKind.MISSING, 3, id="a row is gone"),
    pytest.param("UPDATE chain SET link = '' WHERE writer = 'gateway-2'", FaultKind.ALTERED, 1, id="the beginning"),
    pytest.param(
        "UPDATE decisions SET number = number + 100 WHERE id = '{2}'", FaultKind.MISSING, 3, id="another place"
    ),
]


@pytest.mark.parametrize(("statement", "kind", "named"), ALTERATIONS)
async def test_what_is_done_by_hand_is_named_with_whose_chain_it_is(
    database: Database, statement: str, kind: FaultKind, named: int
) -> None:
    ids = {number: f"gateway-2-{number:02}" for number in range(5)}
    await write(database, 4, writer="gateway-1")
    await write(database, 4, writer="gateway-2")
    assert execute(database, statement.format(*ids.values())) == 1
    found = {each.writer: each.found.fault for each in verify_database(database)}

    assert found["gateway-1"] is None
    fault = found["gateway-2"]
    assert fault is not None
    assert (fault.kind, fault.id) == (kind, ids[named])


@pytest.mark.parametrize("changed", ["writer = NULL", "number = NULL", "writer = 77", "number = 0", "number = -5"])
async def test_a_row_that_is_in_nobodys_chain_is_named(database: Database, changed: str) -> None:
    await write(database, 1)
    statement = (
        "INSERT INTO decisions (id, time, content_digest, decision, record, writer, number) "
        "SELECT 'forged', time, '', decision, record, writer, 2 FROM decisions"
    )
    execute(database, statement)
    execute(database, f"UPDATE decisions SET {changed} WHERE id = 'forged'")
    fault = chain_of(database, "").found.fault

    assert fault is not None
    assert (fault.kind, fault.id) == (FaultKind.INSERTED, "forged")


async def test_a_chain_that_is_gone_or_lost_its_end_is_found_by_a_head_that_was_noted(database: Database) -> None:
    heads = await write(database, 3)
    execute(database, "DELETE FROM decisions WHERE number = 3")
    cut = chain_of(database, "gateway-1", heads[-1]).found.fault
    assert chain_of(database, "gateway-1").found.fault is None
    execute(database, "DELETE FROM decisions")
    execute(database, "DELETE FROM chain")
    gone = chain_of(database, "gateway-1", heads[-1]).found.fault

    assert verify_database(database) == []
    assert cut is not None
    assert gone is not None
    assert (cut.kind, gone.kind) == (FaultKind.CUT, FaultKind.CUT)


async def test_a_head_that_names_no_writer_is_refused(database: Database) -> None:
    (head,) = await write(database, 1)

    with pytest.raises(InvalidError, match="names no writer; a database has one chain a writer"):
        verify_database(database, [replace(head, writer="")])


async def test_a_person_is_erased_from_all_chains_and_they_hold(database: Database) -> None:
    noted = await write(database, 3, writer="gateway-1", author="jane")
    noted += await write(database, 2, writer="gateway-2", author="jane\0\\")
    noted += await write(database, 2, writer="gateway-2", first=3, author="jane")

    assert erase_subject_of(database, "jane") == 5
    assert erase_subject_of(database, "jane") == 0
    assert [each.found.erased for each in verify_database(database, noted)] == [3, 2]
    assert [each.found.fault for each in verify_database(database, noted)] == [None, None]
    assert scalars(database, "SELECT author FROM decisions WHERE author IS NOT NULL") == ["jane\0\\"] * 2


async def write_at_once(database: Database, count: int, *, author: str) -> Head:
    async with opened(database) as log:
        await asyncio.gather(*(log.append(make_record(f"d-{n:04}", author=author)) for n in range(count)))
        head = log.head()
    assert head is not None
    return head


async def test_many_decisions_are_erased_by_few_statements(database: Database, monkeypatch) -> None:
    noted = await write_at_once(database, 2 * BATCH_ROWS + 50, author="jane")
    statements: list[str] = []
    execute_escaped = PostgresConnection.execute_escaped

    def noting(connection: PostgresConnection, sql: str, parameters: Any, /) -> Any:
        statements.append(sql)
        return execute_escaped(connection, sql, parameters)

    monkeypatch.setattr(PostgresConnection, "execute_escaped", noting)

    assert erase_subject_of(database, "jane") == 2 * BATCH_ROWS + 50
    assert sum(each.startswith("UPDATE") for each in statements) == 3
    assert len(statements) < 20
    assert (chain_of(database, "gateway-1", noted).found.erased, chain_of(database, "gateway-1").found.fault) == (
        2 * BATCH_ROWS + 50,
        None,
    )


async def test_of_those_who_erase_the_same_decisions_at_once_each_counts_its_own(database: Database) -> None:
    noted = await write_at_once(database, 2 * BATCH_ROWS, author="jane")
    erased = await asyncio.gather(*(asyncio.to_thread(erase_subject_of, database, "jane") for _ in range(4)))

    assert sum(erased) == 2 * BATCH_ROWS
    assert (chain_of(database, "gateway-1", noted).found.erased, chain_of(database, "gateway-1").found.fault) == (
        2 * BATCH_ROWS,
        None,
    )


@contextmanager
def locking_the_first(database: Database) -> Iterator[None]:
    """Keep a lock of the row with the lowest place."""
    with database.connected() as connection, connection.transaction():
        connection.execute("SELECT sequence FROM decisions ORDER BY sequence LIMIT 1 FOR UPDATE")
        yield


_WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND query NOT LIKE '%advisory%'"
)


def wait_for_a_lock(database: Database) -> None:
    """Return once somebody waits for a row that is locked."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    with database.connected() as connection:
        while not connection.execute(_WAITING).fetchone():
            assert time.monotonic() < give_up, "nobody waits for a lock"
            time.sleep(0.005)


async def test_whoever_erases_takes_the_rows_by_their_places(database: Database) -> None:
    await write(database, 2, author="jane")
    # Neither where they lie nor how they are named gives that order.
    execute(database, "UPDATE decisions SET author = author WHERE number = 1")
    with database.connected(PATIENCE_SECONDS) as connection:
        (rows,) = find_rows(connection, "jane", None)
    with database.connected(PATIENCE_SECONDS) as connection:
        async with asyncio.TaskGroup() as group:
            with locking_the_first(database):
                erasing = group.create_task(asyncio.to_thread(log_module._erase, connection, rows[::-1]))
                await asyncio.to_thread(wait_for_a_lock, database)
                is_free = scalars(database, "SELECT sequence FROM decisions WHERE number = 2 FOR UPDATE SKIP LOCKED")

    assert len(is_free) == 1
    assert erasing.result() == 2


async def test_whoever_erases_what_is_dropped_just_then_waits_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The writer whose rows are dropped last has the first place.
    async with opened(database, writer="gateway-1") as one, opened(database, writer="gateway-2") as two:
        for number, log in enumerate((two, one, two, one)):
            await log.append(make_record(str(number), author="jane", time=at(30)))
    drop, is_dropping = log_module.drop_rows, threading.Event()

    def drop_slowly(*args: Any) -> None:
        drop(*args)
        if not is_dropping.is_set():
            is_dropping.set()
            wait_for_a_lock(database)

    def erase() -> int:
        assert is_dropping.wait(PATIENCE_SECONDS)
        return erase_subject_of(database, "jane")

    monkeypatch.setattr(log_module, "drop_rows", drop_slowly)
    dropped, erased = await asyncio.gather(asyncio.to_thread(drop_all, database, days=7), asyncio.to_thread(erase))

    assert (dropped, erased) == (4, 0)
    assert [(each.found.fault, each.found.rows) for each in verify_database(database)] == [(None, 0), (None, 0)]


def drop_all(database: Database, *, days: int = 0) -> int:
    with database.connected() as connection:
        return drop_expired_of_all(connection, now_seconds=NOW.timestamp(), default_days=days)


async def test_what_is_too_old_is_dropped_of_every_writer_also_of_those_that_are_gone(database: Database) -> None:
    noted = await write(database, 3, writer="gone", time=at(30), keep_days=7)
    noted += await write(database, 1, writer="gateway-1", time=at(30))
    noted += await write(database, 2, writer="gateway-1", first=2, time=at(30), keep_days=7)
    noted += await write(database, 1, writer="gateway-1", first=4, time=at(1))

    assert drop_all(database) == 5
    found = {each.writer: each.found for each in verify_database(database, noted)}
    assert [(each.fault, each.rows, each.dropped) for each in found.values()] == [(None, 0, 0), (None, 2, 2)]
    # The newest of a chain may be gone; it goes on behind it.
    noted += await write(database, 1, writer="gone", first=4)
    assert drop_all(database, days=20) == 1
    found = {each.writer: each.found for each in verify_database(database, noted)}
    assert [(each.fault, each.rows, each.dropped) for each in found.values()] == [(None, 1, 0), (None, 1, 0)]
    assert scalars(database, "SELECT count(*) FROM dropped_decisions") == [0]


async def test_a_row_without_a_place_keeps_no_other_from_being_dropped(database: Database) -> None:
    await write(database, 4, time=at(30), keep_days=7)
    execute(database, "UPDATE decisions SET number = NULL WHERE number > 2")

    assert drop_all(database) == 2
    assert scalars(database, "SELECT id FROM decisions ORDER BY id") == ["gateway-1-03", "gateway-1-04"]


async def test_what_is_dropped_takes_no_statement_a_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    async with opened(database) as log:
        for number in range(60):
            # The first ten, and then every second one.
            keep_days = 7 if number < 10 or number % 2 else 90
            await log.append(make_record(f"{number:02}", time=at(30), keep_days=keep_days))
            noted += [head] if (head := log.head()) else []
    asked: list[str] = []
    ask = module.PostgresConnection.execute_escaped

    def listen(self: module.PostgresConnection, sql: str, values: Any) -> Any:
        asked.append(sql)
        return ask(self, sql, values)

    with monkeypatch.context() as patched:
        patched.setattr(module.PostgresConnection, "execute_escaped", listen)
        assert drop_all(database) == 35
    found = chain_of(database, "gateway-1", *noted).found

    assert len(asked) < 20, asked
    assert (found.fault, found.rows, found.dropped) == (None, 25, 25)
    assert found.passed_heads == tuple(noted[:9])
    # Once what kept the beginning where it is goes too, nothing stays.
    execute(database, "UPDATE decisions SET keep_days = 1")
    assert drop_all(database) == 25
    assert scalars(database, "SELECT count(*) FROM dropped_decisions") == [0]
    assert chain_of(database, "gateway-1", noted[-1]).found.fault is None


async def test_a_running_log_drops_what_is_too_old_unless_another_one_does(database: Database) -> None:
    await write(database, 5, time=at(31))
    with database.connected() as connection, connection.transaction():
        connection.execute(TRY_LOCK, (RETENTION_LOCK,))
        assert drop_all(database, days=30) == 0
    async with opened(database, upkeep_seconds=0.02, decisions_days=30, wall_seconds=NOW.timestamp) as log:
        async with asyncio.timeout(20):
            while await log.count():  # noqa: ASYNC110, of a thread
                await asyncio.sleep(0.01)
        await log.append(make_record("new", time=at(0)))

    assert chain_of(database, "gateway-1").found.rows == 1


@pytest.mark.parametrize(
    ("durability", "setting"), [(Durability.FSYNC, "on"), (Durability.INTERVAL, "off")], ids=["Fsync", "Interval"]
)
async def test_a_commit_waits_for_the_disk_as_the_durability_says(
    database: Database, durability: Durability, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database, "ALTER ROLE baleen SET synchronous_commit = local")
    try:
        said: list[object] = []
        ask = module.PostgresConnection.execute_escaped

        def listen(self: module.PostgresConnection, sql: str, values: Any) -> Any:
            if sql.startswith("INSERT INTO decisions"):
                said.append(ask(self, "SHOW synchronous_commit", ()).fetchone())
            return ask(self, sql, values)

        monkeypatch.setattr(module.PostgresConnection, "execute_escaped", listen)
        async with opened(database, durability=durability) as log:
            await log.append(make_record("1"))
            await log.sync()
    finally:
        execute(database, "ALTER ROLE baleen RESET synchronous_commit")

    assert said == [(setting,)]


async def test_a_database_that_syncs_nothing_is_named(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(database):
        pass

    assert "the database syncs nothing (fsync = off)" in caplog.messages


# The database goes away


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed, and that keeps what it promises."""
    with running_server(fsync="on") as server:
        make_database(server, "baleen")
        Database(write_url(server.folder / "url", server.url("baleen"))).migrate()
        yield server


@pytest.fixture
def own_database(own_server: PostgresServer) -> Database:
    database = Database(own_server.folder / "url", timeout_seconds=PATIENCE_SECONDS)
    execute(database, f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
    return database


async def test_without_the_database_decisions_are_refused_by_name_and_with_it_they_go_on(
    own_server: PostgresServer, own_database: Database
) -> None:
    async with opened(own_database) as log:
        await log.append(make_record("before"))
        noted = log.head()
        await asyncio.to_thread(own_server.stop)
        try:
            with pytest.raises(LogUnavailable, match="it cannot be written: the database") as refused:
                await log.append(make_record("lost"))
            assert own_server.folder.name not in str(refused.value), "callers are not told where it is"
            assert log.problem
            assert log.head() is None
            with pytest.raises(StateError):
                await log.get("before")
        finally:
            own_server.start()
            await asyncio.to_thread(own_server.wait_until_ready)
        await log.append(make_record("after"))
        assert log.problem == ""
        assert await log.get("before") == make_record("before")
    found = chain_of(own_database, "gateway-1", *[noted] if noted else []).found

    assert (found.fault, found.rows) == (None, 2)


async def test_a_gateway_has_ten_connections_at_most(database: Database) -> None:
    own = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'baleen' AND pid <> pg_backend_pid()"
    store = PostgresRevisionStore(database)
    found: list[object] = []
    async with opened(database, durability=Durability.INTERVAL) as log:
        await log.append(make_record("1"))
        for _ in range(3):
            reading = [log.get("1") for _ in range(30)] + [store.get_list("sha256:aa") for _ in range(30)]
            changing = [log.sync() for _ in range(10)] + [log.erase("nobody") for _ in range(10)]
            *_, (seen,) = await asyncio.gather(*reading, *changing, asyncio.to_thread(scalars, database, own))
            found.append(seen)
    store.close()

    assert all(isinstance(seen, int) and 2 <= seen <= 10 for seen in found), found


async def test_a_connection_that_was_cut_while_nobody_used_it_costs_no_decision(own_database: Database) -> None:
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'baleen'"
    async with opened(own_database, upkeep_seconds=0.05, durability=Durability.INTERVAL) as log:
        await log.sync()
        for number in range(3):
            assert execute(own_database, f"SELECT pg_terminate_backend(pid, 5000) {others}") >= 1
            await log.append(make_record(f"{number}"))
            await log.sync()
        assert await log.get("2") == make_record("2")
        head = log.head()

    found = chain_of(own_database, "gateway-1", *[head] if head else []).found
    assert (found.fault, found.rows) == (None, 3)


async def test_no_acknowledged_decision_is_missing_after_the_server_was_killed_amid_writes(
    own_server: PostgresServer, own_database: Database
) -> None:
    acknowledged: list[DecisionRecord] = []
    refused = 0
    is_over = asyncio.Event()

    async def append(log: PostgresDecisionLog, prefix: str) -> None:
        nonlocal refused
        for number in count():
            record = make_record(f"{prefix}-{number:03}")
            try:
                await log.append(record)
            except LogUnavailable:
                refused += 1
                await asyncio.sleep(0.02)
            else:
                acknowledged.append(record)
                if is_over.is_set():
                    return

    async def kill() -> None:
        for goal in (40, 120):
            while len(acknowledged) < goal:  # noqa: ASYNC110, of other tasks
                await asyncio.sleep(0.005)
            await asyncio.to_thread(own_server.stop, signal.SIGKILL)
            own_server.start()
            await asyncio.to_thread(own_server.wait_until_ready)
        is_over.set()

    async with opened(own_database, "gateway-1") as one, opened(own_database, "gateway-2") as two:
        appending = (append(log, f"{name}-{task}") for name, log in (("a", one), ("b", two)) for task in range(4))
        await asyncio.gather(kill(), *appending)
        heads = [head for log in (one, two) if (head := log.head())]
    kept = set(scalars(own_database, "SELECT id FROM decisions"))

    assert refused
    assert {record.id for record in acknowledged} <= kept
    assert [each.found.fault for each in verify_database(own_database, heads)] == [None, None]


def test_no_acknowledged_decision_is_missing_after_writers_were_killed(database: Database, url_file: Path) -> None:
    acknowledged: list[str] = []
    heads: list[Head] = []
    for number in range(3):
        writers = [
            append_for_ever.Appender("--database", url_file, f"gateway-{each}", f"{each}-{number}") for each in (1, 2)
        ]
        for writer in writers:
            acknowledged += append_for_ever.acknowledged_until_killed(writer, 30)
        found = verify_database(database, heads)

        assert [each.found.fault for each in found] == [None, None]
        heads += [each.found.head for each in found]
        assert set(acknowledged) <= set(scalars(database, "SELECT id FROM decisions"))
    assert len(acknowledged) >= 3 * 2 * 30


async def test_a_server_that_does_not_answer_is_waited_for_so_long_and_no_longer(
    own_server: PostgresServer, own_database: Database
) -> None:
    patient = Database(own_server.folder / "url", timeout_seconds=1.0)
    async with opened(patient) as log:
        await log.append(make_record("1"))
        with own_database.connected() as connection, connection.transaction():
            connection.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(LogUnavailable, match=r"another process has the lock|the database took too long"):
                await log.append(make_record("2"))
        await log.append(make_record("2"))

    assert chain_of(own_database, "gateway-1").found.rows == 2


async def test_what_waits_is_bounded_while_the_database_does_not_answer(
    own_server: PostgresServer, own_database: Database
) -> None:
    async with opened(own_database, max_waiting_rows=3, max_rows=1) as log:
        with own_database.connected() as connection, connection.transaction():
            connection.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.ensure_future(log.append(make_record(f"{number}"))) for number in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(LogUnavailable, match="3 rows are waiting, which is the limit"):
                await log.append(make_record("one too many"))
        await asyncio.gather(*waiting)

        assert await log.count() == 3


# Whom the URL names


def test_who_has_the_right_password_and_whose_server_proves_itself_is_let_in(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    open_door = Database(write_url(tmp_path / "right", postgres.tcp_url("baleen", options="?sslmode=disable")))
    wrong = postgres.tcp_url("baleen", password="wrong-secret", options="?sslmode=disable")
    closed = Database(write_url(tmp_path / "wrong", wrong))
    encrypted = Database(write_url(tmp_path / "tls", postgres.tcp_url("baleen")))

    assert scalars(open_door, "SELECT 1") == [1]
    with pytest.raises(StateError, match="password authentication failed") as refused:
        scalars(closed, "SELECT 1")
    # Without a word of TLS in the URL nothing goes over the network that is not encrypted.
    with pytest.raises(StateError, match="Server refuses SSL"):
        scalars(encrypted, "SELECT 1")
    assert "secret" not in str(refused.value)
    assert "wrong-secret" not in closed.name
    assert str(postgres.port) in closed.name


def test_a_password_can_be_changed_while_it_runs(postgres: PostgresServer, tmp_path: Path) -> None:
    path = write_url(tmp_path / "url", postgres.tcp_url("baleen", password="old", options="?sslmode=disable"))
    database = Database(path)
    with pytest.raises(StateError):
        scalars(database, "SELECT 1")
    write_url(path, postgres.tcp_url("baleen", options="?sslmode=disable"))

    assert scalars(database, "SELECT 1") == [1]


def cut(database: Database) -> None:
    """End every other connection to the database."""
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'baleen'"
    execute(database, f"SELECT pg_terminate_backend(pid, 5000) {others}")


async def test_a_file_that_is_wrong_while_it_runs_is_no_fault_of_who_asks_and_all_goes_on_once_it_is_right(
    postgres: PostgresServer, database: Database, tmp_path: Path
) -> None:
    path = write_url(tmp_path / "mine", postgres.url("baleen"))
    mine = Database(path, timeout_seconds=PATIENCE_SECONDS)
    store = PostgresRevisionStore(mine)
    async with opened(mine, durability=Durability.INTERVAL) as log:
        write_url(path, "mysql://u:sesame@h/d")
        cut(database)
        with pytest.raises(StateError, match=r"mine: begins with mysql://; it must be postgresql://"):
            await store.get_revision("sha256:aa")
        with pytest.raises(StateError, match=r"mine: begins with mysql://"):
            await log.get("1")
        for asked in (log.append(make_record("1")), log.sync()):
            with pytest.raises(LogUnavailable, match="it cannot be written: the database cannot be asked"):
                await asked
        assert "it must be postgresql://" in log.problem
        write_url(path, postgres.url("baleen"))
        await log.append(make_record("1"))
        await log.sync()
        assert await log.get("1") == make_record("1")
        assert await store.get_revision("sha256:aa") is None
        assert log.problem == ""
    store.close()


@pytest.mark.parametrize(
    ("user", "said"),
    [
        pytest.param("baleen", "the database asks for a password, and its URL has none", id="no password"),
        # Which no preparation of a password for SCRAM lets through.
        pytest.param("baleen:sesame%07", "control characters forbidden", id="a password that cannot be one"),
    ],
)
async def test_what_the_driver_stumbles_over_is_a_database_that_does_not_answer(
    postgres: PostgresServer, database: Database, tmp_path: Path, user: str, said: str
) -> None:
    path = write_url(tmp_path / "mine", postgres.url("baleen"))
    mine = Database(path, timeout_seconds=PATIENCE_SECONDS)
    wrong = f"postgresql://{user}@127.0.0.1:{postgres.port}/baleen?sslmode=disable"
    async with opened(mine, upkeep_seconds=0.01) as log:
        write_url(path, wrong)
        cut(database)
        with pytest.raises(StateError, match=said) as unread:
            await log.get("1")
        with pytest.raises(LogUnavailable, match="it cannot be written: the database does not answer"):
            await log.append(make_record("1"))
        assert said in log.problem
        with pytest.raises(StateError, match=said):
            mine.migrate()
        write_url(path, postgres.url("baleen"))
        await log.append(make_record("1"))
        async with asyncio.timeout(20):
            while log.problem:  # noqa: ASYNC110, of a thread
                await asyncio.sleep(0.005)

    assert "sesame" not in str(unread.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        pytest.param("", "is no URL such as postgresql://", id="nothing"),
        pytest.param("sesame", "is no URL such as postgresql://", id="no URL"),
        pytest.param("postgresql://u:sesame@h:port/d", "is no URL such as postgresql://", id="a port of letters"),
        pytest.param("mysql://u:sesame@h/d", "begins with mysql://; it must be postgresql://", id="another database"),
        pytest.param("postgresql://u:sesame@h", "names no database", id="no database"),
        pytest.param("postgresql://h/d", "names no user", id="no user"),
        pytest.param("postgresql://u:sesame@h/d?sslmode=prefer", "has the sslmode 'prefer'", id="a weak mode"),
        pytest.param("postgresql://u:sesame@h/d?options=-c", "has the option 'options'", id="an unknown option"),
        pytest.param("postgresql://u:sesame@h/d?host=other", "that is no folder", id="a second host"),
        pytest.param("postgresql://u:open@sesame@h/d", "has an @ in its host or behind it", id="an @ in a password"),
        pytest.param("postgresql://u:open@sesame", "names no database", id="an @ for the rest"),
        pytest.param("postgresql://u:open@a/sesame@h/d", "it is written %40", id="an @ and a slash"),
        pytest.param("postgresql://u:open@a/b?sesame=c@h/d", "it is written %40", id="an @ and a question mark"),
        pytest.param("postgresql://u:open@a/b?sslmode=sesame@h/d", "it is written %40", id="an @ and an option"),
        pytest.param("postgresql://u:sesame@h/" + "d" * 5000, "over the limit of 4,096 bytes", id="too long"),
    ],
)
def test_what_is_no_url_is_refused_without_a_word_of_its_password(tmp_path: Path, url: str, problem: str) -> None:
    with pytest.raises(InvalidError, match=problem) as refused:
        Database(write_url(tmp_path / "url", url))
    assert "sesame" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"URL cannot be read from .*absent: No such file or directory"):
        Database(tmp_path / "absent")


def test_tls_is_verified_unless_the_url_says_otherwise() -> None:
    modes = ("", "?sslmode=verify-ca", "?sslmode=require", "?sslmode=disable")
    contexts = [Target.parse(f"postgresql://u@h/d{mode}", "url").tls() for mode in modes]

    assert contexts[3] is False
    checked = [(context.check_hostname, context.verify_mode.name) for context in contexts if context is not False]
    assert checked == [(True, "CERT_REQUIRED"), (False, "CERT_REQUIRED"), (False, "CERT_NONE")]


def test_a_sidecar_that_follows_keeps_no_decisions_in_a_database() -> None:
    env = {"BALEEN_GATEWAY_URL": "http://gateway:8081", "BALEEN_DATABASE_URL_FILE": "/secret/url"}

    with pytest.raises(InvalidError, match="BALEEN_DATABASE_URL_FILE: a sidecar that follows a gateway sends its"):
        ClusterSettings.from_env(env)


# The schema


def test_the_migrations_lead_to_the_schema_of_the_code_and_several_may_run_them_at_once(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    for name in ("migrated", "made"):
        make_database(postgres, name)
    migrated, made = (Database(write_url(tmp_path / name, postgres.url(name))) for name in ("migrated", "made"))
    commands = [sys.executable, "-c", MIGRATE, str(tmp_path / "migrated")]
    processes = [subprocess.Popen(commands) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    engine = made.open_engine()
    metadata.create_all(engine)
    engine.dispose()

    assert describe(migrated) == describe(made)
    assert scalars(migrated, "SELECT version_num FROM alembic_version") == [SCHEMA_VERSION]


MIGRATE = """
import sys
from pathlib import Path
from baleen_sidecar.adapters.store import Database
Database(Path(sys.argv[1])).migrate()
"""


def describe(database: Database) -> dict[str, object]:
    """Say what tables, indexes and triggers there are, apart from Alembic's."""
    engine = database.open_engine()
    found = inspect(engine)
    described: dict[str, object] = {
        name: (
            [(column["name"], repr(column["type"]), column["nullable"]) for column in found.get_columns(name)],
            sorted(map(repr, found.get_indexes(name))),
            sorted(found.get_pk_constraint(name)["constrained_columns"]),
        )
        for name in found.get_table_names()
        if name != "alembic_version"
    }
    engine.dispose()
    described["triggers"] = sorted(
        map(str, scalars(database, "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"))
    )
    return described


def test_a_database_of_a_newer_version_or_of_none_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    make_database(postgres, "newer")
    newer = Database(write_url(tmp_path / "url", postgres.url("newer")))
    with pytest.raises(StateError, match="start a gateway once, it brings the database up to date"):
        PostgresDecisionReader(newer)
    newer.migrate()
    execute(newer, "UPDATE alembic_version SET version_num = '0099'")

    for opening in (Database.migrate, PostgresDecisionReader, PostgresRevisionStore):
        with pytest.raises(StateError, match=r"newer version of Baleen \(schema 0099"):
            opening(newer)


@pytest.mark.parametrize(
    "statement", ["UPDATE activations SET reason = ''", "DELETE FROM activations", "UPDATE revisions SET content = ''"]
)
def test_the_database_itself_keeps_what_is_written(database: Database, statement: str) -> None:
    execute(
        database, "INSERT INTO activations (policy, digest, version, time, reason) VALUES ('a', 'b', 'c', 'd', 'e')"
    )
    execute(database, "INSERT INTO revisions (digest, policy, content) VALUES ('a', 'b', 'c')")

    with pytest.raises(StateError, match=r"append-only|immutable"):
        execute(database, statement)


# Revisions, and who writes


def make_revision(content: str) -> Revision:
    return Revision(digest=digest_of(content.encode()), content=content)


async def test_what_decisions_are_made_by_is_in_the_database_and_what_is_in_force_stays_here(
    database: Database, tmp_path: Path
) -> None:
    own, shared = SqliteRevisionStore(make_file(tmp_path)), PostgresRevisionStore(database)
    before, after, theirs = (make_revision(f'{{"a":{number}}}') for number in range(3))
    await own.put_revision("default/comments", before)
    await own.put_list("sha256:aa", "one")
    await shared.put_revision("default/comments", theirs)
    store = SharedRevisionStore(own, shared)
    await store.share()
    await store.put_revision("default/comments", after)
    await store.put_list("sha256:bb", "two")
    await store.record_activation(
        Activation(policy="default/comments", digest=after.digest, version="1", time=at(0), reason="edited")
    )

    assert [await shared.get_revision(each.digest) for each in (before, after)] == [before, after]
    assert [await shared.get_list(each) for each in ("sha256:aa", "sha256:bb")] == ["one", "two"]
    assert await store.get_revision(theirs.digest) == theirs
    assert await own.get_revision(after.digest) == after
    assert await shared.last_active() == []
    assert [each.digest for each in await store.last_active()] == [after.digest]
    own.close()
    shared.close()


def test_a_folder_writes_under_one_name_for_ever_and_another_folder_under_another(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "one") as one, StateFolder(tmp_path / "two") as two:
        first = one.writer("gateway-1")

        assert one.writer("gateway-2") == first
        assert first.startswith("gateway-1-")
        assert two.writer("gateway-1") != first
        assert Head.parse(f"{two.writer('x')}/1:{'0' * 64}").writer == two.writer("x")
        (tmp_path / "one" / "writer").write_text("a/b\n")
        with pytest.raises(StateError, match="names no writer of a decision log; delete it to write as a new one"):
            one.writer("gateway-1")


def test_the_name_is_on_the_disk_before_anything_is_written_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def listen(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "writer").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", listen)
    with StateFolder(tmp_path) as folder:
        folder.writer("gateway-1")
        folder.writer("gateway-1")

    assert synced == [(str(tmp_path / "writer.new"), False), (str(tmp_path), True)]


# The command line


async def test_the_commands_tell_of_every_writer(database: Database, url_file: Path) -> None:
    heads = await write(database, 2, writer="gateway-1") + await write(database, 1, writer="gateway-2")
    log = partial(asyncio.to_thread, baleen, "log")
    told = await log("head", "--database", url_file)
    verified = await log("verify", "--database", url_file, "--head", str(heads[1]))
    as_json = await log("verify", "--database", url_file, "--json")
    erased = await log("erase", "author-17", "--database", url_file)
    execute(database, "UPDATE decisions SET decision = 'Block' WHERE id = 'gateway-2-01'")
    altered = await log("verify", "--database", url_file)

    assert told.output.splitlines() == [str(heads[1]), str(heads[2])]
    assert verified.status == 0
    assert [line for line in verified.output.splitlines() if line.endswith(":")] == ["gateway-1:", "gateway-2:"]
    assert f"head {heads[1]}" in verified.output.splitlines()
    assert [json.loads(line)["writer"] for line in as_json.output.splitlines()] == ["gateway-1", "gateway-2"]
    assert erased.output == "erased from 3 decisions\n"
    assert altered.status == 1
    assert altered.problems[0].startswith("decision log of gateway-2: decision gateway-2-01 (")


def test_no_password_is_in_what_a_process_says_of_a_database_that_is_not_there(tmp_path: Path) -> None:
    path = write_url(tmp_path / "url", f"postgresql://baleen:{PASSWORD}@127.0.0.1:1/baleen")
    ended = baleen("log", "head", "--database", path)

    assert ended.status == 1
    assert "127.0.0.1:1 database baleen: the database does not answer" in ended.problems[0]
    assert PASSWORD not in ended.errors
