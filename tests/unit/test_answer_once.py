"""A request that is sent again has the answer of the first time, and never that of another request."""

import asyncio
import itertools
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import KeyConflict, NoPolicy
from baleen_core.records import DecisionRecord
from baleen_sidecar.ports import Beside, RequestKey
from baleen_sidecar.testing import MemoryDecisionLog
from baleen_sidecar.usecases.answer_once import AnswerOnce, Parts, fingerprint_of, name_key
from baleen_sidecar.usecases.moderate import Superseded
from decision_records import make_record
from waiting import until

_ids = (f"d-{number}" for number in itertools.count())


class Answering:
    """Decides each time anew, as slowly as its `gate` is opened, and counts how often."""

    def __init__(self, log: MemoryDecisionLog | None = None) -> None:
        self.log = log or MemoryDecisionLog()
        self.once = AnswerOnce(self.log, wall_seconds=lambda: 100.0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self.failure: Exception | None = None

    async def decide(self, key: RequestKey) -> DecisionRecord:
        self.begun += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        record = make_record(next(_ids))
        if not await self.log.append(record, Beside(key=key)):
            raise Superseded
        return record

    def ask(self, fingerprint: str = "f") -> Awaitable[tuple[DecisionRecord, bool]]:
        return self.once.answer("k", fingerprint, self.decide)


async def test_the_second_time_is_answered_from_the_log():
    answering = Answering()
    first, was_there = await answering.ask()

    assert not was_there
    assert await answering.ask() == (first, True)
    assert await Answering(answering.log).ask() == (first, True), "after a restart"
    assert answering.begun == 1


async def test_a_duplicate_of_what_is_under_way_waits_for_it():
    answering = Answering()
    answering.gate.clear()
    asking = [asyncio.ensure_future(answering.ask()) for _ in range(5)]
    await until(lambda: answering.begun == 1)
    answering.gate.set()
    found = await asyncio.gather(*asking)

    assert answering.begun == 1
    assert [was_there for _, was_there in found] == [False, True, True, True, True]
    assert len({record.id for record, _ in found}) == 1


async def test_another_request_with_the_key_is_refused_while_the_first_is_under_way_and_after():
    answering = Answering()
    answering.gate.clear()
    first = asyncio.ensure_future(answering.ask())
    await until(lambda: answering.begun == 1)
    with pytest.raises(KeyConflict, match="Idempotency-Key: another request was sent with this key"):
        await answering.ask("g")
    answering.gate.set()
    await first

    with pytest.raises(KeyConflict):
        await answering.ask("g")
    assert answering.begun == 1


async def test_when_the_first_fails_the_next_one_decides():
    answering = Answering()
    answering.failure = NoPolicy("none")
    answering.gate.clear()
    asking = [asyncio.ensure_future(answering.ask()) for _ in range(2)]
    await until(lambda: answering.begun == 1)
    answering.gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(each) for each in found] == [NoPolicy, NoPolicy]
    answering.failure = None
    _, was_there = await answering.ask()
    assert not was_there


async def test_when_the_callers_leave_one_after_the_other_whoever_stays_is_answered():
    answering = Answering()
    answering.gate.clear()
    asking = [asyncio.ensure_future(answering.ask()) for _ in range(3)]
    await until(lambda: answering.begun == 1)
    asking[1].cancel()
    asking[0].cancel()
    await until(lambda: answering.begun == 2)
    answering.gate.set()

    record, was_there = await asking[2]
    assert not was_there
    assert await answering.ask() == (record, True)


async def test_whoever_is_slower_than_another_process_has_its_answer():
    log = MemoryDecisionLog()
    slow, quick = Answering(log), Answering(log)
    slow.gate.clear()
    asking = asyncio.ensure_future(slow.ask())
    await until(lambda: slow.begun == 1)
    first, _ = await quick.ask()
    slow.gate.set()

    assert await asking == (first, True)
    assert await log.count() == 1


texts = st.text(max_size=4)


@given(st.lists(st.tuples(texts, st.none() | texts, texts), unique=True, min_size=2, max_size=5))
def test_no_two_callers_tenants_or_keys_share_a_name(named):
    assert len({name_key(*each) for each in named}) == len(named)


@given(st.lists(st.lists(st.binary(max_size=4), max_size=4).map(tuple), unique=True, min_size=2, max_size=5))
def test_no_two_requests_share_a_fingerprint(requests):
    assert len({fingerprint_of(*each) for each in requests}) == len(requests)


class Whole:
    """A request of several parts, of which those in `failing` come to nothing; counts what is decided."""

    def __init__(self, log: MemoryDecisionLog, count: int) -> None:
        self.once = AnswerOnce(log, wall_seconds=lambda: 100.0)
        self.log = log
        self.count = count
        self.failing: set[int] = set()
        self.begun: list[int] = []

    async def ask(self, fingerprint: str = "f") -> list[tuple[str, bool] | None]:
        async with self.once.parts("k", fingerprint, self.count) as parts:
            return [await self._part(parts, index) for index in range(self.count)]

    async def _part(self, parts: Parts, index: int) -> tuple[str, bool] | None:
        async def decide(key: RequestKey) -> DecisionRecord:
            self.begun.append(index)
            await asyncio.sleep(0)
            if index in self.failing:
                raise NoPolicy("none")
            record = make_record(next(_ids))
            if not await self.log.append(record, Beside(key=key)):
                raise Superseded
            return record

        try:
            record, was_there = await parts.answer(index, decide)
        except NoPolicy:
            return None
        return record.id, was_there


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.tuples(st.just(count), st.lists(st.sets(st.integers(0, count - 1)), min_size=1, max_size=4))
    )
)
async def test_each_part_is_decided_until_it_is_on_record_and_never_again(case):
    count, failures = case
    log = MemoryDecisionLog()
    known: dict[int, str] = {}
    for failing in failures:
        whole = Whole(log, count)
        whole.failing = failing
        # The second one waits for the first, and tries once more what came to nothing.
        first, second = await asyncio.gather(whole.ask(), whole.ask())
        for index in range(count):
            if index in known:
                expected: list[object] = [(known[index], True)] * 2
                begun = 0
            elif index in failing:
                expected, begun = [None, None], 2
            else:
                part = first[index]
                assert part is not None
                known[index] = part[0]
                expected, begun = [(part[0], False), (part[0], True)], 1
            assert [first[index], second[index]] == expected
            assert whole.begun.count(index) == begun

    assert await log.count() == len(known)


async def test_of_another_request_no_part_is_decided():
    log = MemoryDecisionLog()
    first = Whole(log, 3)
    first.failing = {0}
    await first.ask()
    other = Whole(log, 2)

    with pytest.raises(KeyConflict):
        await other.ask("g")
    assert other.begun == []


async def test_parts_of_two_processes_are_decided_by_whoever_is_first():
    log = MemoryDecisionLog()
    first, second = Whole(log, 4), Whole(log, 4)
    one, two = await asyncio.gather(first.ask(), second.ask())

    assert [part[0] for part in one] == [part[0] for part in two]
    assert [one[index][1] != two[index][1] for index in range(4)] == [True] * 4
    assert await log.count() == 4
