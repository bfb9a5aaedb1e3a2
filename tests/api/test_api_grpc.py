"""gRPC, asked by real clients: the same decisions as over HTTP, errors as google.rpc.Status, streams in order."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from baleen_core.callers import Per, RateLimit
from baleen_core.errors import LimitExceeded, StateError
from baleen_sidecar.testing import FixedInference
from baleen_sidecar.web.errors import KINDS
from baleen_sidecar.web.grpc import moderation_pb2 as pb
from baleen_sidecar.web.grpc.messages import CODES
from baleen_sidecar.web.grpc.server import REFLECTIONS
from faces import MODERATE_KEY, PNG, REVIEW_KEY, TOXICITY, UNKNOWN_KEY, FailingLanguages, policy, write_keys
from grpc_calls import SECONDS, Client, connected, details_of, item, refusal, streamed, text
from held import HeldInference
from keyed import api_key, write_key_file
from pages import ROOT, blocks, run_script
from policies import policy_manifest
from serving import until
from sidecars import RunningSidecar, StartSidecar, post

POLICIES = {"all.yaml": [policy()]}
LONG = "This text is blocked since it has more letters than forty."


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(policies=POLICIES, inference=FixedInference({TOXICITY: 0.2}), grpc_port=0)


@pytest.fixture
def client(running: RunningSidecar) -> Iterator[Client]:
    with connected(running) as client:
        yield client


def refused(call: Any, *args: Any, **kwargs: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=SECONDS, **kwargs)
    return refusal(caught.value)


def test_a_decision_is_that_of_the_http_face_and_on_record(running: RunningSidecar, client: Client) -> None:
    over_http = post(running, {"type": "text", "text": LONG}, tenant="acme").json()

    answer, call = client.moderate.with_call(
        text(LONG, context=pb.Context(tenant="acme")), metadata=[("x-request-id", "r-1")], timeout=SECONDS
    )

    decision = answer.decision
    assert decision.verdict == pb.VERDICT_BLOCK
    assert ("x-request-id", "r-1") in call.trailing_metadata()
    assert [(each.type, each.name, each.text) for each in decision.reasons] == [
        (each["type"], each["name"], each["text"]) for each in over_http["reasons"]
    ]
    assert [(each.name, each.digest, each.role) for each in decision.policies] == [
        (each["name"], each["digest"], each["role"]) for each in over_http["policies"]
    ]
    assert {each.name: (each.score, dict(each.signals)) for each in decision.categories} == {
        each["name"]: (each["score"], each["signals"]) for each in over_http["categories"]
    }
    assert [(each.name, each.sha256) for each in decision.models] == [
        (each["name"], each["sha256"]) for each in over_http["models"]
    ]
    assert (decision.risk, decision.score, decision.durability) == (over_http["risk"], over_http["score"], "Fsync")
    recorded = running.client.get(f"/v1/decisions/{decision.id}").json()
    assert (recorded["decision"], recorded["id"]) == ("Block", decision.id)


def test_an_image_is_sent_as_it_is(client: Client) -> None:
    image = pb.ModerateRequest(content=pb.Content(image=pb.Media(data=PNG)))

    assert client.moderate(image, timeout=SECONDS).decision.verdict == pb.VERDICT_ALLOW


def test_what_is_wrong_with_a_message_is_named(client: Client) -> None:
    wrong = [
        (pb.ModerateRequest(), ["content"]),
        (text(""), ["content.text"]),
        (pb.ModerateRequest(content=pb.Content(image=pb.Media())), ["content.image"]),
        (pb.ModerateRequest(content=pb.Content(image=pb.Media(url="x" * 3000))), ["content.url"]),
        (text(context=pb.Context(tenant="")), ["context.tenant"]),
        (text(context=pb.Context(language="english!")), ["context.language"]),
        (text(context=pb.Context(author=pb.Author(strikes=2**60))), ["context.author.strikes"]),
    ]

    found = [refused(client.moderate, message) for message, _ in wrong]

    assert [details["fields"] for _, details in found] == [fields for _, fields in wrong]
    assert {(code, details["reason"]) for code, details in found} == {
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CONTENT")
    }


def test_bytes_that_are_no_message_are_refused_and_leave_nothing(running: RunningSidecar, client: Client) -> None:
    for data in (b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x03\x0a\x01\xff", b"garbage" * 100):
        code, details = refused(client.raw, data)

        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "baleen.v1.ModerateRequest" in details["message"]
    with socket.create_connection(("127.0.0.1", running.grpc.port)) as garbage:
        garbage.sendall(b"GET /v1/moderate HTTP/1.1\r\n" + b"\x00" * 100_000)
        while garbage.recv(1000):
            pass
    assert client.moderate(text(), timeout=SECONDS).decision.verdict == pb.VERDICT_ALLOW
    assert until(lambda: running.is_idle)


def test_a_message_over_the_limit_is_refused(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, grpc_message_limit_bytes=1000)

    with connected(running) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.moderate(text("x" * 2000), timeout=SECONDS)
        assert client.moderate(text(), timeout=SECONDS).decision.verdict == pb.VERDICT_ALLOW

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1000" in caught.value.details()


def test_a_compressed_message_is_refused_before_it_grows(running: RunningSidecar) -> None:
    with connected(running, compression=grpc.Compression.Gzip) as client, pytest.raises(grpc.RpcError) as caught:
        client.moderate(text("a" * 10_000_000), timeout=SECONDS)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert until(lambda: running.is_idle)


def test_only_who_has_a_key_for_it_is_let_in(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, api_keys_file=write_keys(tmp_path / "keys.yaml"))

    with connected(running) as client:
        bearer = [("authorization", f"Bearer {MODERATE_KEY}")]
        other = text(context=pb.Context(tenant="other"))
        assert client.moderate(text(), metadata=bearer, timeout=SECONDS).decision.id
        assert client.moderate(text(), metadata=[("x-api-key", MODERATE_KEY)], timeout=SECONDS).decision.id
        for metadata, code in (
            ([], grpc.StatusCode.UNAUTHENTICATED),
            ([("x-api-key", UNKNOWN_KEY)], grpc.StatusCode.UNAUTHENTICATED),
            ([("x-api-key", REVIEW_KEY)], grpc.StatusCode.PERMISSION_DENIED),
        ):
            assert refused(client.moderate, text(), metadata=metadata)[0] is code
            assert refused(client.batch, pb.ModerateBatchRequest(items=[item()]), metadata=metadata)[0] is code
            with pytest.raises(grpc.RpcError) as caught:
                next(client.stream(iter([streamed()]), metadata=metadata, timeout=SECONDS))
            assert refusal(caught.value)[0] is code
        code, details = refused(client.moderate, other, metadata=bearer)
        assert (code, details["fields"]) == (grpc.StatusCode.PERMISSION_DENIED, ["context.tenant"])


def test_a_priority_counts_up_to_that_of_the_key(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, api_keys_file=write_keys(tmp_path / "keys.yaml"))
    keyed = [("x-api-key", MODERATE_KEY)]

    with connected(running) as client:
        metadata = [*keyed, ("x-baleen-priority", "Critical")]
        _, call = client.moderate.with_call(text(), metadata=metadata, timeout=SECONDS)
        code, details = refused(client.moderate, text(), metadata=[*keyed, ("x-baleen-priority", "urgent")])

    assert ("x-baleen-priority", "Normal") in call.trailing_metadata()
    assert (code, details["fields"]) == (grpc.StatusCode.INVALID_ARGUMENT, ["X-Baleen-Priority"])


def test_who_may_ask_no_more_is_told_when_to_come_again(start_sidecar: StartSidecar) -> None:
    def failure() -> Exception:
        return LimitExceeded("3 texts a day", retry_after_seconds=7)

    languages = FailingLanguages(failure)
    running = start_sidecar(policies=POLICIES, grpc_port=0, ports={"languages": languages})

    with connected(running) as client:
        code, details = refused(client.moderate, text("broken"))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (details["reason"], details["retry_seconds"]) == ("LIMIT_EXCEEDED", 7)


def test_an_unexpected_error_says_nothing_of_us(start_sidecar: StartSidecar) -> None:
    languages = FailingLanguages(lambda: RuntimeError("/secret/path"))
    running = start_sidecar(policies=POLICIES, grpc_port=0, ports={"languages": languages})

    with connected(running) as client:
        code, details = refused(client.moderate, text("broken"), metadata=[("x-request-id", "r-9")])

    assert code is grpc.StatusCode.INTERNAL
    assert details["request_id"] == "r-9"
    assert "secret" not in details["message"]


def test_without_a_policy_nothing_is_allowed(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies={}, grpc_port=0)

    with connected(running) as client:
        code, details = refused(client.moderate, text())
        health = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)

    assert (code, details["reason"]) == (grpc.StatusCode.UNAVAILABLE, "NO_POLICY")
    assert details["retry_seconds"] == 1
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_with_an_idempotency_key_a_call_is_answered_once(client: Client) -> None:
    metadata = [("idempotency-key", "k-1")]
    first = client.moderate(text(), metadata=metadata, timeout=SECONDS)
    again, call = client.moderate.with_call(text(), metadata=metadata, timeout=SECONDS)
    code, details = refused(client.moderate, text("other"), metadata=metadata)

    assert again.decision.id == first.decision.id
    assert ("idempotency-replayed", "true") in call.trailing_metadata()
    assert (code, details["reason"]) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_CONFLICT")


def test_each_item_of_a_batch_has_its_own_outcome(client: Client) -> None:
    items = [item(id="a"), item(""), item(LONG), pb.ModerateBatchRequest.Item(), item(id="a")]
    items.append(item(context=pb.Context(tenant="")))

    outcomes = client.batch(pb.ModerateBatchRequest(items=items), timeout=SECONDS).outcomes

    assert [each.decision.verdict or details_of(each.error)["fields"] for each in outcomes] == [
        pb.VERDICT_ALLOW,
        ["items[1].content.text"],
        pb.VERDICT_BLOCK,
        ["items[3].content"],
        ["items[4].id"],
        ["items[5].context.tenant"],
    ]
    assert outcomes[0].id == "a"


@pytest.mark.parametrize(
    ("seconds", "metadata"),
    [
        pytest.param(2, [], id="its own"),
        pytest.param(SECONDS, [("x-baleen-deadline-ms", "1000")], id="that in its metadata"),
    ],
)
def test_at_the_deadline_of_a_batch_those_that_are_decided_have_their_decision(
    start_sidecar: StartSidecar, seconds: int, metadata: list[tuple[str, str]]
) -> None:
    rules = {"rules": [{"name": "links", "when": "content.links > 0", "action": "Review"}]}
    policies = {
        "chat.yaml": [policy(scope={"surface": "chat"})],
        "mail.yaml": [policy_manifest(rules, scope={"surface": "mail"})],
    }
    running = start_sidecar(policies=policies, inference=HeldInference(), grpc_port=0)
    # Of a text in a chat a model is asked, which does not answer.
    items = [item(context=pb.Context(surface=surface)) for surface in ("mail", "chat", "mail")]

    with connected(running) as client:
        outcomes = client.batch(pb.ModerateBatchRequest(items=items), metadata=metadata, timeout=seconds).outcomes
        assert until(lambda: running.is_idle)

    assert [each.decision.verdict for each in outcomes] == [
        pb.VERDICT_ALLOW,
        pb.VERDICT_UNSPECIFIED,
        pb.VERDICT_ALLOW,
    ]
    assert details_of(outcomes[1].error)["reason"] == "DEADLINE_EXCEEDED"
    assert running.client.get(f"/v1/decisions/{outcomes[0].decision.id}").status_code == 200


def test_the_items_of_a_batch_take_its_context(running: RunningSidecar, client: Client) -> None:
    batch = pb.ModerateBatchRequest(
        items=[item(), item(context=pb.Context(surface="chat"))], context=pb.Context(tenant="acme", surface="wall")
    )

    outcomes = client.batch(batch, timeout=SECONDS).outcomes

    records = [running.run(running.sidecar.ports.log.get(each.decision.id)) for each in outcomes]
    contexts = [record.evidence.context for record in records if record is not None]
    assert [(each.tenant, each.surface) for each in contexts] == [("acme", "wall"), ("acme", "chat")]


def test_a_batch_that_is_none_is_refused_as_a_whole(client: Client) -> None:
    for batch, fields in (
        (pb.ModerateBatchRequest(), ["items"]),
        (pb.ModerateBatchRequest(items=[item()] * 101), ["items"]),
        (pb.ModerateBatchRequest(items=[item()], context=pb.Context(source="")), ["context.source"]),
    ):
        code, details = refused(client.batch, batch)

        assert (code, details["fields"]) == (grpc.StatusCode.INVALID_ARGUMENT, fields)


def test_a_stream_is_answered_in_its_order(client: Client) -> None:
    words = [LONG if number % 3 == 0 else f"hello {number}" for number in range(100)]
    words[7] = ""
    messages = (streamed(each, id=str(number)) for number, each in enumerate(words))

    outcomes = [each.outcome for each in client.stream(messages, timeout=SECONDS)]

    assert [each.id for each in outcomes] == [str(number) for number in range(100)]
    assert [each.decision.verdict for each in outcomes] == [
        pb.VERDICT_UNSPECIFIED if not each else pb.VERDICT_BLOCK if each == LONG else pb.VERDICT_ALLOW for each in words
    ]
    assert details_of(outcomes[7].error)["fields"] == ["content.text"]


def test_a_stream_is_read_no_further_than_it_is_answered(running: RunningSidecar) -> None:
    count, sent = 400, 0

    def messages() -> Iterator[pb.ModerateStreamRequest]:
        nonlocal sent
        for number in range(count):
            sent = number + 1
            # Over the limit of texts, which is cheap to say.
            yield streamed("x" * 300_000, id=str(number).zfill(256))

    def stands_still() -> bool:
        before = sent
        time.sleep(0.3)
        return 0 < before == sent

    # A client that takes 64 KiB before it is asked for more.
    small = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536))
    with connected(running, options=small) as client:
        call = client.stream(messages(), timeout=60)
        next(call)
        assert until(stands_still)
        held = sent
        outcomes = [each.outcome for each in call]

    assert held < count / 2
    assert len(outcomes) == count - 1
    assert {details_of(each.error)["reason"] for each in outcomes} == {"TOO_LARGE"}
    assert until(lambda: running.is_idle)


def test_who_hangs_up_leaves_nothing_behind(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference, grpc_port=0)

    with connected(running) as client:
        single = client.moderate.future(text("one"), timeout=SECONDS)
        batch = client.batch.future(pb.ModerateBatchRequest(items=[item("two"), item("three")]), timeout=SECONDS)
        stream = client.stream(iter([streamed("four"), streamed("five")]), timeout=SECONDS)
        assert until(lambda: running.in_flight == 4)
        for call in (single, batch, stream):
            call.cancel()
        assert until(lambda: running.is_idle)
        with pytest.raises(grpc.RpcError) as late:
            client.moderate(text("six"), timeout=0.3)
        assert until(lambda: running.is_idle)

    # On a slow machine it is refused at once: it would take too long.
    assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def test_a_deadline_in_the_metadata_counts_too(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, inference=HeldInference(), grpc_port=0)

    with connected(running) as client:
        code, details = refused(client.moderate, text(), metadata=[("x-baleen-deadline-ms", "200")])

    assert (code, details["reason"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


def test_a_deadline_of_years_is_taken_from_a_call_and_refused_in_the_metadata(client: Client) -> None:
    answer = client.moderate(text(), timeout=1e9)
    code, details = refused(client.moderate, text(), metadata=[("x-baleen-deadline-ms", "9" * 5000)])

    assert answer.decision.verdict == pb.VERDICT_ALLOW
    assert (code, details["fields"]) == (grpc.StatusCode.INVALID_ARGUMENT, ["X-Baleen-Deadline-Ms"])


def test_a_stream_on_which_nothing_comes_is_ended(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, idle_seconds=1.0)
    silent = threading.Event()

    def messages() -> Iterator[pb.ModerateStreamRequest]:
        yield streamed()
        silent.wait(SECONDS)

    with connected(running) as client:
        call = client.stream(messages(), timeout=SECONDS)
        assert next(call).outcome.decision.verdict == pb.VERDICT_ALLOW
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        silent.set()

    code, details = refusal(caught.value)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nothing came on this stream for 1 s" in details["message"]


def test_a_server_that_ends_answers_what_it_has_read(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference, grpc_port=0)
    silent = threading.Event()

    def messages() -> Iterator[pb.ModerateStreamRequest]:
        yield streamed("one", id="1")
        yield streamed("two", id="2")
        silent.wait(SECONDS)

    with connected(running) as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="baleen.v1.Moderation"), timeout=SECONDS)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        call = client.stream(messages(), timeout=SECONDS)
        assert until(lambda: running.in_flight == 2)
        running.loop.call_soon_threadsafe(running.grpc.handle_exit, 15, None)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        running.loop.call_soon_threadsafe(inference.released.set)
        answered = [next(call).outcome, next(call).outcome]
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        silent.set()

    assert [(each.id, each.decision.verdict) for each in answered] == [("1", pb.VERDICT_ALLOW), ("2", pb.VERDICT_ALLOW)]
    code, details = refusal(caught.value)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "going away" in details["message"]


def test_health_is_that_of_readiness_and_needs_no_key(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, api_keys_file=write_keys(tmp_path / "keys.yaml"))

    with connected(running) as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        for service in ("", "baleen.v1.Moderation"):
            found = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=SECONDS)
        first, second = (health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS) for _ in range(2))
        assert next(first).status == next(second).status == health_pb2.HealthCheckResponse.SERVING
        first.cancel()
        running.write_policy("all.yaml")
        assert next(second).status == health_pb2.HealthCheckResponse.NOT_SERVING
        found = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert found.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_client_can_ask_what_there_is_to_call(client: Client) -> None:
    asked = ProtoReflectionDescriptorDatabase(client.channel)
    pool = DescriptorPool(asked)
    service = pool.FindServiceByName("baleen.v1.Moderation")

    assert "grpc.health.v1.Health" in asked.get_services()
    assert [method.name for method in service.methods] == ["Moderate", "ModerateBatch", "ModerateStream"]
    request = GetMessageClass(service.FindMethodByName("Moderate").input_type)
    assert client.moderate(request(content={"text": LONG}), timeout=SECONDS).decision.verdict == pb.VERDICT_BLOCK


def test_calls_over_the_limit_are_refused(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference, grpc_port=0, grpc_call_limit=2)

    with connected(running) as client:
        calls = [client.moderate.future(text(), timeout=SECONDS) for _ in range(2)]
        assert until(lambda: running.in_flight == 2)
        with pytest.raises(grpc.RpcError) as caught:
            client.moderate(text(), timeout=SECONDS)
        running.loop.call_soon_threadsafe(inference.released.set)
        assert {call.result().decision.verdict for call in calls} == {pb.VERDICT_ALLOW}

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_limit_of_calls_may_be_a_number_that_grpc_cannot_count(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(policies=POLICIES, grpc_port=0, grpc_call_limit=2**31)

    with connected(running) as client:
        assert client.moderate(text(), timeout=SECONDS).decision.verdict == pb.VERDICT_ALLOW


def test_what_needs_no_key_takes_no_room_of_calls_that_need_one(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.yaml")
    running = start_sidecar(
        policies=POLICIES, grpc_port=0, grpc_call_limit=1, grpc_connection_limit=2, api_keys_file=keys
    )
    silent = threading.Event()

    def ask() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        silent.wait(SECONDS)

    def nothing() -> Iterator[bytes]:
        silent.wait(SECONDS)
        yield from ()

    with connected(running) as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)

        def watch() -> Any:
            return health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)

        def may_watch() -> bool:
            try:
                return bool(next(watch()).status == health_pb2.HealthCheckResponse.SERVING)
            except grpc.RpcError:
                return False

        watches = [watch() for _ in range(2)]
        assert {next(each).status for each in watches} == {health_pb2.HealthCheckResponse.SERVING}
        asked = [reflection.ServerReflectionInfo(ask(), timeout=SECONDS) for _ in range(REFLECTIONS)]
        assert all(next(each).list_services_response.service for each in asked)
        unsaid = client.channel.stream_unary("/grpc.health.v1.Health/Check").future(nothing(), timeout=SECONDS)
        refusals = []
        for one_more in (watch(), reflection.ServerReflectionInfo(ask(), timeout=SECONDS)):
            with pytest.raises(grpc.RpcError) as caught:
                next(one_more)
            refusals.append(caught.value.code())
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        answer = client.moderate(text(), metadata=[("x-api-key", MODERATE_KEY)], timeout=SECONDS)
        watches[0].cancel()
        assert until(may_watch)
        silent.set()
        unsaid.cancel()

    assert refusals == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    assert answer.decision.verdict == pb.VERDICT_ALLOW


def test_a_health_check_that_is_none_is_refused(client: Client) -> None:
    check = client.channel.stream_unary("/grpc.health.v1.Health/Check")
    watch = client.channel.stream_stream("/grpc.health.v1.Health/Watch")

    for messages in ([], [b"\xff\xff\xff"]):
        for call in (check, lambda *args, **kwargs: next(watch(*args, **kwargs))):
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(messages), timeout=SECONDS)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_messages_that_would_take_too_much_memory_together_are_refused(start_sidecar: StartSidecar) -> None:
    inference = HeldInference()
    running = start_sidecar(policies=POLICIES, inference=inference, grpc_port=0, body_memory_bytes=100_000)

    with connected(running) as client:
        first = client.moderate.future(text("a" * 60_000), timeout=SECONDS)
        assert until(lambda: running.in_flight == 1)
        code, details = refused(client.moderate, text("b" * 60_000))
        running.loop.call_soon_threadsafe(inference.released.set)
        first.result()
        client.moderate(text("b" * 60_000), timeout=SECONDS)

    assert (code, details["reason"]) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert "100000 bytes" in details["message"]


def test_a_port_that_is_taken_is_named(running: RunningSidecar, start_sidecar: StartSidecar) -> None:
    assert running.grpc is not None

    with pytest.raises(StateError, match=f"port {running.grpc.port} for gRPC"):
        start_sidecar(policies=POLICIES, grpc_port=running.grpc.port)


def test_each_message_of_a_stream_counts_and_a_key_that_is_gone_ends_it(
    start_sidecar: StartSidecar, tmp_path: Path
) -> None:
    limits = (RateLimit(requests=1, per=Per.DAY, burst=2),)
    file = write_key_file(tmp_path / "keys.yaml", api_key("app", MODERATE_KEY, limits=limits))
    running = start_sidecar(policies=POLICIES, grpc_port=0, api_keys_file=file)
    revoked = threading.Event()

    def messages() -> Iterator[pb.ModerateStreamRequest]:
        yield from (streamed() for _ in range(3))
        revoked.wait(SECONDS)
        yield streamed()

    with connected(running) as client:
        call = client.stream(messages(), metadata=[("x-api-key", MODERATE_KEY)], timeout=SECONDS)
        outcomes = [next(call).outcome for _ in range(3)]
        assert running.sidecar.keys is not None
        write_key_file(file)
        running.sidecar.keys.load()
        revoked.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)

    assert [each.HasField("decision") for each in outcomes] == [True, True, False]
    assert details_of(outcomes[2].error)["reason"] == "LIMIT_EXCEEDED"
    assert refusal(caught.value)[0] is grpc.StatusCode.UNAUTHENTICATED


def test_what_the_page_says_is_typed_here(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    running = start_sidecar(
        policies=POLICIES,
        inference=FixedInference({TOXICITY: 0.6}),
        grpc_port=0,
        api_keys_file=write_keys(tmp_path / "keys.yaml"),
    )
    page = ROOT / "docs/howto/call-over-grpc.md"
    port, generate = blocks(page, "sh")
    (program,) = blocks(page, "python")
    assert running.grpc is not None
    assert "BALEEN_GRPC_PORT=9090" in port
    folder = "-I sidecar/baleen_sidecar/web/grpc"
    assert folder in generate
    (tmp_path / "client.py").write_text(program.replace("127.0.0.1:9090", f"127.0.0.1:{running.grpc.port}"))
    script = generate.replace(folder, f"-I {ROOT}/sidecar/baleen_sidecar/web/grpc")

    ran = run_script(f"{script}\nBALEEN_API_KEY={MODERATE_KEY} python client.py", tmp_path)

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["VERDICT_REVIEW 0.6", *(f"{number} VERDICT_REVIEW" for number in range(3))]


def test_the_page_says_which_code_each_problem_has() -> None:
    page = (ROOT / "docs/howto/call-over-grpc.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([0-9, ]+) \|", page, re.MULTILINE)
    said = {int(status): code for code, statuses in rows for status in statuses.split(",")}

    assert said == {status: CODES[status].name for status in said}
    assert {status for _, status, _, _ in KINDS} - {404, 410} == said.keys()
