"""What ModelDeployments name is served, each model only while its golden answers are right, whatever else fails."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from baleen_core.errors import ModelUnavailable, NotFound
from baleen_core.model.loaded import LoadedModel
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.flow.breaker import State
from baleen_sidecar.flow.hangs import HangRules
from baleen_sidecar.testing import FixedImages
from baleen_sidecar.usecases.serve_models import FixedModels, ServeModels
from model_servers import PICTURE, MemoryServers, load_recipe, served_entry
from served_models import make_manifest
from waiting import until

RIGHT, WRONG = 0.9, 0.5
ROW = {"image": np.ones((1, 3, 224, 224), np.float32)}


def deployment(name="models", *entries, created="2026-01-01T00:00:00Z", endpoints=(), **metadata):
    manifest = make_manifest(models=list(entries) or [served_entry()])
    manifest["metadata"] |= {"name": name, "creationTimestamp": created, **metadata}
    if endpoints:
        manifest["spec"]["runtime"] = {"external": {"endpoints": list(endpoints)}}
    return manifest


def text_entry(name):
    tensors = [{"name": each, "dataType": "INT64", "dims": [-1]} for each in ("input_ids", "attention_mask")]
    assets = [{"name": each, "sha256": "ab" * 32} for each in ("norm.json", "tokenizer.json")]
    entry = served_entry(name, inputs=tensors, preprocessing={"recipe": "me5/1", "assets": assets})
    entry["golden"][0]["input"] = {"text": "words"}
    return entry


class Speechless:
    """A recipe whose library raises what it likes."""

    def windows(self, text, *, limit=64):
        raise Exception("no word is known")


class Setting:
    """Models at servers in memory; what is in `unreachable` cannot be loaded, and raises `failure`."""

    def __init__(self):
        self.servers = MemoryServers({(name, version): RIGHT for name in ("looks", "other") for version in "12"})
        self.inference = RoutedInference(self.servers.connect)
        self.unreachable, self.loads = set(), []
        self.failure = NotFound("its files are not there")
        self.serve_models = ServeModels(
            self.inference,
            load=self.load,
            images=FixedImages(),
            golden_file=lambda model, name: PICTURE,
            interval_seconds=30,
            retry_seconds=0.02,
        )

    def load(self, model):
        self.loads.append(model.name)
        if model.name in self.unreachable:
            raise self.failure
        if model.preprocessing.recipe == "me5/1":
            return LoadedModel(model=model, sha256="", text=Speechless())
        return load_recipe(model)

    async def serve(self, *manifests, **options):
        return list(map(str, await self.serve_models.serve(manifests, **options)))

    async def settle(self, *manifests):
        await self.serve(*manifests)
        await self.serve_models.load()
        await self.serve_models.check()

    @property
    def served(self):
        return [f"{loaded.model.name} {loaded.model.version}" for loaded in self.serve_models.current().models]

    @property
    def waiting(self):
        return [f"{model.name} {model.version}" for model in self.serve_models.current().waiting]

    async def is_ready(self, name="looks"):
        ready = [
            await self.inference.is_ready(loaded.model)
            for loaded in self.serve_models.current().models
            if loaded.model.name == name
        ]
        return ready == [True]

    @asynccontextmanager
    async def running(self):
        running = asyncio.create_task(self.serve_models.run())
        try:
            yield
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


@pytest.fixture
def setting():
    return Setting()


async def test_a_model_serves_after_its_golden_answers_at_the_service_of_its_deployment(setting):
    await setting.settle(deployment("gpu-1"))

    assert (setting.served, setting.waiting) == (["looks 1"], [])
    assert list(setting.servers) == ["triton-gpu-1.trust-safety.svc:8001"]
    assert await setting.is_ready()


async def test_external_endpoints_are_asked_instead_of_the_service(setting):
    await setting.settle(deployment(endpoints=["a:8001", "b:8001"]))

    assert list(setting.servers) == ["a:8001", "b:8001"]


async def test_a_wrong_answer_keeps_a_model_from_serving(setting):
    setting.servers.scores["looks", "1"] = WRONG
    await setting.settle(deployment())

    assert not await setting.is_ready()
    with pytest.raises(ModelUnavailable, match="golden answers at no server"):
        await setting.inference.infer(setting.serve_models.current().models[0].model, ROW)


async def test_signals_are_declared_before_any_file_is_loaded(setting):
    await setting.serve(deployment())

    assert setting.serve_models.current().signals == {"looks.gore", "looks.sexual"}
    assert (setting.served, setting.waiting) == ([], ["looks 1"])


async def test_the_same_deployments_again_change_nothing(setting):
    await setting.settle(deployment())
    before = setting.serve_models.current()
    await setting.settle(deployment())

    assert setting.serve_models.current() is before
    assert (setting.loads, await setting.is_ready()) == (["looks"], True)


async def test_an_edit_that_leaves_models_alone_does_not_load_or_doubt_them(setting):
    await setting.settle(deployment())
    edited = deployment()
    edited["spec"]["replicas"] = 3
    await setting.serve(edited)

    assert (setting.loads, await setting.is_ready()) == (["looks"], True)


async def test_a_name_belongs_to_the_oldest_deployment(setting):
    younger = deployment("a", served_entry(), served_entry("other"), created="2026-02-02T00:00:00Z")
    problems = await setting.serve(younger, deployment("b"))
    await setting.serve_models.load()

    assert problems == [
        "ModelDeployment trust-safety/a: spec.models[0].name: 'looks' is a model of the older "
        "ModelDeployment trust-safety/b; give this one another name"
    ]
    assert setting.served == ["looks 1", "other 1"]
    assert "triton-b.trust-safety.svc:8001" in setting.servers


async def test_of_equal_age_the_first_by_namespace_and_name_has_the_name(setting):
    (problem,) = await setting.serve(deployment("a"), deployment("z", namespace="early"))

    assert problem.startswith("ModelDeployment trust-safety/a: ")


async def test_what_is_not_valid_is_a_problem_and_the_others_serve(setting):
    (problem,) = await setting.serve(deployment("bad", served_entry(version="one")), deployment("good"))
    await setting.serve_models.load()

    assert problem.startswith("ModelDeployment trust-safety/bad: spec.models[0].version: ")
    assert setting.served == ["looks 1"]


async def test_an_edit_that_is_not_valid_leaves_what_was(setting):
    await setting.settle(deployment())
    problems = await setting.serve(deployment("models", served_entry(version="one")))

    assert len(problems) == 1
    assert (setting.served, await setting.is_ready()) == (["looks 1"], True)


@pytest.mark.parametrize("manifest", [{}, {"metadata": "x"}, {"metadata": {"name": 3}, "spec": []}])
async def test_what_is_no_deployment_at_all_is_only_a_problem(setting, manifest):
    assert await setting.serve(manifest)
    assert setting.serve_models.current().expected == ()


async def test_a_deployment_that_is_gone_is_served_no_more_and_one_that_could_not_be_read_is(setting):
    await setting.settle(deployment())
    await setting.serve(is_whole=False)

    assert setting.served == ["looks 1"]

    await setting.serve()

    assert (setting.served, setting.serve_models.current().signals) == ([], frozenset())


async def test_a_model_that_cannot_be_loaded_is_the_only_one_that_waits(setting):
    setting.unreachable.add("other")
    await setting.settle(deployment("models", served_entry(), served_entry("other")))

    assert (setting.served, setting.waiting) == (["looks 1"], ["other 1"])
    assert list(map(str, setting.serve_models.problems)) == [
        "ModelDeployment trust-safety/models: models[other]: its files are not there"
    ]


async def test_a_model_whose_files_make_a_library_raise_ends_nothing_but_itself(setting, caplog):
    setting.unreachable.add("other")
    setting.failure = Exception("x")
    async with setting.running():
        await setting.serve(deployment("models", served_entry("other"), served_entry()))
        await until(setting.is_ready)
        await until(lambda: setting.loads.count("other") > 2)

        assert (setting.served, setting.waiting) == (["looks 1"], ["other 1"])
        assert list(map(str, setting.serve_models.problems)) == [
            "ModelDeployment trust-safety/models: models[other]: Exception('x')"
        ]
        (logged,) = (record for record in caplog.records if record.message == "model not loaded")
        assert logged.exc_info

        setting.unreachable.clear()
        await until(lambda: setting.is_ready("other"))


async def test_a_recipe_that_raises_at_a_golden_question_ends_nothing_but_its_model(setting, caplog):
    async with setting.running():
        await setting.serve(deployment("models", text_entry("other"), served_entry()))
        await until(setting.is_ready)
        await until(lambda: any(record.message == "model not verified" for record in caplog.records))

        assert setting.served == ["other 1", "looks 1"]
        assert (await setting.is_ready(), await setting.is_ready("other")) == (True, False)


async def test_loading_is_tried_again_until_it_succeeds(setting):
    setting.unreachable.add("looks")
    async with setting.running():
        await setting.serve(deployment())
        await until(lambda: setting.loads.count("looks") > 1)
        setting.unreachable.clear()
        await until(setting.is_ready)

    assert setting.serve_models.problems == ()


async def test_a_new_version_takes_over_once_it_gave_its_answers(setting):
    await setting.settle(deployment())
    (server,) = setting.servers.values()
    del server.scores["looks", "2"]
    await setting.settle(deployment("models", served_entry(version="2")))

    assert (setting.served, setting.waiting) == (["looks 1"], ["looks 2"])
    assert await setting.is_ready()

    server.scores["looks", "2"] = RIGHT
    await setting.serve_models.check()

    assert (setting.served, setting.waiting, await setting.is_ready()) == (["looks 2"], [], True)


async def test_a_new_version_takes_over_too_when_the_old_one_has_gone(setting):
    await setting.settle(deployment())
    (server,) = setting.servers.values()
    server.scores.clear()
    await setting.settle(deployment("models", served_entry(version="2")))
    await setting.serve_models.check()

    assert setting.served == ["looks 2"]
    assert not await setting.is_ready()


async def test_other_golden_answers_for_the_same_version_have_to_be_given_first(setting):
    await setting.settle(deployment())
    entry = served_entry()
    entry["golden"][0]["expect"][0]["value"] = "20%"
    before = setting.serve_models.current().models
    await setting.settle(deployment("models", entry))

    assert setting.serve_models.current().models == before
    assert setting.waiting == ["looks 1"]


async def test_a_server_that_moves_is_left_once_the_new_one_gave_its_answers(setting):
    await setting.settle(deployment(endpoints=["old:1"]))
    await setting.settle(deployment(endpoints=["new:1"]))
    await setting.inference.sweep()

    assert (setting.servers["old:1"].is_closed, setting.servers["new:1"].is_closed) == (True, False)
    assert await setting.is_ready()


async def test_a_server_that_comes_back_is_noticed_long_before_the_interval(setting):
    async with setting.running():
        await setting.serve(deployment())
        await until(setting.is_ready)
        (server,) = setting.servers.values()
        model = setting.serve_models.current().models[0].model
        server.is_silent = True
        with pytest.raises(ModelUnavailable):
            await setting.inference.infer(model, ROW)
        await until(lambda: not setting.inference.server(next(iter(setting.servers))).is_confirmed(model))
        server.is_silent = False
        await until(setting.is_ready)


async def test_fixed_models_are_one_and_the_same_set_with_all_signals(setting):
    await setting.settle(deployment())
    loaded = setting.serve_models.current().models
    fixed = FixedModels(loaded)

    assert fixed.current() is fixed.current()
    assert (fixed.current().models, fixed.current().signals) == (loaded, {"looks.gore", "looks.sexual"})


async def test_a_model_whose_calls_have_no_answer_is_asked_its_golden_questions_out_of_turn_and_then_no_more(setting):
    """Within seconds, not once the time budget of the calls is over; the calls that wait fail at once."""
    await setting.settle(deployment(endpoints=["a:1"]))
    (loaded,) = setting.serve_models.current().models
    for _ in range(HangRules().calls):
        await setting.inference.infer(loaded.model, ROW)
    server = setting.servers["a:1"]
    async with setting.running():
        server.holds = asyncio.Event()
        waiting = asyncio.create_task(setting.inference.infer(loaded.model, ROW))
        await until(lambda: setting.inference.reports()[0].under_way == 1)
        server.holds, server.is_silent = None, True
        with pytest.raises(ModelUnavailable, match="nor a golden question"):
            async with asyncio.timeout(10):
                await waiting

    assert setting.inference.reports()[0].state is State.OPEN
