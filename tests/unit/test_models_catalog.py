"""The shipped catalogue is consistent, and a wrong one is refused with everything that is wrong with it."""

import re
from importlib.resources import files

import pytest

from baleen_cli.models.catalog import Converter, choose, load_catalog
from baleen_cli.models.store import recipe_key
from baleen_core.errors import ModelError, NotFound
from baleen_core.model.parse import parse_model
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import DataType
from packages import WHEEL, digest, make_document, write_source

SOURCES = pytest.mark.parametrize("source", load_catalog(), ids=lambda source: source.name)
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_GOLDEN_BYTES = 60_000


def test_the_catalogue_holds_the_shipped_models_once_each_and_in_order():
    names = [source.name for source in load_catalog()]

    assert names == ["faces", "image-safety", "nsfwjs", "open-nsfw", "plates", "text-safety", "toxicity"]


@SOURCES
def test_an_entry_is_what_a_model_deployment_takes(source):
    model = parse_model(source.entry)

    assert (model.name, model.version) == (source.name, source.version)
    assert [signal.name for signal in model.signals if not re.fullmatch(r"[a-z][a-z0-9_]*", signal.name)] == []
    assert model.memory_bytes


@SOURCES
def test_every_file_is_named_by_its_digest(source):
    archives = (source.archive, *source.training)
    digests = [
        *(archive.sha256 for archive in archives),
        *(file.sha256 for archive in archives for file in archive.files),
        *source.assets.values(),
    ]

    assert [digest for digest in digests if not SHA256.fullmatch(digest)] == []
    assert all(archive.files for archive in archives)


@SOURCES
def test_only_a_model_that_is_trained_here_may_leave_the_digest_of_its_result_open(source):
    assert (source.sha256 is None) == (source.converter is Converter.TEXT_SAFETY)


@SOURCES
def test_a_copied_model_has_the_digest_of_the_packaged_file(source):
    copied = [file.sha256 for file in source.archive.files if source.converter is Converter.COPY]

    assert copied in ([], [source.replaced.sha256 if source.replaced else source.sha256])


def test_every_model_that_sees_pictures_takes_levels_and_stands_for_one_of_floats():
    seeing = [each for each in load_catalog() if find_recipe(each.entry["preprocessing"]["recipe"]).accepts == "image"]

    assert [each.name for each in seeing] == ["faces", "image-safety", "nsfwjs", "open-nsfw", "plates"]
    for each in seeing:
        assert parse_model(each.entry).inputs[0].data_type is DataType.UINT8
        assert (each.version, each.replaced.version, each.replaced.levels) == ("2", "1", None)
        assert len({each.sha256, each.replaced.sha256}) == len({recipe_key(each), recipe_key(each.replaced)}) == 2


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        pytest.param({"channels": "GRB"}, "fetch.levels.channels: 'GRB' is not one of RGB, BGR", id="channels"),
        pytest.param({"layout": "CHW"}, "fetch.levels.layout: .* NCHW", id="layout"),
        pytest.param({"mean": [104]}, "fetch.levels.mean: has 1 numbers; give one for each of the 3", id="mean"),
        pytest.param({"mean": [1, 2, 256]}, r"fetch.levels.mean\[2\]: 256 ", id="a mean beyond any level"),
        pytest.param({"replaces": {"version": "1"}}, "fetch.levels.replaces.sha256", id="what was replaced"),
        pytest.param({"scale": 2}, "fetch.levels.scale: unknown field", id="an unknown field"),
    ],
)
def test_wrong_levels_are_named(tmp_path, levels, problem):
    right = {"channels": "RGB", "layout": "NCHW", "replaces": {"version": "1", "sha256": "ab" * 32}}
    write_source(tmp_path, make_document(WHEEL, levels=right))

    with pytest.raises(ModelError, match=problem):
        write_source(tmp_path, make_document(WHEEL, levels=right | levels))


@SOURCES
def test_golden_answers_would_fail_for_another_model(source):
    expectations = [expected for golden in parse_model(source.entry).golden for expected in golden.expect]

    # An answer near 0 is given by a model that always says no, too.
    assert any(expected.value > 100_000 for expected in expectations)
    assert max(expected.tolerance for expected in expectations) <= (10_000 if source.sha256 else 20_000)


@SOURCES
def test_golden_files_are_there_small_and_named_by_their_digest(source):
    inputs = [golden.input for golden in parse_model(source.entry).golden if golden.input.name]
    for given in inputs:
        places = (source.folder.joinpath("golden", given.name), files("baleen_models").joinpath("golden", given.name))
        (content,) = [place.read_bytes() for place in places if place.is_file()]

        assert digest(content) == given.sha256
        assert len(content) < MAX_GOLDEN_BYTES


@SOURCES
def test_a_card_tells_where_the_model_comes_from(source):
    card = source.folder.joinpath("card.md").read_text(encoding="utf-8")

    for archive in (source.archive, *source.training):
        assert f"{archive.package} {archive.version}" in card
    assert "## Known weaknesses" in card


@SOURCES
def test_the_source_names_the_package_that_is_fetched(source):
    kind = {"PyPI": "pypi", "npm": "npm"}[source.archive.registry]
    package = f"pkg:{kind}/{source.archive.package}@{source.archive.version}#"

    assert source.entry["source"]["uri"].startswith(package)


def test_choosing_nothing_is_choosing_everything():
    assert choose([], load_catalog()) == load_catalog()


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(NotFound, match="unknown model 'nsfw-js'; did you mean 'nsfwjs'"):
        choose(["nsfw-js"], load_catalog())


@pytest.mark.parametrize(
    ("section", "field", "value", "complaint"),
    [
        pytest.param("fetch", "registry", "pypi", "did you mean PyPI", id="registry"),
        pytest.param("fetch", "converter", "copy", "did you mean Copy", id="converter"),
        pytest.param("fetch", "archiveSha256", "ABC", "is not a SHA-256", id="digest"),
        pytest.param("fetch", "version", ">=1", "an exact version", id="version"),
        pytest.param("fetch", "package", "-r evil.txt", "a package's name", id="package"),
        pytest.param("fetch", "archiveBytes", 1 << 40, "out of range", id="size"),
        pytest.param("fetch", "colour", "red", "unknown field 'colour'", id="unknown field"),
        pytest.param("model", "name", "other", "is not the name of its folder", id="folder"),
    ],
)
def test_a_wrong_model_file_is_refused_with_the_field(tmp_path, section, field, value, complaint):
    document = make_document(b"x")
    document[section][field] = value

    with pytest.raises(ModelError, match=re.escape(f"tiny/model.yaml: {section}.{field}: ")) as refused:
        write_source(tmp_path, document)
    assert complaint in str(refused.value)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not a mapping of fields"):
        write_source(tmp_path, ["a", "list"])
