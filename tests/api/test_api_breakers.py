"""Breakers over HTTP: what they say, and opening and closing them by hand."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from baleen_core.api_keys import KeyRole, make_key
from baleen_core.errors import ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Model
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.ports import ANYONE, Tensors, Work
from baleen_sidecar.testing import FixedInference
from keyed import api_key, write_key_file
from media import encode, grey
from sidecars import RunningSidecar, StartSidecar, post

HELLO = {"type": "text", "text": "hello"}
PLACE = "triton-a:8001"


class Server:
    """A server of all models that scores 0, and fails those that are `down`."""

    def __init__(self) -> None:
        self.models = FixedInference()
        self.calls = 0

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        self.calls += 1
        return await self.models.infer(model, inputs, work)

    async def is_loaded(self, model: Model) -> bool:
        return True

    async def load(self, model: Model) -> None:
        raise ModelUnavailable("not ours to load")

    def answered(self, model: Model) -> int:
        return self.calls

    async def close(self) -> None:
        return None


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def ports(server: Server, loaded_models: tuple[LoadedModel, ...]) -> dict[str, Any]:
    routed = RoutedInference(lambda _: server)
    routed.route({loaded.model.name: (PLACE,) for loaded in loaded_models})
    for loaded in loaded_models:
        routed.server(PLACE).confirm(loaded.model)
    return {"inference": routed, "breakers": routed}


@pytest.fixture
def running(start_sidecar: StartSidecar, ports: dict[str, Any]) -> RunningSidecar:
    return start_sidecar(ports=ports)


def order(running: RunningSidecar, name: str, body: dict[str, str], **options: Any) -> httpx.Response:
    return running.client.post(f"/v1/breakers/{quote(name, safe='')}", json=body, **options)


def breaker(running: RunningSidecar, name: str) -> dict[str, Any]:
    (found,) = (each for each in running.client.get("/v1/breakers").json()["breakers"] if each["name"] == name)
    return dict(found)


def test_each_model_has_a_breaker_and_one_for_each_of_its_servers(
    running: RunningSidecar, loaded_models: tuple[LoadedModel, ...]
) -> None:
    post(running, HELLO)
    shown = running.client.get("/v1/breakers").json()

    assert {each["name"] for each in shown["breakers"]} == {
        name
        for loaded in loaded_models
        for name in (f"model/{loaded.model.name}", f"server/{loaded.model.name}/{PLACE}")
    }
    assert shown["summary"] == {
        "total_breakers": 2 * len(loaded_models),
        "healthy": 2 * len(loaded_models),
        "degraded": 0,
        "failing": 0,
        "overall_health": "Healthy",
    }
    assert breaker(running, "model/toxicity")["calls"] == 1


def test_a_model_that_fails_is_asked_no_more_and_the_policy_answers(running: RunningSidecar, server: Server) -> None:
    server.models.down.add("toxicity")
    for _ in range(5):
        post(running, HELLO)
    calls = server.calls
    decision = post(running, HELLO).json()
    shown = breaker(running, "model/toxicity")

    assert decision["degraded"] == ["toxicity"]
    assert (shown["state"], shown["failures"], shown["order"]) == ("Open", 5, None)
    assert shown["why"].startswith("5 in a row failed: ")
    assert shown["next_try"] > shown["since"]
    assert server.calls - calls < 5
    assert running.client.get("/v1/breakers").json()["summary"]["overall_health"] == "Failing"
    assert "model/toxicity" in running.client.get("/ready").json()["degraded"]


def test_who_opens_a_breaker_by_hand_and_why_is_shown_until_it_is_left_to_itself(
    running: RunningSidecar, server: Server
) -> None:
    opened = order(running, "model/toxicity", {"state": "Open", "reason": "it is wrong"})
    decision = post(running, HELLO).json()
    shown = breaker(running, "model/toxicity")
    left = order(running, "model/toxicity", {"state": "Auto"})

    assert (opened.status_code, left.status_code) == (200, 200)
    assert opened.json()["order"] == shown["order"]
    assert {key: shown["order"][key] for key in ("state", "by", "reason")} == {
        "state": "Open",
        "by": "loopback",
        "reason": "it is wrong",
    }
    assert decision["degraded"] == ["toxicity"]
    assert left.json()["order"] is None
    assert post(running, HELLO).json()["degraded"] == []


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        pytest.param("model/other", {"state": "Open"}, 404, "model/other", id="no such model"),
        pytest.param("model/toxicity", {"state": "open"}, 422, "state", id="no such state"),
        pytest.param("model/toxicity", {"reason": "x"}, 422, "state", id="no state"),
        pytest.param("model/toxicity", {"state": "Open", "reason": "x" * 1025}, 422, "reason", id="long reason"),
        pytest.param("model/toxicity", {"state": "Open", "why": "x"}, 422, "why", id="unknown field"),
        pytest.param("model/toxicity", {"state": "Open", "reason": "x" * 9000}, 413, "8192", id="large body"),
    ],
)
def test_an_order_that_cannot_be_is_refused_and_names_why(
    running: RunningSidecar, name: str, body: dict[str, str], status: int, said: str
) -> None:
    response = order(running, name, body)

    assert response.status_code == status
    assert said in response.text


def test_only_administrators_see_and_order(start_sidecar: StartSidecar, ports: dict[str, Any], tmp_path: Any) -> None:
    keys = {role: make_key(number.to_bytes(32)) for number, role in enumerate(KeyRole, start=10**6)}
    file = write_key_file(tmp_path / "keys.yaml", *(api_key(f"the-{role}", key, role) for role, key in keys.items()))
    running = start_sidecar(ports=ports, api_keys_file=file)
    wanted = {"state": "Open", "reason": "a test"}
    answers = {
        role: (
            running.client.get("/v1/breakers", headers={"X-API-Key": key}).status_code,
            order(running, "model/toxicity", wanted, headers={"X-API-Key": key}),
        )
        for role, key in keys.items()
    }

    assert {role: (shown, ordered.status_code) for role, (shown, ordered) in answers.items()} == {
        role: (200, 200) if role is KeyRole.ADMIN else (403, 403) for role in KeyRole
    }
    assert answers[KeyRole.ADMIN][1].json()["order"]["by"] == "the-admin"


def test_a_source_whose_media_cannot_be_read_is_refused_for_a_while_and_texts_and_others_are_not(
    running: RunningSidecar,
) -> None:
    broken = {"type": "image", "data": "AAAA"}
    refused = [post(running, broken, source="site-7/camera-3").status_code for _ in range(5)]
    response = post(running, broken, source="site-7/camera-3")
    raw = running.client.post(
        "/v1/moderate?source=site-7/camera-3", content=encode(grey(8)), headers={"Content-Type": "image/png"}
    )

    assert set(refused) <= {415, 422}
    # Nothing is read of what is refused: not even what could be.
    assert (response.status_code, raw.status_code) == (503, 503)
    assert response.json()["type"] == "urn:baleen:problem:source-unavailable"
    assert "source/site-7/camera-3" in response.json()["detail"]
    assert int(response.headers["retry-after"]) >= 1
    assert breaker(running, "source/site-7/camera-3")["kind"] == "Source"
    assert post(running, HELLO, source="site-7/camera-3").status_code == 200
    assert post(running, broken, source="site-7/camera-4").status_code in {415, 422}


def test_a_source_may_be_shut_before_it_sends_anything(running: RunningSidecar) -> None:
    ordered = order(running, "source/camera-9", {"state": "Open", "reason": "stolen"})
    response = post(running, {"type": "image", "data": "AAAA"}, source="camera-9")

    assert ordered.json()["state"] == "Open"
    assert (response.status_code, "stolen" in response.json()["detail"]) == (503, True)


def test_prometheus_reads_the_state_of_each_model_and_counts_sources_together(
    running: RunningSidecar, server: Server
) -> None:
    server.models.down.add("toxicity")
    for _ in range(5):
        post(running, HELLO)
        post(running, {"type": "image", "data": "AAAA"}, source="camera-1")
    page = running.client.get("/metrics").text
    samples = {
        (each.name, *sorted(each.labels.values())): each.value
        for family in text_string_to_metric_families(page)
        for each in family.samples
    }

    assert samples["baleen_breaker_state", "model/toxicity"] == 2
    assert samples["baleen_breaker_state", f"server/toxicity/{PLACE}"] == 2
    assert samples["baleen_breaker_transitions_total", "Open", f"server/toxicity/{PLACE}"] == 1
    assert samples["baleen_source_breakers", "Open"] == 1
    assert samples["baleen_inference_retries_total", "toxicity"] == 0
    assert "camera-1" not in page
