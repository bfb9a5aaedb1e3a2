"""A real PostgreSQL for tests: from the machine or unpacked from its Debian package, with a database a test."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from baleen_cli.triton.process import free_port
from baleen_core.errors import StateError
from baleen_sidecar.adapters.store import Database
from baleen_sidecar.adapters.store.schema import metadata
from debian_packages import PackagesMissing, unpack

NOBODY: Final = 65534
"""The server refuses to be root."""
START_SECONDS: Final = 60
PATIENCE_SECONDS: Final = 60
"""How long a statement may take where a test is not about that: the disk may be busy with others' work."""
PASSWORD: Final = "not-so-secret"
_INSTALLED: Final = Path("/usr/lib/postgresql")


def _find_server(run: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder of the server's commands, and what they need in their environment."""
    if found := sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])):
        return found[-1].parent, {}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = unpack("postgresql", cache / "baleen" / "postgresql")
    if os.geteuid() == 0:
        # Nobody may not look into root's cache.
        root = Path(shutil.copytree(root, run / "unpacked", symlinks=True))
    (server,) = root.glob("usr/lib/postgresql/*/bin/postgres")
    folders = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")]
    return server.parent, {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}


class PostgresServer:
    """A server with a folder of its own, reached by a socket in it, and by TCP on a free port with a password."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self._settings = dict(settings)
        self._commands, needed = _find_server(folder)
        self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **needed}
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(folder, NOBODY, NOBODY)
        self._data = folder / "data"
        (folder / "password").write_text(PASSWORD)
        self._run(
            "initdb", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username=baleen", "--auth-local=trust",
            "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}", f"--pgdata={self._data}",
        )  # fmt: skip
        self.start()
        self.wait_until_ready()

    def start(self) -> None:
        """Start it; it ends with the thread that does, however that ends."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "shared_buffers": "16MB",
            **self._settings,
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            # Asked for after the change of user, at which the kernel forgets it.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "INT", "--", self._commands / "postgres", "-D", self._data, *arguments],
                stdout=log,
                stderr=log,
                env=self._environment,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )

    def wait_until_ready(self) -> None:
        """Return once it takes connections."""
        process = self._process
        assert process is not None, "it was started"
        database = Database(write_url(self.folder / "ready-url", self.url("postgres")))
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                with database.connected():
                    return
            except StateError:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends all connections first; after SIGKILL the processes of connections end by themselves."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_SECONDS)
        if how is signal.SIGKILL:
            # A new server would find them at work on its files, and not start.
            while self._has_connections():
                time.sleep(0.02)

    def _has_connections(self) -> bool:
        for path in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if path.readlink() == self._data:
                    return True
            except OSError:
                continue
        return False

    def url(self, database: str) -> str:
        """Return the URL by the socket."""
        return f"postgresql://baleen@localhost:{self.port}/{database}?host={self.folder}"

    def tcp_url(self, database: str, *, host: str = "127.0.0.1", password: str = PASSWORD, options: str = "") -> str:
        """Return the URL by TCP."""
        return f"postgresql://baleen:{password}@{host}:{self.port}/{database}{options}"

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._commands / command, *arguments],
            env=self._environment,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """Run a server of its own, and leave nothing of it behind."""
    # Outside of pytest's folders, which only their owner may enter; and short, as a socket's path must be.
    folder = Path(tempfile.mkdtemp(prefix="baleen-pg-"))
    try:
        try:
            server = PostgresServer(folder, settings)
        except PackagesMissing as exc:
            pytest.skip(str(exc))
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a process, which need no disk: it syncs nothing."""
    with running_server(fsync="off", full_page_writes="off") as server:
        make_database(server, "baleen")
        Database(write_url(server.folder / "baleen-url", server.url("baleen"))).migrate()
        yield server


def make_database(server: PostgresServer, name: str) -> None:
    """Make an empty one."""
    with Database(write_url(server.folder / "postgres-url", server.url("postgres"))).connected(
        PATIENCE_SECONDS
    ) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")


def write_url(path: Path, url: str) -> Path:
    """Write the file that a Database reads."""
    path.write_text(url + "\n")
    return path


@pytest.fixture
def url_file(postgres: PostgresServer, tmp_path: Path) -> Path:
    """The file of the URL of a database with the newest schema and nothing in it.

    To empty one takes milliseconds, to make one seconds where the disk is busy.
    """
    path = write_url(tmp_path / "database-url", postgres.url("baleen"))
    with Database(path).connected(PATIENCE_SECONDS) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
    return path


@pytest.fixture
def database(url_file: Path) -> Database:
    """That database."""
    return Database(url_file, timeout_seconds=PATIENCE_SECONDS)


def execute(database: Database, statement: str, *values: object) -> int:
    """Do something to a database by hand."""
    with database.connected(PATIENCE_SECONDS) as connection:
        return connection.execute(statement, values).rowcount


def scalars(database: Database, statement: str) -> list[object]:
    """Look at one column."""
    with database.connected(PATIENCE_SECONDS) as connection:
        return [value for (value,) in connection.execute(statement)]
