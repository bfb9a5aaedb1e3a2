"""Servers under test: each a process of its own, kept on one core, that says which port it took."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BENCH: Final = Path(__file__).parents[1]
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running process: its id and the port of the loopback interface that it listens on."""

    pid: int
    port: int


@contextmanager
def child(module: str, *arguments: str, cpu: int, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `python -m module` on one core until the end of the block; its first line on stdout must be its port.

    Raises:
        RuntimeError: it did not start; what it wrote to stderr is in the message.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=BENCH,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        try:
            line = _first_line(process)
            if not line.strip().isdigit():
                errors.seek(0)
                raise RuntimeError(f"{module} did not start: {errors.read()[-4000:].decode(errors='replace')}")
            yield Child(pid=process.pid, port=int(line))
        finally:
            _stop(process)


def announce(listening: socket.socket) -> None:
    """For the child: take connections from now on, whoever answers them, and print the port."""
    listening.listen(_BACKLOG)
    print(listening.getsockname()[1], flush=True)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    line = b""
    while not line.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        if not (byte := os.read(process.stdout.fileno(), 1)):
            break
        line += byte
    return line


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
