"""Memory of the operator's process once 10,000 policies are Ready and 1,000 ModelDeployments are looked after.

The deployments name an external Triton that is not there, so that each is also tried again and again. There is no peer:
a number of bytes has no noise worth the name, and the goal is compared as it is.
"""

import asyncio
import time
from typing import Any

import httpx

from baleen_bench import cluster
from baleen_bench.form import Aim, Effort, Figure, Outcome
from baleen_bench.machine import memory_mib
from baleen_core.policy.schema import API_VERSION
from baleen_core.resources import DEPLOYMENT_KIND, POLICY_KIND
from control_plane import ControlPlane

POLICIES, DEPLOYMENTS = 10_000, 1_000
FEW = 20
"""For a quick run."""
SETTLE_SECONDS = 20.0
FIGURES = {
    "operator_rss_mib_10k": Aim(
        what=f"resident memory of the operator with {POLICIES:,} policies and {DEPLOYMENTS:,} deployments", goal="< 512"
    ),
}


def measure(effort: Effort) -> Outcome:
    """Apply everything, wait until it is looked after, and read the process's memory."""
    policies, deployments = (FEW, 2) if effort.quick else (POLICIES, DEPLOYMENTS)
    with cluster.control_plane() as running, cluster.operator(running) as operator:
        seconds = asyncio.run(fill(running, policies, deployments))
        time.sleep(0.5 if effort.quick else SETTLE_SECONDS)
        memory = memory_mib(operator.pid)
    figure = Figure.of("operator_rss_mib_10k", [memory["VmRSS"]], "MiB", aims=FIGURES, noise=0.0)
    return Outcome(figures=(figure,), raw={"memory_mib": memory, "seconds_to_ready": seconds, "policies": policies})


async def fill(running: ControlPlane, policies: int, deployments: int) -> float:
    """Apply so many of each, and return how long it took until every policy was Ready."""
    async with cluster.client(running) as client:
        version = await cluster.newest_version(client)
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(cluster.when_ready(running, policies, resource_version=version))
            await cluster.at_once([_create(client, DEPLOYMENT_KIND, deployment(index)) for index in range(deployments)])
            await cluster.at_once([_create(client, POLICY_KIND, cluster.policy(index)) for index in range(policies)])
        return time.monotonic() - begun


def deployment(index: int) -> dict[str, Any]:
    """Return a ModelDeployment of one small model on a Triton that nobody runs."""
    name = f"words-{index}"
    model = {
        "name": name,
        "version": "1",
        "source": {"type": "Package", "uri": f"pkg:pypi/words@1.0#{name}.onnx", "sha256": "0" * 64},
        "inputs": [{"name": "input", "dataType": "FP32", "dims": [3, 224, 224]}],
        "outputs": [{"name": "output", "dataType": "FP32", "dims": [2]}],
        "signals": [{"name": "bad", "output": "output", "index": 1}],
        "preprocessing": {"recipe": "open-nsfw/1"},
        "golden": [
            {
                "input": {"name": "picture.png", "sha256": "0" * 64},
                "expect": [{"signal": "bad", "value": "50%", "tolerance": "1%"}],
            }
        ],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": DEPLOYMENT_KIND,
        "metadata": {"name": name, "namespace": cluster.NAMESPACE},
        "spec": {"runtime": {"external": {"endpoints": ["127.0.0.1:1"]}}, "models": [model]},
    }


def _create(client: httpx.AsyncClient, kind: str, body: dict[str, Any]) -> Any:
    return lambda: client.post(cluster.path_of(kind), json=body)
