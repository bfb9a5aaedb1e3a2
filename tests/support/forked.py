"""Programs of the product that begin as a fork of a process which has imported them.

To import an operator or a gateway takes a second of CPU time, and the suite starts hundreds. What follows the import is
the same as with `python -m`: an environment, arguments and a `__main__` of its own, in a process that is killed alone.
"""

import contextlib
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import IO, Any, Final
from unittest import mock

_IMPORTED: Final = (
    *("baleen_operator.main", "baleen_sidecar.following", "baleen_cli.main"),
    # Of commands those that tests fork: `baleen_cli.main` imports none.
    *("baleen_cli.commands.serve", "baleen_cli.commands.policy_records"),
    # What their libraries import at the first use only.
    *("anyio._backends._asyncio", "httpcore", "pydantic.v1"),
    "ready_to_fork",
)
_PR_SET_NAME: Final = 15
_END_SECONDS: Final = 10

Joining = tuple[str, int, int]
"""The address of a fork server, a process that has the descriptor which keeps it alive, and that descriptor there."""


class ForkedProcess:
    """A running `python -m MODULE ARGUMENTS`, of which `stderr` is read; the rest is as in `subprocess.Popen`.

    Its command line is that of the process that was forked; `name`, of at most 15 characters, is how to find it.
    What it writes to standard output goes to the file `stdout`, if there is one. With a file for standard error there
    is nothing to read; with `cpu` it stays on that core.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        name: str = "",
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        cpu: int | None = None,
    ) -> None:
        if stderr is None:
            reader, writer = os.pipe()
        else:
            reader, writer = os.open(os.devnull, os.O_RDONLY), os.dup(stderr.fileno())
        self.stderr: IO[str] = os.fdopen(reader, "r")
        output = os.open(os.devnull, os.O_RDWR) if stdout is None else os.dup(stdout.fileno())
        with Connection(writer, readable=False) as errors, Connection(output, readable=False) as outputs:
            # A daemon: a run that ends without its fixtures takes it along.
            self._process = context().Process(
                target=_run, args=(name, [module, *arguments], dict(environment), outputs, errors, cpu), daemon=True
            )
            self._process.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; negative for a signal, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return how it ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, once it did.

        Raises:
            subprocess.TimeoutExpired: it did not within so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            # It may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)


def run(
    module: str, *arguments: str, environment: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m MODULE ARGUMENTS` to its end, and return what it wrote.

    Raises:
        subprocess.TimeoutExpired: it closed its standard error, and had not ended so many seconds after that.
    """
    with tempfile.TemporaryFile() as written:
        process = ForkedProcess(module, *arguments, environment=environment, stdout=written)
        with process.stderr as errors:
            said = errors.read()
        status = process.wait(timeout)
        written.seek(0)
        return subprocess.CompletedProcess([module, *arguments], status, written.read().decode(), said)


def serve() -> Joining:
    """Start the process to fork from, and return how others join: to import all that takes 4 s of CPU time."""
    context()
    own: Any = forkserver._forkserver  # type: ignore[attr-defined]
    return own._forkserver_address, os.getpid(), own._forkserver_alive_fd


def join(joining: Joining) -> None:
    """Fork from the process that another one started, for as long as that one lives."""
    own: Any = forkserver._forkserver  # type: ignore[attr-defined]
    own._forkserver_address, pid, alive = joining
    own._forkserver_alive_fd = os.open(f"/proc/{pid}/fd/{alive}", os.O_WRONLY)
    own.ensure_running = lambda: None


def end() -> None:
    """Let the process that `serve` started end, once nobody forks from it, and wait for it a while."""
    own: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if own._forkserver_pid is None:
        return
    os.close(own._forkserver_alive_fd)
    give_up = time.monotonic() + _END_SECONDS
    while not os.waitpid(own._forkserver_pid, os.WNOHANG)[0] and time.monotonic() < give_up:
        time.sleep(0.05)


def start_anew(module: str, *, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start `python -m MODULE` as anybody does."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@cache
def context() -> ForkServerContext:
    """Return what starts processes as forks, and start the process to fork from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED])
    # It is not told where we look for modules, and says nothing of those that it does not find.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver._forkserver.ensure_running()  # type: ignore[attr-defined]
    return context


def _run(
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    stdout: Connection,
    stderr: Connection,
    cpu: int | None,
) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if name:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    stdout.close()
    stderr.close()
    os.environ.clear()
    os.environ.update(environment)
    # A daemon may start no process of its own.
    multiprocessing.current_process().daemon = False
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
