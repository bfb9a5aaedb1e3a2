"""Batches over HTTP: every item has an outcome of its own, whatever becomes of the others."""

import base64
import json
import socket
from typing import Any

import httpx
import pytest

from baleen_core.errors import LimitExceeded
from baleen_sidecar.testing import FixedInference
from faces import MODERATE_KEY, PNG, TOXICITY, FailingLanguages, category, policy, write_keys
from held import HeldInference
from serving import until
from sidecars import RunningSidecar, StartSidecar

BATCH = "/v1/moderate/batch"
POLICIES = {"all.yaml": [policy()]}
LONG = "This text is blocked since it has more letters than forty."


def text(words: str = "hello", **more: Any) -> dict[str, Any]:
    return {"content": {"type": "text", "text": words}, **more}


def ask(running: RunningSidecar, *items: Any, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return running.client.post(BATCH, json={"items": items, **more}, headers=headers)


def outcomes(response: httpx.Response) -> list[Any]:
    """Return the verdict of each item, or the status and the fields of its problem."""
    assert response.status_code == 200, response.text
    answer = response.json()
    assert [item["index"] for item in answer["items"]] == list(range(len(answer["items"])))
    return [
        item["decision"]["decision"]
        if "decision" in item
        else (item["problem"]["status"], [each["field"] for each in item["problem"]["errors"]])
        for item in answer["items"]
    ]


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies=POLICIES, inference=FixedInference({TOXICITY: 0.2}))


def test_each_item_has_its_own_outcome_in_the_order_of_the_request(running: RunningSidecar) -> None:
    image = {"type": "image", "data": "bm8gaW1hZ2U="}
    answer = ask(
        running,
        text(id="a"),
        text(""),
        text(LONG, id="c"),
        {"content": {"type": "text", "txt": "x"}},
        {"content": image},
        "hello",
        text(contxt={}),
        {"content": {"type": "image", "url": "http://169.254.169.254/latest/meta-data"}},
        text(id="a"),
        text("good morning"),
        batch_id="b-7",
    )

    assert outcomes(answer) == [
        "Allow",
        (422, ["items[1].content.text"]),
        "Block",
        (422, ["items[3].content.txt"]),
        (415, ["items[4].content"]),
        (422, ["items[5]"]),
        (422, ["items[6].contxt"]),
        (422, ["items[7].content.url"]),
        (422, ["items[8].id"]),
        "Allow",
    ]
    body = answer.json()
    assert (body["batch_id"], body["counts"]) == ("b-7", {"allow": 2, "review": 0, "block": 1, "refused": 7})
    assert [item.get("id") for item in body["items"]] == ["a", None, "c", *[None] * 7]
    assert "is that of items[0], too" in body["items"][8]["problem"]["detail"]
    assert {item["problem"]["request_id"] for item in body["items"] if "problem" in item} == {
        answer.headers["x-request-id"]
    }


def test_every_decision_of_a_batch_is_on_record(running: RunningSidecar) -> None:
    items = ask(running, text(), text(LONG)).json()["items"]

    for item in items:
        found = running.client.get(f"/v1/decisions/{item['decision']['id']}").json()
        assert found["decision"] == item["decision"]["decision"]
    assert running.client.get("/v1/status").json()["requests"]["decisions"] == 2


def test_an_item_takes_from_the_batch_what_its_own_context_leaves_out(start_sidecar: StartSidecar) -> None:
    strict = policy("kids", scope={"surface": "kids"}, rules=[{"name": "all", "when": "true", "action": "Block"}])
    young = {"name": "young", "when": "author.ageDays < 3", "action": "Review"}
    running = start_sidecar(policies={"all.yaml": [policy(rules=[young]), strict]})

    found = ask(
        running,
        text(),
        text(context={"surface": "comments"}),
        text(context={"surface": "comments", "author": {"id": "u"}}),
        text(context={"author": {"id": "u"}}),
        context={"surface": "kids", "author": {"age_days": 1}},
    )

    # An author is taken as a whole: the age of the batch's is not that of the item's.
    assert outcomes(found) == ["Block", "Review", "Allow", "Block"]


def test_a_key_that_may_not_speak_for_the_tenant_of_an_item_is_refused_for_that_item(
    start_sidecar: StartSidecar, tmp_path: Any
) -> None:
    running = start_sidecar(policies=POLICIES, api_keys_file=write_keys(tmp_path / "keys.yaml"))
    keyed = {"Authorization": f"Bearer {MODERATE_KEY}"}
    items = (text(), text(context={"tenant": "other"}), text(context={"tenant": "acme"}))

    assert outcomes(ask(running, *items, headers=keyed)) == ["Allow", (403, ["items[1].context.tenant"]), "Allow"]
    assert outcomes(ask(running, text(), context={"tenant": "other"}, headers=keyed)) == [
        (403, ["items[0].context.tenant"])
    ]
    assert ask(running, text()).status_code == 401


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        pytest.param({"items": []}, "items", "there are 0; a batch has 1 to 100", id="no items"),
        pytest.param({"items": [text()] * 101}, "items", "there are 101; a batch has 1 to 100", id="101 items"),
        pytest.param({"items": [text()], "background": True}, "background", "not supported yet", id="a job"),
        pytest.param({}, "items", "missing", id="nothing"),
        pytest.param({"contents": ["x"]}, "contents", "unknown field", id="another field"),
        pytest.param({"items": {"0": text()}}, "items", "array", id="items that are no list"),
        pytest.param({"items": [text()], "batch_id": "b" * 257}, "batch_id", "256", id="an endless id"),
        pytest.param(b'{"items": [' + b"[" * 100_000, "", "", id="nested lists"),
        pytest.param(b'{"items": [{"content": {}}', "", "not JSON", id="half a batch"),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(running: RunningSidecar, body: Any, field: str, said: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    response = running.client.post(BATCH, content=data, headers={"Content-Type": "application/json"})

    problem = response.json()
    assert (response.status_code, [each["field"] for each in problem["errors"]]) == (422, [field])
    assert said in problem["detail"]


def test_a_batch_is_json_without_a_query(running: RunningSidecar) -> None:
    as_text = running.client.post(BATCH, content=b"hello", headers={"Content-Type": "text/plain"})
    with_query = running.client.post(f"{BATCH}?surface=kids", json={"items": [text()]})

    assert (as_text.status_code, with_query.status_code) == (415, 422)


def test_items_nested_too_deeply_are_refused_and_no_others(running: RunningSidecar) -> None:
    bomb = b"[" * 400 + b"]" * 400
    ours = json.dumps(text()).encode()
    body = b'{"items": [' + ours + b', {"content": ' + bomb + b"}, " + ours + b"]}"

    found = running.client.post(BATCH, content=body, headers={"Content-Type": "application/json"})

    assert outcomes(found) == ["Allow", (422, ["items[1].content"]), "Allow"]


def test_a_hundred_items_of_a_megabyte_are_over_the_limit_of_a_batch_and_twenty_each_over_its_own(
    running: RunningSidecar,
) -> None:
    megabyte = text("a" * 2**20)
    one = json.dumps(megabyte).encode()
    hundred = b'{"items": [' + b",".join([one] * 100) + b"]}"
    refused = running.client.post(BATCH, content=hundred, headers={"Content-Type": "application/json"})
    each = ask(running, *[megabyte] * 20, text())

    assert (refused.status_code, str(32 * 2**20) in refused.json()["detail"]) == (413, True)
    assert outcomes(each) == [*[(413, [f"items[{index}].content.text"]) for index in range(20)], "Allow"]


def test_a_failure_of_ours_spoils_one_item_and_says_when_to_come_back(start_sidecar: StartSidecar) -> None:
    broken = start_sidecar(policies=POLICIES, ports={"languages": FailingLanguages(lambda: RuntimeError("secret"))})
    limited = FailingLanguages(lambda: LimitExceeded("the quota is used up", retry_after_seconds=7))
    busy = start_sidecar(policies=POLICIES, ports={"languages": limited})

    found = ask(broken, text(), text("broken"), text())
    later = ask(busy, text("broken"), text())

    assert outcomes(found) == ["Allow", (500, []), "Allow"]
    assert "secret" not in found.text
    assert outcomes(later) == [(429, []), "Allow"]
    assert later.json()["items"][0]["retry_after_seconds"] == 7


def test_the_texts_of_a_batch_go_to_the_model_together(start_sidecar: StartSidecar) -> None:
    models = FixedInference()
    running = start_sidecar(policies=POLICIES, inference=models)

    found = ask(running, *[text(f"hello {number}") for number in range(100)])

    assert found.json()["counts"] == {"allow": 100, "review": 0, "block": 0, "refused": 0}
    assert sum(rows for _, rows in models.calls) == 100
    assert len(models.calls) < 50


def test_what_is_not_decided_by_the_deadline_is_refused_and_the_rest_is_answered(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, inference=HeldInference(only=["image-safety"]))
    image = {"content": {"type": "image", "data": base64.b64encode(PNG).decode()}}

    found = ask(running, text(), image, text(), headers={"X-Baleen-Deadline-Ms": "700"})

    assert outcomes(found) == ["Allow", (504, []), "Allow"]


def test_a_caller_who_hangs_up_ends_what_is_left_of_a_batch(start_sidecar: StartSidecar) -> None:
    models = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=models)
    body = json.dumps({"items": [text(f"hello {number}") for number in range(5)]}).encode()
    head = f"POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(running.address) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: models.works != [])
        assert running.in_flight == 1

    until(lambda: running.in_flight == 0)
    assert running.client.get("/v1/status").json()["requests"] == {"decisions": 0, "refused": 0}


def test_a_model_that_is_down_leaves_each_item_to_its_policy(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(
        policies={"all.yaml": [policy(categories=[category("toxicity", TOXICITY)], onModelFailure="Review")]},
        inference=FixedInference(down={"text-safety"}),
    )

    answer = ask(running, text(), text(LONG))

    assert outcomes(answer) == ["Review", "Block"]
    assert answer.json()["items"][0]["decision"]["degraded"] == ["text-safety"]
