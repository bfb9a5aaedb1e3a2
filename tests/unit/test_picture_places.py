"""Few pictures are held at a time, the urgent ones first, and none while a model is waited for."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.lists import compile_list
from baleen_core.model.loaded import LoadedModel
from baleen_core.policy.schema import ListContent, ListType
from baleen_core.priority import Priority
from baleen_core.records import Context
from baleen_sidecar.usecases.moderate import PICTURES_AT_ONCE, Caller
from baleen_sidecar.usecases.places import Places
from baleen_sidecar.usecases.serve_models import FixedModels
from held import HeldInference
from moderating import enforcing, make_moderate, make_shell
from tiny_models import brightness, make_model
from waiting import until

IMAGE = LoadedModel(model=make_model("looks", recipe="owen-s/1"), sha256="cc", image=brightness)
POLICY = {"categories": [{"name": "nude", "signals": [{"name": "looks.bad", "block": "50%"}]}]}
MANY = 3 * PICTURES_AT_ONCE


class Site:
    """A use case over stand-ins, whose model keeps everybody waiting."""

    def __init__(self, executor, *, needs_hash):
        self.inference = HeldInference()
        content = ListContent(digest="sha256:hashes", type=ListType.PERCEPTUAL_HASH, entries=("f0" * 32,))
        snapshot = enforcing(POLICY, {"looks.bad"}, *([compile_list(content)] if needs_hash else []))
        self.now = 1.0
        shell = make_shell(executor, lambda: self.now)
        self.moderate = make_moderate(lambda: snapshot, FixedModels([IMAGE]), self.inference, shell)

    async def judge(self, data, priority=Priority.LOW):
        caller = Caller(request_id="r", received_seconds=self.now, deadline_seconds=60, priority=priority)
        return await self.moderate.media(data, "image", Context(), caller)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("needs_hash", [False, True])
@pytest.mark.parametrize("same", [False, True], ids=["other pictures", "one picture"])
async def test_pictures_that_wait_for_a_model_keep_no_urgent_one_from_it(executor, needs_hash, same):
    site = Site(executor, needs_hash=needs_hash)
    slow = [asyncio.create_task(site.judge(b"same" if same else b"%d" % number)) for number in range(MANY)]
    await until(lambda: len(site.inference.works) == (1 if same else MANY))
    urgent = asyncio.create_task(site.judge(b"urgent", Priority.CRITICAL))
    await until(lambda: Priority.CRITICAL in {work.priority for work in site.inference.works})
    site.inference.released.set()

    assert {record.evidence.signals["looks.bad"] for record in await asyncio.gather(urgent, *slow)} == {0}
    assert site.moderate.pictures_held == 0


@pytest.mark.parametrize("needs_hash", [False, True])
async def test_callers_who_give_up_leave_no_place_taken(executor, needs_hash):
    site = Site(executor, needs_hash=needs_hash)
    for moment in range(12):
        callers = [asyncio.create_task(site.judge(b"%d-%d" % (moment, number))) for number in range(MANY)]
        for _ in range(moment):
            await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    await until(lambda: site.moderate.pictures_held == 0)
    site.inference.released.set()

    assert (await site.judge(b"last")).evidence.signals == {"looks.bad": 0}


@given(st.lists(st.tuples(st.sampled_from(Priority), st.booleans()), max_size=20), st.integers(1, 4))
def test_places_go_to_the_most_urgent_who_wait_and_none_is_lost(callers, size):
    async def run() -> None:
        places, served = Places(size), []

        async def take(number: int, priority: Priority) -> None:
            async with places.place(priority):
                served.append((-priority, number))

        holders = [places.place(Priority.LOW) for _ in range(size)]
        for holder in holders:
            await holder.__aenter__()
        tasks = [asyncio.create_task(take(number, priority)) for number, (priority, _) in enumerate(callers)]
        await asyncio.sleep(0)
        # Some give up while they wait, and some in the moment in which they are given a place.
        for task, (_, gives_up) in zip(tasks, callers, strict=True):
            if gives_up:
                task.cancel()
        for holder in holders:
            await holder.__aexit__(None, None, None)
        await asyncio.gather(*tasks, return_exceptions=True)

        patient = [(-priority, number) for number, (priority, gives_up) in enumerate(callers) if not gives_up]
        assert served == sorted(patient)
        assert places.free == size

    asyncio.run(run())


async def test_a_place_that_was_given_to_somebody_who_gives_up_just_then_goes_on():
    places = Places(1)
    await places.acquire(Priority.LOW)
    first, second = (asyncio.create_task(places.acquire(Priority.LOW)) for _ in range(2))
    await asyncio.sleep(0)
    places.release()
    first.cancel()
    await second

    places.release()

    assert places.free == 1


async def test_nothing_is_kept_of_whoever_gave_up_behind_a_place_that_is_still_held(monkeypatch):
    loop, turns = asyncio.get_running_loop(), weakref.WeakSet()
    create_future = loop.create_future

    def create_noted():
        turns.add(future := create_future())
        return future

    places = Places(1)
    await places.acquire(Priority.LOW)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "create_future", create_noted)
        waiting = [asyncio.create_task(places.acquire(priority)) for priority in Priority for _ in range(10)]
        await asyncio.sleep(0)
    noted = len(turns)
    for caller in waiting:
        caller.cancel()
    await asyncio.wait(waiting)
    del waiting, caller
    gc.collect()

    assert noted == 40
    assert not turns
