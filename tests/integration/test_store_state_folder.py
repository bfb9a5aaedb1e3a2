"""One process at a time in a state folder; readers beside it are welcome."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from baleen_core.canonical import digest_of
from baleen_core.errors import StateError
from baleen_core.policy.schema import Revision
from baleen_sidecar.adapters.store import (
    SqliteDecisionLog,
    SqliteDecisionReader,
    SqliteRevisionStore,
    StateFolder,
    migrate,
)
from baleen_sidecar.ports import Activation
from decision_records import make_record
from store_files import check_integrity, make_database

HOLD = """
import sys, time
from pathlib import Path
from baleen_sidecar.adapters.store import StateFolder
with StateFolder(Path(sys.argv[1])):
    print("entered", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process_in(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "entered\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with another_process_in(tmp_path / "state") as process:
        expected = f"state folder .*state is in use by process {process.pid}: stop it, or set another folder"
        with pytest.raises(StateError, match=expected), StateFolder(tmp_path / "state"):
            pass


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    with another_process_in(tmp_path / "state") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()

        with StateFolder(tmp_path / "state") as folder:
            assert folder.database == tmp_path / "state" / "baleen.db"


def test_a_folder_that_was_left_can_be_entered_again(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            StateFolder(tmp_path / "state"),
            pytest.raises(StateError, match="in use"),
            StateFolder(tmp_path / "state"),
        ):
            pass


def test_a_state_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "deep" / "state") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(StateError, match=r"file/state cannot be used: .*Not a directory"),
        StateFolder(tmp_path / "file" / "state"),
    ):
        pass


async def test_the_command_line_reads_beside_a_running_sidecar(tmp_path: Path) -> None:
    activation = Activation(policy="a/b", digest="sha256:aa", version="1", time="2026-03-01T12:00:00Z", reason="first")
    with StateFolder(tmp_path) as folder:
        migrate(folder.database)
        store = SqliteRevisionStore(folder.database)
        await store.record_activation(activation)
        async with SqliteDecisionLog(folder.database) as log:
            await log.append(make_record("01-a"))
            reader = SqliteDecisionReader(folder.database)
            history = SqliteRevisionStore(folder.database, read_only=True)

            assert await reader.get("01-a") == make_record("01-a")
            assert await history.history("a/b") == [activation]
            await log.append(make_record("01-b"))
            assert await reader.count() == 2
            with pytest.raises(StateError, match="readonly"):
                await history.put_revision("a/b", Revision(digest=digest_of(b"{}"), content="{}"))


async def test_the_command_line_reads_when_no_sidecar_runs(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path) as log:
        await log.append(make_record("01-a"))

    reader = SqliteDecisionReader(path)

    assert await reader.get("01-a") == make_record("01-a")
    assert await reader.recent() == [make_record("01-a")]
    reader.close()


async def test_a_record_that_no_version_wrote_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path) as log:
        await log.append(make_record("01-a"))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE decisions SET record = CAST('{\"id\": 7}' AS BLOB)")
    connection.commit()
    connection.close()

    with pytest.raises(StateError, match="decision 01-a cannot be read back: "):
        await SqliteDecisionReader(path).get("01-a")
    assert check_integrity(path) == "ok"
