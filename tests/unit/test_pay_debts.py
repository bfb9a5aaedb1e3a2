"""What was allowed while a model was missing is looked at again once it is back, and no promise is forgotten."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from baleen_core.errors import FetchError, Overloaded
from baleen_core.model.loaded import LoadedModel
from baleen_core.policy.schema import Verdict
from baleen_core.priority import Priority
from baleen_core.records import RESCAN_DEBT, Context, DecisionRecord
from baleen_sidecar.flow.debts import DebtRoom
from baleen_sidecar.ports import Page
from baleen_sidecar.testing import (
    FixedInference,
    MemoryDecisionLog,
    MemoryFetcher,
)
from baleen_sidecar.usecases.moderate import Caller
from baleen_sidecar.usecases.pay_debts import BACKOFF, PayDebts, PayingRules
from baleen_sidecar.usecases.serve_models import FixedModels
from moderating import enforcing, make_moderate, make_shell
from tiny_models import Letters, brightness, make_model

ALLOW, REVIEW, BLOCK = Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK
TEXT = LoadedModel(model=make_model("words", recipe="tox-block/1"), sha256="aa", text=Letters())
IMAGE = LoadedModel(model=make_model("looks", recipe="owen-s/1"), sha256="cc", image=brightness)
URL = "https://pictures.example/1.png"
CATEGORIES = [
    {"name": "rude", "signals": [{"name": "words.bad", "block": "50%"}]},
    {"name": "nude", "signals": [{"name": "looks.bad", "block": "50%"}]},
]


@dataclass(kw_only=True)
class Site:
    """A use case over stand-ins, whose models are away at first, and the one who pays what it owes."""

    executor: ThreadPoolExecutor
    now: float = 1_790_000_000.0
    limit_bytes: int = 1_000_000
    fetch_tries: int = 2
    inference: FixedInference = field(default_factory=lambda: FixedInference(down={"words", "looks"}))
    log: MemoryDecisionLog = field(default_factory=MemoryDecisionLog)
    fetcher: MemoryFetcher = field(
        default_factory=lambda: MemoryFetcher({URL: Page(data=b"picture", media_type="image/png")})
    )
    counted: list[str] = field(default_factory=list)
    heard: list[DecisionRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        models = FixedModels([TEXT, IMAGE])
        shell = make_shell(self.executor, lambda: self.now)
        self.room = DebtRoom(self.limit_bytes)
        self.moderate = make_moderate(
            lambda: self.snapshot,
            models,
            self.inference,
            shell,
            log=self.log,
            on_decision=self.heard.append,
            room=self.room,
        )
        self.payer = PayDebts(
            self.log.debts,
            self.log,
            self.fetcher,
            self.inference,
            models.current,
            shell=shell,
            room=self.room,
            jitter=lambda: 0.0,
            rules=PayingRules(fetch_tries=self.fetch_tries),
            count=self.counted.append,
        )
        self.payer.moderate = self.moderate
        self.enforce("AllowAndRescan")

    def enforce(self, on_model_failure: str) -> None:
        content = {"categories": CATEGORIES, "onModelFailure": on_model_failure}
        self.snapshot = enforcing(content, {"words.bad", "looks.bad"})

    async def text(self, text: str = "abc", **context: str) -> DecisionRecord:
        return await self.moderate.text(text, Context(**context), self.caller())

    async def image(self, url: str = URL) -> DecisionRecord:
        return await self.moderate.media(b"picture", "image", Context(), self.caller(), url=url)

    def caller(self) -> Caller:
        return Caller(request_id="r", received_seconds=self.now, deadline_seconds=60)

    async def decided(self) -> list[DecisionRecord]:
        return [each for each in await self.log.recent() if each.rescan_of]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
async def site(executor: ThreadPoolExecutor) -> Site:
    made = Site(executor=executor)
    await made.payer.pay_some()
    return made


@pytest.mark.parametrize(("score", "became"), [(0.9, BLOCK), (0.1, ALLOW)])
async def test_a_text_is_looked_at_again_once_the_model_is_back(site: Site, score: float, became: Verdict) -> None:
    before = await site.text(tenant="acme")
    assert (before.decision.decision, before.decision.degraded) == (ALLOW, ("words", RESCAN_DEBT))
    assert await site.payer.pay_some() == 0, "the model is away"
    assert site.payer.owed.waits_for == {("words",)}
    site.inference.down.clear()
    site.inference.scores["words.bad"] = score

    assert await site.payer.pay_some() == 1

    (after,) = await site.decided()
    assert (after.rescan_of, after.decision.decision, after.decision.degraded) == (before.id, became, ())
    assert after.evidence.context == before.evidence.context
    assert await site.payer.pay_some() == 0
    assert site.payer.owed.decisions == 0
    changes = await site.log.debts.changes(after=0, limit=9)
    assert [(each.decision_id, each.was, each.became, each.tenant) for each in changes] == (
        [(after.id, ALLOW, BLOCK, "acme")] if became is BLOCK else []
    )
    assert site.counted == ["Changed" if became is BLOCK else "Same"]
    assert site.heard == [before], "a second look is no more content"


async def test_an_image_is_read_again_from_its_address(site: Site) -> None:
    before = await site.image()
    site.inference.down.clear()
    site.inference.scores["looks.bad"] = 0.9
    await site.payer.pay_some()

    (after,) = await site.decided()
    assert before.decision.decision is ALLOW
    assert (after.decision.decision, after.evidence.content) == (BLOCK, before.evidence.content)


async def test_media_without_an_address_are_for_review_and_nothing_is_owed(site: Site) -> None:
    record = await site.image(url="")

    assert (record.decision.decision, record.decision.degraded) == (REVIEW, ("looks",))
    await site.payer.pay_some()
    assert site.payer.owed.decisions == 0


async def test_what_stands_at_the_address_now_is_not_what_was_allowed(site: Site) -> None:
    before = await site.image()
    site.inference.down.clear()
    site.fetcher.pages[URL] = Page(data=b"another picture", media_type="image/png")
    await site.payer.pay_some()

    (after,) = await site.decided()
    assert after.decision.decision is REVIEW
    assert after.evidence.content.digest == before.evidence.content.digest


async def test_an_address_that_cannot_be_read_is_tried_again_and_then_given_up(site: Site) -> None:
    await site.image()
    site.inference.down.clear()
    site.fetcher.pages[URL] = FetchError("gone")
    assert await site.payer.pay_some() == 0
    site.now += 5
    assert await site.payer.pay_some() == 1

    (after,) = await site.decided()
    assert after.decision.decision is REVIEW
    assert site.counted == ["PutBack", "Changed"]


def refuse(caller: Caller) -> None:
    assert caller.priority is Priority.LOW
    raise Overloaded("no room")


async def test_an_address_is_given_up_by_the_reads_that_failed_whatever_else_kept_it_waiting(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(executor=executor, fetch_tries=5)
    await site.payer.pay_some()
    before = await site.image()
    site.inference.down.clear()
    site.inference.scores["looks.bad"] = 0.9
    page = site.fetcher.pages[URL]

    async def pay() -> None:
        await site.payer.pay_some()
        site.now += BACKOFF.highest_seconds

    with monkeypatch.context() as patch:
        patch.setattr(site.moderate, "admit", refuse)
        for _ in range(4):
            await pay()
    site.fetcher.pages[URL] = FetchError("gone")
    await pay()
    site.fetcher.pages[URL] = page
    await pay()

    assert site.counted == [*["PutBack"] * 5, "Changed"]
    (after,) = await site.decided()
    assert (after.decision.decision, after.evidence.content) == (BLOCK, before.evidence.content)


async def test_while_there_is_no_room_for_more_a_debt_is_put_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.text()
    site.inference.down.clear()

    with monkeypatch.context() as patch:
        patch.setattr(site.moderate, "admit", refuse)
        assert await site.payer.pay_some() == 0
    assert (site.counted, await site.decided()) == (["PutBack"], [])
    site.now += 5
    assert await site.payer.pay_some() == 1


async def test_a_model_that_fails_once_more_puts_the_debt_off(site: Site) -> None:
    await site.text()
    site.inference.down.clear()
    site.inference.scores["words.bad"] = float("nan")
    await site.payer.pay_some()
    assert await site.payer.pay_some() == 0
    site.inference.scores["words.bad"] = 0.9
    site.now += 5

    assert await site.payer.pay_some() == 1
    assert site.counted == ["PutBack", "Changed"]
    assert len(await site.decided()) == 1


async def test_after_its_last_day_a_debt_is_for_review(site: Site) -> None:
    await site.text()
    site.now += PayingRules().last_seconds + 1
    await site.payer.pay_some()

    (after,) = await site.decided()
    assert (after.decision.decision, after.decision.degraded) == (REVIEW, ("words",))


async def test_an_old_debt_is_judged_by_the_policy_that_is_in_force_then(site: Site) -> None:
    await site.text()
    site.enforce("Block")
    site.now += PayingRules().last_seconds + 1
    await site.payer.pay_some()

    (after,) = await site.decided()
    assert after.decision.decision is BLOCK


async def test_of_an_erased_person_nothing_is_looked_at_again(site: Site) -> None:
    context = Context(author={"id": "author-1"})
    await site.moderate.text("abc", context, site.caller())
    await site.log.erase("author-1")
    site.inference.down.clear()

    assert await site.payer.pay_some() == 0
    assert await site.decided() == []


async def test_beyond_the_limit_it_is_for_review(executor: ThreadPoolExecutor) -> None:
    site = Site(executor=executor, limit_bytes=1200)
    await site.payer.pay_some()
    records = [await site.text(f"text {number}") for number in range(3)]

    assert [record.decision.decision for record in records] == [ALLOW, ALLOW, REVIEW]
    site.inference.down.clear()
    await site.payer.pay_some()
    await site.payer.pay_some()
    site.inference.down.add("words")
    assert (await site.text()).decision.decision is ALLOW, "there is room again"


async def test_where_nobody_pays_nothing_is_owed(executor: ThreadPoolExecutor) -> None:
    assert (await Site(executor=executor).text()).decision.decision is REVIEW


async def test_a_debt_that_somebody_else_paid_meanwhile_is_paid_once(site: Site) -> None:
    before = await site.text()
    site.inference.down.clear()
    debts = await site.log.debts.claim([("words",)], limit=1, now_seconds=site.now, lease_seconds=0)
    (other,) = await site.log.debts.claim([("words",)], limit=1, now_seconds=site.now, lease_seconds=60)
    results = [await site.payer._pay(debt) for debt in (*debts, replace(other))]

    assert results == ["Superseded", "Same"]
    assert [each.rescan_of for each in await site.decided()] == [before.id]
