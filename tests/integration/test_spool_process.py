"""A sidecar that follows, as a process, and a gateway with its log on disk: what an answer is worth after a kill -9."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from baleen_core.records import encode
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteDecisionReader, SqliteRevisionStore
from baleen_sidecar.usecases.read_decisions import ReadDecisions
from gateway_process import RunningGateway
from gateways import Gateway, gateway
from publishing import publication
from serving import Answered, Load
from store_files import make_database
from waiting import until

POLICY = publication(
    "trust-safety", "community", {"rules": [{"name": "links", "when": "content.links > 1", "action": "Review"}]}
)
ROUNDS = 3
ENOUGH = 20
TEXT = "http://a.example http://b.example"

in_thread = asyncio.to_thread


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Gateway]:
    """Run a gateway that publishes the policy; it has adopted no policy itself, and so lacks each revision at first."""
    await in_thread(folder.mkdir)
    path = make_database(folder)
    store = SqliteRevisionStore(path)
    async with SqliteDecisionLog(path) as log, gateway(log=log, store=store) as made:
        made.source.say(POLICY.policy)
        yield made
    store.close()


def sidecar(made: Gateway, folder: Path, durability: str, **more: object) -> RunningGateway:
    """Start a sidecar, with what its disk has."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text("shop-token")
    settings = {"gateway_url": made.url, "gateway_token_file": folder / "token", "state": folder / "state", "port": 0}
    return RunningGateway(**settings, durability=durability, **more)


def wait_until_it_decides(process: RunningGateway) -> dict[str, Any]:
    give_up = time.monotonic() + 30
    while (answer := process.moderate(TEXT)).status_code != 200:
        assert time.monotonic() < give_up, f"{answer.text}\n{process.said()}"
        time.sleep(0.02)
    return dict(answer.json())


def ask_until_killed(process: RunningGateway, seconds: float) -> Sequence[Answered]:
    """Ask under load, kill it so long after its first answers, and return what it acknowledged."""
    with process, Load(process.url, callers=4, pause_seconds=0) as load:
        load.wait_for(ENOUGH)
        time.sleep(seconds)
        process.kill()
    assert {each.status for each in load.answered} <= {200, 0}
    return load.with_status(200)


async def missing(made: Gateway, answered: Iterable[Answered]) -> list[str]:
    """Return the ids of what was acknowledged and is not in the gateway's log."""
    return [each.body["id"] for each in answered if await made.log.get(each.body["id"]) is None]


async def until_all_is_sent(process: RunningGateway) -> None:
    async def is_sent() -> bool:
        return await in_thread(process.metric, "baleen_spool_waiting_bytes") == 0

    await until(is_sent)


@pytest.mark.parametrize("durability", ["Fsync", "Interval"])
async def test_with_its_disk_kept_nothing_that_a_killed_sidecar_acknowledged_is_missing_in_the_end(
    tmp_path: Path, durability: str
) -> None:
    answered: list[Answered] = []
    async with serving(tmp_path / "gateway") as made:
        for number in range(ROUNDS):
            is_away = durability == "Interval" and number == 1
            process = sidecar(made, tmp_path / "shop", durability)
            await in_thread(wait_until_it_decides, process)
            if is_away:
                await made.stop()
            answered += await in_thread(ask_until_killed, process, random.uniform(0.05, 0.4))
            if is_away:
                await made.start()
        with sidecar(made, tmp_path / "shop", durability) as process:
            last = await in_thread(wait_until_it_decides, process)
            await until_all_is_sent(process)
            here = await in_thread(process.get, f"/v1/decisions/{last['id']}")
        lost = await missing(made, answered)
        count, rows = await made.log.count(), await made.log.recent(limit=100_000)
        reading = ReadDecisions(made.log, made.store, frozenset)
        replays = [await reading.replay(each.body["id"]) for each in random.sample(answered, 5)]
        reader = SqliteDecisionReader(tmp_path / "shop/state/baleen.db")
        kept = await reader.get(last["id"])
        found = await made.log.get(last["id"])
        reader.close()

    assert len(answered) >= ENOUGH * ROUNDS
    assert lost == []
    assert {each.body["durability"] for each in answered} == {durability}
    assert here == last
    assert len({each.id for each in rows}) == count
    assert [each.differences for each in replays] == [()] * 5
    assert kept is not None
    assert encode(kept) == encode(found)


async def test_with_fsync_nothing_that_was_acknowledged_is_lost_with_the_disk(tmp_path: Path) -> None:
    async with serving(tmp_path / "gateway") as made:
        process = sidecar(made, tmp_path / "shop", "Fsync")
        await in_thread(wait_until_it_decides, process)
        answered = await in_thread(ask_until_killed, process, 0.4)
        shutil.rmtree(tmp_path / "shop")

        assert len(answered) >= ENOUGH
        assert await missing(made, answered) == []


async def test_with_interval_what_was_not_sent_yet_is_lost_with_the_disk_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path / "gateway") as made:
        process = sidecar(made, tmp_path / "shop", "Interval")
        await in_thread(wait_until_it_decides, process)
        with Load(process.url, pause_seconds=0) as load:
            await in_thread(load.wait_for, 50)
        await until_all_is_sent(process)
        assert await missing(made, load.answered) == []
        await made.stop()
        answered = await in_thread(ask_until_killed, process, 0.2)
        shutil.rmtree(tmp_path / "shop")
        await made.start()

        assert len(answered) >= ENOUGH
        assert await missing(made, load.answered) == []
        assert await missing(made, answered) == [each.body["id"] for each in answered]


async def test_a_sidecar_that_is_told_to_end_sends_what_waits_first(tmp_path: Path) -> None:
    async with serving(tmp_path / "gateway") as made:
        with sidecar(made, tmp_path / "shop", "Interval") as process:
            await in_thread(wait_until_it_decides, process)
            with Load(process.url, pause_seconds=0) as load:
                await in_thread(load.wait_for, 100)
            code = await in_thread(process.stop)

        assert code == 0
        assert process.other_lines == []
        assert await missing(made, load.answered) == []


async def test_with_the_gateway_away_fsync_decides_nothing_and_interval_until_the_spool_is_full(tmp_path: Path) -> None:
    async with serving(tmp_path / "gateway") as made:
        awaited = sidecar(made, tmp_path / "shop", "Fsync", deadline_seconds=0.5)
        spooled = sidecar(made, tmp_path / "full", "Interval", spool_limit_bytes=20_000)
        with awaited, spooled:
            await in_thread(wait_until_it_decides, awaited)
            await in_thread(wait_until_it_decides, spooled)
            await until_all_is_sent(spooled)
            await made.stop()
            refused = await in_thread(awaited.moderate, TEXT)
            answers = [await in_thread(spooled.moderate, "a text without links") for _ in range(40)]
            review = await in_thread(spooled.moderate, TEXT)
            await made.start()
            await until_all_is_sent(spooled)
            await until_all_is_sent(awaited)
            after = await in_thread(wait_until_it_decides, awaited)

        assert (refused.status_code, refused.json()["type"]) == (504, "urn:baleen:problem:deadline-exceeded")
        assert {each.status_code for each in answers} == {200, 503}
        full = answers[-1].json()
        assert full["type"] == "urn:baleen:problem:log-unavailable"
        assert "BALEEN_SPOOL_LIMIT_BYTES is 20,000, and the last eighth is kept for Review" in full["detail"]
        assert review.status_code == 200
        assert await made.log.get(after["id"]) is not None
        kept = [each.json()["id"] for each in (*answers, review) if each.status_code == 200]
        assert [await made.log.get(each) is not None for each in kept] == [True] * len(kept)
