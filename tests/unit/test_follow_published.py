"""A replica that follows what is published: from the last good state on, whatever fails, and it says what it does."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baleen_core.errors import Problem, UpstreamError
from baleen_core.policy.in_force import Override, Pin
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType, Revision
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.ports import Adopted, Kept, KeptPolicy, Key, Published
from baleen_sidecar.testing import FixedImages, MemoryLastGood, MemoryPolicySource, MemoryRevisionStore
from baleen_sidecar.usecases import adopt_routes, follow_published
from baleen_sidecar.usecases.adopt_routes import AdoptRoutes
from baleen_sidecar.usecases.follow_published import FollowPublished
from baleen_sidecar.usecases.serve_models import ServeModels
from model_servers import PICTURE, MemoryServers, load_recipe, served_entry
from policies import CATEGORY
from publishing import STRICTER, publication, rejecting
from served_models import make_manifest
from waiting import until

SPACE = "trust-safety"
KEY = (SPACE, "community")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ONE = publication(SPACE, "community", {"categories": [CATEGORY]})
TWO = publication(SPACE, "community", {"categories": [CATEGORY]}, {"categories": [STRICTER]}, epoch=2)
FIRST, SECOND = TWO.route.route.recent_stable[0], TWO.route.route.stable
SOURCE = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
TERMS = read_list(ListType.TERMS, "idiot")
LISTED = publication(
    SPACE,
    "listed",
    {"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": SOURCE}]},
    scope={"surface": "listed"},
    lists={"slurs": TERMS},
)


def everything(*policies: PublishedPolicy, deployments: tuple[Any, ...] = (), unread: str = "") -> Published:
    problems = (Problem(field=unread, message="cannot be read"),) if unread else ()
    return Published(policies={each.key: each for each in policies}, deployments=deployments, problems=problems)


class Source(MemoryPolicySource):
    """A source that remembers every report, with what was kept by then, and can fail or be slow."""

    def __init__(self, last_good: MemoryLastGood) -> None:
        self.looks = 0
        super().__init__()
        self.reports: list[Mapping[Key, Adopted]] = []
        self.kept_by_then: list[Kept] = []
        self.slow_lists: asyncio.Event | None = None
        self.failures = self.refusals = 0
        self._last_good = last_good

    @property
    def problem(self) -> str:
        self.looks += 1
        return self._problem

    @problem.setter
    def problem(self, problem: str) -> None:
        self._problem = problem

    async def published(self) -> AsyncGenerator[Published, None]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a defect of the source")
        async for published in super().published():
            yield published

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        if self.slow_lists is not None:
            await self.slow_lists.wait()
        if self.refusals:
            self.refusals -= 1
            raise UpstreamError("busy")
        return await super().read_list(namespace, digest, type)

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        await super().report(adopted)
        self.reports.append(adopted)
        self.kept_by_then.append(self._last_good.kept)


class LastGood(MemoryLastGood):
    """One that counts."""

    saves = tries = 0

    async def save(self, kept: Kept) -> None:
        self.tries += 1
        await super().save(kept)
        self.saves += 1


class Store(MemoryRevisionStore):
    """A store with a defect, while it has one."""

    is_broken = False
    defects = 0

    async def get_revision(self, digest: str) -> Revision | None:
        if self.is_broken:
            self.defects += 1
            raise RuntimeError("a defect of the store")
        return await super().get_revision(digest)


class Replica:
    """A replica at the wall clock's `now`; what it is made of can be looked at and disturbed."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.now = NOON
        self.store, self.last_good = Store(), LastGood()
        self.source = Source(self.last_good)
        self.signals_seen: list[frozenset[str]] = []
        self.models = ServeModels(
            RoutedInference(MemoryServers({}).connect),
            load=load_recipe,
            images=FixedImages(),
            golden_file=lambda model, name: PICTURE,
            interval_seconds=30,
        )
        self.adopt = AdoptRoutes(
            self.store, self.source, self._signals, executor=executor, wall_seconds=self._wall_seconds
        )
        self.following = FollowPublished(
            self.source, self.adopt, self.models, self.last_good, wall_seconds=self._wall_seconds
        )

    def _signals(self) -> frozenset[str]:
        self.signals_seen.append(self.models.current().signals)
        return self.signals_seen[-1]

    def _wall_seconds(self) -> float:
        return self.now.timestamp()

    @property
    def in_force(self) -> dict[str, str]:
        return {each.candidate.name: each.candidate.revision.digest for each in self.adopt.current().policies}

    @property
    def source_component(self) -> tuple[bool, str]:
        (found,) = (each for each in self.following.components() if each.name == "source")
        return found.healthy, found.detail

    def publish(self, *policies: PublishedPolicy, **more: Any) -> None:
        self.source.publish(everything(*policies, **more))

    async def until_reported(self, count: int) -> None:
        await until(lambda: len(self.source.reports) >= count)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.following.run())
        try:
            yield
            assert not running.done(), "it never ends by itself"
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def replica(executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> Replica:
    for name in ("RETRY_SECONDS", "LOOK_SECONDS", "SAVE_SECONDS"):
        monkeypatch.setattr(follow_published, name, 0.02)
    return Replica(executor)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", logger="baleen_sidecar")
    return caplog


def events(logged: pytest.LogCaptureFixture, *names: str) -> list[Any]:
    return [record for record in logged.records if record.message in names]


async def test_what_was_good_last_is_in_force_and_its_models_are_known_before_anything_is_published(replica, logged):
    await replica.store.put_revision("trust-safety/community", ONE.revisions[0][1])
    deployment = make_manifest(models=[served_entry()])
    kept = KeptPolicy(route=ONE.route, digest=FIRST, version="v1")
    replica.last_good.kept = Kept(policies={KEY: kept}, deployments=(deployment,))
    replica.source.lose("out of reach")
    await replica.following.restore()

    assert replica.in_force == {"community": FIRST}
    assert replica.models.current().signals == {"looks.gore", "looks.sexual"}
    assert set(replica.signals_seen) == {frozenset({"looks.gore", "looks.sexual"})}
    (event,) = events(logged, "policy adopted")
    assert (event.policy, event.epoch, event.digest, event.standing) == ("trust-safety/community", 1, FIRST, "Current")


async def test_a_last_good_state_that_cannot_be_read_is_said_and_what_is_published_acts(replica, logged):
    replica.last_good.fault = "damaged"
    await replica.following.restore()

    assert replica.in_force == {}
    (event,) = events(logged, "last good state not read")
    assert "damaged" in event.cause

    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(2)

    assert replica.in_force == {"community": FIRST}


async def test_what_is_published_is_adopted_and_told_to_whoever_asks_each_time(replica):
    async with replica.running():
        replica.publish(ONE.policy)
        await replica.until_reported(1)
        replica.publish(TWO.policy)
        await replica.until_reported(2)
        replica.publish()
        await replica.until_reported(3)

    assert replica.source.reports == [
        {KEY: Adopted(epoch=1, digest=FIRST)},
        {KEY: Adopted(epoch=2, digest=SECOND)},
        {},
    ]


async def test_what_is_told_to_be_in_force_was_kept_before(replica):
    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(1)

    assert [each.policies[KEY].digest for each in replica.source.kept_by_then] == [FIRST]


async def test_policies_are_compiled_by_the_signals_of_the_models_that_come_with_them(replica):
    replica.publish(ONE.policy, deployments=(make_manifest(models=[served_entry()]),))
    async with replica.running():
        await replica.until_reported(1)

    assert set(replica.signals_seen) == {frozenset({"looks.gore", "looks.sexual"})}


async def test_models_are_gone_with_their_deployment_but_not_while_something_cannot_be_read(replica):
    async with replica.running():
        replica.publish(ONE.policy, deployments=(make_manifest(models=[served_entry()]),))
        await replica.until_reported(1)
        replica.publish(ONE.policy, unread="ModelDeployment trust-safety/models")
        await replica.until_reported(2)
        assert replica.models.current().signals

        replica.publish(ONE.policy)
        await replica.until_reported(3)
        assert not replica.models.current().signals


async def test_the_last_good_state_is_saved_only_when_it_is_another(replica):
    async with replica.running():
        replica.publish(ONE.policy, deployments=(make_manifest(models=[served_entry()]),))
        await replica.until_reported(1)
        replica.publish(ONE.policy, deployments=(make_manifest(models=[served_entry()]),))
        await replica.until_reported(2)
        assert replica.last_good.saves == 1

        replica.publish(TWO.policy, deployments=(make_manifest(models=[served_entry()]),))
        await replica.until_reported(3)

    assert replica.last_good.saves == 2
    assert replica.last_good.kept == Kept(policies=replica.adopt.kept(), deployments=replica.models.kept())
    assert replica.last_good.kept.policies[KEY].digest == SECOND


async def test_what_was_restored_and_is_published_is_not_saved_again(replica):
    await replica.store.put_revision("trust-safety/community", ONE.revisions[0][1])
    replica.last_good.kept = Kept(policies={KEY: KeptPolicy(route=ONE.route, digest=FIRST, version="v1")})
    await replica.following.restore()
    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(2)

    assert replica.last_good.saves == 0


async def test_a_state_that_cannot_be_saved_acts_is_said_once_and_is_saved_when_it_can_be(replica, logged):
    replica.last_good.fault = "no space left"
    async with replica.running():
        replica.publish(ONE.policy)
        await replica.until_reported(1)
        replica.publish(TWO.policy)
        await replica.until_reported(2)
        await until(lambda: replica.last_good.tries > 3)

        assert replica.in_force == {"community": SECOND}
        assert [event.cause for event in events(logged, "last good state not kept")] == [
            "the last good state: no space left"
        ]

        replica.last_good.fault = ""
        await until(lambda: replica.last_good.saves == 1)

    assert replica.last_good.kept.policies[KEY].digest == SECOND


async def test_a_defect_while_adopting_is_logged_and_the_same_is_tried_again(replica, logged):
    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(1)
        replica.store.is_broken = True
        replica.publish(TWO.policy)
        await until(lambda: replica.store.defects > 1)
        assert replica.in_force == {"community": FIRST}

        replica.store.is_broken = False
        await until(lambda: replica.in_force == {"community": SECOND})

    assert "a defect of the store" in events(logged, "following failed")[0].exc_text


async def test_a_defect_of_the_source_is_logged_and_it_is_followed_again(replica, logged):
    replica.source.failures = 2
    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(1)

    assert len(events(logged, "following failed")) == 2
    assert replica.in_force == {"community": FIRST}


async def test_before_anything_was_published_nothing_is_removed_and_what_is_enforced_is_told(replica, logged):
    await replica.store.put_revision("trust-safety/community", ONE.revisions[0][1])
    replica.last_good.kept = Kept(policies={KEY: KeptPolicy(route=ONE.route, digest=FIRST, version="v1")})
    await replica.following.restore()
    replica.source.lose("out of reach")
    async with replica.running():
        await until(lambda: bool(events(logged, "policy source lost")))

        assert replica.in_force == {"community": FIRST}
        assert replica.source.reports == [{KEY: Adopted(epoch=1, digest=FIRST)}]


async def test_a_list_that_takes_long_does_not_hold_up_an_override_and_acts_as_soon_as_it_comes(replica, monkeypatch):
    monkeypatch.setattr(adopt_routes, "RETRY", BackoffRules(first_seconds=3600, highest_seconds=3600))
    replica.source.slow_lists = asyncio.Event()
    replica.source.lists = {TERMS.digest: canonical_list(TERMS)}
    async with replica.running():
        replica.publish(LISTED.policy, TWO.policy)
        await until(lambda: replica.in_force == {"community": SECOND})
        replica.publish(LISTED.policy, replace(TWO.policy, override=rejecting(SECOND)))
        await until(lambda: replica.in_force == {"community": FIRST})
        assert "is not here" in replica.source.adopted[SPACE, "listed"].pending

        replica.source.slow_lists.set()
        await until(lambda: replica.in_force == {"community": FIRST, "listed": LISTED.route.route.stable})
        await until(lambda: replica.source.adopted[SPACE, "listed"].pending == "")


async def test_a_list_that_cannot_be_read_at_first_is_read_later_without_anything_being_published(replica):
    replica.source.lists, replica.source.refusals = {TERMS.digest: canonical_list(TERMS)}, 1
    replica.publish(LISTED.policy)

    def is_in_force_later() -> bool:
        replica.now += timedelta(seconds=1)
        return bool(replica.in_force)

    async with replica.running():
        await until(is_in_force_later)

    assert replica.source.refusals == 0


async def test_a_pin_ends_at_its_time_without_anything_being_published(replica):
    end = NOON + timedelta(milliseconds=50)
    replica.publish(replace(TWO.policy, override=Override(pin=Pin(digest=FIRST, expire_time=end.isoformat()))))
    async with replica.running():
        await until(lambda: replica.in_force == {"community": FIRST})
        replica.now = end
        await until(lambda: replica.in_force == {"community": SECOND})
        await until(lambda: replica.source.adopted == {KEY: Adopted(epoch=2, digest=SECOND)})


async def test_while_the_source_is_lost_it_is_degraded_and_says_since_when(replica, logged):
    replica.publish(ONE.policy)
    async with replica.running():
        await replica.until_reported(1)
        assert (replica.following.degraded(), replica.source_component) == ((), (True, ""))

        replica.source.lose("connection refused")
        assert replica.following.degraded() == ("PolicySource",)
        await until(lambda: bool(events(logged, "policy source lost")))
        replica.now += timedelta(minutes=10)
        looks = replica.source.looks
        await until(lambda: replica.source.looks > looks + 2)
        assert replica.source_component == (
            False,
            "lost since 2026-01-31T12:00:00+00:00: connection refused; what was good last is enforced",
        )
        assert replica.in_force == {"community": FIRST}

        replica.source.come_back()
        assert (replica.following.degraded(), replica.source_component) == ((), (True, ""))
        await until(lambda: bool(events(logged, "policy source followed")))

    (lost,) = events(logged, "policy source lost")
    (followed,) = events(logged, "policy source followed")
    assert (lost.problem, lost.levelname, followed.lost_seconds) == ("connection refused", "WARNING", 600)


async def test_a_second_loss_is_dated_anew(replica, logged):
    async with replica.running():
        for number in (1, 2):
            replica.now += timedelta(hours=1)
            replica.source.lose("connection refused")
            await until(lambda number=number: len(events(logged, "policy source lost")) == number)
            assert f"lost since 2026-01-31T{12 + number}:00:00" in replica.source_component[1]
            replica.source.come_back()
            await until(lambda number=number: len(events(logged, "policy source followed")) == number)


async def test_what_is_wrong_with_the_models_is_a_component_of_its_own(replica):
    replica.publish(ONE.policy, deployments=(make_manifest(models=[served_entry(version="one")]),))
    async with replica.running():
        await replica.until_reported(1)

    (source, deployments) = replica.following.components()
    assert (source.healthy, deployments.name, deployments.healthy) == (True, "deployments", False)
    assert "ModelDeployment trust-safety/models: spec.models[0].version" in deployments.detail
    assert replica.following.degraded() == ()


async def test_each_change_is_logged_once_with_what_is_wrong(replica, logged):
    async with replica.running():
        replica.publish(ONE.policy)
        await replica.until_reported(1)
        replica.publish(replace(TWO.policy, revisions={}), unread="a route")
        await replica.until_reported(2)
        replica.publish(replace(TWO.policy, revisions={}), LISTED.policy, unread="a route")
        await replica.until_reported(3)
        replica.publish()
        await until(lambda: bool(events(logged, "policy removed")))

    adopted = [event for event in events(logged, "policy adopted") if event.policy == "trust-safety/community"]
    assert [(event.levelname, event.epoch, event.digest) for event in adopted] == [
        ("INFO", 1, FIRST),
        ("WARNING", 1, FIRST),
    ]
    assert "epoch 2 is not whole" in adopted[1].problems[0]
    assert [event.problem for event in events(logged, "published")] == ["a route: cannot be read"]
    assert sorted(event.policy for event in events(logged, "policy removed")) == [
        "trust-safety/community",
        "trust-safety/listed",
    ]


async def test_rules_that_are_compiled_again_for_other_models_are_no_change_to_log(replica, logged):
    rule = {"name": "gore", "when": "looks.gore > 0.5", "action": "Review"}
    ruled = publication(SPACE, "community", {"categories": [CATEGORY], "rules": [rule]})
    async with replica.running():
        replica.publish(ruled.policy)
        await replica.until_reported(1)
        before = replica.adopt.current()
        replica.publish(ruled.policy, deployments=(make_manifest(models=[served_entry()]),))
        await replica.until_reported(2)

    assert replica.adopt.current() is not before
    assert len(events(logged, "policy adopted")) == 1
