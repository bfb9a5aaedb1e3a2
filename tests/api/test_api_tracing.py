"""Traces: one span for a request, its models and its log, in the trace of whoever asks; and nothing that is private."""

import ast
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from baleen_core.api_keys import make_key
from baleen_core.model.schema import Model
from baleen_sidecar import main
from baleen_sidecar.adapters.tracing import OtlpTracing
from baleen_sidecar.ports import ANYONE, Tensors, Work
from baleen_sidecar.testing import FixedInference
from keyed import api_key, write_key_file
from otlp_receiver import OtlpReceiver, facts, otlp_receiver
from sidecars import RunningSidecar, StartSidecar

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "an address nobody should see"
MODERATE = "POST /v1/moderate"
LOG = "decision log"


class Listening(FixedInference):
    """Hears of which trace models are asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.traceparents: list[str] = []

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        self.traceparents.append(work.traceparent)
        return await super().infer(model, inputs, work)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as received:
        yield received


def flush(running: RunningSidecar) -> None:
    """Send what waits, now."""
    tracing = running.sidecar.ports.tracing
    assert isinstance(tracing, OtlpTracing)
    running.run(asyncio.to_thread(tracing._provider.force_flush))


def ask(running: RunningSidecar, traceparent: str = f"00-{TRACE}-{SPAN}-01", **more: str) -> dict[str, Any]:
    body = {"content": {"type": "text", "text": SECRET}, "context": {"author": {"id": "jane-doe"}}}
    headers = {"traceparent": traceparent, **more}
    return dict(running.client.post("/v1/moderate", json=body, headers=headers).json())


def test_a_request_its_models_and_its_log_are_spans_of_the_callers_trace(
    start_sidecar: StartSidecar, receiver: OtlpReceiver
) -> None:
    inference = Listening()
    running = start_sidecar(inference=inference, otlp_endpoint=receiver.endpoint)
    decision = ask(running)
    flush(running)

    request, model, log = (receiver.named(name) for name in (MODERATE, "model toxicity", LOG))
    assert receiver.paths == {"/v1/traces"}
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    assert request.parent_span_id.hex() == SPAN
    assert model.parent_span_id == log.parent_span_id == request.span_id
    assert facts(request)["http.route"] == "/v1/moderate"
    assert facts(request)["http.response.status_code"] == 200
    assert facts(model)["baleen.model.rows"] == 1
    assert facts(log)["baleen.decision.id"] == decision["id"]
    # The server of a model goes on with the span of the call.
    spans = {f"00-{TRACE}-{span.span_id.hex()}-01" for span in receiver.spans if span.name.startswith("model ")}
    assert inference.traceparents
    assert set(inference.traceparents) == spans


def test_a_slow_decision_is_found_by_its_trace(start_sidecar: StartSidecar, receiver: OtlpReceiver) -> None:
    running = start_sidecar(otlp_endpoint=receiver.endpoint)
    decision = ask(running)

    accept = {"Accept": "application/openmetrics-text"}
    families = text_string_to_metric_families(running.client.get("/metrics", headers=accept).text)
    (found,) = (
        sample.exemplar.labels
        for family in families
        if family.name == "baleen_request_duration_seconds"
        for sample in family.samples
        if sample.exemplar
    )
    assert found == {"decision_id": decision["id"], "trace_id": TRACE}


@pytest.mark.parametrize("traceparent", ["00-nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-x"])
def test_who_says_no_trace_begins_one(start_sidecar: StartSidecar, receiver: OtlpReceiver, traceparent: str) -> None:
    running = start_sidecar(otlp_endpoint=receiver.endpoint)
    ask(running, traceparent)
    flush(running)

    request = receiver.named(MODERATE)
    assert request.trace_id.hex() not in (TRACE, "0" * 32)
    assert request.parent_span_id == b""


def test_nothing_private_is_told(start_sidecar: StartSidecar, receiver: OtlpReceiver, tmp_path: Path) -> None:
    key = make_key(bytes(32))
    file = write_key_file(tmp_path / "keys.yaml", api_key("shop", key))
    running = start_sidecar(api_keys_file=file, otlp_endpoint=receiver.endpoint)
    ask(running, **{"X-API-Key": key})
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    failed = running.client.post("/v1/moderate", content=json.dumps({SECRET: 1}), headers=headers)
    flush(running)

    assert failed.status_code == 422
    assert [facts(span)["error.type"] for span in receiver.spans if "error.type" in facts(span)] == ["ContentError"]
    for body in receiver.bodies:
        assert not [each for each in (SECRET, key, "jane-doe") if each.encode() in body]


def test_a_collector_that_is_away_costs_no_decision(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(otlp_endpoint="http://127.0.0.1:1")

    assert ask(running)["decision"] == "Allow"


def test_without_an_endpoint_there_is_nothing_of_it(start_sidecar: StartSidecar) -> None:
    inference = Listening()
    running = start_sidecar(inference=inference)
    ask(running)

    assert running.sidecar.ports.tracing is None
    assert set(inference.traceparents) == {""}
    # Nor is what makes and sends spans imported before it is known that somebody wants them.
    imported = [node for node in ast.parse(Path(main.__file__).read_text()).body if isinstance(node, ast.ImportFrom)]
    assert "baleen_sidecar.adapters.measured" in {node.module for node in imported}
    assert "baleen_sidecar.adapters.tracing" not in {node.module for node in imported}
