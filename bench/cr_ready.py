"""ModerationPolicies from their creation to Ready, a second, with API server, etcd and operator on the same machine.

The floor writes what the operator has to write (a revision, a route, a status) with the same API server and nobody who
decides: no operator can be faster. It is measured against itself first.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx

from baleen_bench import cluster
from baleen_bench.form import Aim, Effort, Figure, Outcome, noise_of
from baleen_core.canonical import digest_of
from baleen_core.policy.in_force import Route
from baleen_core.policy.schema import Revision, Role, Scope
from baleen_core.resources import (
    POLICY_KIND,
    REVISION_KIND,
    ROUTE_KIND,
    PublishedRoute,
    revision_name,
    write_revision,
    write_route,
)
from control_plane import ControlPlane

MANY = 2000
SOME = 200
FEW = 10
"""For a quick run."""
FIGURES = {
    "cr_ready_per_s": Aim(what=f"ModerationPolicies to Ready a second, {SOME} applied at once", goal=">= 100"),
    "cr_ready_per_s_2000": Aim(what=f"the same, {MANY} at once", goal=">= 100"),
    "cr_ready_ratio_floor": Aim(what="the rate of 200 over that of the bare writes that they need"),
}
_APPLY = {"content-type": "application/apply-patch+yaml"}


def measure(effort: Effort) -> Outcome:
    """Measure the floor twice, then floor and operator in turns, each time on an empty namespace of policies."""
    some, many = (FEW, 2 * FEW) if effort.quick else (SOME, MANY)
    with cluster.control_plane() as running:
        pairs = [(floor(running, some), floor(running, some)) for _ in range(effort.noise_pairs)]
        turns = []
        for _ in range(effort.repetitions):
            bare = floor(running, some)
            with cluster.operator(running):
                turns.append({"floor": bare, "operator": subject(running, some)})
            empty(running)
        with cluster.operator(running):
            at_once = subject(running, many)
    noise = noise_of(pairs)
    figures = (
        Figure.of("cr_ready_per_s", [turn["operator"] for turn in turns], "policies/s", aims=FIGURES, noise=noise),
        Figure.of("cr_ready_per_s_2000", [at_once], "policies/s", aims=FIGURES, noise=noise),
        Figure.of(
            "cr_ready_ratio_floor",
            [turn["operator"] / turn["floor"] for turn in turns],
            "ratio",
            aims=FIGURES,
            noise=noise,
        ),
    )
    return Outcome(figures=figures, raw={"floor_against_itself": pairs, "turns": turns, "many": at_once})


def subject(running: ControlPlane, count: int) -> float:
    """Return how many policies a second became Ready, from the first creation to the last Ready."""

    async def run() -> float:
        async with cluster.client(running) as client:
            version = await cluster.newest_version(client)
            begun = time.monotonic()
            async with asyncio.TaskGroup() as group:
                ready = group.create_task(cluster.when_ready(running, count, resource_version=version))
                await cluster.at_once([_create(client, index) for index in range(count)])
            return count / (ready.result()[-1] - begun)

    return asyncio.run(run())


def floor(running: ControlPlane, count: int) -> float:
    """Return how many policies a second can be created and have their three objects written, by nobody's decision."""

    async def run() -> float:
        async with cluster.client(running) as client:
            begun = time.monotonic()
            await cluster.at_once([_whole(client, index) for index in range(count)])
            return count / (time.monotonic() - begun)

    rate = asyncio.run(run())
    empty(running)
    return rate


def empty(running: ControlPlane) -> None:
    """Delete all that was written, in the order in which nothing is written again."""
    with running.client() as client:
        for kind in (POLICY_KIND, ROUTE_KIND, REVISION_KIND):
            client.delete(cluster.path_of(kind)).raise_for_status()


def _create(client: httpx.AsyncClient, index: int) -> Any:
    return lambda: client.post(cluster.path_of(POLICY_KIND), json=cluster.policy(index))


def _whole(client: httpx.AsyncClient, index: int) -> Any:
    async def write() -> httpx.Response:
        (await _create(client, index)()).raise_for_status()
        content = f'{{"index":{index}}}'
        revision = Revision(digest=digest_of(content.encode()), content=content)
        name = f"policy-{index}"
        await _apply(
            client,
            REVISION_KIND,
            revision_name(name, revision.digest),
            write_revision(cluster.NAMESPACE, name, "", revision),
        )
        route = replace(_ROUTE, name=name, route=Route(stable=revision.digest))
        await _apply(client, ROUTE_KIND, name, write_route(route))
        condition = {"status": "True", "reason": "Applied", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        types = ("Accepted", "Ready", "Reconciling", "Stalled", "Serving", "Converged")
        status = {"observedGeneration": 1, "conditions": [{"type": each, **condition} for each in types]}
        body = {**cluster.policy(index), "status": status}
        del body["spec"]
        return await _apply(client, POLICY_KIND, f"{name}/status", body)

    return write


async def _apply(client: httpx.AsyncClient, kind: str, name: str, body: dict[str, Any]) -> httpx.Response:
    query = {"fieldManager": "bench", "force": "true"}
    answer = await client.patch(cluster.path_of(kind, name), params=query, json=body, headers=_APPLY)
    return answer.raise_for_status()


_ROUTE = PublishedRoute(
    namespace=cluster.NAMESPACE,
    name="",
    epoch=1,
    type="Moderation",
    role=Role.POLICY,
    scope=Scope(),
    created="2026-01-01T00:00:00Z",
    route=Route(),
)
