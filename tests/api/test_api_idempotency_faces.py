"""Batches, façades and gRPC batches that are sent again under their idempotency key, and how urgent they are."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import openai
import pytest

from baleen_core.priority import Priority
from baleen_sidecar.web.grpc import moderation_pb2 as pb
from faces import MODERATE_KEY, TOXICITY, policy
from grpc_calls import SECONDS, connected, details_of, item, refusal
from held import HeldInference
from keyed import api_key, write_key_file
from policies import policy_manifest
from sidecars import RunningSidecar, StartSidecar
from waiting import until

POLICIES = {"all.yaml": [policy()]}
Ask = Callable[..., httpx.Response]
WORDS: Final = ("one", "two", "three")


@pytest.fixture
def inference() -> HeldInference:
    """Models that score 0.2, and are held only from when on a test wants them to be."""
    inference = HeldInference({TOXICITY: 0.2})
    inference.released.set()
    return inference


@pytest.fixture
def running(start_sidecar: StartSidecar, inference: HeldInference) -> RunningSidecar:
    return start_sidecar(policies=POLICIES, inference=inference, grpc_port=0)


def batch(running: RunningSidecar, *words: str, headers: Mapping[str, str]) -> httpx.Response:
    items = [{"id": str(number), "content": {"type": "text", "text": each}} for number, each in enumerate(words)]
    return running.client.post("/v1/moderate/batch", json={"items": items}, headers=headers)


def moderations(running: RunningSidecar, *words: str, headers: Mapping[str, str]) -> httpx.Response:
    return running.client.post("/v1/moderations", json={"input": list(words)}, headers=headers)


def analyze(running: RunningSidecar, *words: str, headers: Mapping[str, str]) -> httpx.Response:
    body = {"comment": {"text": " ".join(words)}, "requestedAttributes": {"TOXICITY": {}}}
    return running.client.post("/v1alpha1/comments:analyze", json=body, headers=headers)


FACES: Final = [
    pytest.param(batch, id="batch"),
    pytest.param(moderations, id="OpenAI"),
    pytest.param(analyze, id="Perspective"),
]


def is_replayed(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("idempotency-replayed") == "true"


def said(answer: httpx.Response) -> Any:
    """Return what was answered, but for how long that took."""
    return {name: each for name, each in answer.json().items() if name != "latency_ms"}


def count(running: RunningSidecar) -> int:
    return len(running.run(running.sidecar.ports.log.recent(limit=1000)))


@pytest.mark.parametrize("ask", FACES)
def test_a_request_that_is_sent_again_has_the_same_decisions(running: RunningSidecar, ask: Ask) -> None:
    key = {"Idempotency-Key": "k-1"}
    first, again = ask(running, *WORDS, headers=key), ask(running, *WORDS, headers=key)
    other, none = ask(running, *WORDS, headers={"Idempotency-Key": "k-2"}), ask(running, *WORDS, headers={})
    decisions = count(running)

    assert [is_replayed(each) for each in (first, again, other, none)] == [False, True, False, False]
    assert said(again) == said(first)
    assert said(other) != said(first) != said(none)
    assert decisions == 3 * (1 if ask is analyze else len(WORDS))
    metrics = running.client.get("/metrics").text
    assert f"baleen_requests_replayed_total {decisions / 3}" in metrics


def test_texts_that_no_model_is_asked_about_are_decided_once_for_a_key_too(start_sidecar: StartSidecar) -> None:
    rules = {"rules": [{"name": "links", "when": "content.links > 0", "action": "Review"}]}
    running = start_sidecar(policies={"all.yaml": [policy_manifest(rules)]})
    key = {"Idempotency-Key": "k-1"}
    first, again = batch(running, *WORDS, headers=key), batch(running, *WORDS, headers=key)

    assert [is_replayed(each) for each in (first, again)] == [False, True]
    assert said(again) == said(first)
    assert count(running) == len(WORDS)


@pytest.mark.parametrize("ask", FACES)
def test_another_request_under_the_key_is_a_conflict_and_nothing_of_it_is_decided(
    running: RunningSidecar, ask: Ask
) -> None:
    key = {"Idempotency-Key": "k-1"}
    ask(running, *WORDS, headers=key)
    before = count(running)
    conflicts = [
        ask(running, "one", "two", "four", headers=key),
        ask(running, "one", headers=key),
        *(each(running, *WORDS, headers=key) for each in (batch, moderations, analyze) if each is not ask),
        running.client.post("/v1/moderate", json={"content": {"type": "text", "text": "one"}}, headers=key),
    ]

    assert [each.status_code for each in conflicts] == [409] * len(conflicts)
    assert count(running) == before
    told = conflicts[0].json()
    if ask is batch:
        assert told["type"] == "urn:baleen:problem:idempotency-conflict"
        assert [each["field"] for each in told["errors"]] == ["Idempotency-Key"]
    elif ask is moderations:
        assert (told["error"]["code"], told["error"]["param"]) == ("idempotency_conflict", "Idempotency-Key")
    else:
        assert told["error"]["status"] == "ABORTED"


def test_a_key_of_a_request_with_one_text_is_none_of_a_batch(running: RunningSidecar) -> None:
    key = {"Idempotency-Key": "k-1"}
    content = {"content": {"type": "text", "text": "one"}}
    assert running.client.post("/v1/moderate", json=content, headers=key).status_code == 200

    assert [ask(running, *WORDS, headers=key).status_code for ask in (batch, moderations, analyze)] == [409] * 3


@pytest.mark.parametrize("ask", FACES)
def test_duplicates_at_once_wait_for_the_first(running: RunningSidecar, inference: HeldInference, ask: Ask) -> None:
    running.loop.call_soon_threadsafe(inference.released.clear)
    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(ask, running, *WORDS, headers={"Idempotency-Key": "k-1"}) for _ in range(4)]
        running.run(until(lambda: running.in_flight == 4))
        running.loop.call_soon_threadsafe(inference.released.set)
        answers = [each.result() for each in asked]

    assert sorted(map(is_replayed, answers)) == [False, True, True, True]
    assert len({json.dumps(said(each), sort_keys=True) for each in answers}) == 1
    assert count(running) == (1 if ask is analyze else len(WORDS))


def test_items_that_came_to_nothing_are_decided_when_the_batch_is_sent_again(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={"chat.yaml": [policy(scope={"surface": "chat"})]})
    items = [
        {"content": {"type": "text", "text": text}, "context": {"surface": surface}}
        for text, surface in (("one", "chat"), ("two", "mail"), ("", "chat"))
    ]

    def ask() -> httpx.Response:
        return running.client.post("/v1/moderate/batch", json={"items": items}, headers={"Idempotency-Key": "k"})

    first = ask()
    running.write_policy("mail.yaml", policy("mail", scope={"surface": "mail"}))
    second, third = ask(), ask()

    def found(answer: httpx.Response) -> list[Any]:
        return [
            each["decision"]["id"] if "decision" in each else each["problem"]["status"]
            for each in answer.json()["items"]
        ]

    assert [is_replayed(each) for each in (first, second, third)] == [False, False, True]
    assert found(first)[1:] == [503, 422]
    assert found(second)[0] == found(first)[0]
    assert isinstance(found(second)[1], str)
    assert found(third) == found(second)


def test_after_an_erasure_only_what_was_erased_is_decided_anew(running: RunningSidecar) -> None:
    items = [
        {"content": {"type": "text", "text": "hello"}, "context": {"author": {"id": author}}} for author in ("jo", "al")
    ]

    def ask() -> list[str]:
        answer = running.client.post("/v1/moderate/batch", json={"items": items}, headers={"Idempotency-Key": "k"})
        return [each["decision"]["id"] for each in answer.json()["items"]]

    first = ask()
    running.client.delete("/v1/subjects/jo")
    second = ask()

    assert first[0] != second[0]
    assert first[1] == second[1]


@pytest.mark.parametrize("ask", FACES)
def test_a_key_that_is_none_is_refused(running: RunningSidecar, ask: Ask) -> None:
    refused = ask(running, *WORDS, headers={"Idempotency-Key": "a b"})

    assert refused.status_code == (422 if ask is batch else 400)
    assert "Idempotency-Key" in refused.text
    assert count(running) == 0


def test_openais_client_is_told_of_a_conflict_by_its_own_exception(running: RunningSidecar) -> None:
    url = str(running.client.base_url).rstrip("/") + "/v1"
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        headers = {"Idempotency-Key": "k-1"}
        first = client.moderations.create(input="hello", extra_headers=headers)
        again = client.moderations.create(input="hello", extra_headers=headers)
        with pytest.raises(openai.ConflictError):
            client.moderations.create(input="good bye", extra_headers=headers)

    assert again == first


def test_a_batch_over_grpc_is_decided_once_for_its_key(running: RunningSidecar) -> None:
    metadata = [("idempotency-key", "k-1")]
    asked = pb.ModerateBatchRequest(items=[item("one", id="a"), item(""), item("two")])
    with connected(running) as client:
        first, told = client.batch.with_call(asked, metadata=metadata, timeout=SECONDS)
        again, told_again = client.batch.with_call(asked, metadata=metadata, timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as caught:
            client.batch(pb.ModerateBatchRequest(items=[item("one")]), metadata=metadata, timeout=SECONDS)

    replayed = ("idempotency-replayed", "true")
    assert (replayed in told.trailing_metadata(), replayed in told_again.trailing_metadata()) == (False, True)
    assert [each.decision.id for each in again.outcomes] == [each.decision.id for each in first.outcomes]
    assert details_of(again.outcomes[1].error)["fields"] == ["items[1].content.text"]
    code, details = refusal(caught.value)
    assert (code, details["reason"]) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_CONFLICT")
    assert count(running) == 2


@pytest.fixture
def keyed(start_sidecar: StartSidecar, tmp_path: Path, inference: HeldInference) -> RunningSidecar:
    key = api_key("app", MODERATE_KEY, tenant="acme", top_priority=Priority.HIGH)
    file = write_key_file(tmp_path / "keys.yaml", key)
    return start_sidecar(policies=POLICIES, inference=inference, api_keys_file=file)


@pytest.mark.parametrize("ask", FACES)
def test_priorities_are_capped_by_the_key_and_told(keyed: RunningSidecar, inference: HeldInference, ask: Ask) -> None:
    shown = {"X-API-Key": MODERATE_KEY}
    told = [
        ask(keyed, claimed, headers={**shown, "X-Baleen-Priority": claimed}).headers["x-baleen-priority"]
        for claimed in ("Critical", "High", "Low")
    ]
    silent = ask(keyed, "nothing", headers=shown)
    forged = ask(keyed, "forged", headers={**shown, "X-Baleen-Priority": "urgent"})

    assert told == ["High", "High", "Low"]
    assert [work.priority for work in inference.works] == [Priority.HIGH, Priority.HIGH, Priority.LOW, Priority.NORMAL]
    assert "x-baleen-priority" not in silent.headers
    assert forged.status_code == (422 if ask is batch else 400)
    assert "X-Baleen-Priority" in forged.text
