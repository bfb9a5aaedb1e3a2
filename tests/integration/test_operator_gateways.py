"""Asking gateways over HTTP: who answers, who is behind, and whom a change is of interest to."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from baleen_core.errors import ClusterError
from baleen_core.policy_stream import CONVERGENCE_PATH, Load
from baleen_operator.adapters import gateways as module
from baleen_operator.adapters.gateways import GatewayPlaces, PolledGateways
from baleen_operator.metrics import Metrics
from baleen_operator.reconcile.ports import Acknowledged, Key
from waiting import until

KEY: Key = ("safety", "community")


class Gateway:
    """A gateway that answers what it is told to."""

    def __init__(self) -> None:
        self.answer: Any = {"replica": "gateway-a", "policies": {}}
        self.status = 200
        self.asked: list[str] = []
        self.url = ""

    def enforce(self, epoch: int, **more: Any) -> None:
        policy = {"epoch": epoch, "digest": "sha256:" + "0" * 64, **more}
        self.answer = {"replica": "gateway-a", "policies": {"/".join(KEY): policy}}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers.get("Authorization", ""))
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer)
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[None]:
    """Let the gateway answer on a free port."""
    app = web.Application()
    app.add_routes([web.get(CONVERGENCE_PATH, gateway.handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(
    *urls: str, token_file: Path | None = None, cluster: Any = None, **places: Any
) -> AsyncIterator[tuple[PolledGateways, list[Collection[Key]], Metrics]]:
    """Ask these gateways; yields the polling, what changed so far, and the metrics."""
    changes: list[Collection[Key]] = []
    metrics = Metrics()
    polled = PolledGateways(
        GatewayPlaces(urls=urls, **places),
        cluster,
        metrics,
        token_file=token_file,
        timeout_seconds=5,
        on_change=changes.append,
    )
    running = asyncio.create_task(polled.run())
    try:
        yield polled, changes, metrics
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often than in a cluster."""
    monkeypatch.setattr(module, "EAGER_SECONDS", 0.02)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(module, "FIND_SECONDS", 0.0)


async def test_a_policy_is_looked_at_again_when_a_gateway_adopted_its_epoch():
    gateway = Gateway()
    gateway.enforce(3)
    async with serving(gateway), asking(gateway.url) as (polled, changes, _):
        await until(lambda: bool(gateway.asked))
        # Whole: the end of the first look is news, too.
        await until(lambda: polled.acknowledged(KEY, 3) == Acknowledged(total=1, current=1))
        assert polled.acknowledged(KEY, 4) == Acknowledged(total=1, current=0, stale=("gateway-a",))
        changes.clear()
        gateway.enforce(4)

        await until(lambda: {KEY} in changes)
        assert polled.acknowledged(KEY, 4) == Acknowledged(total=1, current=1)


async def test_policies_that_nobody_asked_for_are_no_news():
    gateway = Gateway()
    async with serving(gateway), asking(gateway.url) as (_, changes, _):
        gateway.enforce(3)
        await until(lambda: len(gateway.asked) > 3)

        assert changes == []


async def test_a_gateway_that_stops_to_answer_is_behind_and_counts_again_when_it_answers():
    gateway = Gateway()
    gateway.enforce(3)
    async with serving(gateway), asking(gateway.url) as (polled, changes, metrics):
        await until(lambda: polled.acknowledged(KEY, 3).current == 1)
        gateway.status = 500
        await until(lambda: polled.acknowledged(KEY, 3).current == 0)
        assert polled.acknowledged(KEY, 3).stale == ("gateway-a",)
        assert {KEY} in changes
        await until(lambda: metrics.gateways.labels("false")._value.get() == 1)

        gateway.status = 200
        await until(lambda: polled.acknowledged(KEY, 3).current == 1)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b'{"replica": "x", "policies": {"a/b": {"epoch": "many"}}}', id="another shape"),
        pytest.param(b"x" * 3000, id="too long"),
        pytest.param(b"[" * 2000, id="too deep"),
    ],
)
async def test_an_answer_that_is_nonsense_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 2048)
    gateway = Gateway()
    gateway.answer = answer
    async with serving(gateway), asking(gateway.url) as (polled, _, metrics):
        await until(lambda: len(gateway.asked) > 2)

        assert polled.acknowledged(KEY, 1).current == 0
        assert metrics.gateways.labels("true")._value.get() == 0


async def test_the_token_is_read_anew_for_each_round(tmp_path: Path):
    gateway, token = Gateway(), tmp_path / "token"
    token.write_text("first\n")
    async with serving(gateway), asking(gateway.url, token_file=token):
        await until(lambda: "Bearer first" in gateway.asked)
        token.write_text("second")

        await until(lambda: "Bearer second" in gateway.asked)


async def test_a_token_that_cannot_be_read_keeps_nobody_from_asking(tmp_path: Path):
    gateway = Gateway()
    async with serving(gateway), asking(gateway.url, token_file=tmp_path / "none"):
        await until(lambda: len(gateway.asked) > 1)

    assert set(gateway.asked) == {""}


async def test_gateways_that_come_and_go_behind_a_service_are_followed():
    gateway = Gateway()
    gateway.enforce(3)

    class Endpoints:
        found: tuple[Any, ...] = ()

        async def select(self, *_: Any) -> Any:
            return self.found

    endpoints = Endpoints()
    async with serving(gateway):
        port = int(gateway.url.rpartition(":")[2])
        async with asking(cluster=endpoints, namespace="n", service="gateways", port=port) as (polled, changes, _):
            assert polled.acknowledged(KEY, 3).total == 0
            endpoints.found = ({"endpoints": [{"addresses": ["127.0.0.1"], "targetRef": {"name": "pod-a"}}]},)
            await until(lambda: polled.acknowledged(KEY, 3) == Acknowledged(total=1, current=1))
            assert {KEY} in changes

            endpoints.found = ()
            await until(lambda: polled.acknowledged(KEY, 3) == Acknowledged())


async def test_while_gateways_cannot_be_looked_up_nobody_is_known_and_that_is_not_all_of_them():
    class Endpoints:
        asked = 0
        is_away = True

        async def select(self, *_: Any) -> Any:
            self.asked += 1
            if self.is_away:
                raise ClusterError("list endpointslices: no answer")
            return ()

    endpoints = Endpoints()
    async with asking(cluster=endpoints, namespace="n", service="gateways") as (polled, changes, _):
        assert polled.acknowledged(KEY, 3) == Acknowledged(has_looked=False)
        await until(lambda: endpoints.asked > 3)
        assert polled.acknowledged(KEY, 3) == Acknowledged(has_looked=False)
        endpoints.is_away = False
        await until(lambda: {KEY} in changes)
        assert polled.acknowledged(KEY, 3) == Acknowledged()


def counts(number: int) -> dict[str, Any]:
    """Write what a gateway says that saw so many decisions of a rollout."""
    flips = [number] + [0] * 575
    sides = {"stable": "sha256:a", "candidate": "sha256:b"}
    return {**sides, "rollout": "r", "process": "p", "flips": flips, "cohorts": {"Stable": number}}


async def test_while_a_rollout_is_under_way_its_counts_are_asked_for_eagerly_and_tell_nobody(
    monkeypatch: pytest.MonkeyPatch,
):
    # So long that the test would not end if nobody were in a hurry.
    monkeypatch.setattr(module, "IDLE_SECONDS", 600.0)
    gateway = Gateway()
    gateway.enforce(3, trial=counts(1))
    async with serving(gateway), asking(gateway.url) as (polled, changes, _):
        assert polled.trial(KEY, "r") == {}
        polled.acknowledged(KEY, 3)
        await until(lambda: len(gateway.asked) > 3)
        assert polled.acknowledged(KEY, 3).current == 1
        assert polled.trial(KEY, "r")["gateway-a"].cohorts == {"Stable": 1}
        assert polled.trial(KEY, "another") == {}
        changes.clear()
        asked = len(gateway.asked)
        await until(lambda: len(gateway.asked) > asked + 3)
        assert changes == []

        # Whoever wants counts looks at them in his own time: they change with each request.
        gateway.enforce(3, trial=counts(2))
        await until(lambda: polled.trial(KEY, "r")["gateway-a"].flips[0] == 2)
        assert changes == []

        gateway.enforce(3)
        await until(lambda: polled.trial(KEY, "r") == {})
        asked = len(gateway.asked)
        await asyncio.sleep(0.2)
        assert len(gateway.asked) <= asked + 1, "nobody is in a hurry any more"


async def test_a_rollout_hurries_nobody_before_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IDLE_SECONDS", 600.0)
    gateway = Gateway()
    gateway.enforce(3, trial=counts(1))
    async with serving(gateway), asking(gateway.url) as (polled, _, _):
        await until(lambda: bool(gateway.asked))
        await asyncio.sleep(0.2)
        assert len(gateway.asked) == 1

        # An operator that starts in the middle of a rollout finds the epoch adopted.
        assert polled.acknowledged(KEY, 3).current == 1
        assert polled.trial(KEY, "r")["gateway-a"].flips[0] == 1
        await until(lambda: len(gateway.asked) > 3)


async def test_how_busy_a_gateway_is_is_known_while_it_answers_and_says_so():
    gateway = Gateway()
    async with serving(gateway), asking(gateway.url) as (polled, _, _):
        await until(lambda: len(gateway.asked) > 1)
        assert polled.loads() == {gateway.url: None}
        load = {"in_flight": 3, "request_seconds": 12.5, "measured_seconds": 60.0}
        gateway.answer = {**gateway.answer, "load": load}
        await until(
            lambda: polled.loads() == {gateway.url: Load(in_flight=3, request_seconds=12.5, measured_seconds=60)}
        )

        gateway.status = 500
        await until(lambda: polled.loads() == {gateway.url: None})
