"""The file's schema: how it comes to be, and what is refused."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import baleen_sidecar.adapters.store
from baleen_core.errors import NotFound, StateError
from baleen_sidecar.adapters.store import SqliteDecisionReader, SqliteRevisionStore, migrate, schema_sql
from baleen_sidecar.adapters.store.engine import open_engine
from baleen_sidecar.adapters.store.migration import run_migrations
from baleen_sidecar.adapters.store.schema import metadata
from store_files import make_database

INIT_SQL = Path(baleen_sidecar.adapters.store.__file__).parent / "init.sql"


def dump(path: Path) -> list[str]:
    """Return the statements that make the file's schema, without their line breaks, apart from Alembic's own table."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    statements = sorted(" ".join(sql.split()) for (sql,) in rows)
    connection.close()
    return statements


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_the_migrations_lead_to_the_schema_of_the_code(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    metadata.create_all(engine)
    engine.dispose()
    engine = open_engine(tmp_path / "migrated.db", mode="rwc")
    run_migrations(engine, tmp_path / "migrated.db")
    engine.dispose()

    assert dump(tmp_path / "migrated.db") == dump(tmp_path / "fresh.db")


def test_the_schema_file_is_what_the_migrations_make() -> None:
    assert INIT_SQL.read_text(encoding="utf-8") == schema_sql()


async def test_a_file_made_from_the_schema_file_needs_no_migration(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "baleen.db")
    connection.executescript(schema_sql())
    connection.close()

    assert await SqliteDecisionReader(tmp_path / "baleen.db").count() == 0
    migrate(tmp_path / "new.db")
    assert dump(tmp_path / "baleen.db") == dump(tmp_path / "new.db")


def test_a_file_with_anything_in_it_is_never_taken_for_a_new_one(tmp_path: Path) -> None:
    execute(tmp_path / "baleen.db", "CREATE TABLE lists (name TEXT)")

    with pytest.raises(StateError, match="table lists already exists"):
        migrate(tmp_path / "baleen.db")


def test_a_file_of_which_no_migration_has_ended_is_migrated(tmp_path: Path) -> None:
    # What Alembic makes before the first one.
    table = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)"
    execute(tmp_path / "begun.db", table)
    migrate(tmp_path / "new.db")

    migrate(tmp_path / "begun.db")

    assert dump(tmp_path / "begun.db") == dump(tmp_path / "new.db")


async def test_migrating_again_keeps_everything(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    store = SqliteRevisionStore(path)
    await store.put_list("sha256:aa", "one")
    store.close()

    migrate(path)

    assert await SqliteRevisionStore(path).get_list("sha256:aa") == "one"


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = make_database(tmp_path)
    execute(path, "UPDATE alembic_version SET version_num = '0099'")
    before = dump(path)

    for opening in (migrate, SqliteDecisionReader, SqliteRevisionStore):
        with pytest.raises(StateError, match=r"newer version of Baleen \(schema 0099, this one knows up to 0007\)"):
            opening(path)
    assert dump(path) == before


def test_a_file_without_our_schema_is_not_read(tmp_path: Path) -> None:
    execute(tmp_path / "other.db", "CREATE TABLE cats (name TEXT)")

    with pytest.raises(StateError, match="start the sidecar once"):
        SqliteDecisionReader(tmp_path / "other.db")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "baleen.db"
    path.write_text("dear diary, " * 200)

    for opening in (migrate, SqliteDecisionReader, SqliteRevisionStore):
        with pytest.raises(StateError, match="file is not a database"):
            opening(path)
    assert path.read_text() == "dear diary, " * 200


def test_reading_never_makes_a_file(tmp_path: Path) -> None:
    for opening in (SqliteDecisionReader, SqliteRevisionStore):
        with pytest.raises(NotFound, match="no decisions or policies were kept here yet"):
            opening(tmp_path / "baleen.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        pytest.param("UPDATE activations SET reason = ''", "append-only", id="an activation is not rewritten"),
        pytest.param("DELETE FROM activations", "append-only", id="an activation is not removed"),
        pytest.param("UPDATE revisions SET content = ''", "immutable", id="a revision is not rewritten"),
        pytest.param("UPDATE lists SET content = ''", "immutable", id="a list is not rewritten"),
    ],
)
def test_the_database_itself_keeps_what_is_written(tmp_path: Path, statement: str, refusal: str) -> None:
    path = make_database(tmp_path)
    execute(path, "INSERT INTO activations (policy, digest, version, time, reason) VALUES ('a', 'b', 'c', 'd', 'e')")
    execute(path, "INSERT INTO revisions (digest, policy, content) VALUES ('a', 'b', 'c')")
    execute(path, "INSERT INTO lists (digest, content) VALUES ('a', 'b')")

    with pytest.raises(sqlite3.IntegrityError, match=refusal):
        execute(path, statement)


async def test_a_folder_name_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "100% of a?b#c d"
    folder.mkdir()

    await SqliteRevisionStore(make_database(folder)).put_list("sha256:aa", "one")

    assert sorted(path.name for path in folder.iterdir())[0] == "baleen.db"
