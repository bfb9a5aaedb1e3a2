"""What models said of a content before is what they would say again; only then are they not asked."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from baleen_core.errors import ContentError, Overloaded
from baleen_core.model.loaded import LoadedModel
from baleen_core.priority import Priority
from baleen_core.records import Missing, ModelIdentity
from baleen_sidecar.ports import ANYONE, ModelScores, Tensors, Work
from baleen_sidecar.testing import FixedInference, MemoryScoreCache
from baleen_sidecar.usecases.scoring import Scores, Scoring
from baleen_sidecar.usecases.serve_models import FixedModels, ModelSet
from held import HeldInference
from tiny_models import Letters, brightness, make_model

TEXT = LoadedModel(model=make_model("words", recipe="tox-block/1"), sha256="aa", text=Letters())
OTHER = LoadedModel(model=make_model("other", recipe="tox-block/1"), sha256="bb", text=Letters())
IMAGE = LoadedModel(model=make_model("looks", recipe="owen-s/1"), sha256="cc", image=brightness)
DIGEST = "ab" * 32
BOTH = ("words.bad", "other.bad")


def first_letter(inputs: Tensors) -> float:
    return (int(inputs["input_ids"][0]) % 100) / 100


class Held(HeldInference):
    """Refuses those whose priority is among `refused`."""

    def __init__(self) -> None:
        super().__init__({"words.bad": first_letter})
        self.refused: set[Priority] = set()

    async def infer(self, model, inputs, work=ANYONE):
        found = await super().infer(model, inputs, work)
        if work.priority in self.refused:
            raise Overloaded("others go first")
        return found


class Setting:
    def __init__(self, executor: ThreadPoolExecutor, inference: FixedInference | None = None, **options) -> None:
        scores = {"words.bad": first_letter, "other.bad": 0.5, "looks.bad": lambda row: float(row["image"][0]) / 255}
        self.inference = inference or FixedInference(scores)
        self.cache = MemoryScoreCache()
        self.opened = 0
        options = {"text_limit_windows": 3, "cache": self.cache} | options
        models = FixedModels([TEXT, OTHER, IMAGE])
        self.scoring = Scoring(models.current, self.inference, executor=executor, **options)

    async def text(self, text: str, wanted=BOTH, work: Work = ANYONE) -> Scores:
        return await self.scoring.text([text], wanted, work)

    async def picture(self, level: int = 51) -> Scores:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Image.Image]:
            self.opened += 1
            yield Image.new("RGB", (2, 2), (level, 0, 0))

        return await self.scoring.picture(DIGEST, opened, ["looks.bad"])

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.inference.calls]


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def essence(scores: Scores) -> tuple[object, ...]:
    return scores.rows, scores.missing, scores.models, scores.limited


async def test_the_second_time_no_model_is_asked_and_the_answer_says_who_gave_it(executor) -> None:
    setting = Setting(executor)
    first, second = await setting.text("abc"), await setting.text("abc")

    assert sorted(setting.asked) == ["other", "words"]
    assert essence(second) == essence(first)
    assert (first.cached, second.cached) == ((), ("other", "words"))
    assert second.models == (OTHER.identity, TEXT.identity)


async def test_only_the_models_that_have_not_said_it_are_asked(executor) -> None:
    setting = Setting(executor)
    await setting.text("abc", ["words.bad"])
    both = await setting.text("abc")

    assert setting.asked == ["words", "other"]
    assert both.cached == ("words",)
    assert both.highest() == {"words.bad": 970_000, "other.bad": 500_000}


async def test_a_limit_that_was_hit_is_remembered_with_the_scores(executor) -> None:
    setting = Setting(executor)
    first, second = await setting.text("a" * 13), await setting.text("a" * 13)

    assert second.cached == ("other", "words")
    assert essence(second) == essence(first)
    assert second.limited == {"TextTooLong": ("other", "words")}


async def test_a_failure_is_not_remembered_nor_what_was_said_before_it(executor) -> None:
    setting = Setting(executor)
    setting.inference.down.add("words")
    failed = await setting.text("abc")
    setting.inference.down.clear()
    after = await setting.text("abc")

    assert failed.missing == {"words.bad": Missing.FAILED}
    assert after.missing == {}
    assert after.cached == ("other",)


async def test_a_text_that_models_read_otherwise_is_another(executor) -> None:
    setting = Setting(executor)
    await setting.scoring.text(["abc", "abd"], BOTH)
    await setting.scoring.text(["abcabd"], BOTH)
    await setting.scoring.text(["abd", "abc"], BOTH)

    assert len(setting.asked) == 6


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(TEXT, sha256="dd"), id="another file"),
        pytest.param(replace(TEXT, model=replace(TEXT.model, version="4")), id="another version"),
    ],
)
async def test_another_model_of_that_name_is_asked(executor, changed: LoadedModel) -> None:
    current = [ModelSet(models=(TEXT,), signals=frozenset({"words.bad"}))]
    inference = FixedInference({"words.bad": 0.1})
    scoring = Scoring(lambda: current[-1], inference, executor=executor, text_limit_windows=3, cache=MemoryScoreCache())
    await scoring.text(["abc"], ["words.bad"])
    inference.scores["words.bad"] = 0.9
    current.append(ModelSet(models=(changed,), signals=frozenset({"words.bad"})))
    after = await scoring.text(["abc"], ["words.bad"])

    assert after.highest() == {"words.bad": 900_000}
    assert after.models == (changed.identity,)
    assert after.cached == ()


async def test_a_picture_that_was_scored_is_not_even_opened(executor) -> None:
    setting = Setting(executor)
    first, second = await setting.picture(), await setting.picture()

    assert (setting.opened, setting.asked) == (1, ["looks"])
    assert first.highest() == second.highest() == {"looks.bad": 200_000}
    assert second.cached == ("looks",)


async def test_a_picture_is_opened_even_if_no_model_wants_to_see_it(executor) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Image.Image]:
        raise ContentError("the image is broken")
        yield

    with pytest.raises(ContentError, match="broken"):
        await Setting(executor).scoring.picture(DIGEST, broken, ["nobody.bad"])
    callers = (Setting(executor).scoring.picture(DIGEST, broken, ["looks.bad"]) for _ in range(2))
    assert [str(each) for each in await asyncio.gather(*callers, return_exceptions=True)] == ["the image is broken"] * 2


async def test_equal_texts_at_one_time_are_asked_once(executor) -> None:
    setting = Setting(executor, Held())
    callers = [asyncio.create_task(setting.text("abc", work=Work(tenant=f"t{place}"))) for place in range(20)]
    await asyncio.sleep(0)
    setting.inference.released.set()
    found = await asyncio.gather(*callers)

    assert sorted(setting.asked) == ["other", "words"]
    assert (setting.scoring.joined, setting.scoring.under_way) == (19, 0)
    assert len({str(essence(each)) for each in found}) == 1
    # They waited for a model.
    assert {each.cached for each in found} == {()}


async def test_what_only_one_is_refused_is_asked_again_for_the_others(executor) -> None:
    setting = Setting(executor, Held())
    setting.inference.refused.add(Priority.LOW)
    low = asyncio.create_task(setting.text("abc", work=Work(priority=Priority.LOW, deadline=1.0)))
    await asyncio.sleep(0)
    high = asyncio.create_task(setting.text("abc", work=Work(priority=Priority.HIGH, deadline=1.0)))
    await asyncio.sleep(0)
    setting.inference.released.set()

    with pytest.raises(Overloaded):
        await low
    assert (await high).highest()["words.bad"] == 970_000


async def test_with_tenants_apart_none_has_what_another_sent(executor) -> None:
    apart, together = Setting(executor, is_cached_by_tenant=True), Setting(executor)
    for setting in (apart, together):
        for tenant in ("a", "b", "a"):
            await setting.text("abc", ["words.bad"], Work(tenant=tenant))

    assert (len(apart.asked), len(together.asked)) == (2, 1)


GOOD = ModelScores(model=TEXT.identity, signals={"words.bad": 5})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(replace(GOOD, model=ModelIdentity(name="words", version="3", sha256="zz")), id="another model"),
        pytest.param(replace(GOOD, signals={}), id="no signals"),
        pytest.param(replace(GOOD, signals={"words.bad": 5, "words.good": 5}), id="more signals"),
        pytest.param(replace(GOOD, signals={"other.bad": 5}), id="signals of another"),
        pytest.param(replace(GOOD, limits=("Anything",)), id="a limit that there is not"),
    ],
)
async def test_what_the_model_would_not_say_is_not_believed(executor, wrong: ModelScores) -> None:
    setting = Setting(executor)

    async def get(keys, *, tenant=""):
        return dict.fromkeys(keys, wrong)

    setting.cache.get = get  # type: ignore[method-assign]
    scores = await setting.text("abc", ["words.bad"])

    assert scores.highest() == {"words.bad": 970_000}
    assert scores.cached == ()


@given(
    texts=st.lists(st.sampled_from(["abc", "abd", "b" * 13, "x"]), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
async def test_with_and_without_a_cache_the_answers_are_the_same_in_any_order(executor, texts, order) -> None:
    with_cache, without = Setting(executor), Setting(executor, cache=None)
    tasks = []
    for text in texts:
        work = Work(priority=order.choice(list(Priority)), tenant=order.choice(["", "a"]))
        tasks.append(asyncio.create_task(with_cache.text(text, order.sample(BOTH, order.randint(1, 2)), work)))
        if order.random() < 0.5:
            await asyncio.sleep(0)
    found = await asyncio.gather(*tasks)

    for text, scores in zip(texts, found, strict=True):
        alone = await without.text(text)
        said = {name: score for name, score in alone.highest().items() if name in scores.highest()}
        assert scores.highest() == said
        assert set(scores.limited) == set(alone.limited)
        assert scores.missing == {}


async def test_a_model_that_fails_in_a_shared_question_fails_for_everybody(executor) -> None:
    setting = Setting(executor, Held())
    setting.inference.down.add("words")
    callers = [asyncio.create_task(setting.text("abc")) for _ in range(3)]
    await asyncio.sleep(0)
    setting.inference.released.set()

    assert [each.missing for each in await asyncio.gather(*callers)] == [{"words.bad": Missing.FAILED}] * 3
