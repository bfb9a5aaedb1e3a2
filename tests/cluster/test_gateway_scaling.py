"""The operator scales the gateways by what they are answering, with the rights that the chart gives it."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from control_plane import NAMESPACE, ControlPlane
from gateways import Gateway
from operators import RunningOperator, running_operator
from waiting import until

pytestmark = pytest.mark.cluster

NAME: Final = "baleen-gateway"
"""The one name that the operator may scale."""
QUICK: Final = {
    "gateway_min_replicas": "2",
    "gateway_max_replicas": "8",
    "gateway_target_in_flight": "10",
    "gateway_scale_seconds": "0.2",
    "gateway_up_period_seconds": "0.5",
    "gateway_up_window_seconds": "1",
    "gateway_down_period_seconds": "0.3",
    "gateway_down_window_seconds": "1.5",
}


@contextmanager
def workload(plane: ControlPlane, kind: str, **spec: Any) -> Iterator[None]:
    """Have the gateways' workload in the product's namespace; its pods stay pending, for there are no nodes."""
    labels = {"app": f"{NAME}-{secrets.token_hex(4)}"}
    container = {"name": "gateway", "image": "baleen-sidecar:none"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    plane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
        }
    )
    try:
        yield
    finally:
        plane.kubectl("delete", f"{kind.lower()}/{NAME}", "-n", NAMESPACE, "--wait=false")


@asynccontextmanager
async def two_gateways() -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Run two that say how busy they are."""
    first, second = Gateway(), Gateway()
    await first.start()
    await second.start()
    try:
        yield first, second
    finally:
        await first.stop()
        await second.stop()


@contextmanager
def scaling(plane: ControlPlane, kind: str, folder: Path, *gateways: Gateway) -> Iterator[RunningOperator]:
    """Run the operator with short times; without `gateways` it knows one that nobody is."""
    token = folder / "token"
    token.write_text("operator-token")
    urls = ",".join(each.url for each in gateways) or "http://127.0.0.1:1"
    settings = {**QUICK, "gateway_urls": urls, "gateway_token_file": str(token), "gateway_workload": f"{kind}/{NAME}"}
    with running_operator(plane, "default", **settings) as operator:
        yield operator


def busy(gateway: Gateway, requests: int) -> None:
    """Have so many requests in flight from now on."""
    assert gateway.concurrency is not None
    while gateway.concurrency.in_flight < requests:
        gateway.concurrency.enter()
    while gateway.concurrency.in_flight > requests:
        gateway.concurrency.leave()


async def test_gateways_come_with_the_load_and_go_when_it_went_and_stay_while_nobody_knows(
    control_plane: ControlPlane, tmp_path: Path
):
    seen: list[int] = []

    def replicas() -> int:
        found = int(control_plane.get_json("deployment", NAME, NAMESPACE)["spec"]["replicas"])
        if seen[-1:] != [found]:
            seen.append(found)
        return found

    async with two_gateways() as (first, second):
        with workload(control_plane, "Deployment"), scaling(control_plane, "Deployment", tmp_path, first, second) as it:
            # Without `replicas`, as the chart has it, there is one; the bounds want two.
            await until(lambda: replicas() == 2)
            busy(first, 40)
            busy(second, 35)
            await until(lambda: replicas() == 8)
            up = list(seen)
            scaled = control_plane.get_json("deployment", NAME, NAMESPACE)

            first.concurrency = None
            await second.stop()
            await until(lambda: it.metric("baleen_operator_gateway_loads_unknown") == 2)
            await asyncio.sleep(2.5)
            while_unknown = replicas()
            shown = it.metric("baleen_operator_gateway_replicas_desired")
            held = it.wait_for("the gateways are not scaled")

            await second.start()
            busy(second, 0)
            await until(lambda: it.metric("baleen_operator_gateway_loads_unknown") == 1)
            await asyncio.sleep(2.5)
            while_one_is_unknown = replicas()

            first.concurrency = second.concurrency
            await until(lambda: replicas() == 2)
            events = control_plane.list_json("event", NAMESPACE)

    # The load of a moment ago counts, so a look in between may see a part of it.
    assert up == sorted(up)
    assert (up[0] in (1, 2), up[-1]) == (True, 8)
    assert all(after <= 2 * before for before, after in pairwise(up))
    assert (while_unknown, while_one_is_unknown, shown) == (8, 8, 8)
    assert held["reason"] == "no gateway says how busy it is"
    # A tenth of eight is none, but one always may.
    assert seen[len(up) :] == [7, 6, 5, 4, 3, 2]
    said = [each["message"] for each in events if each["involvedObject"]["uid"] == scaled["metadata"]["uid"]]
    to_eight = rf"from {up[-2]} to 8 gateways: [\d.]+ requests in flight on 2 gateways; 10 are"
    assert any(re.match(to_eight, each) for each in said)
    assert {"operation": "Apply", "subresource": "scale"}.items() <= manager_of(scaled).items()


def manager_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the operator's entry among those who wrote fields of an object."""
    (found,) = (each for each in manifest["metadata"]["managedFields"] if each["manager"] == "baleen-operator")
    return dict(found)


async def test_gateways_with_volumes_are_scaled_too_and_those_that_somebody_switched_off_are_not(
    control_plane: ControlPlane, tmp_path: Path
):
    def replicas() -> int:
        return int(control_plane.get_json("statefulset", NAME, NAMESPACE)["spec"]["replicas"])

    with (
        workload(control_plane, "StatefulSet", serviceName="none", replicas=12),
        scaling(control_plane, "StatefulSet", tmp_path) as it,
    ):
        await until(lambda: replicas() == 8)
        control_plane.kubectl("scale", f"statefulset/{NAME}", "-n", NAMESPACE, "--replicas=0")
        it.wait_for("the gateways are not scaled", reason="it has no replicas: only people switch it on again")

        assert replicas() == 0
