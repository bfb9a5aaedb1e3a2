"""A model serves only while its golden answers are right."""

import asyncio
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from baleen_core.errors import ContentError, ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.recipes import Windows
from baleen_core.model.schema import Expectation, Golden, GoldenInput
from baleen_sidecar.usecases.verify_models import SILENT_ROUNDS, VerifyModels
from served_models import IMAGE_MODEL, TEXT_MODEL
from waiting import until

PICTURE = b"a red square"
GOLDEN = Golden(
    input=GoldenInput(name="red.png", sha256=hashlib.sha256(PICTURE).hexdigest()),
    expect=(Expectation(signal="sexual", value=900_000, tolerance=10_000),),
)
MODEL = replace(IMAGE_MODEL, golden=(GOLDEN,))


class ServerInMemory:
    """Answers each row with the score that the picture or the token stands for; can be silent or refuse to load."""

    def __init__(self):
        self.answer = 0.9
        self.loaded, self.serving, self.loads = set(), set(), []
        self.is_silent = self.refuses = False
        self.calls_answered = 0

    def answered(self, model):
        return self.calls_answered

    async def infer(self, model, inputs, work=None):
        if self.is_silent or model.name not in self.loaded:
            raise ModelUnavailable("no answer")
        scores = np.array([self.answer * float(row.flat[0]) for row in next(iter(inputs.values()))], np.float32)
        return {"probabilities": np.stack([np.zeros_like(scores), scores, 1 - scores], axis=1)}

    async def is_loaded(self, model):
        return model.name in self.loaded

    async def load(self, model):
        self.doubt(model)
        self.loads.append(model.name)
        await asyncio.sleep(0)
        if self.refuses:
            raise ModelUnavailable("cannot load")
        self.loaded.add(model.name)

    def confirm(self, model):
        self.serving.add(model.name)

    def doubt(self, model):
        self.serving.discard(model.name)


class RedSquares:
    """Decodes the one picture that there is."""

    def decode(self, data):
        if data != PICTURE:
            raise ContentError("broken")
        return Image.new("RGB", (2, 2), "red")


class Tokens:
    """One row a word; a row's only token is its length."""

    def windows(self, text, *, limit=64):
        return Windows(rows=tuple((len(word),) for word in text.split()[:limit]), truncated=False)

    def collate(self, rows):
        return {"input_ids": np.array(rows, np.int64), "attention_mask": np.ones((len(rows), 1), np.int64)}


def loaded_image_model(model=MODEL):
    return LoadedModel(model=model, sha256="", image=lambda picture: np.ones((3, 224, 224), np.float32))


def make_verify(server, models=None, **options):
    options = {"images": RedSquares(), "golden_file": lambda model, name: PICTURE} | options
    return VerifyModels(models or [loaded_image_model()], server, **options)


@pytest.fixture
def server():
    return ServerInMemory()


async def test_a_model_is_loaded_and_serves_after_the_right_answer(server):
    (found,) = await make_verify(server).check()

    assert found.problems == ()
    assert (server.loads, server.serving) == (["image-safety"], {"image-safety"})


async def test_a_loaded_model_is_asked_and_not_loaded_again(server):
    verify = make_verify(server)
    await verify.check()
    await verify.check()

    assert server.loads == ["image-safety"]


async def test_a_server_of_someone_else_is_asked_and_never_told_to_load(server):
    (found,) = await make_verify(server, loads=False).check()

    assert (server.loads, server.serving, found.is_silent) == ([], set(), True)


async def test_a_wrong_answer_ends_serving_at_once_and_a_right_one_restores_it(server):
    verify = make_verify(server)
    await verify.check()
    server.answer = 0.5
    (found,) = await verify.check()

    assert server.serving == set()
    assert "is 50%; expected 90% within 1%" in found.problems[0].message

    server.answer = 0.9
    await verify.check()

    assert server.serving == {"image-safety"}


async def test_one_round_of_silence_does_not_end_serving_and_two_do(server):
    verify = make_verify(server)
    await verify.check()
    server.is_silent = True
    await verify.check()

    assert server.serving == {"image-safety"}

    await verify.check()

    assert server.serving == set()


async def test_a_model_that_is_loaded_and_stays_silent_is_reported_as_stuck(server):
    reports = []
    verify = make_verify(server, on_stuck=lambda: reports.append("stuck"))
    await verify.check()
    server.is_silent = True
    for _ in range(4):
        await verify.check()

    assert reports == ["stuck", "stuck"]


async def test_a_model_that_cannot_be_loaded_is_not_stuck_and_leaves_the_others_alone(server):
    reports = []
    other = loaded_image_model(replace(MODEL, name="other"))
    server.loaded.add("other")
    server.refuses = True
    verify = make_verify(server, [loaded_image_model(), other], on_stuck=lambda: reports.append("stuck"))
    for _ in range(4):
        await verify.check()

    assert (server.serving, reports) == ({"other"}, [])


async def test_a_golden_file_with_other_bytes_is_never_asked_about(server):
    (found,) = await make_verify(server, golden_file=lambda model, name: b"another picture").check()

    assert server.serving == set()
    assert "expected" in found.problems[0].message
    assert hashlib.sha256(b"another picture").hexdigest() in found.problems[0].message


async def test_a_golden_text_may_fill_several_batches_and_its_highest_row_counts(server):
    expected = Expectation(signal="sexual", value=800_000, tolerance=0)
    words = "a a a a a aa a"
    model = replace(TEXT_MODEL, golden=(Golden(input=GoldenInput(text=words), expect=(expected,)),))
    server.answer = 0.4
    (found,) = await make_verify(server, [LoadedModel(model=model, sha256="", text=Tokens())]).check()

    assert len(words.split()) > model.batching.max_batch_size
    assert found.problems == ()


async def test_a_question_that_the_recipe_cannot_take_is_a_problem_of_the_model(server):
    model = replace(MODEL, golden=(replace(GOLDEN, input=GoldenInput(text="words")),))
    (found,) = await make_verify(server, [loaded_image_model(model)]).check()

    assert server.serving == set()
    assert "neither a text for a text recipe" in found.problems[0].message


async def test_a_recipe_that_raises_anything_is_a_problem_of_its_model_alone_and_logged_once(server, caplog):
    def refuse(picture):
        raise IndexError("out of range")

    spoilt = LoadedModel(model=replace(MODEL, name="spoilt"), sha256="", image=refuse)
    verify = make_verify(server, [spoilt, loaded_image_model()])
    for _ in range(3):
        found, _ = await verify.check()

    assert str(found.problems[0]) == "models[spoilt]: IndexError('out of range')"
    assert not found.is_silent
    assert server.serving == {"image-safety"}
    assert [record.message for record in caplog.records if record.exc_info] == ["golden questions failed"]


async def test_two_rounds_at_once_load_a_model_once(server):
    verify = make_verify(server)
    await asyncio.gather(verify.check(), verify.check())

    assert server.loads == ["image-safety"]


async def test_checks_go_on_at_the_interval(server):
    verify = make_verify(server)
    rounds = asyncio.create_task(verify.run(0.01))
    await until(lambda: server.serving)
    server.answer = 0.1
    await until(lambda: not server.serving)
    rounds.cancel()
    await asyncio.wait([rounds])

    assert rounds.cancelled()


async def test_a_model_that_answers_others_is_busy_and_neither_doubted_nor_restarted():
    stuck = []
    server = ServerInMemory()
    verify = make_verify(server, on_stuck=lambda: stuck.append(True))
    await verify.check()
    server.is_silent = True
    for _ in range(4):
        server.calls_answered += 100
        await verify.check()

    assert not stuck
    assert server.serving
    await verify.check()
    await verify.check()
    assert stuck


async def test_a_server_that_swallows_questions_has_given_no_answers_once_its_limit_is_over(server):
    class Swallowing(ServerInMemory):
        async def infer(self, model, inputs, work=None):
            await asyncio.Future()

    swallowing = Swallowing()
    swallowing.loaded.add("image-safety")
    async with asyncio.timeout(5):
        (found,) = await make_verify(swallowing).check(limit_seconds=0.01)

    assert found.is_silent
    assert "no golden answers within 0.01 s" in found.problems[0].message


async def test_a_model_that_is_asked_early_since_its_calls_take_long_serves_on_while_its_server_is_there(server):
    class Slow(ServerInMemory):
        is_slow = False

        async def infer(self, model, inputs, work=None):
            if self.is_slow:
                await asyncio.Future()
            return await super().infer(model, inputs)

    slow = Slow()
    slow.loaded.add("image-safety")
    verify = make_verify(slow)
    await verify.check()
    slow.is_slow = True
    rounds = [(await verify.check(limit_seconds=0.01, is_early=True))[0] for _ in range(2 * SILENT_ROUNDS)]
    assert all(found.is_busy and not found.is_silent for found in rounds)
    assert slow.serving
    for _ in range(SILENT_ROUNDS):
        await verify.check(limit_seconds=0.01)

    assert not slow.serving


async def test_a_model_whose_breaker_is_open_is_asked_before_the_next_round_is_due(server):
    verify = make_verify(server, probe_at=lambda model: 0.0 if not server.serving else None)
    running = asyncio.create_task(verify.run(3600))
    await until(lambda: server.serving == {"image-safety"})
    running.cancel()

    assert server.loads == ["image-safety"]
