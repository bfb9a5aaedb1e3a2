"""What all commands share: exit statuses, where errors go, settings, and finding the models' files."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from baleen_cli.commands.serve import read_settings
from baleen_cli.main import run
from baleen_cli.model_files import ModelLocator
from baleen_cli.models.store import ModelStore
from baleen_core.errors import IntegrityError, InvalidError, ModelError, NotFound, Problem
from baleen_core.model.parse import parse_model, parse_model_deployment
from commands import baleen
from word_model import write_word_model

EXAMPLES = Path(__file__).parents[2] / "examples"
NOBODY = "http://127.0.0.1:11"
SERVING = {"alembic", "fastapi", "kopf", "onnx", "onnxruntime", "sqlalchemy", "tritonclient", "uvicorn"}


def fail_with(error):
    def command():
        raise error

    return command


def test_an_error_of_ours_is_a_line_for_each_problem_on_standard_error_and_status_1(capsys):
    problems = [Problem(field="spec.a", message="is wrong"), Problem(field="spec.b", message="is wrong too")]
    status = run(fail_with(InvalidError(problems)))
    written = capsys.readouterr()

    assert status == 1
    assert written.out == ""
    assert written.err == "error: spec.a: is wrong\nerror: spec.b: is wrong too\n"


def test_brackets_in_an_error_are_shown_as_they_are(capsys):
    run(fail_with(NotFound("there is no [bold]file[/bold] in [/]")))

    assert capsys.readouterr().err == "error: there is no [bold]file[/bold] in [/]\n"


def test_an_error_that_is_not_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(fail_with(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("polici",), "No such command 'polici'. Did you mean 'policy'?"),
        (("policy", "valdate"), "No such command 'valdate'. Did you mean 'validate'?"),
        (("serve", "--prot", "1"), "No such option: --prot"),
        (("serve", "--port", "x"), "Invalid value for '--port'"),
    ],
    ids=["command", "subcommand", "option", "value"],
)
def test_a_mistyped_command_is_a_usage_error_on_standard_error(arguments, words):
    ended = baleen(*arguments)

    assert (ended.status, ended.output) == (2, "")
    assert words in ended.errors


@pytest.mark.parametrize("arguments", [("--help",), ("policy", "--help"), ("serve", "--help")])
def test_help_is_for_standard_output(arguments):
    ended = baleen(*arguments)

    assert (ended.status, ended.errors) == (0, "")
    assert "Usage: baleen" in ended.output


@pytest.mark.parametrize(
    ("module", "arguments", "unwanted"),
    [
        pytest.param("main", ("policy", "validate", EXAMPLES / "policies"), {"kubernetes"}, id="policy validate"),
        pytest.param("main", ("wait", "--url", NOBODY, "--seconds", "0.1"), {"kubernetes", "numpy"}, id="wait"),
        pytest.param("main", ("models", "list"), {"kubernetes", "numpy"}, id="models list"),
        pytest.param("kubectl", ("get", "--kubeconfig", "/absent"), {"numpy"}, id="kubectl baleen get"),
    ],
)
def test_a_command_does_not_import_what_only_others_need(module, arguments, unwanted):
    """A server's libraries take a second to import, and whoever checks a folder of policies waits for it."""
    script = f"import sys; from baleen_cli.{module} import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    imported = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[-1].split()

    assert "typer" in imported
    assert not (SERVING | unwanted).intersection(imported)


def test_options_win_over_variables_and_variables_over_defaults():
    settings = read_settings({"BALEEN_PORT": "1", "BALEEN_STATE": "/a", "HOME": "/b"}, {"port": 2})

    assert (settings.port, settings.state, settings.policies) == (2, Path("/a"), Path("policies"))


def test_every_wrong_setting_is_named_at_once():
    with pytest.raises(InvalidError) as raised:
        read_settings({"BALEEN_PORT": "70000", "BALEEN_DURABILITY": "None", "BALEEN_POTR": "1"}, {})

    assert [problem.field for problem in raised.value.problems] == ["BALEEN_DURABILITY", "BALEEN_PORT", "BALEEN_POTR"]


def test_models_are_listed_with_their_packages_licences_and_signals():
    ended = baleen("models", "list", "toxicity")

    assert ended.status == 0
    for words in ("toxicity", "tox-block 0.1.2 from PyPI", "MIT; trained on CC0 data", "identity_hate"):
        assert words in ended.output


def test_the_listed_resource_is_a_deployment_with_golden_answers():
    body = yaml.safe_load(baleen("models", "list", "--resource", "toxicity", "image-safety").output)
    deployment = parse_model_deployment(body)

    assert {model.name for model in deployment.models} == {"toxicity", "image-safety"}
    assert all(model.golden for model in deployment.models)


@pytest.mark.parametrize("command", ["fetch", "verify", "list"])
def test_an_unknown_model_is_refused_with_the_known_ones(command):
    ended = baleen("models", command, "toxicty")

    assert (ended.status, ended.output) == (1, "")
    assert len(ended.problems) == 1
    assert "'toxicty'" in ended.problems[0]
    assert "toxicity" in ended.problems[0]


def test_verify_of_a_model_that_was_never_fetched_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = baleen("models", "verify", "toxicity")

    assert (ended.status, ended.output) == (1, "")
    assert "toxicity" in ended.problems[0]
    assert "baleen models fetch" in ended.problems[0]


@pytest.fixture
def locator(tmp_path):
    return ModelLocator(ModelStore(tmp_path / "store"), tmp_path)


def own_model(folder, **changes):
    (entry,) = write_word_model(folder)["spec"]["models"]
    return parse_model(entry | changes)


def test_a_model_of_ones_own_is_found_beside_its_deployment(locator, tmp_path):
    files = locator.locate(own_model(tmp_path))

    assert files.onnx == tmp_path / "words/model.onnx"
    assert files.sha256 == hashlib.sha256(files.onnx.read_bytes()).hexdigest()
    assert files.assets == {"vocab.json": tmp_path / "words/vocab.json"}


@pytest.mark.parametrize("file", ["model.onnx", "vocab.json"])
def test_a_missing_file_is_named(locator, tmp_path, file):
    model = own_model(tmp_path)
    (tmp_path / "words" / file).unlink()

    with pytest.raises(NotFound, match=f"model words: there is no file .*/words/{file}"):
        locator.load(model)


@pytest.mark.parametrize("file", ["model.onnx", "vocab.json"])
def test_an_altered_file_is_refused_with_both_digests(locator, tmp_path, file):
    model = own_model(tmp_path)
    (tmp_path / "words" / file).write_bytes(b"altered")

    with pytest.raises(IntegrityError, match=hashlib.sha256(b"altered").hexdigest()):
        locator.load(model)


def test_a_model_without_a_digest_is_taken_as_it_is(locator, tmp_path):
    source = {"type": "File", "uri": "words/model.onnx"}
    loaded = locator.load(own_model(tmp_path, source=source))

    assert loaded.sha256 == hashlib.sha256((tmp_path / "words/model.onnx").read_bytes()).hexdigest()


def test_a_package_that_no_shipped_model_has_is_refused_with_those_there_are(locator, tmp_path):
    model = own_model(tmp_path, source={"type": "Package", "uri": "pkg:pypi/other@1.0#model.onnx"})

    with pytest.raises(ModelError, match=r"model words: source\.uri: .* there are pkg:"):
        locator.locate(model)


def test_golden_files_are_found_beside_ones_own_model_and_among_ours(locator, tmp_path):
    model = own_model(tmp_path)
    (tmp_path / "words/golden.txt").write_bytes(b"golden")

    assert locator.golden_file(model, "golden.txt") == b"golden"
    with pytest.raises(NotFound, match=r"model words: there is no golden file 'other\.txt'"):
        locator.golden_file(model, "other.txt")


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as broken:
        monkeypatch.setattr("sys.stdout", broken)

        def command():
            broken.write("a line\n")

        assert run(command) == 1
