"""Model servers that others made, each in an environment of its own, with the same model in its own process."""

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import baleen_core
from baleen_bench import texts
from baleen_bench.children import BENCH, START_SECONDS, STOP_SECONDS, Child
from baleen_bench.environments import environment
from baleen_bench.load import HttpSide, Load
from baleen_bench.machine import Cores
from baleen_bench.models import write_files
from baleen_cli.triton.process import free_port
from baleen_core.model.python_backend import SILENT

SERVERS: Final = BENCH / "peer_servers"
_WORK: Final = ("numpy>=2.2", "onnxruntime>=1.23", "pillow>=12", "tokenizers>=0.22")
"""What `peer_servers/work.py` needs."""


def _as_it_is(request: bytes) -> bytes:
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program in peer_servers, what it needs, and how it takes a request in the shape of POST /v1/moderate."""

    name: str
    program: str
    requirements: tuple[str, ...]
    path: str = "/v1/moderate"
    wrap: Callable[[bytes], bytes] = _as_it_is


FASTAPI: Final = Peer(
    name="fastapi_ort",
    program="fastapi_ort.py",
    requirements=("fastapi>=0.165", "uvicorn[standard]>=0.54"),
)
PEERS: Final = (
    Peer(
        name="kserve",
        program="kserve_peer.py",
        requirements=("kserve>=0.21",),
        path="/v1/models/moderation:predict",
        wrap=lambda request: b'{"instances":[' + request + b"]}",
    ),
    Peer(name="litserve", program="litserve_peer.py", requirements=("litserve>=0.2.19",)),
    Peer(
        name="bentoml",
        program="bentoml_peer.py",
        requirements=("bentoml>=1.4.40",),
        wrap=lambda request: b'{"requests":[' + request + b"]}",
    ),
    FASTAPI,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSide:
    """A Side whose processes rest while others are measured: some look for work all the time."""

    side: HttpSide

    @property
    def name(self) -> str:
        """See Side."""
        return self.side.name

    def calibrate(self, *, step_seconds: float, max_seconds: float) -> tuple[float, Any]:
        """See Side."""
        with self._awake():
            return self.side.calibrate(step_seconds=step_seconds, max_seconds=max_seconds)

    def offer(self, *, rate: float, seconds: float, seed: int) -> Load:
        """See Side."""
        with self._awake():
            return self.side.offer(rate=rate, seconds=seconds, seed=seed)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        _tell_all(self.side.server.pid, signal.SIGCONT)
        try:
            yield
        finally:
            _tell_all(self.side.server.pid, signal.SIGSTOP)


def python_of(peer: Peer) -> Path:
    """Return the Python that runs a peer; see environments.environment.

    Raises:
        CannotMeasure: it cannot be installed.
    """
    return environment(peer.name, (*peer.requirements, *_WORK))


def write_model(name: str, folder: Path) -> Path:
    """Write what `peer_servers/work.py` reads: a model, and what it is; return the folder.

    Raises:
        NotFound, IntegrityError, UpstreamError: see models.write_files.
    """
    model = write_files(name, folder)
    described = {
        "recipe": model.preprocessing.recipe,
        "assets": sorted(path.name for path in folder.iterdir() if path.name != "model.onnx"),
        "onnx": "model.onnx",
        "signals": [(signal.name, signal.output, signal.index) for signal in model.signals],
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def write_requests(peer: Peer, path: Path) -> Path:
    """Write the requests of all messages as the peer takes them, one a line."""
    return texts.write_lines(path, map(peer.wrap, texts.requests(texts.messages())))


@contextmanager
def serve(peer: Peer, model: Path, *, python: Path, cores: Cores) -> Iterator[PeerSide]:
    """Run a peer, with what `write_model` wrote, and all that it starts on one core until the end of the block.

    It rests from the moment on at which it has answered its first request.

    Raises:
        RuntimeError: it did not answer a request; what it wrote is in the message.
    """
    port = free_port()
    ours = {"PYTHONPATH": str(Path(baleen_core.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    environment = os.environ | ours | SILENT
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        requests = write_requests(peer, Path(folder) / "requests.jsonl")
        process = subprocess.Popen(
            [python, SERVERS / peer.program, str(port), str(model)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            # One group, with all that it starts: they rest and end together.
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores.server}),
        )
        try:
            if (problem := _wait(peer, process, port)) is not None:
                said.seek(0)
                raise RuntimeError(f"{peer.name} {problem}: {said.read()[-4000:].decode(errors='replace')}")
            side = HttpSide(
                name=peer.name,
                server=Child(pid=process.pid, port=port),
                requests=requests,
                cpu=cores.other,
                path=peer.path,
                start_rate=50.0,
            )
            _tell_all(process.pid, signal.SIGSTOP)
            yield PeerSide(side=side)
        finally:
            _stop(process)


def _wait(peer: Peer, process: "subprocess.Popen[bytes]", port: int) -> str | None:
    """Wait for a right answer; return why there is none."""
    body = peer.wrap(texts.request("hello", 0))
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{peer.path}", body, headers={"Content-Type": "application/json"}
    )
    problem = "has not begun"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended with {process.returncode}"
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                found = answer.read()
            return None if b'"Allow"' in found or b'"Block"' in found else f"answered {found[:500]!r}"
        except urllib.error.HTTPError as exc:
            problem = f"answered {exc.code}: {exc.read()[:500]!r}"
        except OSError as exc:
            problem = repr(exc)
        time.sleep(0.1)
    return f"does not serve after {START_SECONDS:g} s: {problem}"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGCONT, signal.SIGTERM):
        _tell_all(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    # What it left behind.
    _tell_all(process.pid, signal.SIGKILL)
    process.wait()


def _tell_all(group: int, number: int) -> None:
    """Send a signal to what is left of a peer and of all that it started; there may be nothing."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
