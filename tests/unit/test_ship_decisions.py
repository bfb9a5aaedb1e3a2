"""The spool's shipper against a gateway that does what a test tells it: order, failures, refusals, and who waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from baleen_core.errors import BaleenError, Forbidden, LogUnavailable, Overloaded, UpstreamError
from baleen_core.policy.schema import Revision
from baleen_core.policy_stream import Recorded, Refusal
from baleen_core.records import DecisionRecord, decode_record, encode
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.ports import Beside, KnownKey, RequestKey, SpooledDecision
from baleen_sidecar.settings import Durability
from baleen_sidecar.testing import MemoryDecisionLog, MemoryRevisionStore
from baleen_sidecar.usecases.ship_decisions import ShipDecisions, ShippingRules
from decision_records import make_record
from waiting import until

QUICK = ShippingRules(
    patience_seconds=0.3,
    lag_seconds=1.0,
    batch_rows=4,
    backoff=BackoffRules(first_seconds=0.01, highest_seconds=0.02, spread=1.0),
)


class MemorySpool(MemoryDecisionLog):
    """A spool that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.marked = 0

    async def waiting(self, *, limit_rows: int, limit_bytes: int) -> Sequence[SpooledDecision]:
        rows = [
            SpooledDecision(sequence=number, id=name, time=decode_record(data).time, record=data)
            for number, (name, data) in enumerate(self._rows.items(), start=1)
        ]
        return rows[self.marked : self.marked + limit_rows]

    async def mark(self, sent: Sequence[SpooledDecision]) -> None:
        self.marked = sent[-1].sequence

    async def is_waiting(self, decision_id: str) -> bool:
        return decision_id in list(self._rows)[self.marked :]

    async def forget_keys(self, decision_ids: Collection[str]) -> None:
        self._keys = {name: each for name, each in self._keys.items() if each[1] not in decision_ids}

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, list(self._rows.values())[self.marked :]))


class FedGateway:
    """Keeps what it is sent, in the order of arrival; `answers` are what it does first, one after the other."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.answers: list[BaleenError | Recorded | None] = []
        self.failure: BaleenError | None = None
        self.batches: list[tuple[int, Mapping[str, str]]] = []
        self.is_silent = False

    async def put_on_record(self, records: Sequence[bytes], revisions: Mapping[str, str]) -> Recorded:
        self.batches.append((len(records), dict(revisions)))
        if self.is_silent:
            await asyncio.Event().wait()
        answer = self.answers.pop(0) if self.answers else self.failure
        if isinstance(answer, BaleenError):
            raise answer
        if answer is not None and answer.lacks:
            return answer
        refused = answer.refused if answer else {}
        self.kept += [name for each in records if (name := decode_record(each).id) not in refused]
        return answer or Recorded()


class Shipped:
    """A shipper that runs, and what is at both its ends."""

    def __init__(self, durability: Durability, now: float = 0.0) -> None:
        self.spool, self.gateway, self.store = MemorySpool(), FedGateway(), MemoryRevisionStore()
        self.counted: dict[str, int] = {"taken": 0, "refused": 0}
        self.shipper = ShipDecisions(
            self.spool,
            self.gateway,
            self.store,
            durability=durability,
            wall_seconds=lambda: now or datetime.now(UTC).timestamp(),
            monotonic_seconds=asyncio.get_running_loop().time,
            jitter=lambda: 0.0,
            rules=QUICK,
            count=self._count,
        )

    def _count(self, result: str, number: int) -> None:
        self.counted[result] += number

    async def append(self, *names: str) -> list[BaleenError | None]:
        """Append these at once, and return what came of each."""
        appending = (self.shipper.append(record_of(name)) for name in names)
        found = await asyncio.gather(*appending, return_exceptions=True)
        assert all(each is True or isinstance(each, BaleenError) for each in found)
        return [each if isinstance(each, BaleenError) else None for each in found]


def record_of(name: str) -> DecisionRecord:
    return make_record(name, time=datetime.now(UTC).isoformat(timespec="milliseconds"))


@contextlib.asynccontextmanager
async def shipping(durability: Durability, **more: Any) -> AsyncIterator[Shipped]:
    made = Shipped(durability, **more)
    running = asyncio.ensure_future(made.shipper.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


NAMES = [f"{number:02}" for number in range(10)]


async def test_with_fsync_each_is_answered_once_the_gateway_has_it_and_all_come_in_their_order() -> None:
    async with shipping(Durability.FSYNC) as made:
        assert await made.append(*NAMES) == [None] * 10

        assert made.gateway.kept == NAMES
        assert [count for count, _ in made.gateway.batches] == [4, 4, 2]
        assert made.counted == {"taken": 10, "refused": 0}


async def test_with_interval_each_is_answered_with_the_gateway_away_and_all_come_later() -> None:
    async with shipping(Durability.INTERVAL) as made:
        made.gateway.failure = UpstreamError("the gateway did not answer")
        assert await made.append(*NAMES) == [None] * 10
        await until(lambda: len(made.gateway.batches) > 2)
        assert made.gateway.kept == []
        made.gateway.failure = None
        await made.shipper.flush()

        assert made.gateway.kept == NAMES
        assert made.spool.marked == 10


async def test_with_fsync_a_short_failure_is_waited_out() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.answers = [UpstreamError("reset"), Overloaded("later", retry_after_seconds=0)]

        assert await made.append("01") == [None]


async def test_what_the_gateway_says_when_to_come_again_is_heeded() -> None:
    async with shipping(Durability.INTERVAL) as made:
        made.gateway.answers = [Overloaded("later", retry_after_seconds=1)]
        begun = asyncio.get_running_loop().time()
        await made.append("01")
        await until(lambda: made.gateway.kept == ["01"])

        assert asyncio.get_running_loop().time() - begun >= 1


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "says nothing"])
async def test_with_fsync_and_a_gateway_away_it_is_refused_in_time_then_at_once_and_fills_nothing(
    is_silent: bool,
) -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.failure = UpstreamError("the gateway did not answer")
        made.gateway.is_silent = is_silent
        first, *_ = await made.append("01", "02")
        kept = await made.spool.count()
        # It was sent a moment after it was appended, and the gateway has its time from then on.
        await asyncio.sleep(QUICK.patience_seconds / 2)
        (second,) = await made.append("03")

        assert isinstance(first, LogUnavailable)
        assert "not on the gateway's disk within 0.3 s" in str(first)
        assert isinstance(second, LogUnavailable)
        assert "the gateway takes no decisions" in str(second)
        assert (kept, await made.spool.count()) == (2, 2)


async def test_it_goes_on_once_the_gateway_is_there_again_with_what_nobody_waits_for_any_more_too() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.failure = UpstreamError("the gateway did not answer")
        await made.append("01")
        made.gateway.failure = None
        await until(lambda: made.gateway.kept == ["01"])

        assert await made.append("02") == [None]
        assert made.gateway.kept == ["01", "02"]


async def test_a_refused_one_is_told_to_who_waits_and_holds_up_nobody() -> None:
    async with shipping(Durability.FSYNC) as made:
        refused = {
            "01": Refusal(message="namespace shop may not speak for it", field="context.tenant"),
            "02": Refusal(message="another decision has this id"),
        }
        made.gateway.answers = [Recorded(refused=refused)]
        claim, taken, good = await made.append("01", "02", "03")

        assert isinstance(claim, Forbidden)
        assert str(claim) == "context.tenant: namespace shop may not speak for it"
        assert isinstance(taken, LogUnavailable)
        assert "another decision has this id" in str(taken)
        assert good is None
        assert made.gateway.kept == ["03"]
        assert made.counted == {"taken": 1, "refused": 2}


async def test_a_revision_that_the_gateway_lacks_is_sent_with_the_batch() -> None:
    async with shipping(Durability.FSYNC) as made:
        await made.store.put_revision("community", Revision(digest="sha256:aa", content="{}"))
        made.gateway.answers = [Recorded(lacks=("sha256:aa", "sha256:bb"))]

        assert await made.append("01") == [None]
        assert made.gateway.batches == [(1, {}), (1, {"sha256:aa": "{}", "sha256:bb": ""})]


async def test_a_gateway_that_goes_on_asking_for_a_revision_is_a_failure_like_others() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.answers = [Recorded(lacks=("sha256:aa",))] * 2

        assert await made.append("01") == [None]
        assert [count for count, _ in made.gateway.batches] == [1, 1, 1]


async def test_who_leaves_while_it_waits_leaves_the_decision_behind() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.failure = UpstreamError("away")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await made.shipper.append(record_of("01"))
        made.gateway.failure = None
        await until(lambda: made.gateway.kept == ["01"])


async def test_a_process_that_ends_waits_for_no_gateway_that_takes_nothing() -> None:
    async with shipping(Durability.INTERVAL) as made:
        made.gateway.failure = UpstreamError("away")
        await made.append("01")
        async with asyncio.timeout(2):
            await made.shipper.flush()

        assert made.gateway.kept == []


async def test_while_it_lags_decisions_and_health_say_so_and_why() -> None:
    async with shipping(Durability.INTERVAL, now=datetime.now(UTC).timestamp() + 60) as made:
        assert (made.shipper.degraded(), made.shipper.component().healthy) == ((), True)
        made.gateway.failure = UpstreamError("the gateway did not answer")
        await made.append("01")
        await until(lambda: made.shipper.degraded() == ("DecisionSpool",))
        await until(lambda: "the gateway did not answer" in made.shipper.component().detail)
        component = made.shipper.component()
        made.gateway.failure = None
        await made.shipper.flush()

        assert (component.name, component.healthy) == ("spool", False)
        assert f"{len(encode(record_of('01'))):,} bytes of decisions wait for the gateway" in component.detail
        assert (made.shipper.degraded(), made.shipper.component().healthy) == ((), True)


async def test_the_record_is_found_by_its_id() -> None:
    async with shipping(Durability.INTERVAL) as made:
        await made.append("01")

        assert (await made.shipper.get("01")) is not None
        assert (await made.shipper.get("02")) is None


KEY = Beside(key=RequestKey(id="k", fingerprint="f", time_seconds=0))
KNOWN = KnownKey(fingerprint="f", decision_id="01")


async def test_with_fsync_a_key_leads_to_a_decision_once_the_gateway_has_it() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.failure = UpstreamError("the gateway did not answer")
        with pytest.raises(LogUnavailable):
            await made.shipper.append(record_of("01"), KEY)
        with pytest.raises(LogUnavailable, match="not on the gateway's disk"):
            await made.shipper.find_key("k", now_seconds=0)
        made.gateway.failure = None

        assert await made.shipper.find_key("k", now_seconds=0) == KNOWN
        assert made.gateway.kept == ["01"]
        assert not await made.shipper.append(record_of("02"), KEY)
        assert made.gateway.kept == ["01"]


async def test_with_interval_a_key_leads_to_a_decision_in_the_pod() -> None:
    async with shipping(Durability.INTERVAL) as made:
        made.gateway.failure = UpstreamError("the gateway did not answer")
        assert await made.shipper.append(record_of("01"), KEY)

        assert await made.shipper.find_key("k", now_seconds=0) == KNOWN
        assert not await made.shipper.append(record_of("02"), KEY)


async def test_a_decision_that_the_gateway_refuses_answers_no_later_request() -> None:
    async with shipping(Durability.FSYNC) as made:
        made.gateway.answers = [Recorded(refused={"01": Refusal(message="no")})]
        with pytest.raises(LogUnavailable, match="refused"):
            await made.shipper.append(record_of("01"), KEY)

        assert await made.shipper.find_key("k", now_seconds=0) is None
        assert await made.shipper.append(record_of("02"), KEY)
