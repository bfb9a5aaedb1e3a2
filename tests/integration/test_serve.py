"""`baleen serve` starts, or says why it does not; two of them on one machine do not meet."""

import socket
import subprocess

import pytest

import forked
import plain_http
from baleen_sidecar.adapters.store import StateFolder
from serving import Load, Site, empty, policy, serving, until
from word_model import WORDS, write_word_model

pytestmark = pytest.mark.triton


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "one")


@pytest.fixture
def other(tmp_path):
    return Site(tmp_path / "other")


def errors(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the problems that a command ended with, and check that nothing else went wrong."""
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return [line.removeprefix("error: ") for line in ended.stderr.splitlines() if line.startswith("error: ")]


def test_two_at_once_answer_each_by_its_own_policies_and_state(site, other):
    other.write_policy(policy(onModelFailure="Block", rules=[{"name": "all", "when": "true", "action": "Block"}]))
    with serving(site) as one, serving(other) as two:
        first, second = one.decide("kind words"), two.decide("kind words")

        assert one.url != two.url
        assert one.triton != two.triton
        assert (first["decision"], second["decision"]) == ("Allow", "Block")
        assert two.client.get(f"/v1/decisions/{first['id']}").status_code == 404


def test_it_says_where_it_answers_and_that_it_is_ready_only_when_every_model_gave_its_golden_answers(site):
    with serving(site) as running:
        said = [line for line in running.lines if not line.startswith("{")]

        assert said == [
            f"answering at {running.url} (docs at {running.url}/docs); waiting for the models' golden answers",
            "ready: every model gave its golden answers",
        ]
        assert running.get("/ready")["ready"] is True
        assert running.decide("a rude word")["score"] == WORDS["rude"] / 100


def test_a_wrong_golden_answer_keeps_a_model_from_serving_and_requests_follow_the_policy(site):
    wrong = {"input": {"text": "kind"}, "expect": [{"signal": "score", "value": "50%", "tolerance": "1%"}]}
    site.write_models(write_word_model(site.models, golden=[wrong]))
    with serving(site, ready=False) as running:
        line = running.wait_for("model not verified", seconds=60)
        decision, ready = running.decide("kind words"), running.client.get("/ready")

    assert "models[words].golden[0].expect[0]: signal 'score' is 1%; expected 50% within 1%" in line
    assert (decision["decision"], decision["degraded"]) == ("Review", ["words"])
    assert ready.status_code == 503
    assert ready.json()["degraded"] == ["model/words"]
    assert "ready: every model" not in running.text()


def test_a_port_in_use_is_named_and_nothing_is_left(site):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = site.serve_and_fail("--port", str(port))

    assert errors(ended) == [f"cannot listen on 127.0.0.1 port {port}: Address already in use"]
    assert site.left() == []


def test_of_two_that_want_the_same_port_at_once_one_serves_and_the_other_says_that_it_cannot(site, other):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    rivals = {
        each: forked.ForkedProcess(
            "baleen_cli", *each.arguments(), "--port", port, environment=each.environment(), name=each.name
        )
        for each in (site, other)
    }
    try:
        until(lambda: [each.poll() for each in rivals.values()] != [None, None])
        (loser,) = [each for each, process in rivals.items() if process.poll() is not None]
        said = rivals[loser].stderr.read()
        (winner,) = [process for process in rivals.values() if process.poll() is None]
        until(lambda: plain_http.get(f"http://127.0.0.1:{port}/ready").is_success)
    finally:
        for process in rivals.values():
            process.terminate()
            process.wait(30)
            process.stderr.close()

    assert f"error: cannot listen on 127.0.0.1 port {port}: Address already in use" in said.splitlines()
    assert winner.returncode == 0
    assert site.left() == other.left() == []


def test_a_second_one_on_the_same_port_is_refused_and_the_first_goes_on(site, other):
    with serving(site) as running, Load(running.url) as load:
        port = running.url.rsplit(":", 1)[1]
        ended = other.serve_and_fail("--port", port)

        assert errors(ended) == [f"cannot listen on 127.0.0.1 port {port}: Address already in use"]
        assert other.left() == []
    assert {each.status for each in load.answered} == {200}


def test_a_second_one_on_the_same_state_is_told_which_process_has_it(site):
    with serving(site) as running:
        ended = site.serve_and_fail()

        assert errors(ended) == [
            f"state folder {site.state} is in use by process {running.pid}: stop it, or set another folder"
        ]
        assert running.decide("kind words")["decision"] == "Allow"


def test_a_state_folder_that_cannot_be_made_is_named(site):
    site.state.write_text("a file where the folder should be")
    (problem,) = errors(site.serve_and_fail())

    assert f"state folder {site.state} cannot be used" in problem


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_without_policies_every_request_is_refused_until_there_is_one(site, how):
    empty(site.policies)
    if how == "empty":
        site.policies.mkdir()
    with serving(site) as running:
        refused, ready = running.moderate("kind words"), running.client.get("/ready")
        site.policies.mkdir(exist_ok=True)
        site.write_policy(policy())
        until(lambda: running.moderate("kind words").status_code == 200, seconds=5)

        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:baleen:problem:no-policy"
        assert int(refused.headers["retry-after"]) >= 1
        assert ready.status_code == 503
        assert ready.json()["degraded"] == ["policies"]


def test_a_deployment_with_several_problems_has_all_of_them_named(site):
    site.write_models(
        write_word_model(
            site.models,
            preprocessing={"recipe": "tox-blok/1"},
            signals=[{"name": "score", "output": "scores"}],
            batching={"maxBatchSize": 1000},
        )
    )
    found = errors(site.serve_and_fail())

    assert [problem.split(": ")[1] for problem in found] == [
        "spec.models[0].signals[0].output",
        "spec.models[0].preprocessing.recipe",
        "spec.models[0].batching.maxBatchSize",
    ]
    assert all(problem.startswith("models.yaml: ") for problem in found)
    assert "did you mean tox-block/1?" in found[1]
    assert site.left() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda site: empty(site.models), ("models: is not a folder",), id="no folder"),
        pytest.param(lambda site: (site.models / "models.yaml").unlink(), ("no ModelDeployment",), id="empty folder"),
        pytest.param(
            lambda site: (site.models / "words/model.onnx").unlink(), ("model words", "there is no file"), id="no file"
        ),
        pytest.param(
            lambda site: (site.models / "words/vocab.json").unlink(),
            ("model words", "there is no file", "vocab.json"),
            id="no asset",
        ),
        pytest.param(
            lambda site: (site.models / "words/model.onnx").write_bytes(b"other"),
            ("model words: expected ", "found d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"),
            id="altered file",
        ),
        pytest.param(
            lambda site: (site.models / "words/vocab.json").write_bytes(b"{}"),
            ("asset vocab.json of model words: expected ",),
            id="altered asset",
        ),
        pytest.param(
            lambda site: (site.models / "models.yaml").write_text("spec: [unclosed"),
            ("models.yaml: cannot be read: line ",),
            id="no YAML",
        ),
    ],
)
def test_models_that_are_not_as_promised_are_refused_by_name(site, change, words):
    change(site)
    (problem,) = errors(site.serve_and_fail())

    assert all(each in problem for each in words)
    assert site.left() == []


def test_a_triton_of_somebody_else_is_not_for_this_command(site):
    manifest = write_word_model(site.models)
    manifest["spec"]["runtime"] = {"external": {"endpoints": ["triton.example:8001"]}}
    site.write_models(manifest)

    (problem,) = errors(site.serve_and_fail())

    assert problem.startswith("words: spec.runtime.external: is for a Triton that someone else runs; ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "moderation.example"])
def test_an_address_that_others_can_reach_is_refused(site, host):
    (problem,) = errors(site.serve_and_fail("--host", host))

    assert problem == (
        f"BALEEN_HOST: {host} is not loopback; without API keys only 127.0.0.1 or ::1 is served: "
        "make some with `baleen keys create`, and set BALEEN_API_KEYS_FILE"
    )


def test_wrong_variables_are_all_refused_by_name_with_what_would_be_right(site):
    found = errors(site.serve_and_fail(BALEEN_MODEL_TIMEOUT_SECOND="1", BALEEN_TEXT_LIMIT_BYTES="many"))

    assert found[0].startswith("BALEEN_MODEL_TIMEOUT_SECOND: is not a setting; ")
    assert "BALEEN_MODEL_TIMEOUT_SECONDS" in found[0]
    assert found[1].startswith("BALEEN_TEXT_LIMIT_BYTES: 'many' is not valid: ")


def test_it_listens_on_ipv6_too_and_says_so_as_an_address_that_works(site):
    with serving(site, arguments=("--host", "::1")) as running:
        assert running.url.startswith("http://[::1]:")
        assert running.decide("kind words")["decision"] == "Allow"


def test_ended_while_it_still_starts_it_leaves_nothing(site):
    with serving(site, ready=False) as running:
        assert running.end() == 0
    assert "Traceback" not in running.text()
    with StateFolder(site.state):
        assert site.database.exists()


def test_when_triton_can_never_be_started_again_it_ends_and_says_why(site):
    with serving(site) as running:
        triton = running.triton
        (folder,) = site.runs.glob("baleen-*")
        empty(folder)
        triton.kill()

        assert running.wait() == 1
        assert running.lines[-1].startswith("error: triton cannot go on: ")
        assert "No such file or directory" in running.lines[-1]
        assert site.left() == []


def test_without_a_place_for_triton_s_files_it_says_so(site):
    site.runs.write_text("a file where the folder should be")
    (problem,) = errors(site.serve_and_fail())

    assert problem.startswith("the folder for running servers cannot be made: ")
    assert str(site.runs) in problem
