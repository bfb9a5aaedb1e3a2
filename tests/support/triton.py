"""Real Triton servers for tests: one with the shipped models that all test processes share, and private ones.

The shared server is a process of its own (`python triton.py FOLDER`), started by the first test process that wants
it. Every user holds a shared lock on a file; when the server gets the exclusive one, nobody is left, and it ends.
"""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from baleen_cli.models.catalog import load_catalog
from baleen_cli.models.store import ModelStore
from baleen_cli.triton.install import Installation, default_root, install
from baleen_cli.triton.server import TritonServer, WatchRules
from baleen_core.model.parse import parse_model
from baleen_core.model.schema import (
    Batching,
    DataType,
    Model,
    ModelSignal,
    Preprocessing,
    Source,
    SourceType,
    Tensor,
)
from baleen_sidecar.adapters.triton import TritonInference

_START_SECONDS = 180
_END_SECONDS = 15


def shipped_models() -> tuple[Model, ...]:
    """Return every model of the catalogue."""
    return tuple(parse_model(source.entry) for source in load_catalog())


def locate(model: Model) -> Path:
    """Return a shipped model's ONNX file; it must have been fetched."""
    return ModelStore().locate(model.name).onnx


def make_rows(model: Model, rows: int, *, seed: int = 0, size: int = 64) -> dict[str, np.ndarray]:
    """Return inputs that differ in every row; `size` is what varying dimensions are."""
    random = np.random.default_rng(seed)
    made = {}
    for tensor in model.inputs:
        shape = (rows, *(size if dim == -1 else dim for dim in tensor.dims))
        if tensor.data_type == DataType.FP32:
            made[tensor.name] = random.uniform(0, 255, shape).astype(np.float32)
        elif tensor.data_type == DataType.UINT8:
            made[tensor.name] = random.integers(0, 256, shape, np.uint8)
        elif tensor.name == "attention_mask":
            lengths = random.integers(1, shape[1] + 1, rows)
            made[tensor.name] = (np.arange(shape[1]) < lengths[:, np.newaxis]).astype(np.int64)
        else:
            made[tensor.name] = random.integers(3, 5000, shape)
    return made


def take_row(inputs: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Return one row as it would be sent alone: without the padding that it has among longer ones."""
    alone = {name: array[row : row + 1] for name, array in inputs.items()}
    if "attention_mask" in alone:
        length = int(alone["attention_mask"].sum())
        alone = {name: array[:, :length] for name, array in alone.items()}
    return alone


SQUARE_ROOT = Model(
    name="square-root",
    version="1",
    source=Source(type=SourceType.FILE, uri="square-root.onnx"),
    inputs=(Tensor(name="x", data_type=DataType.FP32, dims=(2,)),),
    outputs=(Tensor(name="y", data_type=DataType.FP32, dims=(2,)),),
    preprocessing=Preprocessing(recipe="owen-s/1"),
    signals=(ModelSignal(name="root", output="y", index=0),),
    batching=Batching(max_batch_size=8),
)
"""A model of two numbers a row, which is quick to load and answers a negative one with NaN."""


def write_square_root(path: Path) -> Path:
    """Write the ONNX file of `SQUARE_ROOT`."""
    graph = helper.make_graph(
        [helper.make_node("Sqrt", ["x"], ["y"])],
        "square-root",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    # The versions that every onnxruntime from 1.23 on reads.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@dataclass
class PrivateTriton:
    """A supervised server and the adapter that speaks to it; `lines` is the server's log so far."""

    server: TritonServer
    inference: TritonInference
    lines: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def private_triton(
    models: Sequence[Model],
    find: Callable[[Model], Path],
    runs: Path,
    *,
    installation: Installation | None = None,
    prepare: Callable[[TritonInference], Callable] | None = None,
    rules: WatchRules | None = None,
    timeout_seconds: float = 10.0,
) -> AsyncIterator[PrivateTriton]:
    """Run a server for one test; without `prepare` every model is loaded and takes its word for being right."""
    lines: list[str] = []
    server = TritonServer(
        installation or install(default_root()), models, locate=find, runs=runs, log_line=lines.append, rules=rules
    )
    inference = TritonInference(server.endpoint, timeout_seconds=timeout_seconds)

    async def load_all() -> None:
        for model in models:
            await inference.load(model)
            inference.confirm(model)

    running = asyncio.create_task(server.run(inference, prepare(inference) if prepare else load_all))
    prepared = asyncio.create_task(server.prepared.wait())
    try:
        await asyncio.wait({running, prepared}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert server.prepared.is_set(), "\n".join(lines[-20:])
        yield PrivateTriton(server=server, inference=inference, lines=lines)
    finally:
        prepared.cancel()
        running.cancel()
        await asyncio.wait([running])
        await inference.close()


@pytest.fixture(scope="session")
def shared_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the endpoint of a server with every shipped model, which the whole test run shares."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with use_shared_triton(run / "shared-triton") as endpoint:
        yield endpoint


@contextlib.contextmanager
def use_shared_triton(folder: Path) -> Iterator[str]:
    """Give the endpoint of the server that belongs to the folder; it is started when it is not there."""
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("a") as users, (folder / "starting").open("a") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not (folder / "endpoint").exists():
            _start_shared(folder)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield (folder / "endpoint").read_text()
        fcntl.flock(users, fcntl.LOCK_UN)
        if _taken(users):
            fcntl.flock(users, fcntl.LOCK_UN)
            _wait_for_end(folder)


def _start_shared(folder: Path) -> None:
    log = folder / "log"
    with log.open("w") as output:
        host = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=output, stderr=subprocess.STDOUT)
    give_up = time.monotonic() + _START_SECONDS
    while not (folder / "endpoint").exists():
        if host.poll() is not None or time.monotonic() > give_up:
            host.kill()
            pytest.fail(f"the shared Triton did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.05)


def _wait_for_end(folder: Path) -> None:
    """Give the server of the folder the time to end, so that nothing is left of it after the last one that used it."""
    give_up = time.monotonic() + _END_SECONDS
    with (folder / "hosted").open("a") as hosted:
        while not _taken(hosted) and time.monotonic() < give_up:
            time.sleep(0.05)


async def _host(folder: Path) -> None:
    async with private_triton(shipped_models(), locate, default_root() / "runs") as triton:
        with (folder / "users").open("a") as users:
            draft = folder / "endpoint.new"
            draft.write_text(triton.server.endpoint)
            draft.rename(folder / "endpoint")
            while not _taken(users):  # noqa: ASYNC110  a lock of another process
                await asyncio.sleep(0.5)
            (folder / "endpoint").unlink()


def _taken(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    with (Path(sys.argv[1]) / "hosted").open("a") as hosted:
        fcntl.flock(hosted, fcntl.LOCK_EX)
        asyncio.run(_host(Path(sys.argv[1])))
