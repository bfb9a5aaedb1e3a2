"""One real Triton for a benchmark, from the product's own installation, kept on one core."""

import asyncio
import os
import secrets
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from baleen_bench.models import load, write_repository
from baleen_cli.local import run_root
from baleen_cli.triton.install import default_root, install
from baleen_cli.triton.process import Launch, TritonProcess, free_port
from baleen_cli.triton.run_folder import run_folder
from baleen_sidecar.adapters.triton import TritonInference

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Triton:
    """A running server: `host:port` of its gRPC face, and its process id."""

    endpoint: str
    pid: int


@contextmanager
def triton(model: str, *, cpu: int) -> Iterator[Triton]:
    """Serve one model on one core until the end of the block.

    Raises:
        RuntimeError: the server did not start, or cannot serve the model; the end of its log is in the message.
    """
    installation = install(default_root(), print)
    lines: list[str] = []
    with run_folder(run_root()) as folder, _loop(cpu) as loop:
        write_repository(model, folder / "repository")
        launch = Launch(installation=installation, folder=folder, id=secrets.token_hex(8), port=free_port(), threads=1)
        process = loop.do(TritonProcess.start(launch, lines.append))
        try:
            loop.do(_until_served(process, launch, model, lines))
            yield Triton(endpoint=f"127.0.0.1:{launch.port}", pid=process.pid)
        finally:
            loop.do(process.stop(grace_seconds=STOP_SECONDS))


async def _until_served(process: TritonProcess, launch: Launch, model: str, lines: list[str]) -> None:
    inference = TritonInference(f"127.0.0.1:{launch.port}")
    ended = asyncio.create_task(process.ended())
    try:
        async with asyncio.timeout(START_SECONDS):
            while await inference.server_id() != launch.id:
                if ended.done():
                    raise RuntimeError(f"triton ended: {lines[-20:]}")
                await asyncio.sleep(0.1)
        loaded = load(model)
        await inference.load(loaded.model)
        assert loaded.text is not None, "the benchmarks send text"
        await inference.infer(loaded.model, loaded.text.collate(loaded.text.windows("hello").rows))
    finally:
        ended.cancel()
        await inference.close()


class _LoopThread:
    """An event loop in a thread of its own, so that Triton's log is read while the measurement blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def run(self, cpu: int) -> None:
        """Run the loop; what this thread starts stays on the core that the thread stays on."""
        os.sched_setaffinity(0, {cpu})
        self.loop.run_forever()


@contextmanager
def _loop(cpu: int) -> Iterator[_LoopThread]:
    worker = _LoopThread()
    thread = threading.Thread(target=worker.run, args=(cpu,), name="triton")
    thread.start()
    try:
        yield worker
    finally:
        worker.loop.call_soon_threadsafe(worker.loop.stop)
        thread.join()
        worker.loop.close()
