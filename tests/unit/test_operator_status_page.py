"""What /ready says, and when."""

import httpx
import pytest

from baleen_operator.adapters.status_page import Readiness, status_page
from baleen_operator.metrics import Metrics


@pytest.mark.parametrize(
    ("readiness", "is_ready", "reasons"),
    [
        pytest.param(Readiness(), False, ["the API server"], id="at the start"),
        pytest.param(Readiness(role="standby", waiting_for=()), True, [], id="standing by"),
        pytest.param(
            Readiness(role="leader", waiting_for=(), outages=lambda: ("the API server does not answer",)),
            False,
            ["the API server does not answer"],
            id="without the API server",
        ),
        pytest.param(
            Readiness(role="leader", waiting_for=(), details=lambda: ("RBAC: may not list x",)),
            True,
            [],
            id="with a right missing",
        ),
    ],
)
def test_a_replica_is_ready_when_it_does_or_could_do_its_work(readiness: Readiness, is_ready: bool, reasons: list[str]):
    found, report = readiness.report()

    assert found == is_ready
    assert report["reasons"] == reasons
    assert report["role"] == readiness.role


async def test_health_does_not_depend_on_what_readiness_waits_for():
    readiness = Readiness(waiting_for=("the CRDs",))
    async with status_page("127.0.0.1", 0, readiness, Metrics()) as port, httpx.AsyncClient(trust_env=False) as client:
        health = await client.get(f"http://127.0.0.1:{port}/health")
        ready = await client.get(f"http://127.0.0.1:{port}/ready")
        metrics = await client.get(f"http://127.0.0.1:{port}/metrics")

    assert (health.status_code, ready.status_code, metrics.status_code) == (200, 503, 200)
    assert ready.json()["reasons"] == ["the CRDs"]
    assert "baleen_operator_leader 0.0" in metrics.text
