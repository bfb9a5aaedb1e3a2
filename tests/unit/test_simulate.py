"""Simulations: how far back they look, and when they stop."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec import structs

from baleen_core.records import DecisionRecord
from baleen_sidecar.testing import MemoryDecisionLog, MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents
from baleen_sidecar.usecases.simulate import Draft, Ended, Simulate
from evidence import decide_by, make_evidence, make_model
from policies import policy_manifest

SCORE = "pictures.gore"
MODELS = (make_model("pictures", "gore"),)


def manifest(review: str) -> dict[str, Any]:
    return policy_manifest({"categories": [{"name": "gore", "signals": [{"name": SCORE, "review": review}]}]})


class Site:
    """A policy in force, a log, and a clock that moves by `tick` seconds each time that somebody looks."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store, self.log, self.tick = MemoryRevisionStore(), MemoryDecisionLog(), 0.0
        self.adopt = AdoptPolicies(self.store, MODELS, executor=executor, wall_seconds=lambda: 0.0)
        self.clock = itertools.count()
        self.simulate = Simulate(
            self.adopt.current,
            lambda: MODELS,
            self.log,
            self.store,
            executor=executor,
            monotonic_seconds=lambda: next(self.clock) * self.tick,
            page_rows=10,
            limit_seconds=30.0,
        )

    async def put_in_force(self, policy: dict[str, Any]) -> None:
        await self.adopt.adopt(Documents(documents=(Document(file="a.yaml", body=policy),)))

    async def decide(self, *scores: int, elsewhere: bool = False) -> None:
        """Put decisions of the policy in force on record, or of another one that is called otherwise."""
        (loaded,) = self.adopt.current().policies
        for score in scores:
            evidence = make_evidence({SCORE: score})
            decision = decide_by(loaded.compiled, evidence=evidence)
            if elsewhere:
                refs = tuple(structs.replace(ref, name="other") for ref in decision.policies)
                decision = structs.replace(decision, policies=refs)
            name = f"{await self.log.count():06}"
            await self.log.append(DecisionRecord(id=name, time="", evidence=evidence, decision=decision))


@pytest.fixture
async def site():
    with ThreadPoolExecutor(1) as executor:
        site = Site(executor)
        await site.put_in_force(manifest("50%"))
        yield site


async def test_the_newest_decisions_are_compared_until_there_are_enough(site):
    await site.decide(*[400_000] * 25, *[100_000] * 15)

    enough = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=15)
    more = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=16)
    everything = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=41)

    assert (enough.found.compared, enough.found.flips.overall.flips, enough.ended) == (15, 0, Ended.ENOUGH)
    assert (more.found.compared, more.found.flips.overall.flips, more.ended) == (16, 1, Ended.ENOUGH)
    assert (everything.found.compared, everything.found.flips.overall.flips) == (40, 25)
    assert everything.ended is Ended.END_OF_LOG


async def test_what_others_decided_is_passed_over_up_to_a_limit(site):
    await site.decide(400_000)
    await site.decide(*[400_000] * 49, elsewhere=True)

    four = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=4)
    five = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=5)

    assert (four.found.compared, four.found.elsewhere, four.ended) == (0, 40, Ended.SCAN_LIMIT)
    assert (five.found.compared, five.found.elsewhere, five.ended) == (1, 49, Ended.SCAN_LIMIT)


async def test_a_simulation_takes_no_longer_than_it_may(site):
    await site.decide(*[400_000] * 100)
    site.tick = 10.0

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), decisions=100)

    assert (found.ended, found.found.compared) == (Ended.TIME_LIMIT, 20)


async def test_a_simulation_that_nobody_wants_any_more_ends_with_its_page(site):
    await site.decide(*[400_000] * 100)
    asked = itertools.count(1)

    async def is_wanted() -> bool:
        return next(asked) <= 3

    found = await site.simulate.run("community", Draft(policy=manifest("20%")), is_wanted=is_wanted)

    assert (found.ended, found.found.compared) == (Ended.ABANDONED, 30)


async def test_decisions_of_earlier_revisions_are_judged_by_the_one_in_force(site):
    await site.decide(*[400_000] * 10)
    await site.put_in_force(manifest("30%"))

    found = await site.simulate.run("community", Draft(policy=manifest("20%")))

    assert (found.found.compared, found.found.flips.overall.flips) == (10, 0)


async def test_after_a_failure_the_next_simulation_runs(site):
    await site.decide(400_000)
    site.log.newest, newest = None, site.log.newest
    with pytest.raises(TypeError):
        await site.simulate.run("community", Draft(policy=manifest("20%")))
    site.log.newest = newest

    assert (await site.simulate.run("community", Draft(policy=manifest("20%")))).found.compared == 1
