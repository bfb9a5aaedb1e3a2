"""The files of models that a cluster declares: found wherever they may be, and used only if they are the right ones."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baleen_core.errors import IntegrityError, NotFound
from baleen_core.model.parse import parse_model
from baleen_core.model.schema import Asset, Expectation, Golden, GoldenInput, Model, Preprocessing
from baleen_models import files
from baleen_models.files import read_file
from baleen_sidecar.adapters.model_files import FetchedModelFiles, FolderModelFiles
from served_models import IMAGE_MODEL
from word_model import write_word_model

SHIPPED = "shapes-red.png", "f22da799e5c8a7fcfeb895235328a214b3e8bc69ffabdcf178c11d60cb22ecb0"
CAR = "car.png"


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def fetched(root: Path, name: str, data: bytes, *, digests: object = None) -> None:
    """Write a file as `baleen models fetch` keeps it."""
    stored = root / "catalog-name" / "0123456789abcdef"
    put(stored, name, data)
    put(stored, "manifest.json", json.dumps({"digests": digests or {name: sha256_of(data)}}).encode())


def asking(name: str, sha256: str, *, model: str = "image-safety") -> Model:
    golden = Golden(
        input=GoldenInput(name=name, sha256=sha256), expect=(Expectation(signal="gore", value=0, tolerance=0),)
    )
    return replace(IMAGE_MODEL, name=model, golden=(golden,))


@pytest.fixture
def words(tmp_path: Path) -> Model:
    """A text model of a user's own, whose vocabulary lies beside it."""
    (entry,) = write_word_model(tmp_path)["spec"]["models"]
    return parse_model(entry)


def tokens(files: FolderModelFiles, model: Model) -> Any:
    loaded = files.load(model)
    assert loaded.text is not None
    return loaded.text.collate(loaded.text.windows("a kind word", limit=1).rows)["input_ids"]


def test_an_asset_that_lies_beside_its_model_makes_the_recipe_ready(tmp_path, words):
    assert set(tokens(FolderModelFiles(tmp_path), words)[0]) == {0, 1}


def test_an_asset_is_found_by_the_manifest_of_whatever_was_fetched(tmp_path, words):
    vocabulary = tmp_path / "words" / "vocab.json"
    fetched(tmp_path, "vocab.json", vocabulary.read_bytes())
    vocabulary.unlink()

    assert set(tokens(FolderModelFiles(tmp_path), words)[0]) == {0, 1}


def test_a_model_is_ready_without_its_own_file_whose_digest_is_taken_as_declared(tmp_path, words):
    (tmp_path / "words" / "model.onnx").unlink()

    assert FolderModelFiles(tmp_path).load(words).sha256 == words.source.sha256


def test_a_model_of_pictures_needs_no_assets(tmp_path):
    declared = Preprocessing(recipe="owen-s/1", assets=(Asset(name="labels.json", sha256="ab" * 32),))
    loaded = FolderModelFiles(tmp_path / "nothing").load(replace(IMAGE_MODEL, preprocessing=declared))

    assert loaded.image is not None


def test_an_asset_that_is_nowhere_is_named_with_its_digest_and_where_it_was_looked_for(tmp_path, words):
    (tmp_path / "words" / "vocab.json").unlink()
    (asset,) = words.preprocessing.assets

    with pytest.raises(NotFound) as caught:
        FolderModelFiles(tmp_path).load(words)

    assert str(caught.value) == (
        f"model words: there is no file 'vocab.json' with SHA-256 {asset.sha256}, neither below {tmp_path} nor shipped"
    )


def test_an_asset_that_is_another_one_is_named_with_both_digests(tmp_path, words):
    put(tmp_path / "words", "vocab.json", b"{}")
    (asset,) = words.preprocessing.assets

    with pytest.raises(IntegrityError) as caught:
        FolderModelFiles(tmp_path).load(words)

    assert str(caught.value) == (f"file vocab.json of model words: expected {asset.sha256}, found {sha256_of(b'{}')}")


@pytest.mark.parametrize("model", ["image-safety", "plates", "a-name-of-ones-own"])
def test_a_golden_picture_that_is_shipped_is_found_without_any_folder(tmp_path, model):
    data = FolderModelFiles(tmp_path / "nothing").golden_file(asking(*SHIPPED, model=model), SHIPPED[0])

    assert sha256_of(data) == SHIPPED[1]


@pytest.mark.parametrize("model", ["plates", "a-name-of-ones-own"])
def test_a_golden_picture_that_is_shipped_for_one_model_is_found_under_any_name_of_the_model(tmp_path, model):
    shipped = Path(files.__file__).parent / "plates" / "golden" / CAR
    digest = sha256_of(shipped.read_bytes())

    assert FolderModelFiles(tmp_path).golden_file(asking(CAR, digest, model=model), CAR) == shipped.read_bytes()


def test_a_golden_picture_of_a_users_own_is_found_although_one_of_its_name_is_shipped(tmp_path):
    put(tmp_path / "image-safety", SHIPPED[0], b"my own")
    files = FolderModelFiles(tmp_path)

    assert files.golden_file(asking(SHIPPED[0], sha256_of(b"my own")), SHIPPED[0]) == b"my own"
    assert sha256_of(files.golden_file(asking(*SHIPPED), SHIPPED[0])) == SHIPPED[1]


def test_a_golden_picture_that_is_another_one_is_named(tmp_path):
    put(tmp_path / "image-safety", "red.png", b"blue")

    with pytest.raises(IntegrityError, match=r"file red\.png of model image-safety: expected .*, found "):
        FolderModelFiles(tmp_path).golden_file(asking("red.png", sha256_of(b"red")), "red.png")


def test_each_golden_picture_is_held_against_its_own_digest(tmp_path):
    golden = [each for name in (b"red", b"blue") for each in asking(f"{name.decode()}.png", sha256_of(name)).golden]
    model = replace(IMAGE_MODEL, golden=tuple(golden))
    for name in (b"red", b"blue"):
        put(tmp_path / "image-safety", f"{name.decode()}.png", name)

        assert FolderModelFiles(tmp_path).golden_file(model, f"{name.decode()}.png") == name


def test_a_picture_that_no_golden_question_names_is_not_read(tmp_path):
    put(tmp_path / "image-safety", "red.png", b"red")

    with pytest.raises(IntegrityError, match="expected None"):
        FolderModelFiles(tmp_path).golden_file(IMAGE_MODEL, "red.png")


def test_the_right_file_is_found_behind_wrong_ones(tmp_path):
    put(tmp_path / "mine", "red.png", b"blue")
    fetched(tmp_path, "red.png", b"red")

    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red")) == (b"red", sha256_of(b"red"))


def test_what_a_manifest_says_of_a_file_is_not_believed(tmp_path):
    fetched(tmp_path, "red.png", b"blue", digests={"red.png": sha256_of(b"red")})

    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red")) == (None, sha256_of(b"blue"))


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(b"{", id="broken"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"digests": ["red.png"]}', id="no names"),
        pytest.param(b'{"digests": {"red.png": "' + b"0" * 64 + b'"}}', id="another digest"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b"[" * 100_000, id="nested without end"),
    ],
)
def test_a_manifest_that_does_not_name_the_file_hides_no_other(tmp_path, manifest):
    put(tmp_path / "a" / "key", "manifest.json", manifest)
    put(tmp_path / "a" / "key", "red.png", b"red")
    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red")) == (None, "")

    fetched(tmp_path, "red.png", b"red")
    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red")) == (b"red", sha256_of(b"red"))


def test_a_folder_in_the_place_of_a_file_is_none(tmp_path):
    (tmp_path / "mine" / "red.png").mkdir(parents=True)

    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red")) == (None, "")


def test_a_file_that_is_larger_than_the_limit_is_passed_over_and_one_of_just_the_limit_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 8)
    for data, expected in ((b"8 bytes.", b"8 bytes."), (b"9 bytes..", None)):
        put(tmp_path / "mine", "red.png", data)

        assert read_file(tmp_path, "mine", "red.png", sha256_of(data))[0] == expected


def test_a_file_that_is_larger_than_the_limit_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 8)
    put(tmp_path / "mine", "red.png", b"9 bytes..")
    fetched(tmp_path, "red.png", b"red")

    assert read_file(tmp_path, "mine", "red.png", sha256_of(b"red"))[0] == b"red"


class Elsewhere:
    """Where files are fetched from."""

    def __init__(self, *files: bytes) -> None:
        self.files = {sha256_of(data): data for data in files}
        self.asked: list[str] = []

    def fetch(self, sha256: str) -> bytes:
        self.asked.append(sha256)
        if sha256 not in self.files:
            raise NotFound(f"the gateway has no file with SHA-256 {sha256}")
        return self.files[sha256]


def test_what_is_not_in_the_folder_is_fetched_once_and_kept_for_the_next_start(tmp_path, words):
    vocabulary = (tmp_path / "words" / "vocab.json").read_bytes()
    elsewhere, kept = Elsewhere(vocabulary), tmp_path / "kept"

    assert set(tokens(FetchedModelFiles(tmp_path / "nothing", kept, elsewhere.fetch), words)[0]) == {0, 1}
    assert set(tokens(FetchedModelFiles(tmp_path / "nothing", kept, elsewhere.fetch), words)[0]) == {0, 1}
    assert elsewhere.asked == [sha256_of(vocabulary)]
    assert [path.name for path in kept.iterdir()] == [sha256_of(vocabulary)]


def test_what_is_in_the_folder_is_not_fetched(tmp_path, words):
    elsewhere = Elsewhere()
    FetchedModelFiles(tmp_path, tmp_path / "kept", elsewhere.fetch).load(words)

    assert elsewhere.asked == []


def test_a_golden_file_is_at_hand_once_its_model_is_loaded(tmp_path):
    picture = b"a picture"
    elsewhere = Elsewhere(picture)
    files = FetchedModelFiles(tmp_path, tmp_path / "kept", elsewhere.fetch)
    model = asking("own.png", sha256_of(picture))
    files.load(model)
    elsewhere.files.clear()

    assert files.golden_file(model, "own.png") == picture


def test_a_kept_file_that_was_damaged_is_fetched_again(tmp_path):
    picture = b"a picture"
    put(tmp_path / "kept", sha256_of(picture), b"a pict")
    files = FetchedModelFiles(tmp_path, tmp_path / "kept", Elsewhere(picture).fetch)

    assert files.golden_file(asking("own.png", sha256_of(picture)), "own.png") == picture


def test_a_fetched_file_that_is_another_one_is_refused_and_not_kept(tmp_path):
    files = FetchedModelFiles(tmp_path, tmp_path / "kept", lambda sha256: b"another picture")

    with pytest.raises(IntegrityError, match=r"file own\.png of model image-safety"):
        files.golden_file(asking("own.png", sha256_of(b"a picture")), "own.png")
    assert not (tmp_path / "kept").exists()


def test_with_a_disk_that_takes_nothing_it_goes_on_without_keeping(tmp_path):
    picture = b"a picture"
    (tmp_path / "kept").write_text("a file where the folder should be")
    files = FetchedModelFiles(tmp_path, tmp_path / "kept", Elsewhere(picture).fetch)

    assert files.golden_file(asking("own.png", sha256_of(picture)), "own.png") == picture
