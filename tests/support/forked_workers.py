"""Workers of pytest-xdist that begin as forks of a process which has imported all tests.

To import the tests, and what they need, takes 4 s of CPU time in each worker, which else begins with nothing. What
follows is the same: a worker reads its arguments, collects the tests, and runs those that it is told to.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final
from unittest import mock

import psutil
import pytest
from execnet import gateway_io
from execnet.gateway_base import Popen2IO

import forked

_create_io: Final = gateway_io.create_io
_begun: Final = contextlib.ExitStack()


class ForkedWorker(Popen2IO):
    """What execnet reads and writes of a worker, and how it ends it."""

    def __init__(self, line: Connection, parent: int, execmodel: Any) -> None:
        read, stdout = os.pipe()
        stdin, write = os.pipe()
        for descriptor in (stdin, stdout):
            send_handle(line, descriptor, parent)
            os.close(descriptor)
        self._process = os.pidfd_open(line.recv())
        super().__init__(os.fdopen(write, "wb", 0), os.fdopen(read, "rb", 0), execmodel)

    def wait(self) -> None:
        """Return once it has ended."""
        select.select([self._process], [], [])

    def kill(self) -> None:
        """End it."""
        signal.pidfd_send_signal(self._process, signal.SIGKILL)


def begin(config: pytest.Config) -> None:
    """Let all workers fork from one process; if it cannot collect the tests, each worker starts anew and says why.

    Raises:
        pytest.UsageError: tests leave something open when they are imported that forks would share.
    """
    line, remote = multiprocessing.Pipe()
    process = forked.context().Process(
        target=_fork_workers, args=(remote, [*config.invocation_params.args], dict(os.environ)), daemon=True
    )
    process.start()
    remote.close()
    _begun.callback(process.join)
    _begun.enter_context(line)  # the last one added is the first one ended
    try:
        shared = line.recv()
    except EOFError:
        return
    if shared:
        raise pytest.UsageError(shared)

    def create_io(spec: Any, execmodel: Any) -> Any:
        if spec.popen and not spec.python:
            return ForkedWorker(line, process.pid or 0, execmodel)
        return _create_io(spec, execmodel)

    _begun.enter_context(mock.patch.object(gateway_io, "create_io", create_io))


def end() -> None:
    """Let the process that `begin` started end, once the workers did, and wait for it."""
    _begun.close()


def _fork_workers(line: Connection, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # A daemon may start no process of its own.
    multiprocessing.current_process().daemon = False
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    if pytest.main([*arguments, "--collect-only", "-q", "-p", "no:cacheprovider"]) != pytest.ExitCode.OK:
        return
    gc.collect()
    gc.freeze()
    line.send(find_shared())
    while True:
        try:
            descriptors = [recv_handle(line) for _ in range(2)]
        except (EOFError, OSError):
            break
        if not (child := os.fork()):
            line.close()
            _work(*descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(child)


def find_shared() -> str:
    """Say what stands against a fork: files that all would read at one place, and threads, which forks do not have."""
    process = psutil.Process()
    # Standard error may go to a file.
    files = sorted(each.path for each in process.open_files() if each.fd > 2)
    threads = process.num_threads() - 1
    return f"to import the tests leaves {threads} threads and these files open: {files}" if files or threads else ""


def _work(stdin: int, stdout: int) -> None:
    """Do what execnet tells a worker at first to do."""
    for own, descriptor in enumerate((stdin, stdout)):
        os.dup2(descriptor, own)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, "r", 1, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, closefd=False)
    exec(eval(sys.stdin.readline()), {"__name__": "__main__"})
    atexit._run_exitfuncs()
