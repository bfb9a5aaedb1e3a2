"""`baleen log` over a state folder, as whoever audits it would type it."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from baleen_cli.commands.policy_records import recent_decisions
from baleen_sidecar.adapters.store import SqliteDecisionLog
from commands import baleen
from decision_records import make_record
from store_files import make_database


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with decisions a, b, c and d."""

    async def append() -> None:
        async with SqliteDecisionLog(make_database(tmp_path)) as log:
            for name in "abcd":
                await log.append(make_record(name, author=f"author-{name}"))

    asyncio.run(append())
    return tmp_path


def execute(state: Path, statement: str) -> None:
    with closing(sqlite3.connect(state / "baleen.db")) as connection, connection:
        connection.execute(statement)


def head_of(state: Path) -> str:
    return baleen("log", "head", "--state", state).output.strip()


def test_a_log_that_is_as_it_was_written_is_said_to_be_and_its_head_told(state: Path) -> None:
    head = head_of(state)
    ended = baleen("log", "verify", "--state", state, "--head", head)

    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.splitlines() == [
        "the log is as it was written: 4 decisions in the chain",
        "from a (2026-03-01T12:00:00.000+00:00) to d (2026-03-01T12:00:00.000+00:00)",
        f"head {head}",
    ]


def test_the_first_altered_decision_is_named_with_its_time_and_the_status_says_it_too(state: Path) -> None:
    execute(state, "UPDATE decisions SET decision = 'Block' WHERE id IN ('b', 'c')")
    ended = baleen("log", "verify", "--state", state)

    assert (ended.status, ended.output) == (1, "")
    (problem,) = ended.problems
    assert problem.startswith("decision log: decision b (2026-03-01T12:00:00.000+00:00) does not follow decision a")
    assert problem.endswith("found Altered")


def test_as_json_everything_is_said_at_once(state: Path) -> None:
    whole = baleen("log", "verify", "--state", state, "--json")
    execute(state, "DELETE FROM decisions WHERE id = 'c'")
    broken = baleen("log", "verify", "--state", state, "--json")
    found, fault = json.loads(whole.output), json.loads(broken.output)["fault"]

    assert (whole.status, broken.status) == (0, 1)
    assert (found["intact"], found["decisions"], found["fault"], found["last"]["id"]) == (True, 4, None, "d")
    assert (fault["kind"], fault["place"], fault["id"]) == ("Missing", 3, "d")


def test_a_log_that_lost_its_end_is_found_by_a_head_that_was_noted(state: Path) -> None:
    head = head_of(state)
    execute(state, "DELETE FROM decisions WHERE id = 'd'")

    assert baleen("log", "verify", "--state", state).status == 0
    ended = baleen("log", "verify", "--state", state, "--head", head)
    assert ended.status == 1
    assert "the log ends with decision c" in ended.problems[0]


def test_what_is_no_head_is_refused(state: Path) -> None:
    ended = baleen("log", "verify", "--state", state, "--head", "abc")

    assert ended.status == 1
    assert ended.problems == ["'abc' is no head of a decision log; one is a number, a colon and 64 hexadecimal digits"]


@pytest.fixture
def lost_database(tmp_path: Path) -> Path:
    """The file of the URL of a database that does not answer."""
    path = tmp_path / "database-url"
    path.write_text("postgresql://baleen@127.0.0.1:1/decisions\n")
    return path


COMMANDS = [["log", "verify"], ["log", "head"], ["log", "erase", "author-a"], ["replay", "none"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_folder_on_the_command_line_counts_before_a_database_in_the_environment(
    state: Path, lost_database: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = baleen(*command, "--state", state)
    monkeypatch.setenv("BALEEN_DATABASE_URL_FILE", str(lost_database))
    monkeypatch.setenv("BALEEN_STATE", str(state))
    by_environment = baleen(*command)
    named = baleen(*command, "--state", state)

    assert "127.0.0.1:1 database decisions" in by_environment.problems[0]
    assert named.problems == by_hand.problems
    assert (named.status, named.problems == []) == (by_hand.status, command[0] == "log")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_folder_and_a_database_on_one_command_line_are_refused(
    state: Path, lost_database: Path, command: list[str]
) -> None:
    ended = baleen(*command, "--state", state, "--database", lost_database)

    assert (ended.status, ended.output) == (1, "")
    assert ended.problems == [
        "--database: stands beside --state; a log is in a folder or in a database: give one of them"
    ]


def test_a_head_of_a_database_is_refused_for_a_folder(state: Path) -> None:
    head = f"writer/{head_of(state)}"
    ended = baleen("log", "verify", "--state", state, "--head", head)

    assert ended.status == 1
    assert ended.problems == [f"head: {head} names a writer, as a head of a database does; of a file it is place:link"]


def test_a_person_is_erased_and_the_log_holds_and_says_how_many_were(state: Path) -> None:
    erased = baleen("log", "erase", "author-b", "--state", state)
    again = baleen("log", "erase", "author-b", "--state", state)
    verified = baleen("log", "verify", "--state", state)
    replayed = baleen("replay", "b", "--state", state)

    assert (erased.output, again.output) == ("erased from 1 decision\n", "erased from 0 decisions\n")
    assert verified.status == 0
    assert "personal part erased: 1 decision" in verified.output
    assert replayed.status == 1
    assert "decision b cannot be replayed: its personal part" in replayed.problems[0]


def test_a_simulation_leaves_out_decisions_that_were_erased_and_says_so(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baleen("log", "erase", "author-b", "--state", state)

    assert [record.id for record in recent_decisions(state, 3)] == ["d", "c"]
    assert "1 of the last 3 decisions were erased, and are left out" in capsys.readouterr().err
    assert len(recent_decisions(state, 2)) == 2


def test_a_log_without_a_decision_has_no_head(tmp_path: Path) -> None:
    make_database(tmp_path)
    verified, head = (baleen("log", each, "--state", tmp_path) for each in ("verify", "head"))

    assert (verified.status, verified.output) == (0, "no chain: 0 decisions from before it, or in a spool\n")
    assert head.status == 1
    assert "no decision was put on record since the log has a chain" in head.problems[0]


@pytest.mark.parametrize("command", [("verify",), ("head",), ("erase", "jane")])
def test_a_folder_without_a_log_is_told_and_not_made(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = baleen("log", *command, "--state", tmp_path / "absent")

    assert ended.status == 1
    assert "no decisions or policies were kept here yet" in ended.problems[0]
    assert not (tmp_path / "absent").exists()
