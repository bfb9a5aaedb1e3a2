"""Consistent copies of the store's file: made beside running writers, checked, and put back."""

import asyncio
import hashlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from baleen_core.decision_chain import Head
from baleen_core.errors import IntegrityError, Overloaded, StateError
from baleen_sidecar.adapters.store.chain_rows import verify_rows
from baleen_sidecar.adapters.store.engine import connect, refuse_newer, state_errors
from baleen_sidecar.adapters.store.state_folder import DATABASE, StateFolder, sync

PREFIX: Final = "snapshot-"
RESERVE_BYTES: Final = 128 * 1024 * 1024
"""What a copy leaves free on the disk: twice the room that the decision log keeps for Review and Block."""
FIRST_WITH_CHAIN: Final = "0003"
"""The schema since which decisions are chained."""
FIRST_WITH_GAPS: Final = "0004"
"""The schema since which a chain can have gaps."""
_NO_GAPS: Final = "CREATE TEMPORARY TABLE gaps (sequence INTEGER, last INTEGER)"
_CHUNK_BYTES: Final = 1024 * 1024
_VERSION: Final = "SELECT version_num FROM alembic_version"
_COUNT: Final = "SELECT count(*) FROM decisions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy in a file, and what it must hash to."""

    path: Path
    size_bytes: int
    sha256: str

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes in pieces, read off the loop."""
        with self.path.open("rb") as file:
            while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield data


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a sound copy has."""

    schema: str
    decisions: int


class Copies:
    """Makes one copy at a time of the database in a state folder, whose lock the process holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        # Of a process that was killed while it made one.
        for path in folder.glob(f"{PREFIX}*"):
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def make(self) -> AsyncIterator[Copy]:
        """Yield a copy with everything that was on record when it was begun; it is gone afterwards.

        Decisions go on being written meanwhile. The write-ahead log cannot be cut as long, so it grows.

        Raises:
            Overloaded: one is being made, or the disk has no room for it.
            StateError: the file cannot be read, or the copy not be written.
        """
        if self._lock.locked():
            raise Overloaded("a copy of the state is being made already", retry_after_seconds=60)
        path = self._folder / f"{PREFIX}{os.getpid()}.db"
        async with self._lock:
            try:
                yield await self._make(path)
            finally:
                for leftover in (path, Path(f"{path}-journal")):
                    leftover.unlink(missing_ok=True)

    async def _make(self, path: Path) -> Copy:
        database = self._folder / DATABASE
        with state_errors(database):
            self._check_room(database)
            connection = connect(database, mode="ro")
        work = asyncio.ensure_future(asyncio.to_thread(_vacuum_into, connection, path))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            # Who ends the process must not wait for gigabytes.
            connection.interrupt()
            with suppress(Exception):
                await work
            raise
        except (sqlite3.Error, OSError) as exc:
            raise StateError(f"a copy of the state could not be made: {exc}") from exc
        finally:
            connection.close()
        return await asyncio.to_thread(_describe, path)

    def _check_room(self, database: Path) -> None:
        wal = Path(f"{database}-wal")
        needed = database.stat().st_size + (wal.stat().st_size if wal.exists() else 0) + RESERVE_BYTES
        status = os.statvfs(self._folder)
        if (free := status.f_bavail * status.f_frsize) < needed:
            message = f"a copy of the state needs {needed:,} bytes free on its disk, and there are {free:,}"
            raise Overloaded(message, retry_after_seconds=600)


def _vacuum_into(connection: sqlite3.Connection, path: Path) -> None:
    """Write what one read transaction sees: in order, without gaps, and in need of no second file."""
    connection.execute("VACUUM INTO ?", (str(path),))


def _describe(path: Path) -> Copy:
    return Copy(path=path, size_bytes=path.stat().st_size, sha256=hash_file(path))


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(path: Path) -> Path:
    """Return where a copy's SHA-256 is, in the form of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def check_copy(path: Path) -> Contents:
    """Say what a copy has, if it is sound and this version can read it.

    Raises:
        StateError: it is damaged, not ours, or a newer version wrote it.
    """
    with state_errors(path), closing(_open(path)) as connection:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StateError(f"{path} is damaged: {found}")
        schema = str(connection.execute(_VERSION).fetchone()[0])
        refuse_newer(schema, path)
        return Contents(schema=schema, decisions=connection.execute(_COUNT).fetchone()[0])


def check_chain(path: Path, noted: Sequence[Head] = ()) -> Head | None:
    """Follow the chain of the decisions in a sound copy, and return its head; None where it has no chain.

    Raises:
        IntegrityError: a decision is not as it was written, or a head that was noted is not there.
        InvalidError: a head that was noted is of a database.
        StateError: it cannot be read.
    """
    with state_errors(path), closing(_open(path)) as connection:
        schema = connection.execute(_VERSION).fetchone()[0]
        if schema < FIRST_WITH_CHAIN:
            return None
        if schema < FIRST_WITH_GAPS:
            connection.execute(_NO_GAPS)
        found = verify_rows(connection, noted)
    if found.fault is not None:
        raise IntegrityError(
            f"{path}: {found.fault.text}",
            expected=f"decisions as they were written, up to {found.head}",
            found=found.fault.kind,
        )
    return found.head if found.start.link else None


def _open(path: Path) -> sqlite3.Connection:
    # A copy has no write-ahead log, and nobody writes it: no file is made beside it.
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)


def check_backup(path: Path) -> Contents:
    """Say what a backup has, if it is what was once taken.

    Raises:
        IntegrityError: its bytes are not those that its `.sha256` promises.
        StateError: there is no such file beside it, or as `check_copy`.
    """
    try:
        expected = sums_of(path).read_text(encoding="ascii").split()[0]
        found = hash_file(path)
    except (OSError, UnicodeDecodeError, IndexError) as exc:
        raise StateError(f"{path} cannot be checked: {exc}") from exc
    if found != expected:
        raise IntegrityError(str(path), expected=expected, found=found)
    return check_copy(path)


def restore(backup: Path, state: Path, *, replace: bool, aside: str) -> Contents:
    """Put a backup in the place of a state folder's database; what was there is moved aside under `aside`.

    Raises:
        IntegrityError, StateError: the backup is not in order, as `check_backup`; a process is in the folder; or
        there is a database and `replace` was not said.
    """
    contents = check_backup(backup)
    with StateFolder(state) as folder, state_errors(folder.path):
        database = folder.database
        if database.exists() and not replace:
            raise StateError(f"{database} is there already; say that it is to be replaced, and it is moved aside")
        new = folder.path / f"{PREFIX}restored.db"
        shutil.copyfile(backup, new)
        new.chmod(0o600)
        if (found := hash_file(new)) != (expected := hash_file(backup)):
            raise IntegrityError(str(new), expected=expected, found=found)
        sync(new)
        # The write-ahead log belongs to the old file: SQLite would play it into the new one.
        for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
            if path.exists():
                path.rename(folder.path / f"{aside}-{path.name}")
        new.rename(database)
        sync(folder.path)
    return contents
