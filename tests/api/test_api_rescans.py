"""What is allowed while a model is away, and looked at again once it is back, over HTTP."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from baleen_sidecar.testing import FixedInference
from keyed import policy, shown, write_keys
from sidecars import RunningSidecar, StartSidecar, post

TOXICITY = "text-safety.toxicity"


def rescanning(signal: str = TOXICITY) -> dict[str, Any]:
    return policy(signal=signal, onModelFailure="AllowAndRescan")


@pytest.fixture
def inference() -> FixedInference:
    return FixedInference(down={"text-safety"})


def pay(running: RunningSidecar) -> None:
    rescans = running.sidecar.ports.rescans
    assert rescans is not None
    running.run(rescans.pay_some())


def text(running: RunningSidecar, said: str = "hello", **context: Any) -> dict[str, Any]:
    answer = post(running, {"type": "text", "text": said}, **context)
    assert answer.status_code == 200, answer.text
    return answer.json()


def changes(running: RunningSidecar, **query: Any) -> dict[str, Any]:
    return running.client.get("/v1/decisions/changes", params=query).json()


def test_a_debt_is_told_paid_and_its_change_is_told(start_sidecar: StartSidecar, inference: FixedInference) -> None:
    running = start_sidecar(policies={"all.yaml": [rescanning()]}, inference=inference)
    pay(running)
    given = text(running)
    pay(running)
    status = running.client.get("/v1/status").json()["rescan_debt"]
    assert (given["decision"], given["degraded"]) == ("Allow", ["text-safety", "RescanDebt"])
    assert (status["decisions"], status["waits_for"]) == (1, [["text-safety"]])
    assert status["size_bytes"] > 500
    assert "baleen_rescan_debt_decisions 1.0" in running.client.get("/metrics").text

    inference.down.clear()
    inference.scores[TOXICITY] = 0.9
    pay(running)

    told = changes(running)
    (change,) = told["changes"]
    after = running.client.get(f"/v1/decisions/{change['id']}").json()
    assert (change["rescan_of"], change["was"], change["became"]) == (given["id"], "Allow", "Review")
    assert (after["rescan_of"], after["decision"]) == (given["id"], "Review")
    for decision_id in (given["id"], after["id"]):
        assert running.client.post(f"/v1/decisions/{decision_id}/replay").json()["identical"]
    explained = running.client.get(f"/v1/decisions/{after['id']}/explain").json()["explanation"]
    assert f"This is the second look at what decision {given['id']} allowed for now." in explained
    assert changes(running, after=told["next"]) == {"changes": [], "next": told["next"]}
    pay(running)
    assert running.client.get("/v1/status").json()["rescan_debt"]["decisions"] == 0
    metrics = running.client.get("/metrics").text
    assert 'baleen_rescans_total{result="Changed"} 1.0' in metrics
    assert 'baleen_decisions_degraded_total{model="RescanDebt"}' not in metrics


def test_raw_media_are_reviewed_for_their_bytes_are_not_kept(
    start_sidecar: StartSidecar, inference: FixedInference
) -> None:
    inference.down.add("open-nsfw")
    running = start_sidecar(policies={"all.yaml": [rescanning("open-nsfw.unsafe")]}, inference=inference)
    pay(running)
    picture = (Path(__file__).parents[2] / "examples/content/astronaut.jpg").read_bytes()
    answer = running.client.post("/v1/moderate", content=picture, headers={"Content-Type": "image/jpeg"}).json()

    assert (answer["decision"], answer["degraded"]) == ("Review", ["open-nsfw"])


@pytest.mark.parametrize("do_not_store", [False, True], ids=["by default", "where the comment may not be stored"])
@pytest.mark.parametrize(
    ("attribute", "status"),
    [pytest.param("INSULT", 200, id="another score is asked for"), pytest.param("TOXICITY", 503, id="that score is")],
)
def test_a_comment_is_reviewed_for_its_text_is_never_kept(
    start_sidecar: StartSidecar, inference: FixedInference, attribute: str, status: int, do_not_store: bool
) -> None:
    signals = {"toxicity": TOXICITY, "insult": "toxicity.toxic"}
    categories = [{"name": name, "signals": [{"name": each, "review": "50%"}]} for name, each in signals.items()]
    content = policy(onModelFailure="AllowAndRescan", categories=categories)
    running = start_sidecar(policies={"all.yaml": [content]}, inference=inference)
    pay(running)
    body = {"comment": {"text": "hello"}, "requestedAttributes": {attribute: {}}, "doNotStore": do_not_store}

    answer = running.client.post("/v1alpha1/comments:analyze", json=body)

    assert answer.status_code == status
    with contextlib.closing(sqlite3.connect(running.database)) as database:
        assert database.execute("SELECT content FROM rescan_debts").fetchall() == []
        assert database.execute("SELECT decision FROM decisions").fetchall() == [("Review",)]


def test_changes_are_for_their_tenant_and_need_the_role_review(
    start_sidecar: StartSidecar, inference: FixedInference, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys.yaml")
    running = start_sidecar(policies={"all.yaml": [rescanning()]}, inference=inference, api_keys_file=keys)
    pay(running)
    for tenant in ("acme", "bank"):
        body = {"content": {"type": "text", "text": "hello"}, "context": {"tenant": tenant}}
        assert running.client.post("/v1/moderate", json=body, headers=shown("app")).json()["decision"] == "Allow"
    inference.down.clear()
    inference.scores[TOXICITY] = 0.9
    pay(running)

    def tenants(name: str) -> list[str]:
        answer = running.client.get("/v1/decisions/changes", headers=shown(name))
        assert answer.status_code == 200, answer.text
        return sorted(each["tenant"] for each in answer.json()["changes"])

    assert tenants("people") == ["acme", "bank"]
    assert tenants("acme-people") == ["acme"]
    assert running.client.get("/v1/decisions/changes", headers=shown("app")).status_code == 403


def test_a_page_of_changes_has_bounds(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={})

    for query in ({"after": -1}, {"limit": 0}, {"limit": 1001}, {"after": "x"}):
        assert running.client.get("/v1/decisions/changes", params=query).status_code == 422
