"""A PostgreSQL database: what its URL says, connections to it, and what its errors become."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from baleen_core.errors import InvalidError, Problem, StateError
from baleen_sidecar.adapters.store.any_text import escape, unescape
from baleen_sidecar.adapters.store.engine import DatabaseFault, fault_of, read_version, refuse_newer
from baleen_sidecar.adapters.store.migration import run_migrations
from baleen_sidecar.adapters.store.schema import SCHEMA_VERSION

TIMEOUT_SECONDS: Final = 5.0
"""How long a connection may take to be made, and a statement to be answered; ours take milliseconds."""
SLOW_SECONDS: Final = 300.0
"""The same for what reads or changes a whole log."""
SPARE_SECONDS: Final = 1.0
"""What we wait longer than the database, which names the reason when it gives up first."""
READ_CONNECTIONS: Final = 4
"""Decisions are read by so many at a time.

A gateway has ten: these, those for revisions, and one each that writes, looks after the log, syncs and erases.
"""
REVISION_CONNECTIONS: Final = 2
"""Revisions are read and written by so many at a time."""
URL_LIMIT_BYTES: Final = 4096

_LOCKS: Final = 0x0BA1EE17
"""The first half of our advisory locks; the second is a chain, or one of these."""
RETENTION_LOCK: Final = 0
_MIGRATION_LOCK: Final = -1
ORDER_LOCK: Final = -2

_SESSION: Final = {
    "idle_in_transaction_session_timeout": "60000",
    # A writer that vanished with its node must not keep its chain's lock for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "10000",
}
_SCHEMES: Final = ("postgresql", "postgres")
_MODES: Final = ("verify-full", "verify-ca", "require", "disable")
_LOCK: Final = f"SELECT pg_advisory_lock({_LOCKS}, ?)"
_UNLOCK: Final = f"SELECT pg_advisory_unlock({_LOCKS}, ?)"
TRY_LOCK: Final = f"SELECT pg_try_advisory_xact_lock({_LOCKS}, ?)"
"""True if the lock was free; it is until the end of the transaction."""
WAIT_FOR_LOCK: Final = f"SELECT pg_advisory_xact_lock({_LOCKS}, ?)"
"""Takes the lock, once it is free, until the end of the transaction."""
_READ_ONE_MOMENT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a URL says: where the database is, who asks, and how it is known; `socket` stands before the host."""

    host: str
    port: int
    database: str
    user: str
    password: str | None
    socket: str | None
    mode: str
    certificates: str | None

    @classmethod
    def parse(cls, text: str, field: str) -> Self:
        """Read postgresql://user:password@host:port/database?sslmode=verify-full&sslrootcert=/path.

        Raises:
            InvalidError: it is another URL; `field` is named, and no password.
        """
        try:
            url = make_url(text.strip())
        except (ArgumentError, ValueError):
            raise _invalid(field, "is no URL such as postgresql://user:password@host:5432/database") from None
        if problems := list(_problems(url)):
            raise InvalidError(Problem(field=field, message=each) for each in problems)
        options = {name: str(value) for name, value in url.query.items()}
        socket = options.get("host")
        return cls(
            host=url.host or "localhost",
            port=url.port or 5432,
            database=url.database or "",
            user=url.username or "",
            password=url.password if url.password is None else str(url.password),
            socket=None if socket is None else f"{socket}/.s.PGSQL.{url.port or 5432}",
            mode=options.get("sslmode", _MODES[0]),
            certificates=options.get("sslrootcert"),
        )

    def __str__(self) -> str:
        return f"{self.socket or f'{self.host}:{self.port}'} database {self.database}"

    def tls(self) -> ssl.SSLContext | bool:
        """Return what the server has to prove; False: nothing is encrypted."""
        if self.socket is not None or self.mode == "disable":
            return False
        context = ssl.create_default_context(cafile=self.certificates)
        context.check_hostname = self.mode == "verify-full"
        if self.mode == "require":
            context.verify_mode = ssl.CERT_NONE
        return context


def _problems(url: URL) -> Iterator[str]:
    if _has_stray_at(url):
        # What stands there may be a part of the password: nothing of it is said.
        yield "has an @ in its host or behind it: in a password it is written %40"
        return
    if url.drivername not in _SCHEMES:
        yield f"begins with {url.drivername}://; it must be postgresql://"
    if not url.username:
        yield "names no user: postgresql://user:password@host:5432/database"
    if not url.database:
        yield "names no database: postgresql://user:password@host:5432/database"
    for name, value in url.query.items():
        if name not in ("host", "sslmode", "sslrootcert"):
            yield f"has the option {name!r}; known are host (a folder of sockets), sslmode and sslrootcert"
        elif name == "host" and not str(value).startswith("/"):
            yield "has a host in its options that is no folder; a name stands before the database"
        elif name == "sslmode" and value not in _MODES:
            yield f"has the sslmode {value!r}; it must be one of {', '.join(_MODES)}"


def _has_stray_at(url: URL) -> bool:
    options = (f"{name}{value}" for name, value in url.query.items() if name not in ("host", "sslrootcert"))
    return any("@" in part for part in (url.host or "", url.database or "", *options))


def _invalid(field: str, message: str) -> InvalidError:
    return InvalidError([Problem(field=field, message=message)])


class PostgresConnection:
    """A connection in autocommit; texts go through it as they are, whatever is in them.

    Raises DatabaseFault, and is of no use once that names no SQLSTATE.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        raw.autocommit = True

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> "FoundRows":
        """Run one statement, and hold all that it found."""
        return self.execute_escaped(sql, [escape(each) if isinstance(each, str) else each for each in parameters])

    def execute_escaped(self, sql: str, parameters: Sequence[Any], /) -> "FoundRows":
        """Run one statement whose texts are escaped already, such as those in a JSON document."""
        try:
            cursor = self._raw.cursor()
            cursor.execute(_in_its_form(sql), tuple(parameters))
            found = cursor.fetchall() if cursor.description else []
            return FoundRows([tuple(map(_as_it_was, row)) for row in found], cursor.rowcount)
        except Exception as exc:  # the driver lets errors of its parser and of the socket through, too
            raise fault_of(exc) from exc

    def lock(self, number: int) -> None:
        """Take an advisory lock for as long as the connection lives, once whoever has it is gone."""
        self.execute(_LOCK, (number,))

    @contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[None]:
        """Commit what is done meanwhile, or nothing of it."""
        self.execute(begin)
        try:
            yield
        except BaseException:
            with suppress(DatabaseFault):
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def one_moment(self) -> AbstractContextManager[None]:
        """Read what was there at one moment."""
        return self.transaction(_READ_ONE_MOMENT)

    def close(self) -> None:
        """Close it; what was not committed is rolled back."""
        with suppress(Exception):
            self._raw.close()


class FoundRows:
    """What a statement found, all of it."""

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows
        self._next = 0
        self.rowcount = rowcount

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, if there is one."""
        if self._next == len(self._rows):
            return None
        self._next += 1
        return self._rows[self._next - 1]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        rows, self._next = self._rows[self._next :], len(self._rows)
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


@cache
def _in_its_form(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _as_it_was(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) else value


class Database:
    """The database that the URL in a file names; the file is read for each connection, so that a password can change.

    Raises:
        InvalidError: the file has no URL of a PostgreSQL database.
        StateError: it cannot be read, or this installation has no driver.
    """

    def __init__(self, url_file: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        try:
            import pg8000.dbapi  # here, since most have no such database, and it takes as long to import as SQLAlchemy
        except ImportError:
            raise StateError(
                "decisions in PostgreSQL need the extra [postgres]: pip install 'baleen[postgres]'"
            ) from None
        self._dial = pg8000.dbapi.connect
        self._url_file = url_file
        self._timeout_seconds = timeout_seconds
        self.name = str(self._read())

    def connect(self, *, timeout_seconds: float | None = None) -> PostgresConnection:
        """Connect; a statement may take so long.

        Raises:
            DatabaseFault: it does not answer, or refuses.
            StateError: the file is not in order any more.
        """
        return PostgresConnection(self._connect(timeout_seconds or self._timeout_seconds))

    def open_engine(self, connections: int = 1) -> Engine:
        """Open it for SQLAlchemy; at most so many connections are made, and one that broke is made anew."""
        return create_engine(
            "postgresql+pg8000://",
            creator=lambda: self._connect(self._timeout_seconds),
            pool_size=1,
            max_overflow=connections - 1,
            pool_timeout=self._timeout_seconds,
            pool_pre_ping=True,
        )

    def open_current(self, connections: int = 1) -> Engine:
        """Open it as `open_engine` does, if it has the schema of this version.

        Raises:
            StateError: it has another, or does not answer.
        """
        engine = self.open_engine(connections)
        try:
            found = read_version(engine, self.name)
            refuse_newer(found, self.name)
            if found != SCHEMA_VERSION:
                raise StateError(
                    f"{self.name} has the schema {found or 'of no version'}, this version of Baleen needs "
                    f"{SCHEMA_VERSION}: start a gateway once, it brings the database up to date"
                )
        except BaseException:
            engine.dispose()
            raise
        return engine

    def migrate(self) -> None:
        """Make the tables, or bring them to the newest schema; one process at a time, the others wait.

        Raises:
            StateError: a newer version made them, or the database does not answer or cannot hold any text.
        """
        with self.connected(SLOW_SECONDS) as connection:
            ((encoding,),) = connection.execute("SHOW server_encoding").fetchall()
            if encoding != "UTF8":
                raise StateError(f"{self.name} has the encoding {encoding}; it must be UTF8")
            connection.lock(_MIGRATION_LOCK)
            engine = create_engine("postgresql+pg8000://", creator=lambda: self._connect(SLOW_SECONDS), pool_size=1)
            try:
                found = read_version(engine, self.name)
                refuse_newer(found, self.name)
                if found != SCHEMA_VERSION:
                    run_migrations(engine, self.name)
            finally:
                engine.dispose()
                connection.execute(_UNLOCK, (_MIGRATION_LOCK,))

    @contextmanager
    def connected(self, timeout_seconds: float | None = None) -> Iterator[PostgresConnection]:
        """Connect for a while, and let no error of the database out as it is.

        Raises:
            StateError: it does not answer, or refuses; `NAME: why`.
        """
        try:
            connection = self.connect(timeout_seconds=timeout_seconds)
            try:
                yield connection
            finally:
                connection.close()
        except DatabaseFault as exc:
            raise StateError(f"{self.name}: {exc.said}") from exc

    def _connect(self, timeout_seconds: float) -> Any:
        try:
            target = self._read()
        except InvalidError as exc:
            # While it runs, what callers ask for is not what is wrong: they may ask again.
            raise StateError(str(exc)) from exc
        milliseconds = str(int(timeout_seconds * 1000))
        try:
            return self._dial(
                target.user,
                host=target.host,
                port=target.port,
                database=target.database,
                password=target.password,
                unix_sock=target.socket,
                ssl_context=target.tls(),
                timeout=timeout_seconds + SPARE_SECONDS,
                application_name="baleen",
                startup_params={**_SESSION, "statement_timeout": milliseconds, "lock_timeout": milliseconds},
            )
        except Exception as exc:  # also of TLS, of the file of certificates, and the driver's own mistakes
            if target.password is None and isinstance(exc, AttributeError):
                # The driver asks it for its bytes.
                said = "the database asks for a password, and its URL has none"
                raise DatabaseFault("the database does not answer", said=said) from exc
            raise fault_of(exc) from exc

    def _read(self) -> Target:
        try:
            with self._url_file.open("rb") as file:
                data = file.read(URL_LIMIT_BYTES + 1)
        except OSError as exc:
            raise StateError(f"the database's URL cannot be read from {self._url_file}: {exc.strerror}") from exc
        if len(data) > URL_LIMIT_BYTES:
            raise _invalid(str(self._url_file), f"is over the limit of {URL_LIMIT_BYTES:,} bytes for a URL")
        return Target.parse(data.decode("utf-8", "replace"), str(self._url_file))
