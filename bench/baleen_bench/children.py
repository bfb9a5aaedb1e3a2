"""Servers under test: each a process of its own, kept on one core, that says which port it took."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Final, Protocol

BENCH: Final = Path(__file__).parents[1]
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
_BACKLOG: Final = 1024


class Process(Protocol):
    """What a process that was started is asked for, as of a `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its id."""

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, or raise subprocess.TimeoutExpired."""

    def send_signal(self, number: int) -> None:
        """Send a signal."""

    def kill(self) -> None:
        """End it at once."""


def start_anew(module: str, arguments: Sequence[str], *, cpu: int, stdout: IO[bytes], stderr: IO[bytes]) -> Process:
    """Start `python -m module` on one core as anybody does."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=BENCH,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running process: its id and the port of the loopback interface that it listens on."""

    start: ClassVar[Callable[..., Process]] = staticmethod(start_anew)
    """How it begins: what is measured is a process that shares nothing, and tests take what begins sooner."""

    pid: int
    port: int


@contextmanager
def child(module: str, *arguments: str, cpu: int) -> Iterator[Child]:
    """Run `python -m module` on one core until the end of the block; its first line on stdout must be its port.

    Raises:
        RuntimeError: it did not start; what it wrote to stderr is in the message.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as said, tempfile.TemporaryFile() as errors:
        with os.fdopen(writer, "wb") as saying:
            process = Child.start(module, arguments, cpu=cpu, stdout=saying, stderr=errors)
        try:
            line = _first_line(said)
            if not line.strip().isdigit():
                raise RuntimeError(f"{module} did not start: {_all_of(errors)[-4000:].decode(errors='replace')}")
            yield Child(pid=process.pid, port=int(line))
        finally:
            stop(process)


def output_of(module: str, *arguments: str, cpu: int, seconds: float) -> bytes:
    """Run `python -m module` on one core to its end, for which it has so long, and return what it wrote.

    Raises:
        RuntimeError: it failed; what it wrote to stderr is in the message.
        subprocess.TimeoutExpired: it took longer.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        process = Child.start(module, arguments, cpu=cpu, stdout=said, stderr=errors)
        try:
            status = process.wait(seconds)
        finally:
            stop(process)
        if status:
            raise RuntimeError(f"{module} failed: {_all_of(errors)[-4000:].decode(errors='replace')}")
        return _all_of(said)


def announce(listening: socket.socket) -> None:
    """For the child: take connections from now on, whoever answers them, and print the port."""
    listening.listen(_BACKLOG)
    print(listening.getsockname()[1], flush=True)


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _first_line(said: IO[bytes]) -> bytes:
    deadline = time.monotonic() + START_SECONDS
    line = b""
    while not line.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
        if not select.select([said], [], [], left)[0]:
            break
        if not (byte := os.read(said.fileno(), 1)):
            break
        line += byte
    return line


def stop(process: Process) -> None:
    """End a process, and wait until it has; at once, if it takes long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
