"""A real Redis for tests: from the machine or unpacked from its Debian package; it keeps nothing on a disk."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis

from baleen_cli.triton.process import free_port
from debian_packages import PackagesMissing, unpack

START_SECONDS: Final = 60


def _find_server() -> tuple[str, dict[str, str]]:
    """Return the server's command, and what it needs in its environment."""
    if found := shutil.which("redis-server"):
        return found, {}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = unpack("redis-server", cache / "baleen" / "redis")
    folders = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")]
    return str(root / "usr/bin/redis-server"), {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}


class RedisServer:
    """A server with a folder of its own, reached by a socket in it, and by TCP on a free port; both stay the same."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self._folder = folder
        self._password = password
        self._command, needed = _find_server()
        self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **needed}
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """Return the URL by the socket, which no other process can take meanwhile."""
        return f"unix://{self._account}{self._folder / 'socket'}"

    @property
    def tcp_url(self) -> str:
        """Return the URL by TCP, as an installation has it."""
        return f"redis://{self._account}127.0.0.1:{self._port}/0"

    @property
    def _account(self) -> str:
        return f":{self._password}@" if self._password else ""

    def start(self) -> None:
        """Start it, empty, and return once it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "unixsocket": str(self._folder / "socket"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            **({"requirepass": self._password} if self._password else {}),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, *arguments], cwd=self._folder, stdout=log, stderr=log, env=self._environment
            )
        give_up = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if self._process.poll() is not None or time.monotonic() > give_up:
                        raise AssertionError((self._folder / "log").read_text()) from None
                    time.sleep(0.01)

    def client(self) -> redis.Redis:
        """Return a client for a test that looks at what is there, or clears it."""
        return redis.Redis.from_url(self.url, socket_timeout=START_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it; what it had is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait(START_SECONDS)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it answer nobody for a while, with its connections open: the slowest that it can be."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis(password: str = "") -> Iterator[RedisServer]:
    """Run a server of its own, and leave nothing of it behind."""
    # Short, as a socket's path must be.
    folder = Path(tempfile.mkdtemp(prefix="baleen-redis-"))
    try:
        try:
            server = RedisServer(folder, password)
        except PackagesMissing as exc:
            pytest.skip(str(exc))
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """One server for all tests of a process, which leave it running."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """That server, empty."""
    with redis_process.client() as client:
        client.flushall()
    return redis_process
