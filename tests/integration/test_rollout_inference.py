"""A rollout costs no inference: Triton's own counters say how often it was asked."""

import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from baleen_core.assignment import FULL, Exposure
from baleen_core.model.parse import parse_model
from baleen_core.model.schema import Model
from baleen_core.records import Cohort, Context, DecisionRecord
from baleen_sidecar.adapters.model_files import FolderModelFiles
from baleen_sidecar.usecases.moderate import Caller
from baleen_sidecar.usecases.serve_models import FixedModels
from moderating import make_moderate, make_shell
from publishing import publication
from replicas import SPACE, Replica
from triton import PrivateTriton, private_triton
from waiting import until
from word_model import write_word_model

pytestmark = pytest.mark.triton

TEXTS = tuple(f"a {word} text, number {number}" for number in range(5) for word in ("kind", "rude", "vile", "plain"))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (entry,) = write_word_model(tmp_path)["spec"]["models"]
    return parse_model(entry)


@pytest.fixture
async def triton(tmp_path: Path, model: Model) -> AsyncIterator[PrivateTriton]:
    async with private_triton([model], lambda _: tmp_path / "words" / "model.onnx", tmp_path / "runs") as made:
        yield made


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def content(block: str | None) -> dict[str, Any]:
    """Write a policy that blocks by the model's score, or one that wants no model at all."""
    if block is None:
        return {"rules": [{"name": "links", "when": "content.links > 3", "action": "Review"}]}
    return {"categories": [{"name": "rude", "signals": [{"name": "words.score", "block": block}]}]}


class Application:
    """Moderates texts by what a replica adopted, on a real Triton."""

    def __init__(self, replica: Replica, triton: PrivateTriton, model: Model, folder: Path, executor: Any) -> None:
        self.endpoint = triton.server.endpoint
        models = FixedModels([FolderModelFiles(folder).load(model)])
        shell = make_shell(executor, time.monotonic)
        self.moderate = make_moderate(lambda: replica.snapshot, models, triton.inference, shell)

    async def decide(self, text: str, number: int) -> DecisionRecord:
        caller = Caller(request_id="", received_seconds=time.monotonic(), deadline_seconds=60)
        return await self.moderate.text(text, Context(author={"id": f"author-{number}"}), caller)

    async def asked(self) -> int:
        """Return how many requests Triton counted for the model."""
        client = InferenceServerClient(self.endpoint)
        try:
            found = await client.get_inference_statistics("words", as_json=True)
        finally:
            await client.close()
        return int(found["model_stats"][0]["inference_stats"]["success"]["count"])


@pytest.mark.parametrize(
    ("stable", "candidate", "exposure", "cohorts"),
    [
        pytest.param("90%", None, None, {Cohort.STABLE}, id="no rollout"),
        pytest.param("90%", content("60%"), Exposure(is_shadow=True), {Cohort.STABLE}, id="a shadow"),
        pytest.param("90%", content("60%"), Exposure(weight_basis_points=FULL // 2), set(Cohort), id="half of all"),
        pytest.param(
            None, content("60%"), Exposure(is_shadow=True), {Cohort.STABLE}, id="a model of the candidate alone"
        ),
    ],
)
async def test_triton_is_asked_once_for_a_content_whether_or_not_there_is_a_rollout(
    tmp_path: Path,
    triton: PrivateTriton,
    model: Model,
    executor: ThreadPoolExecutor,
    stable: str | None,
    candidate: Any,
    exposure: Exposure | None,
    cohorts: set[Cohort],
) -> None:
    replica = Replica(executor)
    replica.signals = frozenset({"words.score"})
    await replica.adopt(publication(SPACE, "community", content(stable), candidate=candidate, exposure=exposure).policy)
    assert replica.problems == ""
    application = Application(replica, triton, model, tmp_path, executor)
    before = await application.asked()
    records = [await application.decide(text, number) for number, text in enumerate(TEXTS)]

    async def is_counted() -> bool:
        return await application.asked() - before >= len(TEXTS)

    # Triton counts a request after it has answered it.
    await until(is_counted)
    assert await application.asked() - before == len(TEXTS)
    assert {record.decision.policies[0].cohort for record in records} == cohorts
    assert {len(record.decision.trials) for record in records} == {0 if candidate is None else 1}
    assert all((record.apart_microseconds > 0) is (stable is None) for record in records)
    assert all(record.apart_microseconds < record.latency_microseconds for record in records)
    if candidate is not None:
        said = [record.decision.trials[0].candidate_verdict.value for record in records]
        assert said == ["Block" if "rude" in text or "vile" in text else "Allow" for text in TEXTS]
