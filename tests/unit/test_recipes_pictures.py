from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baleen_core.errors import ModelError
from baleen_core.model.recipes import find_recipe, image_recipe
from baleen_core.model.recipes.pictures import letterbox_scale

GOLDEN = Path(__file__).parents[1] / "data" / "golden_tensors"
PICTURES = {"landscape": "landscape.jpg", "portrait": "portrait.jpg", "tiny": "tiny.png"}
with np.load(GOLDEN / "tensors.npz") as kept:
    TENSORS = dict(kept)
BGR_MEAN = np.array([104, 117, 123], np.float32)


def open_golden(name: str) -> Image.Image:
    return Image.open(GOLDEN / PICTURES[name]).convert("RGB")


# Levels of 256: the greatest difference and the mean one. libvips and Pillow resample a little differently, most where
# a tiny picture is blown up; JPEG decoders may differ by a level.
TOLERANCES = {
    "owen-s.landscape": (16, 0.7),
    "owen-s.portrait": (16, 1.0),
    "owen-s.tiny": (32, 2.2),
    "open-nsfw": (4, 0.2),
    "nsfwjs": (2, 0.6),
    "centerface": (2, 0.1),
    "clp-det": (2, 0.1),
}
# What the models' files do in front of their graphs: the graph's order of colours, what is taken off, and of axes.
IN_FRONT = {
    "owen-s": lambda levels: levels.transpose(2, 0, 1),
    "open-nsfw": lambda levels: levels[:, :, ::-1] - BGR_MEAN,
    "nsfwjs": lambda levels: levels,
    "centerface": lambda levels: levels.transpose(2, 0, 1),
    "clp-det": lambda levels: (levels[:, :, ::-1] - BGR_MEAN).transpose(2, 0, 1),
}
RECIPES = [f"{name}/{version}" for name in IN_FRONT for version in (1, 2)]


@pytest.mark.parametrize("key", TENSORS)
def test_a_recipe_makes_what_the_models_own_package_makes(key):
    name, picture = key.split(".")
    expected = TENSORS[key].astype(np.float32) - (BGR_MEAN if name == "open-nsfw" else 0)

    row = image_recipe(f"{name}/1")(open_golden(picture))

    worst, mean = TOLERANCES.get(key) or TOLERANCES[name]
    difference = np.abs(row - expected)
    assert row.shape == expected.shape
    assert (row.dtype, row.flags.c_contiguous) == (np.float32, True)
    assert difference.max() <= worst
    assert difference.mean() <= mean


@pytest.mark.parametrize("name", IN_FRONT)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_recipe_of_levels_leaves_out_what_the_model_has_in_front_and_nothing_else(name, picture):
    levels = image_recipe(f"{name}/2")(open_golden(picture))

    assert (levels.dtype, levels.shape[2], levels.flags.c_contiguous) == (np.uint8, 3, True)
    assert (IN_FRONT[name](levels) == image_recipe(f"{name}/1")(open_golden(picture))).all()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (224, 224), (640, 640), (2000, 1500)])
def test_pictures_of_any_size_share_a_batch(name, size):
    rows = [image_recipe(name)(picture) for picture in (Image.new("RGB", size, "white"), open_golden("tiny"))]

    batch = np.stack(rows)

    assert np.isfinite(batch).all()


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        pytest.param("owen-s/1", lambda row: row[0].mean(), id="owen-s takes red first"),
        pytest.param("nsfwjs/1", lambda row: row[:, :, 0].mean(), id="nsfwjs takes red first"),
        pytest.param("open-nsfw/1", lambda row: row[:, :, 2].mean() + 123, id="open-nsfw takes red last"),
        pytest.param("centerface/1", lambda row: row[0].mean(), id="centerface takes red first"),
        pytest.param("clp-det/1", lambda row: row[2].mean() + 123, id="clp-det takes red last"),
    ],
)
def test_colours_stand_where_the_model_looks_for_them(name, channel):
    red = Image.new("RGB", (640, 640), (255, 0, 0))

    assert channel(image_recipe(name)(red)) == pytest.approx(255, abs=2)


def test_a_recipe_leaves_the_picture_as_it_was():
    picture = open_golden("tiny")
    before = picture.tobytes()

    for name in RECIPES:
        image_recipe(name)(picture)

    assert picture.tobytes() == before


@pytest.mark.parametrize(
    ("size", "scale"), [((320, 200), 1.0), ((640, 640), 1.0), ((1280, 720), 0.5), ((100, 6400), 0.1)]
)
def test_a_letterboxed_picture_is_shrunk_and_never_blown_up(size, scale):
    row = image_recipe("centerface/1")(Image.new("RGB", size, "white"))

    width, height = (round(side * scale) for side in size)
    assert letterbox_scale(*size) == pytest.approx(scale)
    assert (row[:, :height, :width] == 255).all()
    assert row.sum() == 255 * 3 * width * height


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("owen-s/3", "did you mean owen-s/2", id="a version that is not there"),
        pytest.param("opennsfw/1", "did you mean open-nsfw/1", id="a typo"),
        pytest.param("zzz", "the recipes are centerface/1, centerface/2, clp-det/1", id="nothing like it"),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ModelError, match=message):
        find_recipe(name)


def test_a_text_recipe_takes_no_pictures():
    assert find_recipe("me5/1").accepts == "text"

    with pytest.raises(ModelError, match="takes text, not images"):
        image_recipe("me5/1")
