"""`kubectl baleen simulate | flips | top` and `explain` of a decision: gateways, asked through a real API server."""

import contextlib
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from baleen_cli.client import KEY_VARIABLE
from baleen_core.api_keys import CHANCE_BYTES, KeyRole, make_key
from cluster_site import TEXT, Site, policy, write_yaml
from gateway_process import RunningGateway, gateway_settings
from keyed import api_key, write_key_file
from serving import until

pytestmark = pytest.mark.cluster

HARMLESS = "Good morning everybody"
SHADOW = {"name": "shadow", "type": "Shadow", "until": {"seconds": 3600}}


def own_address() -> str:
    """Return an address of this machine that is not loopback, which API servers do not reach pods at."""
    found = (
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family is socket.AF_INET and not each.address.startswith(("127.", "169.254."))
    )
    return next(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A site with gateways that have pods, and the key that they know."""

    site: Site
    gateways: list[RunningGateway]
    key: str

    @property
    def options(self) -> tuple[str, ...]:
        """Where the gateways are."""
        return ("--system-namespace", self.site.namespace)


@pytest.fixture
def asked(site: Site, tmp_path: Path, operator: object) -> Iterator[Asked]:
    """Run two gateways with a key of all roles, behind pods of the site's namespace that whoever is on call may ask."""
    key = make_key(secrets.token_bytes(CHANCE_BYTES))
    file = write_key_file(tmp_path / "keys.yaml", api_key("on-call", key, *KeyRole))
    settings = {"host": own_address(), "api_keys_file": file}
    with contextlib.ExitStack() as stack:
        gateways = [
            stack.enter_context(
                RunningGateway(**gateway_settings(site.plane, tmp_path / name, site.namespace, **settings))
            )
            for name in ("gateway-1", "gateway-2")
        ]
        for each in gateways:
            each.client.headers["X-API-Key"] = key
            make_pod(site, each)
        yield Asked(site=site, gateways=gateways, key=key)


def make_pod(site: Site, gateway: RunningGateway) -> None:
    """Write the pod that a gateway would be in, as a kubelet reports it."""
    address, _, port = gateway.url.removeprefix("http://").rpartition(":")
    name, pods = str(gateway.settings["replica"]), f"/api/v1/namespaces/{site.namespace}/pods"
    container = {"name": "gateway", "image": "baleen", "ports": [{"name": "http", "containerPort": int(port)}]}
    labels = {"app.kubernetes.io/component": "gateway"}
    ready = {"type": "Ready", "status": "True"}
    with site.plane.client() as client:
        # Its ServiceAccount is made by a controller.
        until(
            lambda: (
                client.post(
                    pods, json={"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container]}}
                ).is_success
            )
        )
        status = {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running", "conditions": [ready]}
        patched = client.patch(
            f"{pods}/{name}/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert patched.is_success, patched.text


def let_ask(site: Site) -> None:
    """Give whoever is on call the right to ask the gateways of this namespace, and to read lists there."""
    group, namespace = "rbac.authorization.k8s.io", site.namespace
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    lists = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "lists", "namespace": namespace}}
    site.apply(
        {**lists, "rules": [rule]},
        *(
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": namespace},
                "roleRef": {"apiGroup": group, "kind": kind, "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": "on-call"}],
            }
            for kind, role in (("Role", "lists"), ("ClusterRole", "baleen-log-reader"))
        ),
    )

    def may(*asked: str) -> bool:
        said = site.plane.kubectl("auth", "can-i", *asked, "-n", namespace, user="on-call", check=False)
        return said.returncode == 0

    until(lambda: may("get", "configmaps") and may("create", "pods", "--subresource=proxy"))


def candidates(asked: Asked) -> list[Any]:
    # A gateway may not know of the policy yet.
    return [each.get("/v1/policies/community").get("summary", {}).get("candidate") for each in asked.gateways]


@pytest.mark.timeout(180)
def test_what_gateways_have_on_record_is_added_up(baleen, asked: Asked, monkeypatch, tmp_path: Path):
    site, namespace = asked.site, asked.site.namespace
    site.apply_policy("Review", version="v1")
    site.wait_for_ready()
    site.apply_policy("Block", version="v2", rollout={"steps": [SHADOW]})
    until(lambda: all(candidates(asked)))
    for gateway, number in zip(asked.gateways, (3, 2), strict=True):
        for _ in range(number):
            assert gateway.decide(TEXT)["decision"] == "Review"
        gateway.decide(HARMLESS)
    file = write_yaml(tmp_path, policy(namespace, "Block", version="v3", links=0))
    let_ask(site)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    keyless = baleen("flips", "community", *asked.options)
    monkeypatch.setenv(KEY_VARIABLE, asked.key)
    refused = baleen("flips", "community", *asked.options, user="policy-author")
    shown = baleen("flips", "community", *asked.options)
    whole = json.loads(baleen("flips", "community", *asked.options, "-o", "json").output)
    example = whole["flips"][0]["examples"][0]
    explained = baleen("explain", example, *asked.options)
    simulated = baleen("simulate", "-f", file, *asked.options)
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
    listed = policy(namespace, "Block", version="v3", links=0)
    listed["spec"]["policy"]["lists"] = [{"name": "slurs", "type": "Terms", "action": "Review", "source": source}]
    metadata = {"name": "slurs", "namespace": namespace}
    site.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"terms.txt": "slur"}})
    with_list = baleen("simulate", "-f", write_yaml(tmp_path, listed, file="listed.yaml"), *asked.options)
    held = baleen("simulate", "-f", file, *asked.options, "--max-flip-rate", "10%", "-o", "json")
    asked.gateways[1].kill()
    top, one = (
        baleen("top", *asked.options),
        json.loads(baleen("top", "community", *asked.options, "-o", "json").output),
    )

    assert "BALEEN_API_KEY: is not set; gateways ask for a key of no tenant" in keyless.problems[0]
    assert refused.problems[0].startswith("you may not list pods in namespace"), refused.problems
    assert shown.status == 0, shown.errors
    assert (whole["compared"], whole["matrix"]) == (7, [[2, 0, 0], [0, 0, 5], [0, 0, 0]])
    assert (whole["flips"][0]["from"], whole["flips"][0]["to"], len(whole["flips"][0]["examples"])) == (
        "Review",
        "Block",
        5,
    )
    assert whole["gateways"] == {"asked": 2, "answered": ["gateway-1", "gateway-2"], "problems": {}}
    assert example in shown.output
    assert "7 decisions were judged by both\nby what 2 of 2 gateways have on record\n" in shown.output
    assert explained.status == 0, explained.errors
    assert "A candidate of community" in explained.output
    assert simulated.status == 0, simulated.errors
    assert "7 decisions compared: 71.43% come out differently, 71.43% newly blocked" in simulated.output
    assert with_list.status == 0, with_list.errors
    assert "2 could not be compared, since the list slurs was not looked up then" in with_list.errors
    assert held.status == 1
    assert held.problems[0].startswith("Fail (TooManyFlips): 71.43% of 7 logged decisions would come out differently")
    assert json.loads(held.output)["gate"]["verdict"] == "Fail"
    assert top.status == 0, top.errors
    assert "1 of 2 gateways answered" in top.errors
    assert asked.key not in top.errors + top.output
    stable, candidate = one["items"]
    assert (stable["version"], stable["side"], stable["outcomes"]) == (
        "v1",
        "Stable",
        {"allow": 1, "review": 3, "block": 0},
    )
    assert (candidate["version"], candidate["side"], candidate["weight"], candidate["decisions"]) == (
        "v2",
        "Candidate",
        "shadow",
        0,
    )
    assert (candidate["said"], candidate["enforcing"]) == ({"allow": 1, "review": 0, "block": 3}, 1)
    assert stable["per_second"] > 0
    assert "(75.0%)" in top.output
