"""Sources over HTTP: what was judged of each, what they tell, and who is told of whose."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from baleen_core.api_keys import KeyRole, make_key
from held import HeldInference
from keyed import api_key, write_key_file
from media import encode, grey, steady, video
from pages import ROOT, blocks, run_script
from sidecars import RunningSidecar, StartSidecar, post

HELLO = {"type": "text", "text": "hello"}
CAMERA = "site-7/camera-3"
PATH = f"/v1/sources/{quote(CAMERA, safe='')}/stats"
STATS = {"frames_processed": 900, "avg_latency_ms": 41.5, "errors_count": 3}


def only(running: RunningSidecar) -> dict[str, Any]:
    (found,) = running.client.get("/v1/sources").json()["sources"]
    return dict(found)


def metrics(running: RunningSidecar) -> dict[str, float]:
    families = text_string_to_metric_families(running.client.get("/metrics").text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("baleen_source")
    }


def test_whatever_is_judged_of_a_source_is_counted(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    client, place = running.client, {"source": CAMERA}
    post(running, HELLO)
    empty = client.get("/v1/sources").json()
    post(running, HELLO, source=CAMERA)
    client.post("/v1/moderate", content=b"hello", params=place, headers={"Content-Type": "text/plain"})
    for data, media_type in (
        (encode(grey(9)), "image/png"),
        (b"\x89PNG", "image/png"),
        (video(steady(1)), "video/mp4"),
    ):
        client.post("/v1/moderate", content=data, params=place, headers={"Content-Type": media_type})
    client.post("/v1/moderate/batch", json={"items": [{"content": HELLO, "context": place}]})
    shown = client.get("/v1/sources").json()

    assert empty == {"offline_seconds": 90, "online": 0, "offline": 0, "sources": []}
    assert (shown["online"], shown["offline"]) == (1, 0)
    (found,) = shown["sources"]
    assert (found["source"], found["tenant"], found["status"]) == (CAMERA, None, "Online")
    # An image, and three frames of a video.
    assert (found["contents"], found["frames"], found["errors"]) == (6, 4, 1)
    assert found["error_ratio"] == round(1 / 6, 6)
    assert 0 < found["avg_latency_ms"] < 60_000
    assert 0 < found["contents_per_second"] <= 6
    assert found["last_content"]
    assert (found["breaker"], found["told"]) == ("Closed", None)
    told = metrics(running)
    assert (told["baleen_sources Online"], told["baleen_sources Offline"]) == (1, 0)
    assert (told["baleen_source_contents_total"], told["baleen_source_errors_total"]) == (6, 1)


def test_the_command_of_the_page_works(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    running = start_sidecar()
    (command,) = (block for block in blocks(ROOT / "docs/reference/operations.md", "sh") if "/v1/sources" in block)
    assert "http://127.0.0.1:8080/" in command

    done = run_script(command.replace("http://127.0.0.1:8080", str(running.client.base_url).rstrip("/")), tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == only(running)
    assert only(running)["told"]["frames_processed"] == 900


def test_a_source_whose_media_is_refused_shows_its_breaker(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(source_failure_threshold=1)
    for _ in range(2):
        running.client.post(
            "/v1/moderate", content=b"\x89PNG", params={"source": CAMERA}, headers={"Content-Type": "image/png"}
        )

    found = only(running)
    assert (found["breaker"], found["errors"], found["contents"]) == ("Open", 2, 2)


def test_content_that_is_late_is_an_error_of_its_source(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(inference=HeldInference())
    content = {"content": HELLO, "context": {"source": CAMERA}}
    late = running.client.post("/v1/moderate", json=content, headers={"X-Baleen-Deadline-Ms": "50"})

    assert late.status_code == 504
    assert (only(running)["errors"], only(running)["avg_latency_ms"]) == (1, None)


def test_a_source_tells_how_it_does(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    first = running.client.post(PATH, json=STATS)
    second = running.client.post(PATH, json=STATS | {"frames_processed": 960})

    assert (first.status_code, second.status_code) == (200, 200)
    assert {key: first.json()["told"][key] for key in STATS} == STATS
    assert first.json()["told"]["frames_per_second"] is None
    assert second.json()["told"]["frames_per_second"] > 0
    found = only(running)
    assert (found["source"], found["status"], found["contents"]) == (CAMERA, "Online", 0)
    assert found["told"]["frames_processed"] == 960


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param({"frames_processed": -1}, 422, "frames_processed", id="less than none"),
        pytest.param({"frames_processed": 2**53}, 422, "frames_processed", id="too many"),
        pytest.param({"avg_latency_ms": -0.1}, 422, "avg_latency_ms", id="negative time"),
        pytest.param({"avg_latency_ms": 1e300}, 422, "avg_latency_ms", id="endless time"),
        pytest.param({"errors_count": "3"}, 422, "errors_count", id="no number"),
        pytest.param({"fps": 30}, 422, "fps", id="unknown field"),
        pytest.param({"fps": "x" * 9000}, 413, "8192", id="large body"),
    ],
)
def test_statistics_that_cannot_be_are_refused_and_name_the_field(
    sidecar: RunningSidecar, body: dict[str, object], status: int, said: str
) -> None:
    response = sidecar.client.post("/v1/sources/camera-of-nonsense/stats", json=STATS | body)

    assert response.status_code == status
    assert said in response.text
    assert "camera-of-nonsense" not in sidecar.client.get("/v1/sources").text


def test_a_source_is_told_of_by_its_name_alone(sidecar: RunningSidecar) -> None:
    response = sidecar.client.post(f"/v1/sources/{'x' * 254}/stats", json=STATS)

    assert response.status_code == 422


def test_a_name_makes_no_series_and_there_are_never_more_than_a_thousand(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    before = set(metrics(running))
    for number in range(1005):
        running.client.post(f"/v1/sources/camera-{number}/stats", json=STATS)

    names = [each["source"] for each in running.client.get("/v1/sources").json()["sources"]]
    assert set(metrics(running)) == before
    assert sorted(names) == sorted(f"camera-{number}" for number in range(5, 1005))


def test_who_may_speak_for_a_tenant_sees_and_tells_of_its_sources_alone(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    acme, shop, reviewer, any_reviewer = (make_key(bytes([number]) * 32) for number in range(4))
    file = write_key_file(
        tmp_path / "keys.yaml",
        api_key("acme", acme, tenant="acme"),
        api_key("shop", shop, tenant="shop"),
        api_key("reviewer", reviewer, KeyRole.REVIEW, tenant="acme"),
        api_key("any", any_reviewer, KeyRole.REVIEW),
    )
    client = start_sidecar(api_keys_file=file).client
    told = [client.post(PATH, json=STATS, headers={"X-API-Key": key}).json()["tenant"] for key in (acme, shop)]
    forged = client.post(PATH, json=STATS, params={"tenant": "acme"}, headers={"X-API-Key": shop})
    refused = client.post(PATH, json=STATS, headers={"X-API-Key": reviewer})
    unseen = client.get("/v1/sources", headers={"X-API-Key": acme})
    seen = client.get("/v1/sources", headers={"X-API-Key": reviewer}).json()
    all_seen = client.get("/v1/sources", headers={"X-API-Key": any_reviewer}).json()

    assert told == ["acme", "shop"]
    assert (forged.status_code, refused.status_code, unseen.status_code) == (403, 403, 403)
    assert [each["tenant"] for each in seen["sources"]] == ["acme"]
    assert [each["tenant"] for each in all_seen["sources"]] == ["acme", "shop"]
