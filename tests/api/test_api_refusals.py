"""When no decision can be given as it should be, none is given: no policy, no record, no trust in what is stored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from baleen_core.model.loaded import LoadedModel
from baleen_sidecar.main import open_sidecar
from baleen_sidecar.testing import FixedInference, MemoryDecisionLog
from policies import policy_manifest
from sidecars import StartSidecar, alter_database, make_settings, post, run_in_thread, write_manifests
from store_files import write_lock

HELLO = {"type": "text", "text": "hello"}
WRONG_RULE = {"name": "typo", "when": "content.linkz > 1", "action": "Review"}
Policies = Mapping[str, Sequence[Mapping[str, Any]]]


def policy(**spec: Any) -> dict[str, Any]:
    category = {"name": "toxicity", "signals": [{"name": "text-safety.toxicity", "review": "50%"}]}
    return policy_manifest(spec.pop("content", {}) | {"categories": [category]}, **spec)


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param({}, id="no policy at all"),
        pytest.param({"a.yaml": [policy(scope={"surface": "kids"})]}, id="none of the scope"),
        pytest.param({"a.yaml": [policy(role="Floor")]}, id="a floor alone"),
        pytest.param({"a.yaml": [policy(content={"enforcement": "DryRun"})]}, id="one that is only tried out"),
        pytest.param({"a.yaml": [policy(content={"rules": [WRONG_RULE]})]}, id="one that never was valid"),
    ],
)
def test_without_a_policy_nothing_is_allowed(start_sidecar: StartSidecar, policies: Policies) -> None:
    running = start_sidecar(policies=policies)

    response = post(running, HELLO)

    assert (response.status_code, response.json()["type"]) == (503, "urn:baleen:problem:no-policy")
    assert "no policy is in force for requests without a scope" in response.json()["detail"]
    assert int(response.headers["retry-after"]) >= 1
    assert "decision" not in response.json()


def test_the_place_without_a_policy_is_named(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"a.yaml": [policy(scope={"surface": "kids"})]})

    refused = post(running, HELLO, surface="comments", tenant="acme")

    assert post(running, HELLO, surface="kids").status_code == 200
    assert "tenant 'acme', surface 'comments'" in refused.json()["detail"]


def test_without_a_policy_the_process_lives_and_is_not_ready(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={})

    health, ready = running.client.get("/health"), running.client.get("/ready")

    assert (health.status_code, ready.status_code) == (200, 503)
    assert ready.json()["degraded"] == ["policies"]


def test_a_decision_that_cannot_be_put_on_record_is_not_given(start_sidecar: StartSidecar) -> None:
    log = MemoryDecisionLog()
    running = start_sidecar(ports={"log": log})
    log.fault = "no space left on device"
    refused = post(running, HELLO)
    log.fault = ""

    assert (refused.status_code, refused.json()["type"]) == (503, "urn:baleen:problem:log-unavailable")
    assert "no space left on device" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert "decision" not in refused.json()
    assert post(running, HELLO).status_code == 200


def test_a_decision_that_is_not_on_record_in_time_is_not_given(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    with write_lock(running.database):
        sent = {"Content-Type": "text/plain", "X-Baleen-Deadline-Ms": "300"}
        late = running.client.post("/v1/moderate", content=b"hello", headers=sent)

    assert late.status_code == 504
    assert post(running, HELLO).status_code == 200


def test_a_failure_that_nobody_foresaw_says_nothing_about_its_cause(start_sidecar: StartSidecar) -> None:
    class BrokenLog(MemoryDecisionLog):
        async def append(self, record: Any, beside: Any = None) -> bool:
            raise ZeroDivisionError("the secret of the house")

    running = start_sidecar(ports={"log": BrokenLog()})
    running.answers.document = {}  # No document promises a failure that nobody foresaw.

    response = post(running, HELLO)

    assert (response.status_code, response.json()["type"]) == (500, "urn:baleen:problem:internal")
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert "secret" not in response.text


def test_a_refusal_is_counted_by_its_status(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={})
    for _ in range(2):
        post(running, HELLO)
    post(running, {"type": "text"})

    assert 'baleen_requests_refused_total{status="503"} 2.0' in running.client.get("/metrics").text
    assert running.client.get("/v1/status").json()["requests"] == {"decisions": 0, "refused": 3}


@pytest.mark.parametrize("text", [None, "{"], ids=["its policy is there", "its file cannot be read"])
def test_a_revision_that_was_altered_on_disk_is_never_used_and_the_rest_is(
    tmp_path: Path, loaded_models: tuple[LoadedModel, ...], text: str | None
) -> None:
    settings = make_settings(tmp_path)
    others = policy(scope={"surface": "kids"}) | {"metadata": {"name": "kids", "namespace": "trust-safety"}}
    write_manifests(settings.policies / "a.yaml", policy(version="v1"))
    write_manifests(settings.policies / "b.yaml", others)
    inference = FixedInference({"text-safety.toxicity": 0.6})
    with run_in_thread(settings, open_sidecar(settings, loaded_models, inference)) as running:
        digest = post(running, HELLO).json()["policies"][0]["digest"]
    statement = "UPDATE revisions SET content = replace(content, '500000', '990000') WHERE digest = ?"
    assert alter_database(running.database, statement, digest) == 1
    if text is not None:
        (settings.policies / "a.yaml").write_text(text)

    with run_in_thread(settings, open_sidecar(settings, loaded_models, inference)) as running:
        refused, other = post(running, HELLO), post(running, HELLO, surface="kids")
        shown = {each["name"]: each for each in running.client.get("/v1/policies").json()["policies"]}

    assert (refused.status_code, refused.json()["type"]) == (503, "urn:baleen:problem:no-policy")
    assert other.json()["decision"] == "Review"
    assert shown["community"]["digest"] is None
    assert digest[:17] in " ".join(problem["message"] for problem in shown["community"]["problems"])
