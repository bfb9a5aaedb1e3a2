"""What a sidecar does inside a pod: where content comes from when its request does not say, and how it is probed."""

import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from baleen_cli.triton.process import free_port
from sidecars import RunningSidecar, StartSidecar, post

LINK = {"type": "text", "text": "http://a.example"}


def policy(name: str, action: str, **scope: str) -> dict[str, Any]:
    rule = {"name": "links", "when": "content.links > 0", "action": action}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": "trust-safety"},
        "spec": {"scope": scope, "policy": {"rules": [rule]}},
    }


@pytest.fixture
def placed(start_sidecar: StartSidecar) -> RunningSidecar:
    policies = [policy("all", "Review"), policy("chat", "Block", tenant="acme", surface="chat", source="a/b")]
    return start_sidecar(
        policies={"all.yaml": policies}, default_tenant="acme", default_surface="chat", default_source="a/b"
    )


def test_content_comes_from_the_default_place_as_far_as_its_request_does_not_say(placed: RunningSidecar):
    unsaid = post(placed, LINK).json()["decision"]
    said = [post(placed, LINK, **place).json()["decision"] for place in ({"surface": "wall"}, {"tenant": "other"})]
    raw = [
        placed.client.post(f"/v1/moderate{query}", content=LINK["text"], headers={"Content-Type": "text/plain"}).json()
        for query in ("", "?source=elsewhere")
    ]

    assert unsaid == "Block"
    assert said == ["Review", "Review"]
    assert [each["decision"] for each in raw] == ["Block", "Review"]


def probe(path: str, port: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BALEEN_PORT": str(port)}
    command = [sys.executable, "-m", "baleen_sidecar.probe", path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_probe_passes_when_the_sidecar_is_well_and_else_says_what_is_wrong(
    placed: RunningSidecar, start_sidecar: StartSidecar
):
    lacking = start_sidecar(policies={})
    well = probe("/ready", placed.address[1])
    alive, waiting = (probe(path, lacking.address[1]) for path in ("/health", "/ready"))
    nobody = probe("/health", free_port())

    assert (well.returncode, well.stderr) == (0, "")
    assert alive.returncode == 0
    assert waiting.returncode == 1
    assert httpx.get(f"http://127.0.0.1:{lacking.address[1]}/ready", trust_env=False).text in waiting.stderr
    assert nobody.returncode == 1
    assert "does not answer" in nobody.stderr
