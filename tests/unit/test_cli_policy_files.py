"""`baleen policy` on files alone: nothing runs, and nothing was put in force before."""

import re

import pytest
import yaml

from commands import baleen
from serving import policy, reviewing_from
from word_model import write_word_model

TESTS = [
    {"name": "kind words pass", "signals": {"words.score": "1%"}, "expect": "Allow"},
    {"name": "rude words are reviewed", "signals": {"words.score": "70%"}, "expect": "Review"},
]


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "models.yaml").write_text(yaml.safe_dump(write_word_model(folder)))
    return folder


@pytest.fixture
def write(tmp_path):
    """Write policies into a file of the folder `policies`, and return the file."""
    folder = tmp_path / "policies"
    folder.mkdir()

    def write(*manifests, file="policies.yaml"):
        text = manifests[0] if isinstance(manifests[0], str) else yaml.safe_dump_all(manifests)
        (folder / file).write_text(text)
        return folder / file

    return write


def with_tests(manifest, tests=TESTS):
    manifest["spec"]["tests"] = tests
    return manifest


def with_signal(manifest, **changes):
    signals = [{**signal, **changes} for signal in manifest["spec"]["policy"]["categories"][0]["signals"]]
    manifest["spec"]["policy"]["categories"] = [{"name": "rudeness", "signals": signals}]
    return manifest


def test_validate_names_each_valid_policy_with_its_version_digest_and_tests(write, models):
    file = write(with_tests(policy()), policy("kids", surface="kids"))
    ended = baleen("policy", "validate", file, "--models", models)

    assert ended.status == 0
    assert ended.errors == ""
    assert re.fullmatch(
        r"trust-safety/community is valid: v1\.0\.0, sha256:[0-9a-f]{64}, 2 tests passed\n"
        r"trust-safety/kids is valid: v1\.0\.0, sha256:[0-9a-f]{64}, 0 tests passed\n",
        ended.output,
    )


def test_validate_says_what_only_an_installation_can_say_of_a_query(write, models):
    asking = policy()
    metric = {"name": "refunds", "type": "PromQL", "query": "sum(refunds)", "max": "2%"}
    asking["spec"]["rollout"] = {"analysis": {"metrics": [metric]}}
    ended = baleen("policy", "validate", write(asking), "--models", models)

    assert ended.status == 0
    assert "whether an installation has a Prometheus to ask for refunds" in ended.errors


def test_validate_of_a_folder_finds_the_same_as_of_its_file(write, models):
    file = write(with_tests(policy()))

    assert baleen("policy", "validate", file, "--models", models) == baleen(
        "policy", "validate", file.parent, "--models", models
    )


def test_validate_names_all_problems_of_all_policies_at_once_and_the_good_ones_too(write, models):
    write(with_signal(policy("wrong-ratio"), review="150%"), policy("good"))
    write(with_signal(policy("wrong-signal"), name="words.scor"), file="second.yaml")
    write("kind: [unclosed", file="third.yaml")
    ended = baleen("policy", "validate", write("# empty", file="fourth.yaml").parent, "--models", models)

    assert ended.status == 1
    assert ended.output.startswith("trust-safety/good is valid: ")
    assert ended.output.count("\n") == 1
    assert sorted(problem.split(": ")[0] for problem in ended.problems) == [
        "third.yaml",
        "trust-safety/wrong-ratio",
        "trust-safety/wrong-signal",
    ]
    (typo,) = [problem for problem in ended.problems if "wrong-signal" in problem]
    assert "spec.policy.categories[0].signals[0].name" in typo
    assert "unknown signal 'scor'; did you mean 'score'?" in typo


def test_validate_refuses_a_policy_that_fails_its_own_tests(write, models):
    file = write(with_tests(policy(), [{"name": "all pass", "signals": {"words.score": "95%"}, "expect": "Allow"}]))
    ended = baleen("policy", "validate", file, "--models", models)

    assert ended.status == 1
    assert ended.output == ""
    assert len(ended.problems) == 1
    assert "all pass" in ended.problems[0]


@pytest.mark.parametrize("command", ["validate", "test", "simulate"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("kind: [unclosed", "cannot be read: ", id="no YAML"),
        pytest.param("just words", "not a resource with apiVersion and kind", id="no resource"),
        pytest.param("", "it is empty; delete the file if that is meant", id="empty"),
        pytest.param("---\n", "there is no ModerationPolicy", id="an empty document"),
    ],
)
def test_a_file_without_a_policy_is_named_and_is_never_well(write, models, command, text, words):
    file = write(text)
    ended = baleen("policy", command, file, "--models", models)

    assert ended.status == 1
    assert len(ended.problems) == 1
    assert ended.problems[0].startswith(f"{file}: ")
    assert words in ended.problems[0]


@pytest.mark.parametrize("command", ["validate", "test", "simulate"])
def test_a_folder_that_is_not_there_is_named(tmp_path, models, command):
    ended = baleen("policy", command, tmp_path / "nowhere", "--models", models)

    assert ended.status == 1
    assert ended.problems == [f"{tmp_path}/nowhere: is not a folder that can be read"]


def test_a_folder_of_models_that_is_not_there_is_named(write, tmp_path):
    ended = baleen("policy", "validate", write(policy()), "--models", tmp_path / "nowhere")

    assert ended.status == 1
    assert ended.problems == [f"{tmp_path}/nowhere: is not a folder that can be read"]


def test_without_models_a_policy_is_checked_against_the_shipped_ones(write):
    shipped = with_signal(policy(), name="toxicity.toxic")

    assert baleen("policy", "validate", write(shipped)).status == 0
    assert "unknown model 'words'; known are faces," in baleen("policy", "validate", write(policy())).problems[0]


def test_test_shows_every_result_and_says_which_are_wrong(write, models):
    wrong = {"name": "vile words pass", "signals": {"words.score": "95%"}, "expect": "Allow"}
    ended = baleen("policy", "test", write(with_tests(policy(), [*TESTS, wrong])), "--models", models)

    assert ended.status == 1
    assert ended.problems == ["trust-safety/community: vile words pass: expected Allow, found Block"]
    for words in ("kind words pass", "rude words are reviewed", "Block (wrong)"):
        assert words in ended.output


def test_test_of_a_policy_that_passes_ends_well(write, models):
    ended = baleen("policy", "test", write(with_tests(policy())), "--models", models)

    assert (ended.status, ended.errors) == (0, "")
    assert "wrong" not in ended.output


def test_test_runs_the_others_tests_when_one_policy_is_invalid(write, models):
    write(with_signal(policy("wrong"), review="150%"))
    file = write(with_tests(policy("right")), file="right.yaml")
    ended = baleen("policy", "test", file.parent, "--models", models)

    assert ended.status == 1
    assert "rude words are reviewed" in ended.output
    assert [problem.split(": ")[0] for problem in ended.problems] == ["trust-safety/wrong"]


def test_diff_of_two_files_shows_what_can_change_a_decision_and_nothing_else(write, models):
    old = write(policy(version="v1.0.0"), file="old.yaml")
    new = write(reviewing_from("60%", version="v1.1.0", onModelFailure="Block"), file="new.yaml")
    ended = baleen("policy", "diff", old, new, "--models", models)

    assert (ended.status, ended.errors) == (0, "")
    assert sorted(ended.output.splitlines()) == [
        "categories[rudeness].signals[words.score].block: 90% → 100%",
        "categories[rudeness].signals[words.score].review: 50% → 60%",
        "onModelFailure: Review → Block",
    ]


def test_diff_of_the_same_content_in_another_order_and_version_finds_none(write, models):
    old = write(policy(version="v1.0.0"), file="old.yaml")
    reordered = "\n---\n" + yaml.safe_dump(policy(version="v2.0.0"), sort_keys=True, default_flow_style=True)

    assert baleen("policy", "diff", old, write(reordered, file="new.yaml"), "--models", models).output == (
        "no difference\n"
    )


def test_diff_wants_one_policy_in_a_file(write, models):
    two = write(policy(), policy("kids", surface="kids"), file="two.yaml")
    ended = baleen("policy", "diff", two, write(policy(), file="one.yaml"), "--models", models)

    assert ended.status == 1
    assert ended.problems == [f"{two} has 2 policies; name a file with one"]


@pytest.mark.parametrize(
    ("score", "verdict"),
    [("49.9999%", "Allow"), ("50%", "Review"), ("0.9", "Block"), ("100%", "Block")],
)
def test_simulate_judges_scores_and_says_why(write, models, score, verdict):
    file = write(policy())
    ended = baleen("policy", "simulate", file, "--models", models, "--signal", f"words.score={score}")

    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.splitlines()[0] == verdict
    assert f"rudeness led to {verdict}: " in ended.output


def test_simulate_lets_each_policy_judge_only_where_it_binds(write, models):
    narrow = policy()
    narrow["spec"]["scope"] = {"surface": "kids"}
    file = write(narrow)
    ask = ("policy", "simulate", file, "--models", models, "--signal", "words.score=95%")
    elsewhere, there = baleen(*ask), baleen(*ask, "--surface", "kids")

    assert (elsewhere.status, elsewhere.output) == (1, "")
    assert "no policy of these binds that place" in elsewhere.problems[0]
    assert there.output.splitlines()[0] == "Block"


def test_simulate_judges_a_text_by_lists_and_rules(write, models):
    rule = {"name": "links", "when": "content.links > 0", "action": "Review", "reason": "Links are looked at"}
    terms = {
        "name": "scams",
        "type": "Terms",
        "action": "Block",
        "source": {"type": "ConfigMap", "name": "lists", "key": "scams.txt"},
    }
    lists = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "lists", "namespace": "trust-safety"},
        "data": {"scams.txt": "double your coins\n"},
    }
    file = write(policy(rules=[rule], lists=[terms]), lists)
    found = {
        text: baleen("policy", "simulate", file, "--models", models, "--text", text).output.splitlines()[0]
        for text in ("good morning", "see https://example.org/", "D0uble yоur c0ins")
    }

    assert list(found.values()) == ["Allow", "Review", "Block"]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        pytest.param(
            "words.scor=80%", "--signal: unknown signal 'words.scor'; did you mean 'words.score'?", id="unknown signal"
        ),
        pytest.param(
            "words.score", "--signal: 'words.score' is not NAME=SCORE, as in toxicity.toxic=80%", id="no score"
        ),
        pytest.param("words.score=180%", "--signal words.score: '180%' is above 100%", id="above 100%"),
    ],
)
def test_simulate_refuses_a_score_that_would_not_count(write, models, option, problem):
    ended = baleen("policy", "simulate", write(policy()), "--models", models, "--signal", option)

    assert ended.status == 1
    assert ended.output == ""
    assert ended.problems == [problem]


@pytest.mark.parametrize(
    "command",
    [
        ("policy", "history", "community"),
        ("policy", "rollback", "community", "--policies", "."),
        ("policy", "diff", "sha256:aa", "sha256:bb"),
        ("policy", "simulate", "FILE", "--last", "10"),
        ("replay", "some-id"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_needs_a_record_says_where_there_is_none(write, models, tmp_path, command):
    file = write(policy())
    more = ["--models", models] if "FILE" in command else []
    ended = baleen(*(file if each == "FILE" else each for each in command), *more, "--state", tmp_path / "none")

    assert ended.status == 1
    assert ended.output == ""
    assert ended.problems == [f"{tmp_path}/none/baleen.db: no decisions or policies were kept here yet"]
    assert not (tmp_path / "none").exists()


def test_rollback_into_a_folder_that_is_not_there_is_refused(tmp_path):
    ended = baleen("policy", "rollback", "community", "--policies", tmp_path / "nowhere", "--state", tmp_path)

    assert ended.status == 1
    assert ended.problems == [f"there is no folder {tmp_path}/nowhere; name the one that is served with --policies"]
