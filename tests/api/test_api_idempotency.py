"""Requests that are sent again under their idempotency key, over HTTP."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyed import policy, shown, write_keys
from sidecars import RunningSidecar, StartSidecar


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies={"all.yaml": [policy()]})


def ask(running: RunningSidecar, text: str = "hello", key: str | None = "k-1", **more: Any) -> httpx.Response:
    headers = {**({} if key is None else {"Idempotency-Key": key}), **more.pop("headers", {})}
    return running.client.post(
        "/v1/moderate", json={"content": {"type": "text", "text": text}, **more}, headers=headers
    )


def is_replayed(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("idempotency-replayed") == "true"


def test_a_request_that_is_sent_again_has_the_same_answer_byte_by_byte(running: RunningSidecar) -> None:
    first, second, other, plain = ask(running), ask(running), ask(running, key="k-2"), ask(running, key=None)

    assert [is_replayed(each) for each in (first, second, other, plain)] == [False, True, False, False]
    assert second.content == first.content
    assert len({each.json()["id"] for each in (first, other, plain)}) == 3
    metrics = running.client.get("/metrics").text
    assert "baleen_requests_replayed_total 1.0" in metrics


def test_an_answer_that_is_given_again_says_too_which_priority_counted(running: RunningSidecar) -> None:
    claimed = {"X-Baleen-Priority": "High"}
    answers = [ask(running, headers=claimed), ask(running, headers=claimed), ask(running)]

    assert [is_replayed(each) for each in answers] == [False, True, True]
    assert [each.headers.get("x-baleen-priority") for each in answers] == ["High", "High", None]


def test_raw_bytes_and_their_query_are_a_request_too(running: RunningSidecar) -> None:
    def raw(text: bytes, **query: str) -> httpx.Response:
        headers = {"Content-Type": "text/plain", "Idempotency-Key": "raw"}
        return running.client.post("/v1/moderate", content=text, headers=headers, params=query)

    first = raw(b"hello", surface="chat")

    assert is_replayed(raw(b"hello", surface="chat"))
    assert raw(b"hello", surface="chat").content == first.content
    assert [raw(b"hallo", surface="chat").status_code, raw(b"hello", surface="mail").status_code] == [409, 409]


def test_another_request_under_the_key_is_a_conflict_that_names_it(running: RunningSidecar) -> None:
    ask(running)
    refused = ask(running, "good bye")
    elsewhere = ask(running, context={"surface": "chat"})

    assert refused.status_code == elsewhere.status_code == 409
    problem = refused.json()
    assert problem["type"] == "urn:baleen:problem:idempotency-conflict"
    assert [each["field"] for each in problem["errors"]] == ["Idempotency-Key"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\tb", "schl\xfcssel"], ids=["no", "long", "space", "tab", "ü"])
def test_a_key_that_is_none_is_refused_with_what_would_be_right(running: RunningSidecar, key: str) -> None:
    sent = json.dumps({"content": {"type": "text", "text": "hello"}})
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", key.encode("latin-1"))]
    refused = running.client.post("/v1/moderate", content=sent, headers=headers)

    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "field": "Idempotency-Key",
            "message": "must be 1 to 255 visible ASCII characters without a space, such as a UUID",
        }
    ]


def test_a_request_that_was_refused_is_decided_when_it_is_sent_again(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={})
    assert ask(running).status_code == 503
    running.write_policy("all.yaml", policy())

    assert not is_replayed(ask(running))
    assert is_replayed(ask(running))


def test_duplicates_at_once_are_one_decision(running: RunningSidecar) -> None:
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda number: ask(running), range(16)))

    assert sum(not is_replayed(each) for each in answers) == 1
    assert len({each.content for each in answers}) == 1


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Path) -> RunningSidecar:
    keys = write_keys(tmp_path / "keys.yaml")
    return start_sidecar(policies={"all.yaml": [policy()]}, api_keys_file=keys)


def test_nobody_has_the_answer_of_another_caller_or_tenant(keyed: RunningSidecar) -> None:
    asked = [("app", None), ("acme-app", None), ("next", None), ("app", "acme"), ("app", "bank")]
    answers = [
        ask(keyed, headers=shown(name), context={} if tenant is None else {"tenant": tenant}) for name, tenant in asked
    ]

    assert [is_replayed(each) for each in answers] == [False] * len(asked)
    assert len({each.json()["id"] for each in answers}) == len(asked)
    assert is_replayed(ask(keyed, headers=shown("app"), context={"tenant": "acme"}))


def test_after_an_erasure_the_request_is_decided_anew(running: RunningSidecar) -> None:
    context = {"author": {"id": "jane"}}
    first = ask(running, context=context)
    running.client.delete("/v1/subjects/jane")
    again = ask(running, context=context)

    assert not is_replayed(again)
    assert again.json()["id"] != first.json()["id"]


def test_requests_that_are_refused_leave_no_rows(running: RunningSidecar) -> None:
    before = running.run(running.sidecar.ports.history.newest(limit=10))
    for _ in range(3):
        assert ask(running, "x" * 300_000).status_code == 413
        assert ask(running, key="a b").status_code == 422
        assert ask(running, headers={"X-Baleen-Deadline-Ms": "no"}).status_code == 422
    status = running.client.get("/v1/status").json()

    assert running.run(running.sidecar.ports.history.newest(limit=10)) == before
    assert status["requests"] == {"decisions": 0, "refused": 9}
    metrics = running.client.get("/metrics").text
    assert 'baleen_requests_refused_total{status="413"} 3.0' in metrics
