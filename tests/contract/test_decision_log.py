"""What every decision log promises, the real one and its stand-in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baleen_core.errors import IntegrityError
from baleen_core.policy.schema import Verdict
from baleen_core.records import encode
from baleen_sidecar.adapters.store import PostgresDecisionLog, SqliteDecisionLog
from baleen_sidecar.testing import MemoryDecisionLog
from decision_records import make_record
from store_files import make_database

Log = SqliteDecisionLog | PostgresDecisionLog | MemoryDecisionLog


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres")), "memory"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    match request.param:
        case "memory":
            yield MemoryDecisionLog()
        case "postgres":
            database = request.getfixturevalue("database")
            async with PostgresDecisionLog(database, writer="gateway-1") as opened:
                yield opened
        case _:
            async with SqliteDecisionLog(make_database(tmp_path)) as opened:
                yield opened


async def test_a_decision_is_found_by_its_id_bit_for_bit(log: Log) -> None:
    record = make_record("01-a")

    await log.append(record)

    found = await log.get("01-a")
    assert found == record
    assert encode(found) == encode(record)


@pytest.mark.parametrize(
    "decision_id",
    [
        pytest.param("Ünï-😀", id="beyond ASCII"),
        pytest.param("'; DROP TABLE decisions; --", id="SQL"),
        pytest.param("a\x00b", id="a zero character"),
        pytest.param("x" * 5000, id="long"),
    ],
)
async def test_any_text_is_an_id(log: Log, decision_id: str) -> None:
    await log.append(make_record(decision_id))

    assert await log.get(decision_id) == make_record(decision_id)


async def test_an_unknown_id_finds_nothing(log: Log) -> None:
    await log.append(make_record("01-a"))

    assert await log.get("01-b") is None


async def test_the_log_is_read_backwards_page_by_page(log: Log) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await log.append(make_record(name))

    pages, before = [], None
    while page := await log.newest(before=before, limit=2):
        pages.append([row.id for row in page])
        assert [row.read() for row in page] == [make_record(row.id) for row in page]
        # What comes meanwhile is newer than all that is still to be read.
        await log.append(make_record(f"later-{len(pages)}"))
        before = page[-1].sequence

    assert pages == [["e", "d"], ["c", "b"], ["a"]]


async def test_only_a_log_that_others_may_read_too_has_a_name_and_keeps_it(log: Log) -> None:
    before = await log.log_id()
    await log.append(make_record("01-a"))

    assert await log.log_id() == before
    assert bool(before) is isinstance(log, PostgresDecisionLog)


async def test_appending_the_same_record_again_changes_nothing(log: Log) -> None:
    await log.append(make_record("01-a"))
    await log.append(make_record("01-a"))

    assert await log.count() == 1


async def test_another_record_under_the_same_id_is_refused(log: Log) -> None:
    await log.append(make_record("01-a", score=1))

    with pytest.raises(IntegrityError, match=r"decision 01-a is on record already: expected sha256:.*, found sha256:"):
        await log.append(make_record("01-a", score=2))
    assert await log.get("01-a") == make_record("01-a", score=1)


async def test_a_refused_record_takes_none_of_its_neighbours_with_it(log: Log) -> None:
    await log.append(make_record("07", score=1))

    records = [make_record(f"{number:02}", score=2) for number in range(30)]
    outcomes = await asyncio.gather(*map(log.append, records), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes if outcome is not True] == [IntegrityError]
    assert isinstance(outcomes[7], IntegrityError)
    assert await log.count() == 30


async def test_many_appenders_at_once_all_find_their_records(log: Log) -> None:
    records = [make_record(f"{number:04}", score=number) for number in range(1000)]

    await asyncio.gather(*map(log.append, records))

    assert await log.count() == 1000
    assert [await log.get(record.id) for record in records[::97]] == records[::97]


async def test_what_is_begun_ends_as_an_append_does(log: Log) -> None:
    await log.append(make_record("01-a", score=1))

    begun = [log.begin(make_record(name, score=2)) for name in ("00", "01-a", "02", "03")]
    begun[3].cancel()
    ends = await asyncio.gather(*begun, return_exceptions=True)

    assert [ends[0], ends[2]] == [True, True]
    assert isinstance(ends[1], IntegrityError)
    assert isinstance(ends[3], asyncio.CancelledError)
    assert [await log.get(name) is not None for name in ("00", "02")] == [True, True]


async def test_an_appender_that_leaves_disturbs_no_other(log: Log) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(log.append(make_record(f"{number:02}"))) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()

    assert [await log.get(f"{number:02}") is not None for number in range(1, 20, 2)] == [True] * 10
    await log.append(make_record("20"))


async def test_recent_decisions_come_newest_first(log: Log) -> None:
    for number in range(5):
        await log.append(make_record(f"{number}"))

    assert [record.id for record in await log.recent(limit=3)] == ["4", "3", "2"]


async def test_recent_decisions_can_be_asked_for_by_verdict(log: Log) -> None:
    for number, verdict in enumerate([Verdict.BLOCK, Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK, Verdict.ALLOW]):
        await log.append(make_record(f"{number}", decision=verdict))

    assert [record.id for record in await log.recent(decision=Verdict.BLOCK)] == ["3", "0"]


async def test_an_empty_log_has_nothing_recent(log: Log) -> None:
    assert await log.recent() == []
    assert await log.count() == 0


async def test_what_others_decided_is_new_once_whether_it_came_in_one_group_or_later(log: Log) -> None:
    records = [make_record(f"{number:02}") for number in (1, 2, 1)]
    await log.append(make_record("00"))

    assert await asyncio.gather(*(log.take(each, origin="shop/default/shop-1") for each in records)) == [
        True,
        True,
        False,
    ]
    assert not await log.take(make_record("02"), origin="shop/default/shop-2")
    assert not await log.take(make_record("00"), origin="shop/default/shop-1"), "this process decided it"
    assert await log.take(make_record("03"), origin="shop/default/shop-1")
    assert await log.count() == 4


async def test_what_others_decided_under_a_taken_id_is_refused(log: Log) -> None:
    await log.append(make_record("01-a", score=1))

    with pytest.raises(IntegrityError, match="decision 01-a is on record already"):
        await log.take(make_record("01-a", score=2), origin="shop/default/shop-1")


PERSONAL = ("author-17", "session-4", "a slur", "5e5e5e", "request-7")


async def test_an_erased_subject_is_gone_from_every_decision_and_from_no_other(log: Log) -> None:
    records = [make_record(f"{number}", author=f"author-{17 + number % 2}") for number in range(6)]
    await asyncio.gather(*map(log.append, records))

    assert await log.erase("author-17") == 3
    assert await log.erase("author-17") == 0
    for record in records[1::2]:
        assert await log.get(record.id) == record
    for record in records[::2]:
        found = await log.get(record.id)
        assert found is not None
        assert found.erased
        assert not any(word in encode(found).decode() for word in PERSONAL)
        assert (found.time, found.decision) == (record.time, record.decision)
        assert found.evidence.signals == record.evidence.signals
    assert await log.count() == 6


async def test_a_subject_is_erased_from_one_tenant_alone(log: Log) -> None:
    ours, theirs = make_record("1"), make_record("2", tenant="bank")
    await log.append(ours)
    await log.append(theirs)

    assert await log.erase("author-17", tenant="acme") == 1
    assert await log.get("2") == theirs
    assert await log.erase("author-17", tenant="nobody") == 0
    assert await log.erase("author-17") == 1


@pytest.mark.parametrize("author", ["nobody", "", "'; DROP TABLE decisions; --", "author-1%", "Ünï-😀"])
async def test_who_is_on_no_record_is_erased_from_none(log: Log, author: str) -> None:
    await log.append(make_record("1"))

    assert await log.erase(author) == 0
    assert await log.get("1") == make_record("1")


async def test_an_erased_record_that_is_sent_again_is_there_and_stays_erased(log: Log) -> None:
    await log.append(make_record("1"))
    await log.erase("author-17")

    await log.append(make_record("1"))
    with pytest.raises(IntegrityError, match="decision 1 is on record already"):
        await log.append(make_record("1", score=1))
    found = await log.get("1")
    assert found is not None
    assert found.erased
    assert await log.count() == 1


async def test_how_long_a_record_is_to_be_kept_is_on_record(log: Log) -> None:
    await log.append(make_record("1", keep_days=7))

    assert await log.get("1") == make_record("1", keep_days=7)
