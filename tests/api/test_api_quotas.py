"""Quotas over HTTP: who used up what is told so, with the limit, its window and when there is more."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from baleen_sidecar.adapters.redis_quotas import RedisQuotas
from baleen_sidecar.adapters.shared_redis import open_redis
from baleen_sidecar.testing import FixedFrames
from baleen_sidecar.usecases.moderate_video import GROUP
from media import encode, grey
from redis_server import RedisServer
from sidecars import RunningSidecar, StartSidecar, post

HELLO = {"type": "text", "text": "hello"}
PHOTOS = {"name": "photos", "per": "Author", "content": ["image", "video"], "limit": 2, "windowSeconds": 86400}
TEXTS = {
    "name": "chat",
    "per": "Surface",
    "content": ["text"],
    "limit": 3,
    "windowSeconds": 60,
    "match": {"tenant": "acme"},
}


def write_quotas(folder: Path, *quotas: dict[str, Any]) -> Path:
    path = folder / "quotas.yaml"
    path.write_text(yaml.safe_dump({"quotas": list(quotas)}))
    return path


@pytest.fixture
def limited(start_sidecar: StartSidecar, tmp_path: Path) -> RunningSidecar:
    return start_sidecar(quotas_file=write_quotas(tmp_path, PHOTOS, TEXTS))


def post_image(running: RunningSidecar, author: str) -> httpx.Response:
    return running.client.post(
        "/v1/moderate", content=encode(grey(90)), headers={"Content-Type": "image/png"}, params={"author.id": author}
    )


def test_what_was_let_in_says_what_is_left_and_what_was_not_when_there_is_more(limited: RunningSidecar) -> None:
    answers = [post_image(limited, "anne") for _ in range(3)]
    others = post_image(limited, "bert")

    assert [answer.status_code for answer in (*answers, others)] == [200, 200, 429, 200]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"photos";q=2;w=86400'}
    assert [answer.headers["ratelimit"].split(";t=")[0] for answer in answers] == [
        '"photos";r=1',
        *['"photos";r=0'] * 2,
    ]
    problem = answers[-1].json()
    assert problem["type"] == "urn:baleen:problem:limit-exceeded"
    assert "the quota 'photos' allows 2 images and videos in 24 h per author" in problem["detail"]
    seconds = int(answers[-1].headers["ratelimit"].rpartition("=")[2])
    assert 86_400 - 60 <= seconds <= 86_400 * 61 / 60
    assert seconds <= int(answers[-1].headers["retry-after"]) <= seconds + 61
    metrics = limited.client.get("/metrics").text
    assert 'baleen_quota_claims_total{quota="photos",result="admitted"} 3.0' in metrics
    assert 'baleen_quota_claims_total{quota="photos",result="refused"} 1.0' in metrics
    assert 'baleen_requests_refused_total{status="429"} 1.0' in metrics


def test_a_quota_counts_what_it_is_about_and_nothing_else(limited: RunningSidecar) -> None:
    of_acme = [post(limited, HELLO, tenant="acme", surface="chat") for _ in range(4)]
    elsewhere = [post(limited, HELLO, surface="chat") for _ in range(4)]
    image = {"content": encode(grey(90)), "headers": {"Content-Type": "image/png"}}
    of_nobody = [limited.client.post("/v1/moderate", **image) for _ in range(3)]

    assert [answer.status_code for answer in of_acme] == [200, 200, 200, 429]
    assert {answer.status_code for answer in elsewhere} == {200}
    assert not [answer for answer in elsewhere if "ratelimit" in answer.headers]
    assert {answer.status_code for answer in of_nobody} == {200}


def test_a_video_is_one_piece_however_many_frames_it_has(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    frames = FixedFrames([Image.new("RGB", (8, 8), (level, 0, 0)) for level in range(30)], duration_milliseconds=15_000)
    running = start_sidecar(quotas_file=write_quotas(tmp_path, PHOTOS), ports={"frames": frames})
    answer = running.client.post(
        "/v1/moderate", content=b"film", headers={"Content-Type": "video/mp4"}, params={"author.id": "anne"}
    )

    assert answer.headers["ratelimit"].startswith('"photos";r=1;')
    assert answer.json()["video"]["coverage"]["frames_judged"] > 2 * GROUP


def test_a_policy_that_asks_no_model_uses_nothing_up(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    policy = {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": "links", "namespace": "trust-safety"},
        "spec": {
            "type": "Moderation",
            "version": "v1.0.0",
            "policy": {"rules": [{"name": "links", "when": "content.links > 3", "action": "Review"}]},
        },
    }
    running = start_sidecar(policies={"links.yaml": [policy]}, quotas_file=write_quotas(tmp_path, TEXTS | {"limit": 1}))
    answers = [post(running, HELLO, tenant="acme", surface="chat") for _ in range(3)]

    assert {answer.status_code for answer in answers} == {200}


def test_replicas_count_together(start_sidecar: StartSidecar, tmp_path: Path, redis_server: RedisServer) -> None:
    url_file, quotas_file = tmp_path / "redis-url", write_quotas(tmp_path, TEXTS)
    url_file.write_text(redis_server.url)
    clients = [open_redis(url_file) for _ in range(2)]
    replicas = []
    for number, client in enumerate(clients):
        # How long one waits for Redis is not what this is about.
        quotas = RedisQuotas(client, replica=str(number), monotonic_seconds=time.monotonic, wait_seconds=20.0)
        replicas.append(start_sidecar(quotas_file=quotas_file, ports={"quotas": quotas}))
        while quotas.problem:
            replicas[-1].run(quotas.beat())
    answers = [post(running, HELLO, tenant="acme", surface="chat") for _ in range(2) for running in replicas]
    for running, client in zip(replicas, clients, strict=True):
        running.run(client.aclose())

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]


def test_a_decision_says_that_replicas_cannot_count_together(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    url_file = tmp_path / "redis-url"
    url_file.write_text(f"unix://{tmp_path / 'nothing'}")
    running = start_sidecar(quotas_file=write_quotas(tmp_path, TEXTS), redis_url_file=url_file)
    answers = [post(running, HELLO, tenant="acme", surface="chat") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].json()["degraded"] == ["SharedQuotas"]
    assert "shared-quotas" in running.client.get("/ready").json()["degraded"]
    assert "baleen_quotas_counted_alone 1.0" in running.client.get("/metrics").text
