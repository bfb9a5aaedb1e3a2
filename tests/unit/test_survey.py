"""Surveys: how far back they look, when they stop, and that one runs at a time."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import UNSET, UnsetType, structs

from baleen_core.errors import NotFound, Overloaded, StateError
from baleen_sidecar.testing import MemoryDecisionLog, MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents
from baleen_sidecar.usecases.survey import LookedBack, Survey
from decision_records import make_record
from evidence import make_model
from policies import policy_manifest

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODELS = (make_model("pictures", "gore"),)
DIGEST = "sha256:" + "c0" * 32


class Site:
    """A policy `community`, a log, and a clock that moves by `tick` seconds each time that somebody looks."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store, self.log, self.tick = MemoryRevisionStore(), MemoryDecisionLog(), 0.0
        self.adopt = AdoptPolicies(self.store, MODELS, executor=executor, wall_seconds=lambda: 0.0)
        clock = itertools.count()
        self.survey = Survey(
            self.adopt.current,
            lambda: frozenset({"pictures.gore"}),
            self.log,
            self.store,
            executor=executor,
            monotonic_seconds=lambda: next(clock) * self.tick,
            wall_seconds=NOW.timestamp,
            page_rows=10,
            limit_seconds=30.0,
        )

    async def decide(
        self,
        *ages: float,
        policy: str = "community",
        namespace: str | UnsetType = "trust-safety",
        digest: str = DIGEST,
    ) -> None:
        """Put decisions on record that are so many seconds old."""
        for age in ages:
            name, time = f"{await self.log.count():06}", (NOW - timedelta(seconds=age)).isoformat()
            made = make_record(name, time=time)
            ref = structs.replace(made.decision.policies[0], name=policy, namespace=namespace, digest=digest)
            await self.log.append(structs.replace(made, decision=structs.replace(made.decision, policies=(ref,))))


@pytest.fixture
async def site() -> Any:
    with ThreadPoolExecutor(1) as executor:
        made = Site(executor)
        category = {"name": "gore", "signals": [{"name": "pictures.gore", "review": "50%"}]}
        body = policy_manifest({"categories": [category]})
        await made.adopt.adopt(Documents(documents=(Document(file="a.yaml", body=body),)))
        yield made


async def test_the_newest_are_counted_over_the_time_that_they_were_made_in(site: Site) -> None:
    await site.decide(*range(100, 0, -1))
    found = await site.survey.performance("community", decisions=25)

    assert (found.decisions, found.scanned, found.ended) == (25, 30, LookedBack.ENOUGH)
    assert found.seconds == 25


async def test_a_time_that_is_looked_at_whole_counts_whole(site: Site) -> None:
    await site.decide(*range(1000, 900, -1), *range(40, 20, -1))
    found = await site.survey.performance("community", seconds=60)

    assert (found.decisions, found.ended, found.seconds) == (20, LookedBack.WINDOW, 60)
    assert found.scanned == 30


async def test_decisions_that_came_late_are_counted_by_when_they_were_made(site: Site) -> None:
    await site.decide(10, 500, 500, 20)
    found = await site.survey.performance("community", seconds=60)

    assert (found.decisions, found.scanned, found.ended, found.seconds) == (2, 4, LookedBack.END_OF_LOG, 20)


async def test_a_log_that_has_just_begun_makes_no_great_rate(site: Site) -> None:
    await site.decide(0.01)

    assert (await site.survey.performance("community")).seconds == 1


@pytest.mark.parametrize(
    ("tick", "decisions", "ended", "scanned"),
    [
        pytest.param(0.0, 3, LookedBack.SCAN_LIMIT, 30, id="ten are looked at for each"),
        pytest.param(16.0, 100, LookedBack.TIME_LIMIT, 10, id="the time is limited"),
        pytest.param(0.0, 100, LookedBack.END_OF_LOG, 50, id="the log ends"),
    ],
)
async def test_decisions_of_others_are_looked_at_within_limits(site: Site, tick, decisions, ended, scanned) -> None:
    await site.decide(*[5] * 50, policy="other")
    site.tick = tick
    found = await site.survey.performance("community", decisions=decisions)

    assert (found.decisions, found.found, found.ended, found.scanned) == (0, {}, ended, scanned)


async def test_whoever_does_not_want_to_know_any_more_ends_it(site: Site) -> None:
    await site.decide(*[5] * 50)
    wanted = iter([True, True, False])

    async def is_wanted() -> bool:
        return next(wanted)

    found = await site.survey.performance("community", is_wanted=is_wanted)

    assert (found.ended, found.scanned) == (LookedBack.ABANDONED, 20)


async def test_policies_of_one_name_in_two_namespaces_are_told_apart(site: Site) -> None:
    await site.decide(*[5] * 7, namespace="elsewhere")
    await site.decide(*[5] * 3)
    found = await site.survey.performance("community")

    assert (found.decisions, found.no_namespace) == (3, 0)
    assert {digest: each.decisions for digest, each in found.found.items()} == {DIGEST: 3}


async def test_decisions_without_a_namespace_count_where_a_revision_of_the_policy_judged_and_else_are_said(
    site: Site,
) -> None:
    ours = site.adopt.current().statuses[0].digest
    assert ours
    await site.decide(*[5] * 7, namespace=UNSET)
    await site.decide(*[5] * 3, namespace=UNSET, digest=ours)
    await site.decide(*[9_000] * 4, namespace=UNSET)
    found = await site.survey.performance("community")

    assert (found.decisions, found.no_namespace) == (3, 7)
    assert {digest: each.decisions for digest, each in found.found.items()} == {ours: 3}


async def test_one_survey_runs_at_a_time(site: Site) -> None:
    await site.decide(5)
    held, begun = asyncio.Event(), asyncio.Event()

    async def is_wanted() -> bool:
        begun.set()
        await held.wait()
        return True

    first = asyncio.ensure_future(site.survey.performance("community", is_wanted=is_wanted))
    await begun.wait()
    with pytest.raises(Overloaded, match="one runs at a time"):
        await site.survey.performance("community")
    held.set()

    assert (await first).decisions == 1
    assert (await site.survey.performance("community")).decisions == 1


async def test_what_cannot_be_surveyed_is_said(site: Site) -> None:
    with pytest.raises(NotFound, match="there is no policy 'x'"):
        await site.survey.performance("x")
    with pytest.raises(NotFound, match="is rolled out now; name both digests"):
        await site.survey.flips("community")
    made = make_record("1", time="yesterday")
    await site.log.append(made)
    with pytest.raises(StateError, match="decision 1 has no time"):
        await site.survey.performance("community")
