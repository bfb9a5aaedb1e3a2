"""The cache of scores from outside: what is answered from it, what it counts, and how it is emptied."""

from pathlib import Path

from baleen_core.api_keys import KeyRole, make_key
from baleen_sidecar.testing import FixedInference
from keyed import api_key, write_key_file
from media import encode, grey
from policies import policy_manifest
from redis_server import RedisServer
from sidecars import RunningSidecar, StartSidecar, post

TEXT = {"type": "text", "text": "good morning everybody"}


def policy(block: str) -> dict[str, object]:
    signals = [{"name": "text-safety.toxicity", "block": block}]
    return policy_manifest({"categories": [{"name": "toxicity", "signals": signals}]})


def test_the_second_answer_is_from_the_cache_and_names_the_models_that_made_it(start_sidecar: StartSidecar) -> None:
    inference = FixedInference({"text-safety.toxicity": 0.4})
    running = start_sidecar(inference=inference, cache_enabled=True)
    first, second = post(running, TEXT).json(), post(running, TEXT).json()
    calls = len(inference.calls)
    on_record = running.client.get(f"/v1/decisions/{second['id']}").json()
    stats = running.client.get("/v1/cache/stats").json()

    assert (first["from_cache"], second["from_cache"], on_record["from_cache"]) == (False, True, True)
    assert first["id"] != second["id"]
    for name in ("decision", "score", "categories", "models", "policies"):
        assert first[name] == second[name] == on_record[name]
    assert {model["name"] for model in second["models"]} == {name for name, _ in inference.calls}
    assert (stats["enabled"], stats["hits"], stats["misses"], stats["ratio"]) == (True, calls, calls, 0.5)
    (process,) = stats["levels"]
    assert (process["name"], process["entries"], process["healthy"]) == ("Process", calls, True)
    assert 0 < process["bytes"] < 32 * 2**20


def test_a_changed_policy_decides_anew_by_the_scores_of_before(start_sidecar: StartSidecar) -> None:
    inference = FixedInference({"text-safety.toxicity": 0.4})
    running = start_sidecar(policies={"p.yaml": [policy("50%")]}, inference=inference, cache_enabled=True)
    before = post(running, TEXT).json()
    running.write_policy("p.yaml", policy("30%"))
    after = post(running, TEXT).json()

    assert (before["decision"], after["decision"]) == ("Allow", "Block")
    assert after["from_cache"] is True
    assert len(inference.calls) == 1


def test_a_picture_is_answered_from_the_cache_and_a_broken_one_is_refused_again(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(cache_enabled=True)
    whole = encode(grey(77))
    headers = {"Content-Type": "image/png"}
    answers = [running.client.post("/v1/moderate", content=whole, headers=headers).json() for _ in range(2)]
    refused = [running.client.post("/v1/moderate", content=whole[:-30], headers=headers) for _ in range(2)]

    assert [answer["from_cache"] for answer in answers] == [False, True]
    assert [each.status_code for each in refused] == [422, 422]


def test_what_a_model_said_does_not_outlive_a_clear(start_sidecar: StartSidecar) -> None:
    inference = FixedInference({"text-safety.toxicity": 0.4})
    running = start_sidecar(policies={"p.yaml": [policy("50%")]}, inference=inference, cache_enabled=True)
    post(running, TEXT)
    inference.scores["text-safety.toxicity"] = 0.9
    cleared = running.client.delete("/v1/cache")

    assert (cleared.status_code, cleared.json()) == (200, {"entries": {"Process": 1}})
    assert post(running, TEXT).json()["decision"] == "Block"


def test_without_a_cache_there_is_nothing_to_count_or_to_clear(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    answers = [post(running, TEXT).json() for _ in range(2)]
    stats, cleared = running.client.get("/v1/cache/stats").json(), running.client.delete("/v1/cache").json()

    assert [answer["from_cache"] for answer in answers] == [False, False]
    assert stats == {"enabled": False, "hits": 0, "misses": 0, "ratio": None, "levels": []}
    assert cleared == {"entries": {}}


def test_only_an_admin_of_all_tenants_sees_and_clears_it(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    shown = {
        name: make_key(number.to_bytes(32)) for number, name in enumerate(("admin", "acme", "caller"), start=10**6)
    }
    file = write_key_file(
        tmp_path / "keys.yaml",
        api_key("admin", shown["admin"], KeyRole.ADMIN),
        api_key("acme", shown["acme"], KeyRole.ADMIN, tenant="acme"),
        api_key("caller", shown["caller"]),
    )
    running = start_sidecar(api_keys_file=file, cache_enabled=True)

    for method, path in (("GET", "/v1/cache/stats"), ("DELETE", "/v1/cache")):
        statuses = {
            name: running.client.request(method, path, headers={"X-API-Key": key}).status_code
            for name, key in shown.items()
        }
        assert statuses == {"admin": 200, "acme": 403, "caller": 403}


def test_replicas_share_what_models_said(
    start_sidecar: StartSidecar, tmp_path: Path, redis_server: RedisServer
) -> None:
    url = tmp_path / "redis-url"
    url.write_text(f"{redis_server.tcp_url}\n")
    settings = {"cache_enabled": True, "redis_url_file": url, "cache_redis_timeout_seconds": 10.0}
    first, second = FixedInference({"text-safety.toxicity": 0.4}), FixedInference()
    one = start_sidecar(policies={"p.yaml": [policy("50%")]}, inference=first, **settings)
    other = start_sidecar(policies={"p.yaml": [policy("50%")]}, inference=second, **settings)
    made, found = post(one, TEXT).json(), post(other, TEXT).json()
    levels = other.client.get("/v1/cache/stats").json()["levels"]

    assert (made["from_cache"], found["from_cache"]) == (False, True)
    assert found["categories"] == made["categories"]
    assert second.calls == []
    assert [(level["name"], level["hits"], level["entries"]) for level in levels] == [
        ("Process", 0, 1),
        ("Redis", 1, None),
    ]


def test_without_redis_decisions_say_so_and_are_made_all_the_same(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    url = tmp_path / "redis-url"
    url.write_text("redis://:a-secret@127.0.0.1:1/0")
    running = start_sidecar(cache_enabled=True, redis_url_file=url)
    post(running, TEXT)
    answer, ready = post(running, TEXT).json(), running.client.get("/ready")

    assert answer["degraded"] == ["SharedCache"]
    assert answer["from_cache"] is True
    assert (ready.status_code, "shared-cache" in ready.json()["degraded"]) == (200, True)
    assert "a-secret" not in ready.text + running.client.get("/v1/cache/stats").text


def cache_metrics(running: RunningSidecar) -> dict[str, float]:
    lines = (line for line in running.client.get("/metrics").text.splitlines() if line.startswith("baleen_cache_"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_say_what_was_found_and_how_much_there_is(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"p.yaml": [policy("50%")]}, cache_enabled=True)
    for _ in range(3):
        post(running, TEXT)
    found = cache_metrics(running)

    assert found['baleen_cache_hits_total{level="Process"}'] == 2
    assert found['baleen_cache_misses_total{level="Process"}'] == 1
    assert found['baleen_cache_entries{level="Process"}'] == 1
    assert found['baleen_cache_size_bytes{level="Process"}'] > 0
    assert found["baleen_cache_joined_total"] == 0
