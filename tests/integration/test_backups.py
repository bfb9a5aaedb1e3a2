"""Backups over the gateway's second port: what is refused, what is kept, what is pruned, what is put back."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from baleen_core.policy_stream import SNAPSHOT_PATH
from baleen_sidecar import backup
from baleen_sidecar.adapters.store import Copies, SqliteDecisionLog, StateFolder, migrate, read_head
from baleen_sidecar.adapters.store import copies as module
from baleen_sidecar.backup import take
from baleen_sidecar.settings import BackupSettings
from decision_records import make_record
from gateways import Gateway, gateway
from store_files import check_integrity

NOW = datetime(2026, 3, 31, 3, 0, tzinfo=UTC)
ACCOUNT = frozenset({("baleen-system", "baleen-backup")})
Said = Callable[[], str]


SINCE_0006: Final = ("idempotency_keys", "rescan_debts", "decision_changes")


def make_state(folder: Path, *ids: str) -> Path:
    """Make a state folder with these decisions."""

    async def append() -> None:
        async with SqliteDecisionLog(folder / "baleen.db") as log:
            await asyncio.gather(*(log.append(make_record(each)) for each in ids))

    folder.mkdir(exist_ok=True)
    migrate(folder / "baleen.db")
    asyncio.run(append())
    return folder


def ids_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {each for (each,) in connection.execute("SELECT id FROM decisions")}


def settings(folder: Path, url: str, **more: Any) -> BackupSettings:
    for each in ("backup", "account"):
        (folder / each).mkdir(exist_ok=True)
    (folder / "account/token").write_text("backup-token")
    return BackupSettings(gateways=url, folder=folder / "backup", token_file=folder / "account/token", **more)


def take_from(folder: Path, served: Gateway, *, now: datetime = NOW, **more: Any) -> asyncio.Future[int]:
    """Take a backup beside the loop that serves."""
    return asyncio.ensure_future(asyncio.to_thread(take, settings(folder, served.url, **more), now=now))


def backed_up(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder / "backup")) for each in (folder / "backup").rglob("*") if each.is_file())


@asynccontextmanager
async def serving_copies(state: Path) -> AsyncIterator[Gateway]:
    async with gateway(copies=Copies(state), backup_accounts=ACCOUNT) as served:
        yield served


@pytest.fixture(autouse=True)
def said_by(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Return what was logged so far; the command leaves the logging of the tests alone."""
    monkeypatch.setattr(backup, "set_up_logging", lambda: None)
    return lambda: "".join(str(vars(record)) for record in caplog.records)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Give a backup of a state with two decisions."""

    async def back_up() -> int:
        async with serving_copies(state) as served:
            return await take_from(tmp_path, served)

    state = make_state(tmp_path / "gateway", "01-a", "01-b")
    assert asyncio.run(back_up()) == 0
    return tmp_path / "backup/gateway-1/20260331T030000Z.db"


def restore(file: Path, state: Path, *more: str) -> int:
    return backup.main(["restore", str(file), "--state", str(state), *more])


def test_a_backup_is_one_sound_file_beside_its_sum_and_leaves_nothing_in_the_state(kept: Path, tmp_path: Path):
    assert backed_up(tmp_path) == ["gateway-1/20260331T030000Z.db", "gateway-1/20260331T030000Z.db.sha256"]
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert ids_in(kept) == {"01-a", "01-b"}
    assert backup.main(["verify", str(kept)]) == 0
    assert [*(tmp_path / "gateway").glob("snapshot-*")] == []


def test_the_chain_of_a_backup_is_followed_and_its_head_told(
    kept: Path, said_by: Said, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    head = read_head(kept)

    assert backup.main(["verify", str(kept), "--head", str(head)]) == 0
    assert f"'head': '{head}'" in said_by()
    assert [*kept.parent.glob("*-wal"), *kept.parent.glob("*-shm")] == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param("UPDATE decisions SET decision = 'Block' WHERE id = '01-b'", "decision 01-b", id="altered"),
        pytest.param("DELETE FROM decisions WHERE id = '01-b'", "a head was noted beyond it", id="cut"),
    ],
)
def test_a_backup_with_a_decision_that_is_not_as_it_was_written_is_refused(
    kept: Path, statement: str, said: str, said_by: Said
):
    head = read_head(kept)
    with closing(sqlite3.connect(kept)) as connection, connection:
        connection.execute(statement)
    write_sum(kept)

    assert backup.main(["verify", str(kept), "--head", str(head)]) == 1
    assert said in said_by()


def test_a_backup_is_put_into_an_empty_folder(kept: Path, tmp_path: Path):
    assert restore(kept, tmp_path / "state") == 0

    assert ids_in(tmp_path / "state/baleen.db") == {"01-a", "01-b"}
    assert (tmp_path / "state/baleen.db").stat().st_mode & 0o777 == 0o600
    make_state(tmp_path / "state", "01-c")
    assert check_integrity(tmp_path / "state/baleen.db") == "ok"


def test_where_decisions_came_from_and_how_far_they_were_sent_comes_back(tmp_path: Path):
    async def back_up() -> int:
        async with serving_copies(state) as served:
            return await take_from(tmp_path, served)

    state = make_state(tmp_path / "gateway", "01-a", "01-b")
    with closing(sqlite3.connect(state / "baleen.db")) as connection:
        # A gap, which a copy that numbers rows anew would close: the mark would then be ahead of them.
        connection.execute("DELETE FROM decisions WHERE sequence = 1")
        connection.execute("UPDATE decisions SET origin = 'shop/default/shop-1'")
        connection.execute("INSERT INTO spool (id, shipped) VALUES (1, 2)")
        connection.commit()
    assert asyncio.run(back_up()) == 0
    assert restore(tmp_path / "backup/gateway-1/20260331T030000Z.db", tmp_path / "state") == 0

    with closing(sqlite3.connect(tmp_path / "state/baleen.db")) as connection:
        assert connection.execute("SELECT sequence, origin FROM decisions").fetchall() == [(2, "shop/default/shop-1")]
        assert connection.execute("SELECT shipped FROM spool").fetchall() == [(2,)]


def test_a_backup_of_an_older_release_is_put_back_and_brought_up_to_date(kept: Path, tmp_path: Path):
    with closing(sqlite3.connect(kept)) as connection:
        connection.execute("DROP INDEX decisions_by_age")
        connection.execute("CREATE INDEX decisions_by_time ON decisions (time)")
        for column in ("origin", "personal", "salt", "personal_digest", "keep_days", "link", "writer", "number"):
            connection.execute(f"ALTER TABLE decisions DROP COLUMN {column}")
        for table in ("spool", "chain", "dropped_decisions", "gaps", *SINCE_0006):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()
    write_sum(kept)
    assert backup.main(["verify", str(kept)]) == 0
    assert restore(kept, tmp_path / "state") == 0

    make_state(tmp_path / "state", "01-c")
    assert ids_in(tmp_path / "state/baleen.db") == {"01-a", "01-b", "01-c"}


def test_the_chain_of_a_backup_from_before_there_were_gaps_is_followed(kept: Path, said_by: Said):
    with closing(sqlite3.connect(kept)) as connection:
        for table in ("gaps", *SINCE_0006):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE alembic_version SET version_num = '0003'")
        connection.commit()
    write_sum(kept)
    verified = backup.main(["verify", str(kept)])
    with closing(sqlite3.connect(kept)) as connection:
        connection.execute("UPDATE decisions SET decision = 'Block' WHERE id = '01-b'")
        connection.commit()
    write_sum(kept)

    assert (verified, backup.main(["verify", str(kept)])) == (0, 1)
    assert "decision 01-b" in said_by()


def test_a_database_that_is_there_is_replaced_only_when_that_is_said_and_moved_aside(
    kept: Path, tmp_path: Path, said_by: Said
):
    state = make_state(tmp_path / "state", "01-z")
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(state / "baleen.db", isolation_level=None)) as connection:
        connection.execute("UPDATE decisions SET id = '01-y'")
        # As after a kill: the last decision is in the write-ahead log alone.
        shutil.copytree(state, killed)
    refused = restore(kept, killed)
    replaced = restore(kept, killed, "--replace")

    assert (refused, replaced) == (1, 0)
    assert "is there already" in said_by()
    assert ids_in(killed / "baleen.db") == {"01-a", "01-b"}
    (aside,) = killed.glob("before-restore-*-baleen.db")
    assert ids_in(aside) == {"01-y"}


def test_a_state_that_runs_is_never_touched(kept: Path, tmp_path: Path, said_by: Said):
    state = make_state(tmp_path / "state", "01-z")
    with StateFolder(state):
        refused = restore(kept, state, "--replace")

    assert refused == 1
    assert "is in use by process" in said_by()
    assert ids_in(state / "baleen.db") == {"01-z"}


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)
    write_sum(path)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    write_sum(path)


def make_foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    write_sum(path)


def write_sum(path: Path) -> None:
    module.sums_of(path).write_text(f"{module.hash_file(path)}  {path.name}\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(flip_a_byte, "expected ", id="another byte"),
        pytest.param(zero_a_page, "damaged", id="damaged before it was summed"),
        pytest.param(make_newer, "written by a newer version of Baleen (schema 9999", id="newer"),
        pytest.param(make_foreign, "no such table", id="not ours"),
        pytest.param(lambda path: module.sums_of(path).unlink(), "cannot be checked", id="no sum"),
        pytest.param(Path.unlink, "cannot be checked", id="no file"),
    ],
)
def test_a_backup_that_is_not_in_order_is_not_put_back(
    damage: Callable[[Path], None], said: str, kept: Path, tmp_path: Path, said_by: Said
):
    state = make_state(tmp_path / "state", "01-z")
    damage(kept)

    assert restore(kept, state, "--replace") == 1
    assert said in said_by()
    assert ids_in(state / "baleen.db") == {"01-z"}


async def test_old_backups_go_after_a_good_new_one_and_stay_after_one_that_failed(tmp_path: Path):
    state = await asyncio.to_thread(make_state, tmp_path / "gateway", "01-a")
    async with serving_copies(state) as served:
        assert await take_from(tmp_path, served) == 0
        assert await take_from(tmp_path, served, now=NOW + timedelta(days=2)) == 0
        served.copies = None
        await served.stop()
        await served.start()
        failed = await take_from(tmp_path, served, now=NOW + timedelta(days=40))
        after_failure = backed_up(tmp_path)
        served.copies = Copies(state)
        await served.stop()
        await served.start()
        taken = await take_from(tmp_path, served, now=NOW + timedelta(days=32), keep_days=30)

    assert (failed, taken) == (1, 0)
    assert [each for each in after_failure if each.endswith(".db")] == [
        "gateway-1/20260331T030000Z.db",
        "gateway-1/20260402T030000Z.db",
    ]
    assert [each for each in backed_up(tmp_path) if each.endswith(".db")] == [
        "gateway-1/20260402T030000Z.db",
        "gateway-1/20260502T030000Z.db",
    ]


async def test_only_those_that_keep_backups_get_a_copy_and_one_at_a_time(tmp_path: Path):
    state = await asyncio.to_thread(make_state, tmp_path / "gateway", "01-a")
    async with serving_copies(state) as served, served.client("operator-token") as operator:
        refused = await operator.get(SNAPSHOT_PATH)
        async with served.copies.make(), served.client("backup-token") as another:
            second = await another.get(SNAPSHOT_PATH)

    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "ServiceAccount baleen-system/baleen-operator keeps no backups",
    )
    assert (second.status_code, second.headers["retry-after"]) == (503, "60")


async def test_a_disk_without_room_for_a_copy_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = await asyncio.to_thread(make_state, tmp_path / "gateway", "01-a")
    monkeypatch.setattr(module, "RESERVE_BYTES", 1 << 60)
    async with serving_copies(state) as served, served.client("backup-token") as client:
        refused = await client.get(SNAPSHOT_PATH)

    assert refused.status_code == 503
    assert "bytes free on its disk" in refused.json()["detail"]
    assert sorted(each.name for each in state.iterdir()) == ["baleen.db"]


async def test_a_copy_that_nobody_waits_for_any_more_leaves_nothing_behind(tmp_path: Path):
    state = await asyncio.to_thread(make_state, tmp_path / "gateway", "01-a")
    copies = Copies(state)

    async def have_one() -> None:
        async with copies.make():
            await asyncio.Event().wait()

    waiting = asyncio.create_task(have_one())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert [*state.glob("snapshot-*")] == []
    async with copies.make() as copy:
        assert ids_in(copy.path) == {"01-a"}


def test_what_a_killed_process_left_of_a_copy_is_removed(tmp_path: Path):
    state = make_state(tmp_path / "gateway", "01-a")
    (state / "snapshot-77.db").touch()
    (state / "snapshot-77.db-journal").touch()
    Copies(state)

    assert sorted(each.name for each in state.iterdir()) == ["baleen.db"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param({"x-baleen-replica": "../../etc"}, "names no replica", id="outside of the folder"),
        pytest.param({"x-baleen-replica": ".."}, "names no replica", id="the folder above"),
        pytest.param({"x-baleen-sha256": "none"}, "no SHA-256", id="no digest"),
        pytest.param({"x-baleen-sha256": "0" * 64}, "expected 0000", id="another digest"),
        pytest.param({}, "file is not a database", id="no database"),
    ],
)
async def test_nothing_is_kept_of_a_gateway_that_answers_nonsense(
    headers: dict[str, str], said: str, tmp_path: Path, said_by: Said
):
    digest = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"hi", headers={"x-baleen-replica": "a", "x-baleen-sha256": digest, **headers})

    app = web.Application()
    app.add_routes([web.get(SNAPSHOT_PATH, answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    code = await asyncio.to_thread(take, settings(tmp_path, url), now=NOW)
    await runner.cleanup()

    assert code == 1
    assert said in said_by()
    assert backed_up(tmp_path) == []


async def test_a_replica_that_fails_keeps_no_other_from_its_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = await asyncio.to_thread(make_state, tmp_path / "gateway", "01-a")
    async with serving_copies(state) as served:
        monkeypatch.setattr(backup, "find_gateways", lambda _: ("http://127.0.0.1:1", served.url))
        code = await take_from(tmp_path, served)

    assert code == 1
    assert "gateway-1/20260331T030000Z.db" in backed_up(tmp_path)


def test_each_address_of_a_name_is_a_replica(monkeypatch: pytest.MonkeyPatch):
    found = [(0, 0, 0, "", (host, 8081)) for host in ("10.0.0.9", "fd00::9", "10.0.0.7", "10.0.0.9")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)

    assert backup.find_gateways("http://gateways:8081") == (
        "http://10.0.0.7:8081",
        "http://10.0.0.9:8081",
        "http://[fd00::9]:8081",
    )


def test_a_setting_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, said_by: Said):
    monkeypatch.setenv("BALEEN_BACKUP_KEEP_DAYS", "0")

    assert backup.main(["take"]) == 2
    assert "BALEEN_BACKUP_KEEP_DAYS" in said_by()
