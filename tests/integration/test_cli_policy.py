"""The command line beside a running sidecar, and over the state that it left."""

import json
import sqlite3
import subprocess
from contextlib import closing

import pytest
import yaml

from commands import baleen
from serving import BALEEN, Site, empty, policy, reviewing_from, serving, until

# One process makes the server that all of these ask.
pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("cli-policy")]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Give a server with two decisions by the policy's first version and two by its second, which is looser."""
    with serving(Site(tmp_path_factory.mktemp("site"))) as running:
        decisions = [running.decide(f"{word} words") for word in ("kind", "rude")]
        running.site.write_policy(reviewing_from("80%", version="v1.1.0"))
        until(lambda: running.policy()["version"] == "v1.1.0", seconds=5)
        decisions += [running.decide(f"{word} words") for word in ("rude", "vile")]
        running.decisions = {f"{each['policies'][0]['version']} {each['decision']}": each for each in decisions}
        yield running


@pytest.fixture
def digests(running):
    """Give the digests of both versions, by version."""
    return {row["version"]: row["digest"] for row in running.get("/v1/policies/community")["history"]}


@pytest.fixture
def folder(tmp_path):
    """Give a folder of policies that nobody serves."""
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


@pytest.fixture
def copy(running, tmp_path):
    """Give a state folder with a copy of the database, and a way to change it by hand."""
    state = tmp_path / "state"
    state.mkdir()
    database = state / "baleen.db"
    with closing(sqlite3.connect(running.site.database)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)

    def change(*statements):
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(*statement)
            connection.commit()

    change.state = state
    return change


def test_history_shows_what_was_in_force_newest_first(running, digests):
    for name in ("community", "trust-safety/community"):
        ended = baleen("policy", "history", name, "--state", running.site.state)
        rows = [line for line in ended.output.splitlines() if "Applied" in line]

        assert (ended.status, ended.errors) == (0, "")
        assert [
            version in row and digests[version] in row for version, row in zip(("v1.1.0", "v1.0.0"), rows, strict=True)
        ]


def test_the_history_of_an_unknown_policy_names_those_there_are(running):
    ended = baleen("policy", "history", "comunity", "--state", running.site.state)

    assert (ended.status, ended.output) == (1, "")
    assert ended.problems == ["policy 'comunity' is not on record; there are trust-safety/community"]


def test_revisions_on_record_are_compared_by_the_beginnings_of_their_digests(running, digests):
    old, new = digests["v1.0.0"], digests["v1.1.0"]
    state = ("--state", running.site.state)
    forward = baleen("policy", "diff", old[:17], new.removeprefix("sha256:")[:10], *state)
    backward = baleen("policy", "diff", new, old, *state)

    assert (forward.status, forward.errors) == (0, "")
    assert "categories[rudeness].signals[words.score].review: 50% → 80%" in forward.output
    assert "categories[rudeness].signals[words.score].review: 80% → 50%" in backward.output
    assert baleen("policy", "diff", old, old, *state).output == "no difference\n"


def test_a_revision_on_record_is_compared_with_a_file(running, digests, folder):
    file = folder / "draft.yaml"
    file.write_text(yaml.safe_dump(reviewing_from("65%", version="v1.2.0")))
    ended = baleen(
        *("policy", "diff", digests["v1.1.0"], file), *("--state", running.site.state, "--models", running.site.models)
    )

    assert ended.output == "categories[rudeness].signals[words.score].review: 80% → 65%\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [("sha256:", "begins several digests"), ("ffffffffffff", "is neither a file nor a revision on record")],
)
def test_a_digest_that_names_no_one_revision_is_refused_with_those_there_are(running, digests, text, words):
    ended = baleen("policy", "diff", text, digests["v1.0.0"], "--state", running.site.state)

    assert (ended.status, ended.output) == (1, "")
    assert words in ended.problems[0]
    assert all(digest in ended.problems[0] for digest in digests.values())


def test_a_rollback_writes_an_override_that_rejects_what_is_in_force(running, digests, folder):
    ended = baleen("policy", "rollback", "community", "--policies", folder, "--state", running.site.state)
    (file,) = folder.iterdir()

    assert (ended.status, ended.errors) == (0, "")
    assert ended.output == (
        f"wrote {file}: {digests['v1.0.0'][:17]} is in force in a moment; delete the file to take this back\n"
    )
    assert yaml.safe_load(file.read_text()) == {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": "community", "namespace": "trust-safety"},
        "spec": {"reject": [digests["v1.1.0"]]},
    }


def test_a_rollback_to_what_was_rejected_before_takes_it_out_of_what_is_rejected(running, digests, folder):
    command = ("policy", "rollback", "community", "--policies", folder, "--state", running.site.state)
    assert baleen(*command).status == 0
    ended = baleen(*command, "--to", digests["v1.1.0"][:17], "--reason", "it was right after all")
    (file,) = folder.iterdir()

    assert (ended.status, ended.errors) == (0, "")
    assert yaml.safe_load(file.read_text())["spec"] == {
        "pin": {"digest": digests["v1.1.0"], "reason": "it was right after all"}
    }


def test_with_everything_earlier_rejected_there_is_nothing_to_go_back_to(running, digests, folder):
    file = folder / "trust-safety.community.override.yaml"
    override = {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": "community", "namespace": "trust-safety"},
        "spec": {"reject": sorted(digests.values())},
    }
    file.write_text(yaml.safe_dump(override))
    before = file.read_text()
    ended = baleen("policy", "rollback", "community", "--policies", folder, "--state", running.site.state)

    assert ended.status == 1
    assert ended.problems == [
        "policy 'community' has no earlier revision that is not rejected; there is nothing to go back to"
    ]
    assert file.read_text() == before


def test_a_policy_that_was_never_changed_cannot_be_rolled_back(copy, digests, folder):
    copy(("DROP TRIGGER activations_refuse_delete",), ("DELETE FROM activations WHERE version = 'v1.0.0'",))
    ended = baleen("policy", "rollback", "community", "--policies", folder, "--state", copy.state)

    assert ended.status == 1
    assert "there is nothing to go back to" in ended.problems[0]
    assert list(folder.iterdir()) == []


def test_an_override_in_another_file_is_not_doubled(running, digests, folder):
    override = {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": "community", "namespace": "trust-safety"},
        "spec": {"reject": [digests["v1.1.0"]]},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(override))
    ended = baleen("policy", "rollback", "community", "--policies", folder, "--state", running.site.state)

    assert ended.status == 1
    assert ended.problems == ["the override of trust-safety/community stands in mine.yaml; edit that file"]


def test_simulate_shows_how_decisions_on_record_would_come_out(running, copy, folder):
    # Other tests of this module decide, too.
    ours = [decision["id"] for decision in running.decisions.values()]
    copy((f"DELETE FROM decisions WHERE id NOT IN ({', '.join('?' * len(ours))})", ours))
    (folder / "draft.yaml").write_text(yaml.safe_dump(policy(version="v2.0.0")))
    ended = baleen(
        *("policy", "simulate", folder, "--last", "100"), *("--state", copy.state, "--models", running.site.models)
    )
    rows = [[cell.strip() for cell in line.split("│")[1:5]] for line in ended.output.splitlines() if "│" in line]

    assert ended.status == 0
    assert rows == [
        ["Allow", "Allow", "1", running.decisions["v1.0.0 Allow"]["id"]],
        ["Allow", "Review", "1", running.decisions["v1.1.0 Allow"]["id"]],
        ["Review", "Block", "1", running.decisions["v1.1.0 Review"]["id"]],
        ["Review", "Review", "1", running.decisions["v1.0.0 Review"]["id"]],
    ]


def test_backtest_asks_a_sidecar_about_its_own_log(running, folder):
    file = folder / "draft.yaml"
    file.write_text(yaml.safe_dump(reviewing_from("65%", version="v1.2.0")))
    ended = baleen("policy", "backtest", file, "--url", running.url, "--json")
    answer = json.loads(ended.output)
    every = ("--decisions", answer["compared"])
    refused = baleen("policy", "backtest", file, "--url", running.url, "--max-flip-rate", "0%", *every)

    assert (ended.status, ended.errors) == (0, "")
    assert answer["compared"] >= 4
    assert {(flip["from"], flip["to"]) for flip in answer["flips"]} == {("Allow", "Review")}
    assert {running.decisions["v1.0.0 Review"]["id"], running.decisions["v1.1.0 Allow"]["id"]} <= set(
        answer["flips"][0]["examples"]
    )
    assert refused.status == 1
    assert refused.problems[0].startswith("Fail (TooManyFlips): ")


def test_moderate_shows_decisions_with_scores_reasons_policies_and_models(running, tmp_path, digests):
    (tmp_path / "kind.txt").write_text("kind words")
    (tmp_path / "vile.txt").write_text("vile words")
    ended = baleen("moderate", "--url", running.url, tmp_path / "kind.txt", tmp_path / "vile.txt")
    kind, vile = [line for line in ended.output.splitlines() if ".txt" in line]

    assert (ended.status, ended.errors) == (0, "")
    assert all(each in kind for each in ("Allow", "1.0%", "nothing reached a threshold", "words 1"))
    assert all(each in vile for each in ("Review", "95.0%", "words.score", f"v1.1.0 {digests['v1.1.0'][7:17]}"))


def test_moderate_writes_a_line_of_json_for_each_file(running, tmp_path):
    (tmp_path / "kind.txt").write_text("kind words")
    (tmp_path / "vile.txt").write_text("vile words")
    ended = baleen("moderate", "--url", running.url, tmp_path / "kind.txt", tmp_path / "vile.txt", "--json")

    assert [json.loads(line)["decision"] for line in ended.output.splitlines()] == ["Allow", "Review"]


def test_what_was_decided_before_a_file_failed_is_shown(running, tmp_path):
    (tmp_path / "kind.txt").write_text("kind words")
    ended = baleen("moderate", "--url", running.url, tmp_path / "kind.txt", tmp_path / "missing.txt")

    assert ended.status == 1
    assert "kind.txt" in ended.output
    assert ended.problems == [f"{tmp_path}/missing.txt: No such file or directory"]


def test_what_the_sidecar_refuses_is_shown_with_its_reason(running, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nonsense")

    assert baleen("moderate", "--url", running.url, tmp_path / "empty.txt").problems == [
        "content.text: the text is empty"
    ]
    assert baleen("moderate", "--url", running.url, tmp_path / "broken.png").status == 1


def test_explain_says_why_in_sentences(running):
    decision = running.decisions["v1.0.0 Review"]
    ended = baleen("explain", decision["id"], "--url", running.url)

    assert (ended.status, ended.errors) == (0, "")
    assert "rudeness led to Review: words.score is 70% (review at 50%, block at 90%)." in ended.output.splitlines()


def test_explain_and_replay_of_an_unknown_decision_say_that_there_is_none(running):
    explained = baleen("explain", "no-such-id", "--url", running.url)
    replayed = baleen("replay", "no-such-id", "--state", running.site.state)

    assert (explained.status, explained.output, replayed.status, replayed.output) == (1, "", 1, "")
    assert "there is no decision 'no-such-id' on record" in explained.problems[0]
    assert replayed.problems == ["there is no decision 'no-such-id' on record"]


def test_every_decision_replays_bit_for_bit_whatever_is_in_force_now(running):
    for decision in running.decisions.values():
        ended = baleen("replay", decision["id"], "--state", running.site.state)

        assert (ended.status, ended.errors) == (0, "")
        assert ended.output.startswith(f"{decision['id']} is {decision['decision']}, bit for bit as on record")


def test_a_replayed_decision_can_be_had_as_json(running):
    decision = running.decisions["v1.0.0 Review"]
    ended = baleen("replay", decision["id"], "--state", running.site.state, "--json")

    assert json.loads(ended.output)["decision"] == "Review"


def test_an_altered_record_does_not_replay_and_each_difference_is_named(running, copy):
    decision = running.decisions["v1.0.0 Review"]
    copy(
        (
            "UPDATE decisions SET record = CAST(replace(CAST(record AS TEXT), ?, ?) AS BLOB) WHERE id = ?",
            ('"words.score":700000', '"words.score":10000', decision["id"]),
        )
    )
    ended = baleen("replay", decision["id"], "--state", copy.state)

    assert (ended.status, ended.output) == (1, "")
    assert len(ended.problems) == 1
    for words in (decision["id"], 'decision: "Review" and "Allow"', "score: 700000 and 10000", "reasons: "):
        assert words in ended.problems[0]


def test_a_record_that_is_no_record_is_refused_by_its_id(running, copy):
    decision = running.decisions["v1.0.0 Review"]
    copy(("UPDATE decisions SET record = ? WHERE id = ?", (b'{"id": 3}', decision["id"])))
    ended = baleen("replay", decision["id"], "--state", copy.state)

    assert ended.status == 1
    assert ended.problems[0].startswith(f"decision {decision['id']} cannot be read back: ")


def test_a_decision_of_an_altered_revision_does_not_replay(running, copy, digests):
    copy(
        ("DROP TRIGGER revisions_refuse_update",),
        (
            "UPDATE revisions SET content = replace(content, '500000', '990000') WHERE digest = ?",
            (digests["v1.0.0"],),
        ),
    )
    ended = baleen("replay", running.decisions["v1.0.0 Review"]["id"], "--state", copy.state)

    assert (ended.status, ended.output) == (1, "")
    assert digests["v1.0.0"] in ended.problems[0]


def test_a_decision_whose_revision_is_gone_does_not_replay(running, copy, digests):
    copy(("DELETE FROM revisions WHERE digest = ?", (digests["v1.0.0"],)))
    ended = baleen("replay", running.decisions["v1.0.0 Review"]["id"], "--state", copy.state)

    assert ended.status == 1
    assert ended.problems == [f"the revision of policy community: expected {digests['v1.0.0']}, found nothing"]


def test_a_state_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "baleen.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    ended = baleen("replay", "some-id", "--state", tmp_path)

    assert ended.status == 1
    assert ended.problems == [f"{tmp_path}/baleen.db: file is not a database"]


def test_wait_returns_when_the_sidecar_is_ready(running):
    assert baleen("wait", "--url", running.url, "--seconds", "5").output == f"{running.url} is ready\n"


@pytest.mark.parametrize(
    "arguments", [("policy", "history", "community"), ("moderate", "FILE")], ids=lambda each: each[0]
)
def test_into_a_pipe_everything_is_plain(running, tmp_path, arguments):
    (tmp_path / "vile.txt").write_text("vile words")
    ended = subprocess.run(
        [*BALEEN, *(str(tmp_path / "vile.txt") if each == "FILE" else each for each in arguments)],
        env=running.site.environment(
            BALEEN_STATE=str(running.site.state), BALEEN_URL=running.url, TERM="xterm-256color", COLORTERM="truecolor"
        ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert "v1.1.0" in ended.stdout
    assert "\x1b" not in ended.stdout


def test_an_error_is_written_to_standard_error_plainly_and_ends_with_status_1(running):
    ended = subprocess.run(
        [*BALEEN, "replay", "no-such-id", "--state", str(running.site.state)],
        env=running.site.environment(TERM="xterm-256color"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", "error: there is no decision 'no-such-id' on record\n")


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_history_and_decisions_can_be_read_when_no_sidecar_runs(tmp_path, how):
    site = Site(tmp_path)
    with serving(site) as running:
        decision = running.decide("rude words")
        if how == "killed":
            running.process.kill()
            running.wait()
    empty(site.policies)
    replayed = baleen("replay", decision["id"], "--state", site.state)
    history = baleen("policy", "history", "community", "--state", site.state)

    assert (replayed.status, replayed.errors) == (0, "")
    assert "v1.0.0" in history.output
