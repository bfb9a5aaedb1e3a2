"""A real control plane, an operator and many policies: what the figures about a cluster have in common."""

import asyncio
import contextlib
import json
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from baleen_bench.children import BENCH

# The control plane and the operator's process are those of the tests: there is one way to start each.
sys.path.insert(0, str(BENCH.parent / "tests" / "support"))

from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import GROUP, PLURALS, POLICY_KIND, VERSION
from control_plane import ControlPlane
from operators import RunningOperator

NAMESPACE: Final = "bench"
AT_ONCE: Final = 16
WAIT_SECONDS: Final = 600.0
_PATIENCE_SECONDS: Final = 30.0

Body = dict[str, Any]


def policy(index: int, *, limit: int = 3, surface: str | None = None) -> Body:
    """Return a small policy, each with a scope of its own; another `limit` is other content."""
    rule = {"name": "links", "when": f"content.links > {limit}", "action": "Review"}
    return {
        "apiVersion": API_VERSION,
        "kind": POLICY_KIND,
        "metadata": {"name": f"policy-{index}", "namespace": NAMESPACE},
        "spec": {"scope": {"surface": surface or f"surface-{index}"}, "policy": {"rules": [rule]}},
    }


def path_of(kind: str, name: str = "", namespace: str = NAMESPACE) -> str:
    """Return the path of the resources of one of our kinds, or of one of them."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURALS[kind]}/{name}".rstrip("/")


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Run a control plane of our own with a namespace for the measurement."""
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder) / "cluster") as running:
        with running.client() as client:
            client.post("/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}}).raise_for_status()
        yield running


@contextmanager
def operator(cluster: ControlPlane, **settings: str) -> Iterator[RunningOperator]:
    """Run the operator with its own rights and no others, until the end of the block."""
    running = RunningOperator(cluster.kubeconfig("baleen-operator"), {"host": "127.0.0.1", "port": "0", **settings})
    try:
        running.wait_until_leading()
        yield running
    finally:
        running.close()


@asynccontextmanager
async def client(cluster: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to the API server as somebody who may do everything."""
    async with httpx.AsyncClient(
        base_url=cluster.url,
        headers={"Authorization": f"Bearer {cluster.admin_token}"},
        verify=ssl.create_default_context(cafile=cluster.ca),
        timeout=_PATIENCE_SECONDS,
    ) as opened:
        yield opened


async def at_once(calls: Sequence[Callable[[], Awaitable[httpx.Response]]]) -> None:
    """Make all calls, AT_ONCE of them at a time; each must succeed."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Callable[[], Awaitable[httpx.Response]]) -> None:
        async with gate:
            (await call()).raise_for_status()

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))


async def when_ready(cluster: ControlPlane, count: int, *, resource_version: str) -> list[float]:
    """Watch until so many policies are Ready, and return the monotonic second at which each was."""
    ready: dict[str, float] = {}
    ends = time.monotonic() + WAIT_SECONDS
    # The end of a request's patience is no failure of a watch.
    while len(ready) < count:
        if time.monotonic() > ends:
            raise TimeoutError(f"{len(ready)} of {count} policies were Ready after {WAIT_SECONDS:.0f} seconds")
        async with client(cluster) as watcher:
            query = {"watch": "true", "resourceVersion": resource_version, "allowWatchBookmarks": "true"}
            with contextlib.suppress(httpx.TransportError):
                async with watcher.stream("GET", path_of(POLICY_KIND), params=query) as answer:
                    async for line in answer.aiter_lines():
                        seen = json.loads(line)["object"]
                        resource_version = seen["metadata"]["resourceVersion"]
                        if is_ready(seen):
                            ready.setdefault(seen["metadata"]["name"], time.monotonic())
                        if len(ready) >= count:
                            break
    return sorted(ready.values())


def is_ready(manifest: Body) -> bool:
    """Say whether a resource's condition Ready is true for the generation that is there now."""
    status = manifest.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
    return conditions.get("Ready") == "True" and status.get("observedGeneration") == manifest["metadata"]["generation"]


async def newest_version(opened: httpx.AsyncClient) -> str:
    """Return the resourceVersion from which on a watch sees everything that is written from now on."""
    answer = await opened.get(path_of(POLICY_KIND), params={"limit": 1})
    return str(answer.raise_for_status().json()["metadata"]["resourceVersion"])
