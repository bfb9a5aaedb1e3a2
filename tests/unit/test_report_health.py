"""Readiness is truthful at first, and steady afterwards."""

import pytest

from baleen_core.decision.engine import compile_policy
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import Problem
from baleen_sidecar.testing import FixedInference
from baleen_sidecar.usecases.report_health import Component, ReportHealth
from baleen_sidecar.usecases.serve_models import ModelSet
from policies import make_candidate
from tiny_models import make_model

MODELS = [make_model("words", recipe="tox-block/1"), make_model("looks", recipe="owen-s/1")]


def status(name: str, standing: Standing, *problems: str) -> PolicyStatus:
    found = tuple(Problem(field="spec", message=problem) for problem in problems)
    return PolicyStatus(namespace="d", name=name, version="", digest=None, standing=standing, problems=found)


def snapshot_of(*statuses: PolicyStatus) -> PolicySnapshot:
    loaded = []
    for each in statuses:
        if each.standing is not Standing.NOTHING:
            candidate = make_candidate(each.name)
            compiled = compile_policy(each.name, "", candidate.revision, ())
            loaded.append(LoadedPolicy(candidate=candidate, compiled=compiled, lists=()))
    return PolicySnapshot(policies=tuple(loaded), statuses=statuses)


GOOD = snapshot_of(status("a", Standing.CURRENT))
WITH_A_BAD_FLOOR = snapshot_of(status("a", Standing.CURRENT), status("floor", Standing.NOTHING, "above 100%"))


class Setting:
    def __init__(self) -> None:
        self.snapshot, self.inference = GOOD, FixedInference()
        self.models, self.components = ModelSet(waiting=tuple(MODELS)), ()
        self.health = ReportHealth(
            lambda: self.snapshot, lambda: self.models, self.inference, components=lambda: self.components
        )


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_with_policies_and_models_it_is_ready(setting):
    found = await setting.health.readiness()

    assert (found.ready, found.degraded) == (True, ())


@pytest.mark.parametrize(
    ("snapshot", "down", "degraded"),
    [
        pytest.param(PolicySnapshot(), set(), ("policies",), id="no policy"),
        pytest.param(WITH_A_BAD_FLOOR, set(), ("policy/d/floor",), id="a floor that was never valid"),
        pytest.param(GOOD, {"looks"}, ("model/looks",), id="a model without its golden answers"),
    ],
)
async def test_it_is_not_ready_before_everything_was_well_once(setting, snapshot, down, degraded):
    setting.snapshot, setting.inference.down = snapshot, down
    found = await setting.health.readiness()

    assert (found.ready, found.degraded) == (False, degraded)


@pytest.mark.parametrize(
    ("snapshot", "down", "degraded"),
    [
        pytest.param(WITH_A_BAD_FLOOR, set(), ("policy/d/floor",), id="a new policy that is not valid"),
        pytest.param(GOOD, {"looks", "words"}, ("model/words", "model/looks"), id="all models down"),
        pytest.param(snapshot_of(status("a", Standing.LAST_GOOD, "x")), set(), ("policy/d/a",), id="a bad edit"),
    ],
)
async def test_once_ready_a_failure_makes_it_degraded_and_not_unready(setting, snapshot, down, degraded):
    await setting.health.readiness()
    setting.snapshot, setting.inference.down = snapshot, down
    found = await setting.health.readiness()

    assert (found.ready, found.degraded) == (True, degraded)


LOST = Component(name="source", healthy=False, detail="the API server does not answer")


async def test_a_source_that_is_lost_is_said_and_keeps_nothing_from_being_ready(setting):
    setting.components = (LOST,)
    found = await setting.health.readiness()

    assert (found.ready, found.degraded, found.components[-1]) == (True, ("source",), LOST)


async def test_a_model_that_is_declared_later_is_reported_and_does_not_make_it_unready(setting):
    await setting.health.readiness()
    setting.models = ModelSet(waiting=(*MODELS, make_model("new", recipe="owen-s/1")))
    setting.inference.down = {"new"}
    found = await setting.health.readiness()

    assert (found.ready, found.degraded) == (True, ("model/new",))


async def test_without_any_policy_it_is_never_ready(setting):
    await setting.health.readiness()
    setting.snapshot = PolicySnapshot()

    assert not (await setting.health.readiness()).ready
