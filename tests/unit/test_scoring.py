"""Every model whose signals are wanted is asked for every part of the content, and what is missing is said."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from baleen_core.errors import DeadlineExceeded, ModelError, Overloaded
from baleen_core.model.loaded import LoadedModel
from baleen_core.records import Missing, ModelIdentity
from baleen_sidecar.ports import ANYONE, Work
from baleen_sidecar.testing import FixedInference
from baleen_sidecar.usecases.scoring import INLINE_TEXT_LENGTH, Scores, Scoring
from baleen_sidecar.usecases.serve_models import FixedModels, ModelSet
from tiny_models import Letters, brightness, make_model

TEXT = LoadedModel(model=make_model("words", recipe="tox-block/1"), sha256="aa", text=Letters())
OTHER = LoadedModel(model=make_model("other", recipe="tox-block/1"), sha256="bb", text=Letters())
IMAGE = LoadedModel(model=make_model("looks", recipe="owen-s/1"), sha256="cc", image=brightness)


def has_x(row: np.ndarray) -> float:
    return 0.9 if ord("x") in row else 0.1


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def make_scoring(inference: FixedInference, executor: ThreadPoolExecutor, limit: int = 64) -> Scoring:
    return Scoring(FixedModels([TEXT, OTHER, IMAGE]).current, inference, executor=executor, text_limit_windows=limit)


async def test_the_highest_window_counts_wherever_it_stands(executor):
    scoring = make_scoring(FixedInference({"words.bad": lambda inputs: has_x(inputs["input_ids"])}), executor)

    for text in ("x" + "a" * 50, "a" * 50 + "x", "a" * 25 + "x" + "a" * 25):
        assert (await scoring.text([text], {"words.bad"})).highest() == {"words.bad": 900_000}
    assert (await scoring.text(["a" * 50], {"words.bad"})).highest() == {"words.bad": 100_000}


async def test_a_text_that_is_too_long_is_judged_as_far_as_it_goes_and_says_so(executor):
    scoring = make_scoring(FixedInference({"words.bad": lambda inputs: has_x(inputs["input_ids"])}), executor, limit=3)

    assert (await scoring.text(["abcdefghijkl"], {"words.bad"})).limited == {}
    assert (await scoring.text(["abcdefghijklm"], {"words.bad"})).limited == {"TextTooLong": ("words",)}
    both = await scoring.text(["abcdefghijklm"], {"words.bad", "other.bad"})
    assert both.limited == {"TextTooLong": ("other", "words")}


async def test_a_disguise_is_judged_as_it_stands_and_undone(executor):
    seen: list[str] = []

    def remember(inputs) -> float:
        seen.append("".join(map(chr, inputs["input_ids"])).rstrip("\0"))
        return 0.0

    await make_scoring(FixedInference({"words.bad": remember}), executor).text(["h4te", "hate"], {"words.bad"})

    assert sorted(seen) == ["h4te", "hate"]


async def test_no_batch_is_larger_than_the_model_takes(executor):
    inference = FixedInference()
    await make_scoring(inference, executor).text(["abcdefghijklmnopqrstuvwxyz" * 2], {"words.bad"})

    assert [rows for _, rows in inference.calls] == [4, 4, 4, 1]


async def test_only_models_whose_signals_are_wanted_are_asked(executor):
    inference = FixedInference()
    scores = await make_scoring(inference, executor).text(["abc"], {"words.bad"})

    assert [name for name, _ in inference.calls] == ["words"]
    assert scores.models == (ModelIdentity(name="words", version="3", sha256="aa"),)


async def test_what_is_missing_says_why(executor):
    inference = FixedInference(down={"other"})
    scores = await make_scoring(inference, executor).text(["abc"], {"words.bad", "other.bad", "looks.bad", "gone.bad"})

    assert scores.highest() == {"words.bad": 0}
    assert scores.missing == {
        "other.bad": Missing.FAILED,
        "looks.bad": Missing.NOT_APPLICABLE,
        "gone.bad": Missing.NOT_SERVED,
    }


async def test_a_model_that_fails_in_the_middle_of_a_text_keeps_what_it_said_and_counts_as_failed(executor):
    def fails_at_x(inputs) -> float:
        return float("nan") if ord("x") in inputs["input_ids"] else 0.1

    scores = await make_scoring(FixedInference({"words.bad": fails_at_x}), executor).text(
        ["abcdefghijklmnopqrsx"], {"words.bad", "other.bad"}
    )

    assert scores.highest() == {"words.bad": 100_000, "other.bad": 0}
    assert scores.missing == {"words.bad": Missing.FAILED}


class Unlettered(Letters):
    """Has no tokens for digits."""

    def windows(self, text, *, limit=64):
        if any(map(str.isdigit, text)):
            raise ModelError("tokenizer.json has no tokens for a text")
        return super().windows(text, limit=limit)


@pytest.mark.parametrize("length", [1, INLINE_TEXT_LENGTH + 1], ids=["short", "long"])
async def test_a_text_that_a_recipe_has_no_tokens_for_has_its_model_fail_and_no_other(executor, length):
    models = FixedModels([replace(TEXT, text=Unlettered()), OTHER])
    scoring = Scoring(models.current, FixedInference(), executor=executor, text_limit_windows=64)
    scores = await scoring.text(["a" * length, "4" * length], {"words.bad", "other.bad"})

    assert scores.highest() == {"other.bad": 0}
    assert scores.missing == {"words.bad": Missing.FAILED}


async def test_each_picture_has_a_row_of_its_own(executor):
    inference = FixedInference({"looks.bad": lambda inputs: float(inputs["image"][0]) / 255})
    pictures = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (0, 51, 255, 102, 204)]
    scores = await make_scoring(inference, executor).pictures(pictures, {"looks.bad"})

    assert [row["looks.bad"] for row in scores.rows] == [0, 200_000, 1_000_000, 400_000, 800_000]
    assert [rows for _, rows in inference.calls] == [4, 1]


async def test_a_score_that_is_no_number_is_a_failure_and_never_a_score(executor):
    inference = FixedInference({"words.bad": float("nan")})
    scores = await make_scoring(inference, executor).text(["abc"], {"words.bad"})

    assert scores.highest() == {}
    assert scores.missing == {"words.bad": Missing.FAILED}


@settings(deadline=None)
@given(text=st.text(alphabet="abx ", min_size=1, max_size=40))
async def test_padding_never_lowers_a_score(executor, text):
    scoring = make_scoring(FixedInference({"words.bad": lambda inputs: has_x(inputs["input_ids"])}), executor)
    bare = (await scoring.text(["x"], {"words.bad"})).highest()
    padded = (await scoring.text([f"{text}x{text}"], {"words.bad"})).highest()

    assert padded["words.bad"] >= bare["words.bad"]


def test_the_highest_of_no_rows_is_nothing():
    assert Scores(rows=({}, {}), missing={}, models=()).highest() == {}


def test_signals_are_named_as_policies_name_them():
    model = make_model("image-safety", recipe="owen-s/1", signals=("gore", "sexual"))

    assert replace(IMAGE, model=model).signal_names() == ("image-safety.gore", "image-safety.sexual")


async def test_models_may_change_between_two_requests(executor):
    models = [ModelSet(), ModelSet(models=(TEXT,), signals=frozenset({"words.bad"})), ModelSet()]
    current = iter(models)
    scoring = Scoring(lambda: next(current), FixedInference(default=0.5), executor=executor, text_limit_windows=64)
    found = [await scoring.text(["abc"], {"words.bad"}) for _ in models]

    assert [each.highest() for each in found] == [{}, {"words.bad": 500_000}, {}]
    assert [each.missing for each in found] == [
        {"words.bad": Missing.NOT_SERVED},
        {},
        {"words.bad": Missing.NOT_SERVED},
    ]


async def test_a_model_that_is_declared_and_waits_has_failed_where_it_applies(executor):
    models = ModelSet(waiting=(TEXT.model, IMAGE.model))
    scoring = Scoring(lambda: models, FixedInference(), executor=executor, text_limit_windows=64)
    scores = await scoring.text(["abc"], {"words.bad", "looks.bad"})

    assert scores.missing == {"words.bad": Missing.FAILED, "looks.bad": Missing.NOT_APPLICABLE}


async def test_while_a_newer_one_waits_the_served_model_answers(executor):
    newer = replace(TEXT.model, version="4", signals=(*TEXT.model.signals, replace(TEXT.model.signals[0], name="new")))
    models = ModelSet(models=(TEXT,), waiting=(newer,))
    scoring = Scoring(lambda: models, FixedInference(default=0.5), executor=executor, text_limit_windows=64)
    scores = await scoring.text(["abc"], {"words.bad", "words.new"})

    assert (scores.highest(), scores.missing) == ({"words.bad": 500_000}, {"words.new": Missing.FAILED})
    assert [identity.version for identity in scores.models] == ["3"]


async def test_a_model_that_stays_down_is_logged_once_and_again_when_it_answers(executor, caplog):
    caplog.set_level("INFO")
    inference = FixedInference(down=["words"])
    scoring = make_scoring(inference, executor)
    for _ in range(3):
        await scoring.text(["abc"], {"words.bad"})
    inference.down.clear()
    for _ in range(3):
        await scoring.text(["abc"], {"words.bad"})

    assert [record.message for record in caplog.records] == ["model failed", "model answers again"]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param({"a", "b"}, 0.0, id="all of them"),
        pytest.param({"b"}, 0.0, id="the last one"),
        pytest.param({"a", "not asked"}, 2.0, id="not the last one"),
        pytest.param(set(), 3.0, id="none of them"),
    ],
)
def test_how_long_others_were_waited_for_is_what_comes_after_the_last_of_ones_own(own, expected):
    assert Scores(rows=(), missing={}, models=(), seconds={"a": 1.0, "b": 3.0}).seconds_apart(own) == expected


async def test_of_every_model_that_was_asked_it_is_known_when_it_had_answered_or_failed(executor):
    inference = FixedInference(down={"other"})
    found = await make_scoring(inference, executor).text(["abcd"], {"words.bad", "other.bad", "looks.bad"})

    assert found.seconds.keys() == {"words", "other"}
    assert min(found.seconds.values()) >= 0
    assert (await make_scoring(inference, executor).text(["abcd"], set())).seconds_apart({"words"}) == 0


def falling_back(loaded: LoadedModel, fallback: str) -> LoadedModel:
    signals = tuple(replace(each, fallback=fallback) for each in loaded.model.signals)
    return replace(loaded, model=replace(loaded.model, signals=signals))


class Fallen:
    """A model of texts and one of pictures, whose signals have fallbacks of other models."""

    def __init__(self, executor: ThreadPoolExecutor, **inference: object) -> None:
        self.inference = FixedInference({"words.bad": 0.2, "other.bad": 0.7, "views.bad": 0.6}, **inference)
        views = replace(IMAGE, model=make_model("views", recipe="owen-s/1"))
        models = [falling_back(TEXT, "other.bad"), OTHER, falling_back(IMAGE, "views.bad"), views]
        self.scoring = Scoring(FixedModels(models).current, self.inference, executor=executor, text_limit_windows=64)

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.inference.calls]


async def test_a_fallback_is_asked_for_only_once_the_model_failed(executor):
    fallen = Fallen(executor)
    assert (await fallen.scoring.text(["abc"], {"words.bad"})).fallbacks == {}
    assert fallen.asked == ["words"]

    fallen.inference.down.add("words")
    scores = await fallen.scoring.text(["abc"], {"words.bad"})

    assert (scores.highest(), scores.missing, scores.fallbacks) == (
        {"words.bad": 700_000},
        {},
        {"words.bad": "other.bad"},
    )
    assert [identity.name for identity in scores.models] == ["other", "words"]
    assert fallen.asked == ["words", "words", "other"]


async def test_a_fallback_that_was_asked_anyway_is_not_asked_twice(executor):
    fallen = Fallen(executor, down={"words"})
    scores = await fallen.scoring.text(["abc"], {"words.bad", "other.bad"})

    assert scores.highest() == {"words.bad": 700_000, "other.bad": 700_000}
    assert sorted(fallen.asked) == ["other", "words"]


async def test_a_fallback_that_fails_leaves_the_signal_missing_and_nobody_stands_in_for_it(executor):
    fallen = Fallen(executor, down={"words", "other"})
    scores = await fallen.scoring.text(["abc"], {"words.bad"})

    assert (scores.highest(), scores.missing, scores.fallbacks) == ({}, {"words.bad": Missing.FAILED}, {})


async def test_what_was_seen_before_a_model_failed_counts_beside_its_fallback(executor):
    fallen = Fallen(executor)
    fallen.inference.scores["words.bad"] = lambda inputs: float("nan") if ord("x") in inputs["input_ids"] else 0.9
    scores = await fallen.scoring.text(["abcdefghijklmnopqrsx"], {"words.bad"})

    assert (scores.highest(), scores.missing) == ({"words.bad": 900_000}, {})


async def test_each_picture_has_the_score_of_the_fallback_for_it(executor):
    fallen = Fallen(executor, down={"looks"})
    fallen.inference.scores["views.bad"] = lambda inputs: float(inputs["image"][0]) / 255
    pictures = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (51, 102)]
    scores = await fallen.scoring.pictures(pictures, {"looks.bad"})

    assert [row["looks.bad"] for row in scores.rows] == [200_000, 400_000]
    assert (await fallen.scoring.pictures([], {"looks.bad"})).missing == {}


async def test_a_model_that_is_declared_and_waits_has_a_fallback_too(executor):
    models = ModelSet(models=(OTHER,), waiting=(falling_back(TEXT, "other.bad").model,))
    scoring = Scoring(lambda: models, FixedInference(default=0.5), executor=executor, text_limit_windows=64)

    assert (await scoring.text(["abc"], {"words.bad"})).fallbacks == {"words.bad": "other.bad"}


async def test_what_a_fallback_did_not_see_was_not_seen_for_the_model_that_failed(executor):
    models = ModelSet(models=(OTHER,), waiting=(falling_back(TEXT, "other.bad").model,))
    scoring = Scoring(lambda: models, FixedInference(), executor=executor, text_limit_windows=3)

    assert (await scoring.text(["abcdefghijklm"], {"words.bad"})).limited == {"TextTooLong": ("other", "words")}


class Busy(FixedInference):
    """Has each call wait, or refuses it."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(default=0.5)
        self.error = error

    async def infer(self, model, inputs, work=ANYONE):
        work.on_wait(0.25 if model.name == "words" else 0.1)
        if self.error is not None and model.name == "words":
            raise self.error
        return await super().infer(model, inputs, work)


async def test_a_refusal_is_raised_as_it_is_and_ends_the_other_calls(executor):
    refusal = Overloaded("model words: too much to do", retry_after_seconds=7)
    with pytest.raises(Overloaded) as raised:
        await make_scoring(Busy(refusal), executor).text(["abc"], {"words.bad", "other.bad"})

    # Each caller has an error of its own.
    assert (str(raised.value), raised.value.retry_after_seconds) == (str(refusal), 7)
    with pytest.raises(DeadlineExceeded):
        await make_scoring(Busy(DeadlineExceeded("passed")), executor).text(["abc"], {"words.bad"})


async def test_an_error_of_our_own_is_not_taken_for_a_refusal(executor):
    with pytest.raises(ExceptionGroup):
        await make_scoring(Busy(KeyError("words")), executor).text(["abc"], {"words.bad", "other.bad"})


async def test_the_wait_is_that_of_the_model_that_had_it_wait_longest(executor):
    heard: list[float] = []
    scores = await make_scoring(Busy(), executor).text(
        ["abcdefghijklmnopqrst"], {"words.bad", "other.bad"}, Work(on_wait=heard.append)
    )

    assert scores.queue_seconds == 0.5  # two batches of four windows
    assert sorted(heard) == [0.1, 0.1, 0.25, 0.25]
