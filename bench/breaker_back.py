"""From the moment that a model is back to its first use, after outages of 5 s, 60 s and 10 minutes that are waited out.

Everything of ours is real: the watch over golden answers, breakers, the Triton client. The model server is a stub on
loopback that is really away: half of the servers close their port, half take what they are asked and answer only once
they are back. Each model is asked all the time, as by callers. All outages are waited for side by side, each beginning
at a moment of its own. There is no peer: noise is how far the worst of one half of the servers is from the worst of
the other.
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from baleen_bench.children import BENCH
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_core.errors import ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.settings import Settings
from baleen_sidecar.testing import FixedImages
from baleen_sidecar.usecases.serve_models import ServeModels

# The server that is away is that of the tests: there is one way to make it.
sys.path.insert(0, str(BENCH.parent / "tests" / "support"))

from fake_triton import FakeTriton, fake_triton
from model_servers import PICTURE, served_entry
from served_models import make_manifest
from waiting import until

OUTAGES = (5, 60, 600)
QUICK_OUTAGES = (1,)
SERVERS = 8
"""For each length: half of them close their port, half say nothing meanwhile."""
ASK_SECONDS = 0.1
ROW = {"x": np.ones((1, 2), np.float32)}
SCORES = np.array([[0, 0.9, 0]], np.float32)
STAND_IN = "stub"
_SPREAD_SECONDS = 6.0
"""Outages begin within so long: in every phase of the rhythm in which golden questions are asked."""
FIGURES = {
    "breaker_back_to_use_s": Aim(
        what=f"a model that was asked all the time is back until its first use, the worst of {SERVERS} outages of each "
        f"of 5 s, 60 s and 10 min; stand-in `{STAND_IN}`",
        goal="< 10",
    ),
    **{
        f"breaker_back_to_use_s_{seconds}": Aim(
            what=f"the same, median of the outages of {seconds} s; stand-in `{STAND_IN}`"
        )
        for seconds in OUTAGES
    },
}


@dataclass(slots=True)
class Away:
    """One model, how long its server is away and how, and what came of it (monotonic seconds)."""

    name: str
    seconds: int
    is_silent: bool
    back_at: float = 0.0
    first_use_at: float = 0.0
    failures: int = 0
    slowest_failure: float = 0.0
    used: asyncio.Event = field(default_factory=asyncio.Event)

    def summary(self) -> dict[str, float | str]:
        """Return what is kept of it."""
        return {
            "outage_s": self.seconds,
            "kind": "silent" if self.is_silent else "closed",
            "back_to_use_s": round(self.back_to_use, 3),
            "calls_failed": self.failures,
            "slowest_failure_s": round(self.slowest_failure, 3),
        }

    @property
    def back_to_use(self) -> float:
        return self.first_use_at - self.back_at


def measure(effort: Effort) -> Outcome:
    """Wait all outages out side by side."""
    outages = QUICK_OUTAGES if effort.quick else OUTAGES
    servers = 2 if effort.quick else SERVERS
    aways = [
        Away(name=f"away-{seconds}-{number}", seconds=seconds, is_silent=number % 2 == 1)
        for seconds in outages
        for number in range(servers)
    ]
    asyncio.run(wait_out(aways, spread_seconds=0.5 if effort.quick else _SPREAD_SECONDS))
    # Two in a row differ in how they are away: every other pair makes a half that has both kinds.
    halves = [(worst([*aways[::4], *aways[1::4]]), worst([*aways[2::4], *aways[3::4]] or aways))]
    figures = [
        Figure.of("breaker_back_to_use_s", [worst(aways)], "s", aims=FIGURES, noise=noise_of(halves), stand_in=STAND_IN)
    ]
    for seconds in () if effort.quick else outages:
        values = [each.back_to_use for each in aways if each.seconds == seconds]
        figures.append(Figure.of(f"breaker_back_to_use_s_{seconds}", values, "s", aims=FIGURES, stand_in=STAND_IN))
    return Outcome(figures=tuple(figures), raw={"outages": [each.summary() for each in aways]})


def worst(aways: Sequence[Away]) -> float:
    """Return the longest wait of these."""
    return max(each.back_to_use for each in aways)


async def wait_out(aways: list[Away], *, spread_seconds: float) -> None:
    """Have every server go and come back, and note when each is used again."""
    chance = random.Random(1)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(stub()) for _ in aways]
        inference = RoutedInference(TritonInference)
        stack.push_async_callback(inference.close)
        models = ServeModels(
            inference,
            load=load,
            images=FixedImages(),
            golden_file=lambda model, name: PICTURE,
            interval_seconds=Settings().verify_interval_seconds,
        )
        await models.serve([deployment(each, server) for each, server in zip(aways, servers, strict=True)])
        async with asyncio.TaskGroup() as group:
            running = group.create_task(models.run())
            await until(lambda: len(models.current().models) == len(aways))
            for loaded in models.current().models:
                await until(lambda loaded=loaded: inference.is_ready(loaded.model))
            by_name = {loaded.model.name: loaded.model for loaded in models.current().models}
            tasks = [
                group.create_task(
                    go_and_come_back(away, server, inference, by_name[away.name], chance.uniform(0, spread_seconds))
                )
                for away, server in zip(aways, servers, strict=True)
            ]
            await asyncio.gather(*tasks)
            running.cancel()


async def go_and_come_back(
    away: Away, server: "Stub", inference: RoutedInference, model: Model, wait_seconds: float
) -> None:
    """Be away for as long as is to be, asked all the time."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask(away, inference, model, group))
        await asyncio.sleep(wait_seconds)
        await server.leave(is_silent=away.is_silent)
        await asyncio.sleep(away.seconds)
        await server.come_back()
        away.back_at = time.monotonic()
        await away.used.wait()
        asking.cancel()


async def ask(away: Away, inference: RoutedInference, model: Model, group: asyncio.TaskGroup) -> None:
    """Ask at fixed moments, whatever came of the calls before."""
    while True:
        group.create_task(ask_once(away, inference, model))
        await asyncio.sleep(ASK_SECONDS)


async def ask_once(away: Away, inference: RoutedInference, model: Model) -> None:
    """Ask once, and note a failure, or the first answer since the server is back."""
    begun = time.monotonic()
    try:
        await inference.infer(model, ROW)
    except ModelUnavailable:
        away.failures += 1
        away.slowest_failure = max(away.slowest_failure, time.monotonic() - begun)
        return
    if away.back_at and begun >= away.back_at and not away.used.is_set():
        away.first_use_at = time.monotonic()
        away.used.set()


class Stub:
    """A server that can leave and come back under its address."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._fake: FakeTriton | None = None
        self.port = 0

    async def come_back(self) -> None:
        """Answer from now on."""
        if self._fake is None:
            fake = await self._stack.enter_async_context(fake_triton(port=self.port))
            fake.answer("probabilities", SCORES)
            self._fake, self.port = fake, int(fake.endpoint.rpartition(":")[2])
        held, self._fake.holds = self._fake.holds, None
        if held is not None:
            held.set()

    async def leave(self, *, is_silent: bool) -> None:
        """Close the port, or only answer no more."""
        assert self._fake is not None
        if is_silent:
            self._fake.holds = asyncio.Event()
            return
        self._fake = None
        await self._stack.aclose()


@asynccontextmanager
async def stub() -> AsyncIterator[Stub]:
    """Run one."""
    async with AsyncExitStack() as stack:
        made = Stub(stack)
        await made.come_back()
        yield made


def deployment(away: Away, server: Stub) -> dict[str, object]:
    """Declare a model at its server."""
    entry = served_entry(away.name, inputs=[{"name": "x", "dataType": "FP32", "dims": [2]}])
    manifest = make_manifest(models=[entry], runtime={"external": {"endpoints": [f"127.0.0.1:{server.port}"]}})
    manifest["metadata"] |= {"name": away.name}
    return manifest


def load(model: Model) -> LoadedModel:
    """Load a recipe whose tensors are always the same."""
    return LoadedModel(model=model, sha256="", image=lambda picture: np.ones(2, np.float32))
