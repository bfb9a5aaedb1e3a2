"""What goes into a log in one transaction with a decision: idempotency keys, and debts of second looks."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baleen_core.policy.schema import Verdict
from baleen_sidecar.adapters.store import PostgresDebts, PostgresDecisionLog, SqliteDebts, SqliteDecisionLog
from baleen_sidecar.ports import (
    KEY_SECONDS,
    Beside,
    Change,
    Debt,
    KeptContent,
    KnownKey,
    Owed,
    RequestKey,
    RescanDebts,
)
from baleen_sidecar.testing import MemoryDecisionLog
from decision_records import make_record
from store_files import make_database

NOW = 1_790_000_000
"""In September 2026."""
LOOKS, WORDS = ("looks",), ("looks", "words")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A decision log and what is owed in it."""

    log: SqliteDecisionLog | PostgresDecisionLog | MemoryDecisionLog
    debts: RescanDebts

    async def owe(self, *debts: Debt) -> None:
        for debt in debts:
            assert await self.log.append(make_record(debt.decision_id), Beside(debt=debt))

    async def claim(self, *payable: tuple[str, ...], limit: int = 10, now: float = NOW) -> list[str]:
        return [debt.decision_id for debt in await self.claimed(*payable, limit=limit, now=now)]

    async def claimed(self, *payable: tuple[str, ...], limit: int = 10, now: float = NOW) -> list[Debt]:
        return list(await self.debts.claim(payable, limit=limit, now_seconds=now, lease_seconds=60))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres")), "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    match request.param:
        case "memory":
            log = MemoryDecisionLog()
            yield Store(log=log, debts=log.debts)
        case "postgres":
            database = request.getfixturevalue("database")
            debts = PostgresDebts(database)
            async with PostgresDecisionLog(database, writer="gateway-1", wall_seconds=lambda: NOW) as opened:
                yield Store(log=opened, debts=debts)
            debts.close()
        case _:
            path = make_database(tmp_path)
            file = SqliteDebts(path)
            async with SqliteDecisionLog(path, wall_seconds=lambda: NOW) as own:
                yield Store(log=own, debts=file)
            file.close()


def make_key(name: str = "k", fingerprint: str = "f", time: int = NOW) -> RequestKey:
    return RequestKey(id=name, fingerprint=fingerprint, time_seconds=time)


def make_debt(decision_id: str, *, risk: int = 0, time: str = "2026-03-01", models: tuple[str, ...] = LOOKS) -> Debt:
    text = "what was said, with \\ and \x00 and \N{GRINNING FACE}"
    return Debt(
        decision_id=decision_id, time=time, risk=risk, models=models, content=KeptContent(type="text", text=text)
    )


async def test_a_key_leads_to_the_decision_that_it_was_put_there_with(store: Store) -> None:
    assert await store.log.append(make_record("1"), Beside(key=make_key()))

    assert await store.log.find_key("k", now_seconds=NOW) == KnownKey(fingerprint="f", decision_id="1")
    assert await store.log.find_key("other", now_seconds=NOW) is None


async def test_under_one_key_there_is_one_decision(store: Store) -> None:
    await store.log.append(make_record("1"), Beside(key=make_key()))

    assert not await store.log.append(make_record("2"), Beside(key=make_key()))
    assert await store.log.append(make_record("3"), Beside(key=make_key("another")))
    assert await store.log.get("2") is None
    assert await store.log.count() == 2


async def test_of_many_at_once_under_one_key_one_is_put_on_record_and_no_other_is_disturbed(store: Store) -> None:
    await store.log.append(make_record("first"))
    appends = [store.log.append(make_record(f"{number:02}"), Beside(key=make_key())) for number in range(20)]
    plain = [store.log.append(make_record(f"plain-{number}")) for number in range(20)]

    done = await asyncio.gather(*appends, *plain)

    assert sum(done[:20]) == 1
    assert all(done[20:])
    assert await store.log.count() == 22


async def test_a_decision_that_is_appended_again_keeps_its_key(store: Store) -> None:
    for _ in range(2):
        assert await store.log.append(make_record("1"), Beside(key=make_key()))

    assert await store.log.count() == 1


async def test_a_key_counts_for_a_day(store: Store) -> None:
    await store.log.append(make_record("1"), Beside(key=make_key()))
    later = NOW + KEY_SECONDS

    assert await store.log.find_key("k", now_seconds=later - 1) is not None
    assert await store.log.find_key("k", now_seconds=later) is None
    assert not await store.log.append(make_record("2"), Beside(key=make_key(time=later - 1)))
    assert await store.log.append(make_record("3"), Beside(key=make_key(fingerprint="g", time=later)))
    assert await store.log.find_key("k", now_seconds=later) == KnownKey(fingerprint="g", decision_id="3")


async def test_nothing_is_owed_at_first(store: Store) -> None:
    assert await store.debts.owed() == Owed()
    assert await store.claim(LOOKS) == []


async def test_what_is_owed_is_counted(store: Store) -> None:
    debts = (make_debt("1", time="2026-03-02"), make_debt("2", time="2026-03-01", models=WORDS))
    await store.owe(*debts)

    owed = await store.debts.owed()

    size = sum(debt.content.size_bytes for debt in debts)
    assert owed == Owed(decisions=2, size_bytes=size, oldest="2026-03-01", waits_for=frozenset({LOOKS, WORDS}))


async def test_the_riskiest_is_paid_first_and_of_those_the_oldest(store: Store) -> None:
    await store.owe(
        make_debt("old", time="2026-03-01"),
        make_debt("risky", time="2026-03-03", risk=2),
        make_debt("older-risky", time="2026-03-02", risk=2),
        make_debt("new", time="2026-03-04", risk=1),
    )

    assert await store.claim(LOOKS, limit=3) == ["older-risky", "risky", "new"]
    assert await store.claim(LOOKS) == ["old"]


async def test_only_what_waits_for_models_that_are_back_can_be_paid(store: Store) -> None:
    await store.owe(make_debt("1"), make_debt("2", models=WORDS))

    assert await store.claim(("words",)) == []
    assert await store.claim(WORDS) == ["2"]
    assert await store.claim(LOOKS, WORDS) == ["1"]


async def test_a_debt_that_somebody_took_is_nobody_elses_until_his_time_is_over(store: Store) -> None:
    await store.owe(make_debt("1"))

    (first,) = await store.claimed(LOOKS)
    assert await store.claim(LOOKS, now=NOW + 59) == []
    (second,) = await store.claimed(LOOKS, now=NOW + 60)

    assert (first.tries, second.tries) == (1, 2)
    assert first.content == second.content == make_debt("1").content
    assert not await store.log.append(make_record("2"), Beside(settles=first))
    assert await store.log.append(make_record("3"), Beside(settles=second))
    assert await store.log.get("2") is None
    assert await store.debts.owed() == Owed()


async def test_a_debt_that_was_put_back_comes_when_it_is_due(store: Store) -> None:
    await store.owe(make_debt("1"))
    (debt,) = await store.claimed(LOOKS)
    await store.debts.put_back(debt, due_seconds=NOW + 10)

    assert await store.claim(LOOKS, now=NOW + 9) == []
    assert not await store.log.append(make_record("2"), Beside(settles=debt))
    assert await store.claim(LOOKS, now=NOW + 10) == ["1"]


async def test_of_those_who_put_a_debt_back_the_ones_who_could_not_read_its_content_are_counted_apart(
    store: Store,
) -> None:
    await store.owe(make_debt("1"))
    (first,) = await store.claimed(LOOKS)
    await store.debts.put_back(first, due_seconds=NOW)
    (second,) = await store.claimed(LOOKS)
    await store.debts.put_back(second, due_seconds=NOW, read_failed=True)
    await store.debts.put_back(second, due_seconds=NOW, read_failed=True)
    (third,) = await store.claimed(LOOKS)

    assert [(debt.tries, debt.failed_reads) for debt in (first, second, third)] == [(1, 0), (2, 0), (3, 1)]


async def test_what_is_put_back_or_forgiven_late_takes_it_from_nobody(store: Store) -> None:
    await store.owe(make_debt("1"))
    (late,) = await store.claimed(LOOKS)
    (debt,) = await store.claimed(LOOKS, now=NOW + 60)

    await store.debts.put_back(late, due_seconds=0)
    await store.debts.forgive(late)

    assert await store.claim(LOOKS, now=NOW + 61) == []
    await store.debts.forgive(debt)
    assert await store.debts.owed() == Owed()


async def test_a_settlement_that_is_sent_again_is_done(store: Store) -> None:
    await store.owe(make_debt("1"))
    (debt,) = await store.claimed(LOOKS)

    for _ in range(2):
        assert await store.log.append(make_record("2"), Beside(settles=debt, change=make_change("2", "1")))
    assert len(await store.debts.changes(after=0, limit=10)) == 1


def make_change(decision_id: str, rescan_of: str, tenant: str | None = "acme") -> Change:
    return Change(
        decision_id=decision_id,
        rescan_of=rescan_of,
        was=Verdict.ALLOW,
        became=Verdict.BLOCK,
        time="2026-09-20T00:00:00.000+00:00",
        tenant=tenant,
    )


async def test_changes_are_told_in_their_order_page_by_page_and_to_their_tenant(store: Store) -> None:
    changes = [make_change(f"new-{number}", f"old-{number}", ("acme", "bank")[number % 2]) for number in range(4)]
    for change in changes:
        await store.log.append(make_record(change.decision_id), Beside(change=change))

    first = await store.debts.changes(after=0, limit=3)
    rest = await store.debts.changes(after=first[-1].sequence, limit=3)

    assert [replace(each, sequence=0) for each in (*first, *rest)] == changes
    assert [each.decision_id for each in await store.debts.changes(after=0, limit=9, tenant="bank")] == [
        "new-1",
        "new-3",
    ]
    assert await store.debts.changes(after=rest[-1].sequence, limit=3) == []


async def test_of_an_erased_person_neither_content_nor_key_is_left_and_others_keep_theirs(store: Store) -> None:
    for number, author in enumerate(("author-17", "author-18")):
        beside = Beside(key=make_key(f"k{number}"), debt=make_debt(f"{number}"))
        await store.log.append(make_record(f"{number}", author=author), beside)
    (taken, _) = await store.claimed(LOOKS)
    assert await store.log.erase("author-17") == 1

    assert await store.log.find_key("k0", now_seconds=NOW) is None
    assert await store.log.find_key("k1", now_seconds=NOW) is not None
    assert (await store.debts.owed()).decisions == 1
    assert not await store.log.append(make_record("2"), Beside(settles=taken)), "he would be there again"
