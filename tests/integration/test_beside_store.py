"""Idempotency keys and debts where several write one database, where they grow old, and in a spool."""

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baleen_core.policy.schema import Verdict
from baleen_sidecar.adapters.store import (
    Database,
    PostgresDebts,
    PostgresDecisionLog,
    SqliteDebts,
    SqliteDecisionLog,
    SqliteSpool,
    verify_database,
    verify_log,
)
from baleen_sidecar.ports import KEY_SECONDS, Beside, Change, Debt, KeptContent, RequestKey
from baleen_sidecar.settings import Durability
from decision_records import make_record
from store_files import make_database
from waiting import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
WORDS = ("words",)


def key(name: str, time: float = NOW) -> RequestKey:
    return RequestKey(id=name, fingerprint="f", time_seconds=int(time))


def debt(decision_id: str) -> Debt:
    return Debt(
        decision_id=decision_id,
        time="2026-03-01T12:00:00.000+00:00",
        risk=0,
        models=WORDS,
        content=KeptContent(type="text", text="said"),
    )


def change(decision_id: str, time: str) -> Change:
    return Change(
        decision_id=decision_id, rescan_of="x", was=Verdict.ALLOW, became=Verdict.BLOCK, time=time, tenant=None
    )


@pytest.mark.xdist_group("postgres")
async def test_of_two_gateways_with_the_same_keys_one_decides_each(database: Database) -> None:
    def opened(writer: str, rows: int) -> PostgresDecisionLog:
        return PostgresDecisionLog(database, writer=writer, max_rows=rows, wall_seconds=lambda: NOW)

    names = [f"{number:03}" for number in range(60)]
    async with opened("gateway-1", 7) as one, opened("gateway-2", 9) as two:
        done = await asyncio.gather(
            *(one.append(make_record(f"one-{name}"), Beside(key=key(name))) for name in names),
            # In the other order, so that each waits for what the other one is about to commit.
            *(two.append(make_record(f"two-{name}"), Beside(key=key(name))) for name in reversed(names)),
        )
        found = [await two.find_key(name, now_seconds=NOW) for name in names]
        records = [await one.get(each.decision_id) for each in found if each is not None]

    assert sum(done) == 60
    assert None not in records
    assert len(records) == 60
    assert [(each.found.fault) for each in verify_database(database)] == [None, None]
    assert sum(each.found.rows for each in verify_database(database)) == 60


@pytest.mark.xdist_group("postgres")
async def test_of_two_gateways_each_debt_is_claimed_by_one_and_paid_once(database: Database) -> None:
    first, second = PostgresDebts(database), PostgresDebts(database)
    async with PostgresDecisionLog(database, writer="gateway-1", wall_seconds=lambda: NOW) as log:
        for number in range(40):
            await log.append(make_record(f"{number:02}"), Beside(debt=debt(f"{number:02}")))
        claims = await asyncio.gather(
            *(
                debts.claim([WORDS], limit=5, now_seconds=NOW, lease_seconds=60)
                for _ in range(5)
                for debts in (first, second)
            )
        )
        taken = [each for claim in claims for each in claim]
        settled = await asyncio.gather(
            *(
                log.append(make_record(f"new-{each.decision_id}-{n}"), Beside(settles=each))
                for each in taken
                for n in "ab"
            )
        )
        owed = await first.owed()
    first.close()
    second.close()

    assert sorted(each.decision_id for each in taken) == [f"{number:02}" for number in range(40)]
    assert sum(settled) == 40
    assert owed.decisions == 0


def left_in(path: Path) -> list[list[str]]:
    """Return the names of what is kept: decisions, keys, debts and changes."""
    connection = sqlite3.connect(path)
    found = [
        [name for (name,) in connection.execute(f"SELECT {column} FROM {table} ORDER BY 1")]
        for column, table in (
            ("id", "decisions"),
            ("id", "idempotency_keys"),
            ("decision_id", "rescan_debts"),
            ("decision_id", "decision_changes"),
        )
    ]
    connection.close()
    return found


async def test_old_keys_changes_and_debts_of_dropped_decisions_go_and_what_counts_stays(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    ages = {"old": (40, KEY_SECONDS), "new": (0, KEY_SECONDS - 1)}
    async with SqliteDecisionLog(path, wall_seconds=lambda: NOW, checkpoint_seconds=0.1) as log:
        for name, (days, seconds) in ages.items():
            time = datetime.fromtimestamp(NOW - days * 86_400, UTC).isoformat(timespec="milliseconds")
            beside = Beside(key=key(name, NOW - seconds), debt=debt(name), change=change(name, time))
            await log.append(make_record(name, time=time, keep_days=1), beside)
        await until(lambda: left_in(path) == [["new"]] * 4)

    assert verify_log(path).fault is None


async def test_the_newest_change_stays_so_that_numbers_go_on(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    debts = SqliteDebts(path)
    async with SqliteDecisionLog(path, wall_seconds=lambda: NOW, checkpoint_seconds=0.1) as log:
        for name in ("one", "two", "three"):
            await log.append(make_record(name), Beside(change=change(name, "2020-01-01")))
            await until(lambda name=name: left_in(path)[3] == [name])  # type: ignore[misc]

        assert [(each.decision_id, each.sequence) for each in await debts.changes(after=0, limit=9)] == [("three", 3)]
    debts.close()


async def test_while_the_log_is_busy_debts_are_claimed(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    debts = SqliteDebts(path)
    async with SqliteDecisionLog(path, durability=Durability.INTERVAL, wall_seconds=lambda: NOW) as log:

        async def append() -> None:
            for number in range(500):
                await log.append(make_record(f"{number}"), Beside(debt=debt(f"{number}")))

        appending = asyncio.ensure_future(append())
        taken = set()
        async with asyncio.timeout(60):
            while len(taken) < 500:
                found = await debts.claim([WORDS], limit=100, now_seconds=NOW, lease_seconds=600)
                assert taken.isdisjoint(each.decision_id for each in found)
                taken.update(each.decision_id for each in found)
        await appending
    debts.close()

    assert len(taken) == 500


async def test_a_spool_keeps_keys_as_long_as_their_decisions_over_a_restart(tmp_path: Path) -> None:
    path = make_database(tmp_path)

    def opened() -> SqliteDecisionLog:
        return SqliteDecisionLog(path, durability=Durability.INTERVAL, wall_seconds=lambda: NOW)

    async with opened() as log, SqliteSpool(path, log, limit_bytes=10_000) as spool:
        for name in ("a", "b", "c"):
            assert await spool.append(make_record(name), Beside(key=key(name)))
        held = spool.waiting_bytes
        assert not await spool.append(make_record("d"), Beside(key=key("a")))
        assert spool.waiting_bytes == held
        await spool.mark(await spool.waiting(limit_rows=2, limit_bytes=1_000_000))
        await spool.forget_keys(["b"])
        assert [await spool.is_waiting(name) for name in ("a", "b", "c", "d")] == [False, False, True, False]
    async with opened() as log, SqliteSpool(path, log, limit_bytes=1) as spool:
        known = {name: await spool.find_key(name, now_seconds=NOW) for name in "abc"}
        assert [name for name, found in known.items() if found] == ["a", "c"]
        # What was sent makes room, and takes its keys along; the row of the mark stays.
        await spool.mark(await spool.waiting(limit_rows=2, limit_bytes=1_000_000))
        assert await spool.find_key("a", now_seconds=NOW) is None
        assert await spool.get("a") is None
