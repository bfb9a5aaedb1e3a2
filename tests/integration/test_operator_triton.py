"""The operator drives a real Triton of someone else: loads, asks, and says truthfully how its models are."""

import shutil
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from baleen_cli.models.catalog import load_catalog
from baleen_cli.models.store import default_root
from baleen_cli.triton.process import free_port
from baleen_core.model.parse import parse_model
from baleen_operator.adapters.model_files import FolderModelFiles
from baleen_operator.adapters.triton import GrpcTriton
from baleen_operator.reconcile.model_deployment import reconcile_model_deployment
from baleen_operator.reconcile.model_ports import ModelPorts
from model_cluster import FixedClock, ModelCluster
from triton import PrivateTriton, locate, private_triton
from waiting import until
from word_model import write_word_model

pytestmark = pytest.mark.triton


@dataclass
class Driven:
    """A Triton with models in its repository, none of them loaded, and an operator that looks after it."""

    triton: PrivateTriton
    cluster: ModelCluster
    clock: FixedClock
    ports: ModelPorts
    manifest: dict
    runs: Path
    key: tuple = ()

    async def reconcile(self):
        """Go round until the operator has time, and return how much."""
        for _ in range(10):
            outcome = await reconcile_model_deployment(self.key, self.ports)
            self.clock.move(outcome.requeue_seconds or 0)
            if outcome.requeue_seconds is None or outcome.requeue_seconds >= 5:
                return outcome.requeue_seconds
        raise AssertionError(f"it never rests: {self.cluster.status(self.key)}")

    def apply(self, **changes):
        """Have the author apply the deployment; a change of its model's entry may be given."""
        (entry,) = self.manifest["spec"]["models"]
        runtime = {"external": {"endpoints": [self.triton.server.endpoint]}}
        spec = {"runtime": runtime, "models": [entry | changes], "verifyIntervalSeconds": 5}
        self.key = self.cluster.create(self.manifest | {"spec": spec})

    def break_model(self):
        """Have whoever runs the server put something else in the place of the model's file."""
        (onnx,) = self.runs.rglob("model.onnx")
        onnx.unlink()
        onnx.write_bytes(b"no graph")

    @property
    def conditions(self):
        return self.cluster.conditions(self.key)

    @property
    def model(self):
        (model,) = self.cluster.status(self.key)["models"]
        return model


def in_thread() -> Executor:
    return ThreadPoolExecutor(max_workers=1)


async def load_nothing():
    """A server of someone else comes up empty."""


@asynccontextmanager
async def drive(folder: Path, entries, find):
    models = [parse_model(entry) for entry in entries]
    cluster, clock = ModelCluster(), FixedClock()
    async with private_triton(models, find, folder / "runs", prepare=lambda inference: load_nothing) as triton:
        ports = ModelPorts(
            seen=cluster, cluster=cluster, clock=clock, triton=GrpcTriton(), files=FolderModelFiles(folder, in_thread)
        )
        manifest = {
            "apiVersion": "moderation.baleen.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "elsewhere", "namespace": "trust-safety"},
            "spec": {"models": entries},
        }
        yield Driven(triton=triton, cluster=cluster, clock=clock, ports=ports, manifest=manifest, runs=folder / "runs")


@pytest.fixture
async def driven(tmp_path):
    entries = write_word_model(tmp_path)["spec"]["models"]
    async with drive(tmp_path, entries, lambda model: tmp_path / "words" / "model.onnx") as found:
        yield found


async def test_a_model_is_loaded_and_is_ready_once_it_gave_its_golden_answers(driven):
    driven.apply()
    seconds = await driven.reconcile()

    assert seconds == 5
    assert driven.conditions == {
        "Accepted": ("True", "Accepted"),
        "Ready": ("True", "Verified"),
        "Reconciling": ("False", "Verified"),
        "Stalled": ("False", "Verified"),
        "Available": ("True", "Serving"),
        "GoldenVerified": ("True", "Verified"),
    }
    assert driven.model["state"] == "Verified"
    assert driven.cluster.events() == [("Normal", "Loading"), ("Normal", "Verified")]


async def test_a_model_that_was_unloaded_behind_its_back_is_noticed_and_loaded_again(driven):
    driven.apply()
    await driven.reconcile()
    verified = driven.model["lastVerifiedTime"]
    await driven.triton.inference.unload(parse_model(driven.manifest["spec"]["models"][0]))
    await reconcile_model_deployment(driven.key, driven.ports)

    assert driven.conditions["Ready"] == ("False", "ModelUnloaded")
    assert driven.conditions["Available"] == ("False", "ModelUnloaded")
    assert "was unloaded from Triton at" in driven.cluster.message(driven.key, "Ready")
    assert driven.cluster.events()[-1] == ("Warning", "ModelUnloaded")

    driven.clock.move(1)
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("True", "Verified")
    assert driven.model["lastVerifiedTime"] > verified


async def test_wrong_answers_are_said_in_words_and_never_ready(driven):
    expected = [{"signal": "score", "value": "12%", "tolerance": "1%"}]
    driven.apply(golden=[{"input": {"text": "a vile word"}, "expect": expected}])
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "WrongAnswers")
    assert driven.conditions["GoldenVerified"] == ("False", "WrongAnswers")
    assert driven.conditions["Stalled"] == ("True", "WrongAnswers")
    assert "signal 'score' is 95%; expected 12% within 1%" in driven.cluster.message(driven.key, "GoldenVerified")
    assert "lastVerifiedTime" not in driven.model


async def test_a_model_that_the_server_does_not_have_is_named_with_those_that_it_has(driven):
    driven.apply(name="other-words")
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "ModelMissing")
    message = driven.cluster.message(driven.key, "Ready")
    assert "model 'other-words' is not in the repository of Triton at 127.0.0.1:" in message
    assert message.endswith("it has words")


async def test_a_model_that_cannot_be_loaded_says_why_and_is_not_news_each_time(driven):
    driven.break_model()
    driven.apply()
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "LoadFailed")
    assert driven.conditions["Stalled"] == ("True", "LoadFailed")
    assert "loading model 'words'" in driven.cluster.message(driven.key, "Ready")

    driven.cluster.written()
    driven.clock.move(5)
    await driven.reconcile()

    assert driven.cluster.written() == []


async def test_another_version_than_the_server_serves_is_no_reason_to_touch_it(driven):
    driven.apply()
    await driven.reconcile()
    (entry,) = driven.manifest["spec"]["models"]
    driven.cluster.edit(driven.key, models=[entry | {"version": "2"}])
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "LoadFailed")
    assert "serves version 1 of model 'words', not 2" in driven.cluster.message(driven.key, "Ready")


async def test_every_endpoint_has_to_answer_rightly_and_nobody_there_is_named_with_the_cause(driven):
    driven.apply()
    nobody = f"127.0.0.1:{free_port()}"
    driven.cluster.edit(driven.key, runtime={"external": {"endpoints": [driven.triton.server.endpoint, nobody]}})
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "Unreachable")
    assert driven.conditions["Available"] == ("True", "Serving")
    assert driven.conditions["GoldenVerified"][0] == "Unknown"
    status = driven.cluster.status(driven.key)
    assert (status["replicas"], status["readyReplicas"]) == (2, 1)

    driven.cluster.edit(driven.key, runtime={"external": {"endpoints": [nobody]}})
    await driven.reconcile()

    assert driven.conditions["Available"] == ("False", "Unreachable")
    message = driven.cluster.message(driven.key, "Available")
    assert nobody in message
    assert "UNAVAILABLE" in message


async def test_a_server_that_started_again_empty_has_its_models_again(driven):
    driven.apply()
    await driven.reconcile()
    starts = driven.triton.server.starts
    driven.triton.server.restart()

    async def is_back() -> bool:
        driven.clock.move(5)
        await reconcile_model_deployment(driven.key, driven.ports)
        return driven.triton.server.starts > starts and driven.triton.server.prepared.is_set()

    await until(is_back, seconds=90)
    driven.clock.move(5)
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("True", "Verified")


async def test_shipped_models_are_asked_with_texts_and_pictures_from_the_users_own_cache(tmp_path):
    wanted = ("toxicity", "nsfwjs")
    entries = [dict(source.entry) for source in load_catalog() if source.name in wanted]
    async with drive(tmp_path, entries, locate) as driven:
        runtime = {"external": {"endpoints": [driven.triton.server.endpoint]}}
        driven.key = driven.cluster.create(driven.manifest | {"spec": {"runtime": runtime, "models": entries}})
        driven.ports = ModelPorts(
            seen=driven.cluster,
            cluster=driven.cluster,
            clock=driven.clock,
            triton=GrpcTriton(),
            files=FolderModelFiles(default_root(), in_thread),
        )
        await driven.reconcile()

        assert driven.conditions["Ready"] == ("True", "Verified")
        assert {model["name"] for model in driven.cluster.status(driven.key)["models"]} == set(wanted)


async def test_an_asset_that_is_not_there_is_named_and_the_model_is_neither_right_nor_wrong(driven, tmp_path):
    shutil.move(tmp_path / "words" / "vocab.json", tmp_path / "words" / "elsewhere.json")
    driven.apply()
    await driven.reconcile()

    assert driven.conditions["Ready"] == ("False", "GoldenUnavailable")
    assert driven.conditions["GoldenVerified"] == ("Unknown", "GoldenUnavailable")
    assert "there is no file 'vocab.json'" in driven.cluster.message(driven.key, "Ready")
