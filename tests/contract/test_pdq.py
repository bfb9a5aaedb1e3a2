from pathlib import Path

import pytest
from PIL import Image

from baleen_sidecar.adapters.pdq import PdqHash, pdq_hash

GOLDEN = Path(__file__).parents[1] / "data" / "golden_tensors"
PHOTO = Image.open(GOLDEN / "landscape.jpg").convert("RGB")
OTHER = Image.open(GOLDEN / "portrait.jpg").convert("RGB")


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def test_a_hash_is_32_bytes_and_always_the_same():
    assert len(pdq_hash(PHOTO)) == 32
    assert PdqHash().hash(PHOTO) == pdq_hash(PHOTO.copy())


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(PHOTO.resize((300, 200)), id="smaller"),
        pytest.param(PHOTO.resize((2000, 1334)), id="larger"),
        pytest.param(PHOTO.point(lambda level: min(255, level + 20)), id="brighter"),
        pytest.param(PHOTO.convert("L").convert("RGB"), id="grey"),
    ],
)
def test_a_look_alike_is_near(altered):
    assert distance(pdq_hash(altered), pdq_hash(PHOTO)) <= 31


def test_another_picture_is_far():
    assert distance(pdq_hash(OTHER), pdq_hash(PHOTO)) > 90


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (64, 64)])
def test_a_picture_of_any_size_has_a_hash(size):
    assert len(pdq_hash(Image.new("RGB", size, "red"))) == 32
