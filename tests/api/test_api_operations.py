"""Health, status, metrics and the documentation of the API."""

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from baleen_core.api_keys import KeyRole, make_key
from baleen_core.callers import Per, RateLimit
from baleen_sidecar.testing import FixedInference, FixedTokens
from faces import MODERATE_KEY, write_keys
from keyed import api_key, write_key_file
from media import encode, grey, steady, video
from policies import policy_manifest
from serving import until
from sidecars import RunningSidecar, StartSidecar, alter_database, post

HELLO = {"type": "text", "text": "hello"}
DRAFT = policy_manifest(
    {"categories": [{"name": "toxicity", "signals": [{"name": "text-safety.toxicity", "review": "50%"}]}]}
)
BASE_UNITS = ("_seconds", "_bytes", "_total", "_info", "_rows", "_fds", "_ratio")
COUNTS_OF_NOW = {
    "baleen_breaker_state",
    "baleen_source_breakers",
    "baleen_sources",
    "baleen_queue_depth",
    "baleen_inference_batch_size",
    "baleen_cache_entries",
    "baleen_requests_in_flight",
    "baleen_streams_open",
    "baleen_connections",
    "baleen_tasks",
    "baleen_governor_waiting",
    "baleen_governor_entering_per_second",
    "baleen_governor_throttle_level",
    "baleen_rescan_debt_decisions",
}


NOTHING_WAITS = {lane: {"Low": 0, "Normal": 0, "High": 0, "Critical": 0} for lane in ("Interactive", "Video")}
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"}


def families(running: RunningSidecar) -> dict[str, Any]:
    response = running.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def sample(running: RunningSidecar, family: str, name: str, **labels: str) -> float:
    (found,) = (each for each in families(running)[family].samples if (each.name, each.labels) == (name, labels))
    return float(found.value)


def test_the_process_is_healthy_and_ready_with_every_component_named(sidecar: RunningSidecar) -> None:
    health, ready = sidecar.client.get("/health"), sidecar.client.get("/ready")

    assert (health.status_code, health.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()["ready"], ready.json()["degraded"]) == (200, True, [])
    assert {each["name"] for each in ready.json()["components"]} >= {
        "policy/trust-safety/community",
        "policy/trust-safety/kids",
        "model/text-safety",
        "model/image-safety",
    }


def test_it_is_not_ready_before_every_model_gave_its_golden_answers(start_sidecar: StartSidecar) -> None:
    inference = FixedInference(down={"toxicity"})
    running = start_sidecar(inference=inference)
    before = running.client.get("/ready")
    inference.down.clear()
    after = running.client.get("/ready")
    inference.down.add("toxicity")
    failed_later = running.client.get("/ready")

    assert (before.status_code, before.json()["degraded"]) == (503, ["model/toxicity"])
    assert (after.status_code, after.json()["degraded"]) == (200, [])
    # Requests can be answered without it, as the policy's onModelFailure says.
    assert (failed_later.status_code, failed_later.json()["degraded"]) == (200, ["model/toxicity"])


def test_the_status_has_numbers_for_people(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    for _ in range(3):
        post(running, HELLO)
    post(running, {"type": "text"})

    status = running.client.get("/v1/status").json()

    assert status["requests"] == {"decisions": 3, "refused": 1}
    assert (status["refused_by_status"], status["error_ratio"]) == ({"422": 1}, 0)
    assert status["models"]["toxicity"]
    assert status["python"].startswith("3.")
    assert status["breakers"]["overall_health"] == "Healthy"
    assert next(each for each in status["queues"] if each["model"] == "toxicity")["batches_under_way"] == 0
    percentiles = status["request_duration_seconds"]["text"]
    assert 0 < percentiles["mean"] < 60
    assert 0 < percentiles["p50"] <= percentiles["p95"] <= percentiles["p99"] < 60
    assert status["memory_bytes"] > 10 * 2**20
    assert status["uptime_seconds"] > 0
    assert status["ready"] is True
    assert status["cache"]["enabled"] is False
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["version"])


def test_metrics_are_named_as_prometheus_asks(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    post(running, HELLO)
    post(running, {"type": "text"})

    # Beside each counter, the client library says when it began, in a series of its own.
    found = {name: family for name, family in families(running).items() if not name.endswith("_created")}

    ours = {name for name in found if name.startswith("baleen_")}
    assert ours == {
        "baleen_breaker_state",
        "baleen_breaker_transitions",
        "baleen_breaker_trials",
        "baleen_body_bytes",
        "baleen_cache_entries",
        "baleen_cache_failures",
        "baleen_cache_hits",
        "baleen_cache_joined",
        "baleen_cache_misses",
        "baleen_cache_size_bytes",
        "baleen_connections",
        "baleen_decisions",
        "baleen_decisions_degraded",
        "baleen_frames_processed",
        "baleen_governor_cpu_ratio",
        "baleen_governor_entering_per_second",
        "baleen_governor_held",
        "baleen_governor_memory_ratio",
        "baleen_governor_throttle_level",
        "baleen_governor_waiting",
        "baleen_inference_batch_size",
        "baleen_inference_duration_seconds",
        "baleen_inference_failures",
        "baleen_inference_hedges",
        "baleen_inference_let_go",
        "baleen_inference_retries",
        "baleen_inference_rows",
        "baleen_inference_shed",
        "baleen_policy_decisions",
        "baleen_policy_flips",
        "baleen_replica_ejections",
        "baleen_queue_depth",
        "baleen_queue_wait_seconds",
        "baleen_request_duration_seconds",
        "baleen_requests_in_flight",
        "baleen_requests_refused",
        "baleen_requests_replayed",
        "baleen_rescan_debt_bytes",
        "baleen_rescan_debt_decisions",
        "baleen_rescan_debt_oldest_seconds",
        "baleen_rescans",
        "baleen_source_breakers",
        "baleen_source_contents",
        "baleen_source_errors",
        "baleen_sources",
        "baleen_streams_ended",
        "baleen_streams_open",
        "baleen_tasks",
    }
    for name in ours:
        family = found[name]
        assert family.documentation, f"{family.name} has no help"
        assert family.type in ("counter", "gauge", "histogram"), family
        exposed = f"{family.name}_total" if family.type == "counter" else family.name
        assert exposed.endswith(BASE_UNITS) or exposed in COUNTS_OF_NOW, f"{exposed} is in no base unit"


def test_what_is_held_of_callers_is_told_and_given_back(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()

    def held() -> tuple[float, ...]:
        found = families(running)
        return tuple(found[f"baleen_{name}"].samples[0].value for name in ("connections", "body_bytes", "tasks"))

    connections, _, tasks = held()
    head = b"POST /v1/moderate HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(running.address) as one, socket.create_connection(running.address) as other:
        one.sendall(head + bytes(300))
        other.sendall(head + bytes(200))
        until(lambda: held()[:2] == (connections + 2, 500))
    until(lambda: held() == (connections, 0, tasks))

    assert (connections, tasks > 0) == (1, True)


def test_decisions_refusals_frames_and_failures_are_counted(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=FixedInference({"text-safety.toxicity": 0.99}, down={"toxicity"}))
    english = {"type": "text", "text": "Good morning everybody, how are you today?"}
    post(running, english)
    post(running, {"type": "text"})
    for data, media_type in ((encode(grey(9)), "image/png"), (video(steady(1)), "video/mp4")):
        running.client.post("/v1/moderate", content=data, headers={"Content-Type": media_type})

    decided = {"content_type": "text", "decision": "Block", "risk": "Critical"}
    assert sample(running, "baleen_decisions", "baleen_decisions_total", **decided) == 1
    assert sample(running, "baleen_requests_refused", "baleen_requests_refused_total", status="422") == 1
    assert sample(running, "baleen_frames_processed", "baleen_frames_processed_total") == 3
    assert sample(running, "baleen_decisions_degraded", "baleen_decisions_degraded_total", model="toxicity") == 1
    seconds = "baleen_request_duration_seconds"
    assert sample(running, seconds, f"{seconds}_count", content_type="video") == 1


def test_the_histogram_of_seconds_is_whole(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    for _ in range(3):
        post(running, HELLO)

    samples = families(running)["baleen_request_duration_seconds"].samples

    buckets = [(float(each.labels["le"]), each.value) for each in samples if each.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == (float("inf"), 3)


def test_the_names_that_alerts_of_other_systems_ask_for_are_exported_as_they_ask(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    for _ in range(3):
        post(running, HELLO)
    post(running, {"type": "text"})

    text = running.client.get("/metrics").text
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    histogram = [name for name in found if name.startswith("moderation_processing_time_histogram")]
    bounds = ("0.1", "0.5", "1.0", "2.0", "+Inf")
    assert histogram == [
        *(f'moderation_processing_time_histogram_bucket{{le="{bound}"}}' for bound in bounds),
        "moderation_processing_time_histogram_count",
        "moderation_processing_time_histogram_sum",
    ]
    assert found['moderation_processing_time_histogram_bucket{le="+Inf"}'] == 3
    assert found['moderation_requests_duration_seconds_bucket{le="+Inf"}'] == 3
    assert found["moderation_processing_time_histogram_sum"] > 0
    assert found["moderation_requests_total"] == 4
    assert found["moderation_requests_successful"] == 3
    assert found["moderation_requests_failed"] == 1
    # A request that was not in order is nobody's emergency.
    assert found["moderation_requests_errors_total"] == 0
    assert 0 < found["moderation_processing_time_p95"] < 60
    assert found["moderation_queue_depth"] == found["moderation_workers_active"] == 0
    types = dict(re.findall(r"^# TYPE (moderation_\w+) (\w+)$", text, re.MULTILINE))
    assert types["moderation_requests_total"] == types["moderation_requests_errors_total"] == "counter"
    assert types["moderation_processing_time_histogram"] == types["moderation_requests_duration_seconds"] == "histogram"


def test_the_names_of_others_are_there_before_the_first_request(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()

    found = families(running)

    buckets = found["moderation_processing_time_histogram"].samples
    assert {each.labels.get("le") for each in buckets} == {"0.1", "0.5", "1.0", "2.0", "+Inf", None}
    assert all(each.value == 0 for name in found if name.startswith("moderation_") for each in found[name].samples)


def test_who_accepts_openmetrics_is_told_which_decision_was_slow(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    decision = post(running, HELLO).json()

    response = running.client.get("/metrics", headers=OPENMETRICS)
    found = {family.name: family for family in openmetrics_families(response.text)}

    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    exemplars = [each.exemplar for each in found["baleen_request_duration_seconds"].samples if each.exemplar]
    assert [each.labels for each in exemplars] == [{"decision_id": decision["id"]}]
    assert {"moderation_requests", "moderation_requests_failed", "moderation_requests_errors"} <= set(found)


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "application/openmetrics-text-2", ""])
def test_anybody_else_gets_the_text_format(sidecar: RunningSidecar, accept: str) -> None:
    response = sidecar.client.get("/metrics", headers={"Accept": accept})

    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "# EOF" not in response.text


def test_a_version_of_openmetrics_that_is_none_does_no_harm(sidecar: RunningSidecar) -> None:
    response = sidecar.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=evil"})

    assert (response.status_code, "evil" in response.headers["content-type"]) == (200, False)


def test_what_waits_and_what_was_rejected_is_told_by_model(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    before = running.client.get("/v1/queue/stats").json()
    post(running, HELLO)
    after = running.client.get("/v1/queue/stats").json()

    assert before == {"waiting_rows": 0, "waiting_requests": 0, "rejected": {}, "queues": []}
    toxicity = next(each for each in after["queues"] if each["model"] == "toxicity")
    assert toxicity == {
        "model": "toxicity",
        "waiting_rows": 0,
        "waiting": NOTHING_WAITS,
        "batches_under_way": 0,
        "mean_batch_rows": 1,
        "rejected": {"QueueFull": 0, "PredictedLate": 0, "DeadlinePassed": 0},
    }


def test_no_caller_can_make_new_series(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    post(running, HELLO)
    before = sum(len(family.samples) for family in families(running).values())
    for number in range(5):
        post(running, HELLO, tenant=f"tenant-{number}", surface=f"surface-{number}", author={"id": str(number)})

    assert sum(len(family.samples) for family in families(running).values()) == before


def test_the_documentation_asks_no_other_host_for_anything(sidecar: RunningSidecar) -> None:
    page = sidecar.client.get("/docs")

    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert set(loaded) == {f"/docs/assets/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")}
    assert not re.search(r"https?://|//[a-z]", page.text)
    assert '"validatorUrl": null' in page.text
    # Whatever the scripts say, the browser itself refuses to ask another host.
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "http" not in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        pytest.param("swagger-ui-bundle.js", "text/javascript", id="script"),
        pytest.param("swagger-ui.css", "text/css", id="style"),
        pytest.param("favicon.png", "image/png", id="icon"),
    ],
)
def test_the_documentations_assets_are_served_from_here(sidecar: RunningSidecar, name: str, media_type: str) -> None:
    response = sidecar.client.get(f"/docs/assets/{name}")

    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert len(response.content) > 500
    if media_type == "text/css":
        assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", response.text)


def test_the_api_document_is_valid_and_one_for_all_routes(sidecar: RunningSidecar) -> None:
    document = sidecar.client.get("/openapi.json").json()

    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/$discovery/rest",
        "/health",
        "/metrics",
        "/ready",
        "/v1/breakers",
        "/v1/breakers/{name}",
        "/v1/cache",
        "/v1/cache/stats",
        "/v1/decisions/changes",
        "/v1/decisions/{decision_id}",
        "/v1/decisions/{decision_id}/explain",
        "/v1/decisions/{decision_id}/replay",
        "/v1/effective-policy",
        "/v1/governor",
        "/v1/moderate",
        "/v1/moderate/batch",
        "/v1/moderations",
        "/v1alpha1/comments:analyze",
        "/v1alpha1/comments:suggestscore",
        "/v1/policies",
        "/v1/policies/{name}",
        "/v1/policies/{name}/diff",
        "/v1/policies/{name}/flips",
        "/v1/policies/{name}/performance",
        "/v1/policies/{name}/simulate",
        "/v1/queue/stats",
        "/v1/sources",
        "/v1/sources/{source}/stats",
        "/v1/status",
        "/v1/stream",
        "/v1/subjects/{author}",
    }


def test_the_api_document_has_no_reference_to_nowhere_and_no_schema_that_nothing_uses(
    sidecar: RunningSidecar,
) -> None:
    response = sidecar.client.get("/openapi.json")

    used = set(re.findall(r'"#/components/schemas/([^"]+)"', response.text))
    assert used == set(response.json()["components"]["schemas"])


def test_the_api_document_is_the_same_whatever_the_settings(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    """Every test compares answers with the document of whichever application was started first."""
    keys = write_keys(tmp_path / "keys.yaml")
    plain = start_sidecar()
    other = start_sidecar(
        api_keys_file=keys, governor=False, cache_enabled=True, cache_by_tenant=True, policies={}, port=0
    )
    mine = other.client.get("/openapi.json", headers={"Authorization": f"Bearer {MODERATE_KEY}"})

    assert mine.json() == plain.client.get("/openapi.json").json() == plain.answers.document


def test_every_status_that_is_documented_is_seen_and_no_other(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    """The client refuses undocumented ones in every test; here every documented one is brought about."""
    quota = {"name": "one", "per": "Tenant", "limit": 1, "windowSeconds": 86400, "match": {"tenant": "limited"}}
    (tmp_path / "quotas.yaml").write_text(json.dumps({"quotas": [quota]}))
    (tmp_path / "redis-url").write_text("redis://127.0.0.1:1/0")
    away = {"cache_enabled": True, "redis_url_file": tmp_path / "redis-url"}
    unready = start_sidecar(policies={}, ports={"subjects": None, "governor": None, "rescans": None}, **away)
    running = start_sidecar(quotas_file=tmp_path / "quotas.yaml", batch_limit_bytes=2**16)
    for _ in range(2):
        post(running, HELLO, tenant="limited")
    unready.client.get("/v1/governor")
    decision = post(running, HELLO).json()
    erased = post(running, HELLO, author={"id": "jane"}).json()
    digest = decision["policies"][0]["digest"]
    unready.client.get("/ready")
    unready.client.delete("/v1/subjects/jane")
    unready.client.delete("/v1/cache")
    unready.client.get("/v1/decisions/changes")
    running.client.delete("/v1/subjects/jane")
    ask_everything(running.client, erased["id"], "community", digest)
    ask_everything(running.client, decision["id"], "community", digest)
    ask_everything(running.client, "absent", "absent", digest)
    ask_everything(running.client, "a" * 128, "a" * 128, "no digest")
    send_everything(running.client)
    ask_all_faces(running.client)
    ask_all_faces(unready.client)
    alter_database(running.database, "UPDATE revisions SET content = content || ' '")
    ask_everything(running.client, decision["id"], "community", digest)
    for table in ("decisions", "revisions", "activations", "decision_changes"):
        alter_database(running.database, f"ALTER TABLE {table} RENAME TO {table}_gone")
    ask_everything(running.client, decision["id"], "community", digest)
    post(running, HELLO)
    keyed = ask_everything_without_a_right(start_sidecar, tmp_path)
    documented = {
        (method.upper(), path, int(status))
        for path, operations in running.answers.document["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }

    assert running.answers.seen | unready.answers.seen | keyed.answers.seen == documented


def ask_everything_without_a_right(start_sidecar: StartSidecar, folder: Path) -> RunningSidecar:
    moderate, review, spent = (make_key(bytes([number]) * 32) for number in range(3))
    file = write_key_file(
        folder / "keys.yaml",
        api_key("moderate", moderate),
        api_key("review", review, KeyRole.REVIEW),
        api_key("spent", spent, *KeyRole, limits=(RateLimit(requests=1, per=Per.DAY, burst=1),)),
    )
    tokens = FixedTokens()
    tokens.problem = "nobody can say whose the token is"
    keyed = start_sidecar(api_keys_file=file, ports={"tokens": tokens})
    keyed.client.get("/v1/policies", headers={"X-API-Key": spent})
    token = {"Authorization": "Bearer a.b.c"}
    for sent in ({}, token, *({"X-API-Key": key} for key in (moderate, review, spent))):
        keyed.client.headers.update(sent)
        ask_everything(keyed.client, "absent", "community", "no digest")
        ask_all_faces(keyed.client)
        keyed.client.post("/v1/moderate", content=b"hello", headers={"Content-Type": "text/plain"})
    return keyed


def ask_everything(client: httpx.Client, decision: str, policy: str, digest: str) -> None:
    for path in (
        "/health",
        "/ready",
        "/metrics",
        "/v1/status",
        "/v1/policies",
        "/v1/cache/stats",
        "/v1/governor",
        "/v1/queue/stats",
        "/v1/sources",
    ):
        client.get(path)
    client.delete("/v1/cache")
    client.get("/v1/breakers")
    client.post("/v1/sources/%0A/stats", json={})
    client.post(f"/v1/breakers/source%2F{policy}", json={"state": "Closed"})
    client.post(f"/v1/sources/{policy}/stats", json={"frames_processed": 1, "avg_latency_ms": 1, "errors_count": 0})
    client.post(f"/v1/breakers/{policy}", json={"state": "Auto"})
    client.get("/v1/effective-policy", params={"tenant": "t" * len(policy) ** 2})
    client.get("/v1/decisions/changes")
    client.get("/v1/decisions/changes", params={"after": decision})
    client.get(f"/v1/decisions/{decision}")
    client.get(f"/v1/decisions/{decision}/explain")
    client.post(f"/v1/decisions/{decision}/replay")
    client.delete(f"/v1/subjects/{3 * decision}")
    client.get(f"/v1/policies/{policy}")
    client.get(f"/v1/policies/{policy}/diff", params={"from": digest, "to": digest})
    client.post(f"/v1/policies/{policy}/simulate", json={"policy": DRAFT})
    client.get(f"/v1/policies/{policy}/flips", params={"from": digest, "to": digest})
    client.get(f"/v1/policies/{policy}/performance")


def ask_all_faces(client: httpx.Client) -> None:
    """Have content judged by batches and in the shapes of others, and refused as well."""
    for content, headers in (
        (json.dumps({"items": [{"content": HELLO}]}), {}),
        (json.dumps({"items": []}), {}),
        ("{}", {"Content-Type": "text/html"}),
        (" " * 2**17, {}),
    ):
        client.post("/v1/moderate/batch", content=content, headers={"Content-Type": "application/json", **headers})

    def slowly() -> Iterator[bytes]:
        yield b"{"
        time.sleep(0.05)
        yield b"}"

    hurried = {"Content-Type": "application/json", "X-Baleen-Deadline-Ms": "1"}
    client.post("/v1/moderate/batch", content=slowly(), headers=hurried)
    long = "a b " * 2**12
    for asked, headers in (
        ({"input": "hello"}, {}),
        ({}, {}),
        ({"input": "hello", "model": "nobody"}, {}),
        ({"input": long}, {"X-Baleen-Deadline-Ms": "1"}),
    ):
        client.post("/v1/moderations", json=asked, headers=headers)
    for attribute, words, headers in (
        ("TOXICITY", "hello", {}),
        ("FLATTERY", "hello", {}),
        ("TOXICITY", long, {"X-Baleen-Deadline-Ms": "1"}),
    ):
        comment = {"comment": {"text": words}, "requestedAttributes": {attribute: {}}}
        client.post("/v1alpha1/comments:analyze", json=comment, headers=headers)
    client.post("/v1alpha1/comments:suggestscore", json={})
    for version in ("v1alpha1", "v2"):
        client.get("/$discovery/rest", params={"version": version})
    client.get("/$discovery/rest?version=v1alpha1&version=v2")

    ask_again_with_other_words(client)
    ask_for_streams(client)


def ask_again_with_other_words(client: httpx.Client) -> None:
    """Ask two things under one idempotency key, of each face."""
    for number in range(2):
        words = f"number {number}"
        for path, asked in (
            ("/v1/moderate/batch", {"items": [{"content": {"type": "text", "text": words}}]}),
            ("/v1/moderations", {"input": words}),
            ("/v1alpha1/comments:analyze", {"comment": {"text": words}, "requestedAttributes": {"TOXICITY": {}}}),
        ):
            client.post(path, json=asked, headers={"Idempotency-Key": f"of {path}".replace(" ", "-")})


def ask_for_streams(client: httpx.Client) -> None:
    """Shake hands over a WebSocket, rightly and wrongly."""
    client.get("/v1/stream")
    hands = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    for headers in ({}, {"Sec-WebSocket-Version": "8"}, {"X-Baleen-Deadline-Ms": "soon"}):
        client.get("/v1/stream", headers={**hands, **headers})


def send_everything(client: httpx.Client) -> None:
    for content in (b"hello", b"good bye"):
        client.post("/v1/moderate", content=content, headers={"Content-Type": "text/plain", "Idempotency-Key": "one"})
    for content, headers in (
        (b"hello", {"Content-Type": "text/plain"}),
        (b"hello", {"Content-Type": "text/html"}),
        (b"", {"Content-Type": "text/plain"}),
        (b"a" * 2**19, {"Content-Type": "text/plain"}),
        (b"a b " * 2**15, {"Content-Type": "text/plain", "X-Baleen-Deadline-Ms": "1"}),
    ):
        client.post("/v1/moderate", content=content, headers=headers)
    for content, headers in (
        (b"{}", {}),
        (bytes(2**23), {}),
        (b"{}", {"Content-Encoding": "gzip"}),
    ):
        client.post("/v1/policies/community/simulate", content=content, headers=headers)
        client.post("/v1/breakers/source%2Fcamera", content=content, headers=headers)
        client.post("/v1/sources/camera/stats", content=content, headers=headers)
