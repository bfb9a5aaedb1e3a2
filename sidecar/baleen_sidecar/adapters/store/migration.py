"""Bring the file to the newest schema, forward only; and print that schema."""

from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine

from baleen_sidecar.adapters.store.engine import connect, open_engine, read_version, refuse_newer, state_errors
from baleen_sidecar.adapters.store.schema import SCHEMA_VERSION

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_SCHEMA: Final = Path(__file__).parent / "init.sql"

_TITLE: Final = """\
-- The schema of Baleen's store, as the migrations make it; a file made from this needs no migration.
-- Written by schema_sql(), compared with it by a test; change schema.py and add a migration instead.
"""

# SQLite lists objects in the order they were made, so a table stands before its indexes and triggers.
_OBJECTS: Final = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"

_VERSION_ROW: Final = f"INSERT INTO alembic_version (version_num) VALUES ('{SCHEMA_VERSION}')"  # noqa: S608


def migrate(path: Path) -> None:
    """Create the file, or run the migrations that it lacks; each is one transaction, so a kill loses no step.

    Raises:
        StateError: a newer version wrote the file, or it is not a database, or the disk failed.
    """
    engine = open_engine(path, mode="rwc")
    try:
        found = read_version(engine, path)
        refuse_newer(found, path)
        if found is None and _is_empty(engine, path):
            _create(path)
        elif found != SCHEMA_VERSION:
            run_migrations(engine, path)
    finally:
        engine.dispose()


def _is_empty(engine: Engine, path: Path) -> bool:
    with state_errors(path), engine.connect() as connection:
        return not connection.exec_driver_sql(_OBJECTS).first()


def _create(path: Path) -> None:
    """Make at once what all migrations make one after the other: most state folders are new at each start of a pod."""
    with state_errors(path), closing(connect(path, mode="rw")) as connection:
        connection.executescript(f"BEGIN IMMEDIATE;\n{_SCHEMA.read_text(encoding='utf-8')}\nCOMMIT;")


def run_migrations(engine: Engine, where: Path | str) -> None:
    """Run the migrations that a file or a database lacks, as `migrate` does."""
    with state_errors(where), engine.connect() as connection:
        _upgrade(connection)


def schema_sql() -> str:
    """Write the schema as one SQL script: what `init.sql` holds."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        _upgrade(connection)
        statements = connection.exec_driver_sql(_OBJECTS).scalars().all()
    engine.dispose()
    script = (*statements, _VERSION_ROW)
    return _TITLE + "".join(f"\n{_tidy(statement)};\n" for statement in script)


def _upgrade(connection: Connection) -> None:
    # Here, since at most starts there is nothing to migrate, and it has many dependencies to import.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


def _tidy(statement: str) -> str:
    """Drop the blanks at line ends and the tabs that SQLAlchemy leaves."""
    return "\n".join(line.rstrip() for line in statement.strip().expandtabs(4).splitlines() if line.strip())
