"""The operator's golden questions: made of files that are what the deployment names, or it says which one is not."""

import contextlib
import hashlib
import json
from dataclasses import replace
from io import BytesIO

import psutil
import pytest
from PIL import Image

from baleen_core.errors import IntegrityError, ModelError, ModelUnavailable, NotFound
from baleen_core.model.parse import parse_model
from baleen_core.model.schema import Expectation, Golden, GoldenInput
from baleen_operator.adapters.model_files import FolderModelFiles, make_questions
from baleen_operator.adapters.triton import GrpcTriton
from served_models import IMAGE_MODEL
from word_model import write_word_model


def picture(colour="red", **options):
    written = BytesIO()
    Image.new("RGB", (20, 10), colour).save(written, format="PNG", **options)
    return written.getvalue()


def asking(name, data):
    question = GoldenInput(name=name, sha256=hashlib.sha256(data).hexdigest())
    expect = (Expectation(signal="sexual", value=0, tolerance=0),)
    return replace(IMAGE_MODEL, golden=(Golden(input=question, expect=expect),))


def put(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def test_a_picture_beside_a_model_of_a_users_own_becomes_one_row(tmp_path):
    put(tmp_path / "image-safety", "red.png", picture())
    ((batch,),) = make_questions(tmp_path, asking("red.png", picture()))

    assert batch["image"].shape == (1, 3, 224, 224)


def test_shipped_pictures_are_found_with_an_empty_folder(tmp_path):
    name, sha256 = "shapes-red.png", "f22da799e5c8a7fcfeb895235328a214b3e8bc69ffabdcf178c11d60cb22ecb0"
    golden = Golden(input=GoldenInput(name=name, sha256=sha256), expect=())
    ((batch,),) = make_questions(tmp_path / "nothing", replace(IMAGE_MODEL, golden=(golden,)))

    assert batch["image"].shape == (1, 3, 224, 224)


def test_assets_are_found_by_the_manifest_of_whatever_was_fetched(tmp_path):
    (entry,) = write_word_model(tmp_path)["spec"]["models"]
    vocabulary = (tmp_path / "words" / "vocab.json").read_bytes()
    (tmp_path / "words" / "vocab.json").unlink()
    stored = tmp_path / "fetched" / "0123456789abcdef"
    put(stored, "vocab.json", vocabulary)
    put(
        stored,
        "manifest.json",
        json.dumps({"digests": {"vocab.json": hashlib.sha256(vocabulary).hexdigest()}}).encode(),
    )
    questions = make_questions(tmp_path, parse_model(entry))

    assert [batch["input_ids"].shape for (batch,) in questions] == [(1, 100)] * 3


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        pytest.param(None, NotFound, "there is no file 'red.png' with SHA-256", id="not there"),
        pytest.param(picture("blue"), IntegrityError, "file red.png of model image-safety", id="another picture"),
    ],
)
def test_a_file_that_is_not_the_one_is_named(tmp_path, data, error, says):
    if data is not None:
        put(tmp_path / "image-safety", "red.png", data)

    with pytest.raises(error, match=says):
        make_questions(tmp_path, asking("red.png", picture()))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"no picture", id="no picture"),
        pytest.param(picture()[:45], id="truncated"),
    ],
)
def test_bytes_that_are_no_picture_are_said_to_be_none(tmp_path, data):
    put(tmp_path / "image-safety", "red.png", data)

    with pytest.raises(ModelError, match=r"golden file red\.png is not a picture that can be read"):
        make_questions(tmp_path, asking("red.png", data))


@pytest.mark.parametrize(
    "manifest", [b"{", b"[]", b'{"digests": []}', b"{}"], ids=["broken", "list", "no names", "empty"]
)
def test_a_manifest_that_cannot_be_read_names_no_file(tmp_path, manifest):
    put(tmp_path / "other" / "key", "manifest.json", manifest)
    put(tmp_path / "other" / "key", "red.png", picture())

    with pytest.raises(NotFound):
        make_questions(tmp_path, asking("red.png", picture()))


async def test_questions_are_made_in_a_process_of_their_own_and_what_is_wrong_comes_back_whole(tmp_path):
    put(tmp_path / "image-safety", "red.png", picture())
    files = FolderModelFiles(tmp_path)
    ((batch,),) = await files.questions(asking("red.png", picture()))
    with pytest.raises(IntegrityError) as another:
        await files.questions(asking("red.png", picture("blue")))
    with pytest.raises(NotFound):
        await files.questions(asking("green.png", picture("green")))
    for child in psutil.Process().children():
        # Of other tests there may be one that has ended, which has no command line.
        with contextlib.suppress(psutil.ZombieProcess):
            if any("spawn_main" in argument for argument in child.cmdline()):
                child.kill()
    with pytest.raises(ModelUnavailable, match="the process that makes golden questions ended"):
        await files.questions(asking("red.png", picture()))
    ((again,),) = await files.questions(asking("red.png", picture()))

    assert batch["image"].shape == again["image"].shape == (1, 3, 224, 224)
    assert another.value.expected == hashlib.sha256(picture("blue")).hexdigest()


async def test_models_that_take_long_to_load_keep_nobody_from_asking():
    triton = GrpcTriton(askers=1, loaders=1)
    async with triton.connect("127.0.0.1:1", to_load=True), triton.connect("127.0.0.1:1") as server:
        assert server is not None
