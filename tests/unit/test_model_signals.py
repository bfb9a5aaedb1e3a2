"""Scores are read from tensors by place, and nonsense is never a score."""

from dataclasses import replace

import numpy as np
import pytest

from baleen_core.errors import ModelUnavailable
from baleen_core.model.golden import compare_golden
from baleen_core.model.schema import Expectation, Golden, GoldenInput, ModelSignal
from baleen_core.model.signals import read_signals
from served_models import IMAGE_MODEL

DETECTOR = replace(
    IMAGE_MODEL,
    signals=(
        ModelSignal(name="plate", output="conf", index=1),
        ModelSignal(name="heat", output="map"),
    ),
)


def test_a_score_is_read_at_its_index_of_its_row():
    outputs = {"probabilities": np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], np.float32)}

    assert read_signals(IMAGE_MODEL, outputs, 1) == {"image-safety.gore": 500_000, "image-safety.sexual": 250_000}


def test_the_highest_over_all_other_axes_counts_and_without_an_index_over_the_whole_output():
    outputs = {
        "conf": np.array([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]], np.float32),
        "map": np.array([[[[0.1, 0.75], [0.3, 0.2]]]], np.float32),
    }

    assert read_signals(DETECTOR, outputs, 0) == {"image-safety.plate": 600_000, "image-safety.heat": 750_000}


def test_a_float32_of_seventy_percent_is_seventy_percent():
    outputs = {"probabilities": np.array([[0.7, 0.3, 0]], np.float32)}

    assert read_signals(IMAGE_MODEL, outputs, 0)["image-safety.gore"] == 700_000


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param({"probabilities": np.array([[np.nan, 0, 0]], np.float32)}, id="NaN"),
        pytest.param({"probabilities": np.array([[np.inf, 0, 0]], np.float32)}, id="infinity"),
        pytest.param({"probabilities": np.array([[1.5, 0, 0]], np.float32)}, id="above one"),
        pytest.param({"probabilities": np.array([[-0.5, 0, 0]], np.float32)}, id="below zero"),
        pytest.param({"probabilities": np.empty((0, 3), np.float32)}, id="no rows"),
        pytest.param({"probabilities": np.empty((1, 0), np.float32)}, id="empty, as numpy 2 makes it"),
        pytest.param({}, id="no output"),
    ],
)
def test_what_is_no_score_makes_the_model_unavailable_and_names_it(outputs):
    with pytest.raises(ModelUnavailable, match="model image-safety 3, signal gore: "):
        read_signals(IMAGE_MODEL, outputs, 0)


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        pytest.param(900_000, True, id="exact"),
        pytest.param(910_000, True, id="at the upper edge"),
        pytest.param(890_000, True, id="at the lower edge"),
        pytest.param(910_001, False, id="just above"),
        pytest.param(889_999, False, id="just below"),
    ],
)
def test_a_golden_answer_is_right_within_its_tolerance(found, is_right):
    expected = Expectation(signal="sexual", value=900_000, tolerance=10_000)
    model = replace(IMAGE_MODEL, golden=(Golden(input=GoldenInput(text="x"), expect=(expected,)),))

    assert (compare_golden(model, 0, {"image-safety.sexual": found}) == ()) == is_right


def test_a_wrong_golden_answer_names_expected_found_and_tolerance():
    expected = Expectation(signal="sexual", value=973_100, tolerance=10_000)
    model = replace(IMAGE_MODEL, golden=(Golden(input=GoldenInput(text="x"), expect=(expected,)),))

    assert [str(problem) for problem in compare_golden(model, 0, {"image-safety.sexual": 123_456})] == [
        "models[image-safety].golden[0].expect[0]: signal 'sexual' is 12.3456%; expected 97.31% within 1%"
    ]
    assert "has no score" in str(compare_golden(model, 0, {})[0])
