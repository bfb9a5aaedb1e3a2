"""Calls go in turn to the servers that gave the golden answers, and to no other."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ModelUnavailable
from baleen_sidecar.adapters.routed import RoutedInference, ranked
from model_servers import MemoryServers
from served_models import IMAGE_MODEL

MODEL = IMAGE_MODEL
ROW = {"image": np.ones((1, 3, 224, 224), np.float32)}
KEY = (MODEL.name, MODEL.version)


@dataclass(frozen=True)
class Choice:
    confirmed: bool
    failing: bool
    ejected: bool = False

    def is_confirmed(self, model):
        return self.confirmed

    def is_failing(self):
        return self.failing

    def is_ejected(self, model):
        return self.ejected


class Setting:
    def __init__(self):
        self.servers = MemoryServers({KEY: 0.9})
        self.inference = RoutedInference(self.servers.connect)

    def route(self, *endpoints, confirmed=True):
        self.inference.route({MODEL.name: endpoints})
        for endpoint in endpoints if confirmed else ():
            self.inference.server(endpoint).confirm(MODEL)

    async def ask(self, times=1):
        for _ in range(times):
            await self.inference.infer(MODEL, ROW)

    @property
    def calls(self):
        return {endpoint: len(server.calls) for endpoint, server in self.servers.items()}


@pytest.fixture
def setting():
    return Setting()


choices = st.builds(Choice, st.booleans(), st.booleans(), st.booleans())


@given(st.lists(choices), st.integers(0, 1000))
def test_all_that_are_confirmed_are_asked_and_those_in_trouble_last(servers, turn):
    order = ranked(servers, MODEL, turn)
    troubled = [server.failing or server.ejected for server in order]

    assert Counter(map(id, order)) == Counter(id(server) for server in servers if server.confirmed)
    assert troubled == sorted(troubled)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_in_as_many_turns_as_there_are_servers_each_is_first_once(count, start):
    servers = [Choice(True, False) for _ in range(count)]
    first = Counter(id(ranked(servers, MODEL, turn)[0]) for turn in range(start, start + count))

    assert set(first.values()) == {1}
    assert len(first) == count


async def test_calls_take_turns_over_confirmed_servers_alone(setting):
    setting.route("a:1", "b:1", "c:1")
    setting.inference.server("b:1").doubt(MODEL)
    await setting.ask(8)

    assert setting.calls["b:1"] == 0
    assert min(setting.calls["a:1"], setting.calls["c:1"]) > 0


async def test_a_server_that_failed_is_asked_again_only_after_it_answered_somebody(setting):
    setting.route("a:1", "b:1")
    setting.servers["a:1"].is_silent = True
    await setting.ask(2)
    failed = setting.calls["a:1"]
    await setting.ask(10)

    assert setting.calls["a:1"] == failed == 1

    setting.servers["a:1"].is_silent = False
    await setting.inference.server("a:1").infer(MODEL, ROW)
    await setting.ask(10)

    assert setting.calls["a:1"] == failed + 1 + 5


async def test_without_a_confirmed_server_the_model_is_unavailable(setting):
    setting.route("a:1", confirmed=False)

    with pytest.raises(ModelUnavailable, match="image-safety 3 has given its golden answers at no server"):
        await setting.ask()
    assert setting.calls == {"a:1": 0}


async def test_a_model_without_a_route_is_unavailable_and_not_ready(setting):
    assert not await setting.inference.is_ready(MODEL)
    with pytest.raises(ModelUnavailable):
        await setting.ask()


async def test_it_is_ready_when_any_server_is(setting):
    setting.route("a:1", "b:1")
    setting.servers["a:1"].is_silent = True

    assert await setting.inference.is_ready(MODEL)

    setting.inference.server("b:1").doubt(MODEL)

    assert not await setting.inference.is_ready(MODEL)


async def test_other_content_of_the_same_name_and_version_is_not_confirmed(setting):
    setting.route("a:1")
    other = replace(MODEL, warmup_iterations=5)

    with pytest.raises(ModelUnavailable):
        await setting.inference.infer(other, ROW)
    setting.inference.server("a:1").confirm(other)
    setting.inference.server("a:1").doubt(other)
    await setting.ask()

    assert setting.calls == {"a:1": 1}


async def test_a_server_that_vanishes_is_closed_after_its_calls(setting):
    setting.route("a:1")
    server = setting.servers["a:1"]
    server.holds = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(setting.inference.infer(MODEL, ROW))
        await asyncio.sleep(0)
        setting.route("b:1")
        await setting.inference.sweep()

        assert not server.is_closed

        server.holds.set()
    await setting.inference.sweep()

    assert (server.is_closed, call.result()["probabilities"].shape) == (True, (1, 3))


async def test_a_server_that_was_closed_is_never_asked_again(setting):
    setting.route("a:1")
    replica = setting.inference.server("a:1")
    setting.route("b:1")
    await setting.inference.sweep()

    with pytest.raises(ModelUnavailable, match="asked no more"):
        await replica.infer(MODEL, ROW)
    assert setting.calls == {"a:1": 0, "b:1": 0}


async def test_an_added_server_starts_unconfirmed_and_the_others_stay(setting):
    setting.route("a:1")
    setting.inference.route({MODEL.name: ("a:1", "b:1")})
    await setting.ask(4)

    assert setting.calls == {"a:1": 4, "b:1": 0}


async def test_an_address_that_returns_starts_unconfirmed(setting):
    setting.route("a:1")
    setting.route()
    setting.route("a:1", confirmed=False)

    assert not await setting.inference.is_ready(MODEL)


async def test_closing_closes_every_server(setting):
    setting.route("a:1", "b:1")
    setting.route("b:1")
    await setting.inference.close()

    assert [server.is_closed for server in setting.servers.values()] == [True, True]
    with pytest.raises(ModelUnavailable):
        await setting.ask()
