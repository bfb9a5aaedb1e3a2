"""One run of Triton's server as a child process that never outlives us."""

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from baleen_cli.triton.install import Installation
from baleen_cli.triton.run_folder import remove_shared_memory
from baleen_core.model.python_backend import SILENT, SITE_VARIABLE

LogLine = Callable[[str], None]
"""Takes one line of the server's log, without its end."""

_PASSED_ON: Final = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS"),
)
_REGION_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 16 << 10
_EXIT_TIMEOUT_SECONDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What one run is started with. `id` tells this server from any other that may answer on `port`."""

    installation: Installation
    folder: Path
    id: str
    port: int
    threads: int


class TritonProcess:
    """A running server with the processes that it started, in a group of its own."""

    def __init__(self, process: Process, launch: Launch, log_line: LogLine) -> None:
        self._process = process
        self._launch = launch
        self._log = asyncio.create_task(_pass_lines(process, log_line))

    @classmethod
    async def start(cls, launch: Launch, log_line: LogLine) -> "TritonProcess":
        """Start the server; it does not answer yet."""
        process = await asyncio.create_subprocess_exec(
            *_command(launch),
            env=_environment(launch),
            cwd=launch.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        return cls(process, launch, log_line)

    @property
    def pid(self) -> int:
        """The server's process id, which is its group's too."""
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end and return the exit status, negative for the signal that ended it."""
        return await self._process.wait()

    async def stop(self, *, grace_seconds: float) -> None:
        """Ask it to end, and make it end after the grace; no process and no shared memory is left."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        ended = asyncio.ensure_future(self._process.wait())
        try:
            # asyncio.timeout of Python 3.11.2 cancels once more what is being cancelled, as whoever stops a server is.
            await asyncio.wait([ended], timeout=grace_seconds)
        finally:
            await self.kill()
        await ended

    async def kill(self) -> None:
        """End the whole group at once; harmless when the server has ended."""
        # The group, and not only the server: its stubs do not all notice that it is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        await self._log
        remove_shared_memory(self._launch.folder.name)


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(launch: Launch) -> list[str]:
    return [
        # The kernel ends the server when we end, however that happens; Python could ask for it only between fork
        # and exec, where threads make it unsafe to run anything.
        *("setpriv", "--pdeathsig", "TERM", "--"),
        str(launch.installation.server),
        *("--id", launch.id),
        *("--model-repository", str(launch.folder / "repository")),
        *("--backend-directory", str(launch.installation.backends)),
        *("--model-control-mode", "explicit", "--disable-auto-complete-config"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(launch.port)),
        *("--allow-http", "false", "--allow-metrics", "false"),
        *("--exit-timeout-secs", str(_EXIT_TIMEOUT_SECONDS)),
        *("--backend-config", f"python,shm-region-prefix-name={launch.folder.name}"),
        *("--backend-config", f"python,shm-default-byte-size={_REGION_BYTES}"),
        *("--backend-config", f"python,shm-growth-byte-size={_REGION_BYTES}"),
    ]


def _environment(launch: Launch) -> dict[str, str]:
    """Start from nothing: a PYTHONHOME, a LD_LIBRARY_PATH or a user's site folder of ours would break the backend."""
    home = str(launch.folder)
    return {
        # A model's arrays are only joined and looked at, and threads of OpenBLAS spin from the import of numpy on.
        "OPENBLAS_NUM_THREADS": "1",
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(launch.installation.libraries),
        "LC_ALL": "C.UTF-8",
        "HOME": home,
        "TMPDIR": home,
        SITE_VARIABLE: str(launch.installation.site),
        "OMP_NUM_THREADS": str(launch.threads),
        **SILENT,
    }


async def _pass_lines(process: Process, log_line: LogLine) -> None:
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(_MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            log_line(line.decode(errors="replace"))
        if len(rest) > _MAX_LINE_BYTES:
            log_line(rest.decode(errors="replace"))
            rest = b""
    if rest:
        log_line(rest.decode(errors="replace"))
