"""ServiceAccounts as callers of a gateway: whose token it is says the real API server, what it may do a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from api_access import Administrator
from baleen_core.policy_stream import AUDIENCE
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings
from serving import until

pytestmark = pytest.mark.cluster


@pytest.fixture
def accounts(control_plane: ControlPlane, namespace: str) -> None:
    admin = Administrator(control_plane)
    for name in ("people", "stranger"):
        admin.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    admin.close()


@pytest.fixture
def file(tmp_path: Path, namespace: str) -> Path:
    path = tmp_path / "accounts.yaml"
    write(
        path, {"namespace": namespace, "name": "people", "roles": ["review"], "limits": [{"requests": 3, "per": "Day"}]}
    )
    return path


@pytest.fixture
def gateway(
    control_plane: ControlPlane, tmp_path: Path, namespace: str, accounts: None, file: Path
) -> Iterator[RunningGateway]:
    settings = gateway_settings(control_plane, tmp_path / "gateway", namespace)
    with RunningGateway(**settings, accounts_file=file) as running:
        yield running


def write(path: Path, *accounts: dict[str, Any]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(yaml.safe_dump({"accounts": list(accounts)}))
    beside.replace(path)


def test_an_account_that_is_named_may_call_by_a_token_for_us_and_nobody_else(
    gateway: RunningGateway, control_plane: ControlPlane, namespace: str, file: Path
) -> None:
    tokens = {
        "good": control_plane.token_for(namespace, "people", "baleen"),
        "not named": control_plane.token_for(namespace, "stranger", "baleen"),
        "for the stream": control_plane.token_for(namespace, "people", AUDIENCE),
        "for the API server": control_plane.token_for(namespace, "people"),
    }
    tokens["truncated"] = tokens["good"][:-4]

    def ask(name: str, path: str = "/v1/policies") -> httpx.Response:
        return gateway.client.get(path, headers={"Authorization": f"Bearer {tokens[name]}"})

    found = {name: ask(name).status_code for name in tokens}
    assert found == {"good": 200, "not named": 403, "for the stream": 401, "for the API server": 401, "truncated": 401}
    assert f"the ServiceAccount {namespace}/stranger is not one" in ask("not named").json()["detail"]
    assert ask("good", "/v1/status").status_code == 403
    assert gateway.client.get("/v1/policies").status_code == 401

    assert [ask("good").status_code for _ in range(3)] == [200, 200, 429]
    write(file, {"namespace": namespace, "name": "stranger", "roles": ["review"]})
    until(lambda: ask("not named").status_code == 200)
    assert ask("good").status_code == 403
    assert not [name for name, token in tokens.items() if token[-40:] in gateway.said()]
