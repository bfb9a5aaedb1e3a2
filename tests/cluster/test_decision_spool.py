"""A gateway and a sidecar that follows it, both as processes: the one has what the other decided, and replays it."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baleen_core.policy_stream import AUDIENCE
from cluster_site import TEXT, Site, wait_for_decision
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings, sidecar_settings
from publishing import publication
from serving import Load, until

pytestmark = pytest.mark.cluster

RULE = {"name": "links", "when": "content.links > 1", "action": "Review"}


@pytest.fixture
def site(control_plane: ControlPlane, namespace: str) -> Site:
    """A namespace with an application's account, and a policy as an operator would publish it."""
    made = Site(plane=control_plane, namespace=namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": namespace}}
    scope = {"tenant": "acme"}
    made.apply(
        account,
        *publication(namespace, "community", {"rules": [RULE]}, scope=scope).manifests(),
        *publication(namespace, "for-all", {"rules": [RULE]}).manifests(),
    )
    return made


@pytest.fixture
def gateway(site: Site, tmp_path: Path) -> Iterator[RunningGateway]:
    grants = f'{{"{site.namespace}": ["acme"]}}'
    with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway", site.namespace, tenants=grants)) as made:
        wait_for_decision(made, "Review", tenant="acme")
        yield made


def settings_of(site: Site, gateway: RunningGateway, folder: Path, **more: object) -> dict[str, object]:
    return sidecar_settings(gateway, folder, site.plane.token_for(site.namespace, "shop", AUDIENCE), **more)


def missing(gateway: RunningGateway, ids: list[str]) -> list[str]:
    return [each for each in ids if gateway.client.get(f"/v1/decisions/{each}").status_code != 200]


def test_the_gateway_finds_and_replays_what_its_sidecar_decided(
    site: Site, gateway: RunningGateway, tmp_path: Path
) -> None:
    with RunningGateway(**settings_of(site, gateway, tmp_path / "shop")) as injected:
        wait_for_decision(injected, "Review", tenant="acme")
        given = injected.decide(TEXT, tenant="acme", author={"id": "author-17"})
        claim = injected.moderate(TEXT, tenant="bank")
        sent = injected.metric("baleen_spool_sent_total", result="taken")
    found = gateway.get(f"/v1/decisions/{given['id']}")
    replayed: Any = gateway.client.post(f"/v1/decisions/{given['id']}/replay").json()

    assert given["durability"] == "Fsync"
    assert found == given
    assert (replayed["identical"], replayed["replayed"]) == (True, "Review")
    assert sent >= 2
    assert gateway.metric("baleen_records_received_total", result="taken") == sent
    assert gateway.metric("baleen_records_received_total", result="refused") == 1
    assert (claim.status_code, claim.json()["errors"][0]["field"]) == (403, "context.tenant")


@pytest.mark.parametrize("durability", ["Fsync", "Interval"])
def test_nothing_that_was_acknowledged_is_missing_after_both_were_killed(
    site: Site, gateway: RunningGateway, tmp_path: Path, durability: str
) -> None:
    settings = settings_of(site, gateway, tmp_path / "shop", durability=durability)
    injected = RunningGateway(**settings)
    try:
        wait_for_decision(injected, "Review", tenant="acme")
        with Load(injected.url, callers=2, pause_seconds=0, tenant="acme") as load:
            load.wait_for(20)
            time.sleep(random.uniform(0, 0.2))
            gateway.kill()
            time.sleep(random.uniform(0, 0.2))
            with gateway.again() as restarted:
                restarted.wait_for("answering")
                before = len(load.with_status(200))
                load.wait_for(before + 20)
                injected.kill()
                with RunningGateway(**settings) as again:
                    until(lambda: again.ready()[1]["degraded"] == [])
                    until(lambda: again.metric("baleen_spool_waiting_bytes") == 0)
                answered = [each.body["id"] for each in load.with_status(200)]
                lost = missing(restarted, answered)
    finally:
        injected.close()

    assert len(answered) >= 40
    assert lost == []
