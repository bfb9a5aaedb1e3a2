"""Texts for which nobody has to be waited for are decided at once, and many of them kept side by side."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.errors import ContentError, DeadlineExceeded, LogUnavailable, NoPolicy
from baleen_core.model.loaded import LoadedModel
from baleen_core.policy.schema import Verdict
from baleen_core.priority import Priority
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.flow.governor import GovernorRules, Throttle
from baleen_sidecar.ports import Beside
from baleen_sidecar.testing import (
    FixedInference,
    MemoryDecisionLog,
)
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.usecases.moderate import INLINE_TEXT_LENGTH, Caller, Moderate
from baleen_sidecar.usecases.serve_models import FixedModels
from moderating import enforcing, make_moderate, make_shell
from tiny_models import Letters, make_model

MODEL = LoadedModel(model=make_model("words", recipe="tox-block/1"), sha256="aa", text=Letters())
RULES = [{"name": "links", "when": "content.links > 0", "action": "Review"}]
CATEGORIES = [
    {
        "name": "rude",
        "signals": [{"name": "words.bad", "block": "50%"}],
        "languages": ["de"],
        "onLanguageUnsupported": "Skip",
    }
]
NOW = 1_790_000_000.0


class SlowLog(MemoryDecisionLog):
    """Keeps some records at once, refuses some, and never gets to others, by the texts' lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.slow: set[int] = set()
        self.broken: set[int] = set()
        self.waiting = 0

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        length = record.evidence.content.length
        if length in self.broken:
            raise LogUnavailable("no room")
        if length in self.slow:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        return await super().append(record, beside)


@dataclass(kw_only=True)
class Site:
    executor: ThreadPoolExecutor
    log: SlowLog = field(default_factory=SlowLog)
    heard: list[DecisionRecord] = field(default_factory=list)
    snapshot: PolicySnapshot = field(default_factory=PolicySnapshot)
    governor: Governor | None = None

    def moderate(self) -> Moderate:
        return make_moderate(
            lambda: self.snapshot,
            FixedModels([MODEL]),
            FixedInference(),
            make_shell(self.executor, lambda: NOW),
            log=self.log,
            on_decision=self.heard.append,
            governor=self.governor,
        )

    def enforce(self, content: dict[str, object]) -> None:
        self.snapshot = enforcing(content, {"words.bad"})


@pytest.fixture
def site() -> Iterator[Site]:
    with ThreadPoolExecutor(1) as executor:
        made = Site(executor=executor)
        made.enforce({"rules": RULES})
        yield made


def caller(seconds: float = 60.0, priority: Priority = Priority.NORMAL) -> Caller:
    return Caller(request_id="r", received_seconds=NOW, deadline_seconds=seconds, priority=priority)


def without_chance(record: DecisionRecord) -> object:
    return record.evidence, record.decision, record.request_id, record.durability


@pytest.mark.parametrize("text", ["hello", "see http://a.example/b", "i.d.i.o.t"])
async def test_at_once_or_waited_for_the_decision_is_the_same(site: Site, text: str) -> None:
    moderate = site.moderate()
    at_once = moderate.text_at_once(text, Context(language="de-AT"), caller())

    assert at_once is not None
    assert await site.log.get(at_once.id) is None
    kept = await moderate.text(text, Context(language="de-AT"), caller())
    assert without_chance(kept) == without_chance(at_once)
    assert await site.log.get(kept.id) == kept
    assert site.heard == [kept]


async def test_who_has_to_be_waited_for_is_not_decided_at_once(site: Site) -> None:
    assert site.moderate().text_at_once("a" * (INLINE_TEXT_LENGTH + 1), Context(), caller()) is None
    site.governor = Governor(
        resources=None,  # type: ignore[arg-type]
        rules=GovernorRules(),
        monotonic_seconds=lambda: NOW,
        chance=bytes,
    )
    site.governor.throttle = Throttle(step=len(Priority))
    assert not site.governor.lets_in(Priority.NORMAL)
    assert site.moderate().text_at_once("a", Context(), caller()) is None
    assert site.moderate().text_at_once("a", Context(), caller(priority=Priority.CRITICAL)) is not None


async def test_where_a_model_may_be_asked_for_any_language_nothing_is_decided_at_once(site: Site) -> None:
    site.enforce({"rules": RULES, "categories": CATEGORIES})

    assert site.moderate().text_at_once("hello", Context(language="en"), caller()) is None


async def test_what_is_refused_is_refused_at_once(site: Site) -> None:
    for wrong in ("", "\ud800", "x" * 100_001):
        with pytest.raises(ContentError):
            await site.moderate().text(wrong, Context(), caller())
    site.snapshot = PolicySnapshot()
    with pytest.raises(NoPolicy):
        site.moderate().text_at_once("hello", Context(), caller())
    assert site.heard == []


async def test_of_many_each_is_kept_for_itself_and_by_the_deadline(site: Site) -> None:
    site.log.broken, site.log.slow = {2}, {3}
    moderate = site.moderate()
    records = [moderate.text_at_once("a" * length, Context(), caller()) for length in (1, 2, 3, 4)]

    found = await moderate.keep_all([record for record in records if record], caller(seconds=0.05))

    assert [type(each) for each in found] == [DecisionRecord, LogUnavailable, DeadlineExceeded, DecisionRecord]
    assert [each.evidence.content.length for each in site.heard] == [1, 4]
    assert site.log.waiting == 0


@pytest.mark.parametrize("times", [1, 2], ids=["once", "told twice"])
async def test_who_leaves_takes_what_waits_for_the_log_along(site: Site, times: int) -> None:
    site.log.slow = {3}
    moderate = site.moderate()
    quick, record = (moderate.text_at_once(text, Context(), caller()) for text in ("ab", "abc"))
    assert quick is not None
    assert record is not None
    assert record.decision.decision is Verdict.ALLOW
    keeping = asyncio.create_task(moderate.keep_all([quick, record], caller()))
    await asyncio.sleep(0.01)
    assert site.log.waiting == 1

    keeping.cancel()
    if times == 2:
        await asyncio.sleep(0)
        keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    await asyncio.sleep(0)
    assert site.log.waiting == 0
    assert site.heard == [quick]
