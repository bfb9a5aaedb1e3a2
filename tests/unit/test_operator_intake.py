"""From a change to whom it is of interest to."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from baleen_core.resources import (
    API_VERSION,
    DEPLOYMENT_KIND,
    OVERRIDE_KIND,
    POLICY_KIND,
    POLICY_LABEL,
    REVISION_KIND,
    ROUTE_KIND,
)
from baleen_operator.adapters import intake as module
from baleen_operator.adapters.intake import Intake
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.adapters.queue import Task
from baleen_operator.metrics import Metrics
from waiting import until


class Added:
    """What was put on the queue, urgent and routine."""

    def __init__(self) -> None:
        self.urgent: list[Task] = []
        self.routine: list[Task] = []

    def __call__(self, tasks: Iterable[Task], *, urgent: bool) -> None:
        (self.urgent if urgent else self.routine).extend(tasks)

    def clear(self) -> None:
        self.urgent.clear()
        self.routine.clear()


def manifest(kind: str, name: str, version: int, spec: Any = None, **meta: Any) -> Any:
    metadata = {"name": name, "namespace": "n", "resourceVersion": str(version), **meta}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec or {}}


@pytest.fixture
async def parts() -> tuple[Intake, Mirror, Added]:
    added, mirror = Added(), Mirror()
    intake = Intake(mirror, Metrics(), added)
    mirror.on_change = intake.on_change
    return intake, mirror, added


async def report(intake: Intake, kind: str, event: str | None, body: Any) -> None:
    """Report a change as kopf's thread does, and let it be taken over."""
    await asyncio.to_thread(intake.resource, kind, event, body)
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("kind", "name", "meta"),
    [
        pytest.param(POLICY_KIND, "p", {}, id="its own spec"),
        pytest.param(ROUTE_KIND, "p", {}, id="a route edited by hand"),
        pytest.param(OVERRIDE_KIND, "p", {}, id="an override"),
        pytest.param(REVISION_KIND, "p-0123456789", {"labels": {POLICY_LABEL: "p"}}, id="a revision edited by hand"),
    ],
)
async def test_a_policy_is_looked_at_when_any_part_of_it_changes_or_goes(
    parts: tuple[Intake, Mirror, Added], kind: str, name: str, meta: Any
):
    intake, _, added = parts
    for event, version in (("ADDED", 1), ("MODIFIED", 2), ("DELETED", 3)):
        added.clear()
        await report(intake, kind, event, manifest(kind, name, version, **meta))

        assert added.urgent == [(POLICY_KIND, ("n", "p"))]


async def test_what_the_operator_wrote_itself_is_no_news_when_the_watch_reports_it(parts: tuple[Intake, Mirror, Added]):
    intake, mirror, added = parts
    mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 7), own=True)
    await report(intake, ROUTE_KIND, "MODIFIED", manifest(ROUTE_KIND, "p", 7))

    assert added.urgent == []


async def test_a_policy_that_takes_or_leaves_a_scope_is_of_interest_to_those_that_share_it(
    parts: tuple[Intake, Mirror, Added],
):
    intake, _, added = parts
    chat, voice = {"scope": {"surface": "chat"}}, {"scope": {"surface": "voice"}}
    await report(intake, POLICY_KIND, "ADDED", manifest(POLICY_KIND, "a", 1, chat))
    await report(intake, POLICY_KIND, "ADDED", manifest(POLICY_KIND, "b", 2, voice))
    added.clear()
    await report(intake, POLICY_KIND, "MODIFIED", manifest(POLICY_KIND, "b", 3, chat))
    assert (POLICY_KIND, ("n", "a")) in added.routine

    added.clear()
    await report(intake, POLICY_KIND, "DELETED", manifest(POLICY_KIND, "b", 4, chat))
    assert (POLICY_KIND, ("n", "a")) in added.routine


async def test_a_config_map_is_of_interest_to_the_policies_that_read_it(parts: tuple[Intake, Mirror, Added]):
    intake, mirror, added = parts
    source = {"type": "ConfigMap", "name": "slurs", "key": "k"}
    mirror.put(POLICY_KIND, manifest(POLICY_KIND, "p", 1, {"policy": {"lists": [{"name": "l", "source": source}]}}))
    added.clear()
    intake.config_map("MODIFIED", "n", "slurs")
    intake.config_map("MODIFIED", "n", "others")
    await asyncio.sleep(0)

    assert added.urgent == [(POLICY_KIND, ("n", "p"))]


async def test_a_runtime_is_of_interest_to_the_deployment_that_owns_it(parts: tuple[Intake, Mirror, Added]):
    intake, _, added = parts
    owners = [{"kind": DEPLOYMENT_KIND, "name": "d"}, {"kind": "Other", "name": "x"}]
    intake.deployment("MODIFIED", {"metadata": {"name": "triton-d", "namespace": "n", "ownerReferences": owners}})
    intake.deployment("MODIFIED", {"metadata": {"name": "no-owner", "namespace": "n"}})
    await asyncio.sleep(0)

    assert added.urgent == [(DEPLOYMENT_KIND, ("n", "d"))]


async def test_models_that_change_are_of_interest_to_every_policy_once_for_all_changes(
    parts: tuple[Intake, Mirror, Added], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.01)
    intake, mirror, added = parts
    mirror.put(POLICY_KIND, manifest(POLICY_KIND, "p", 1))
    served: list[tuple[str, ...]] = [()]
    monkeypatch.setattr(mirror, "models", lambda: served[-1])
    added.clear()
    for number in range(5):
        served.append((f"model-{number}",))
        await report(intake, DEPLOYMENT_KIND, "ADDED", manifest(DEPLOYMENT_KIND, f"d{number}", 2 + number))
    await until(lambda: bool(added.routine))

    assert added.routine.count((POLICY_KIND, ("n", "p"))) == 1
    assert added.urgent == [(DEPLOYMENT_KIND, ("n", f"d{number}")) for number in range(5)]


async def test_what_is_listed_rather_than_watched_asks_for_a_listing(parts: tuple[Intake, Mirror, Added]):
    intake, _, _ = parts
    await report(intake, POLICY_KIND, "ADDED", manifest(POLICY_KIND, "p", 1))
    assert not intake.listed.is_set()

    await report(intake, POLICY_KIND, None, manifest(POLICY_KIND, "p", 1))
    assert intake.listed.is_set()


async def test_at_the_start_everything_is_looked_at_also_a_route_without_its_policy(
    parts: tuple[Intake, Mirror, Added],
):
    intake, mirror, added = parts
    mirror.put(POLICY_KIND, manifest(POLICY_KIND, "p", 1))
    mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "p", 2))
    mirror.put(ROUTE_KIND, manifest(ROUTE_KIND, "gone", 3))
    mirror.put(DEPLOYMENT_KIND, manifest(DEPLOYMENT_KIND, "d", 4))
    added.clear()
    intake.everything()

    assert sorted(added.routine) == [
        (DEPLOYMENT_KIND, ("n", "d")),
        (POLICY_KIND, ("n", "gone")),
        (POLICY_KIND, ("n", "p")),
    ]
