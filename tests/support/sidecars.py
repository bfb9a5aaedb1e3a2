"""The real application on a free port, over real SQLite: with real models on a real Triton, or with stand-ins.

Each runs in a thread with an event loop of its own, as it would in a process of its own. Every answer is compared with
the OpenAPI document on its way to the test (see `documented.py`).
"""

import asyncio
import contextlib
import ipaddress
import itertools
import shutil
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import pytest
import uvloop
import yaml
from prometheus_client import CollectorRegistry

import plain_http
from baleen_cli.model_files import ModelLocator
from baleen_cli.models.store import ModelStore
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.model.loaded import LoadedModel
from baleen_sidecar.adapters.model_dir import read_deployments
from baleen_sidecar.adapters.routed import RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.app import build_app
from baleen_sidecar.main import Sidecar, bind, open_grpc, open_sidecar, run_server
from baleen_sidecar.ports import Inference
from baleen_sidecar.settings import Settings
from baleen_sidecar.testing import FixedInference
from baleen_sidecar.usecases.verify_models import VerifyModels
from baleen_sidecar.web.grpc.server import GrpcServer
from documented import DocumentedAnswers

EXAMPLES = Path(__file__).parents[2] / "examples"
_START_SECONDS = 60
# Of all applications, for it is that of the code; see the test of its name in test_api_operations.py.
_document: list[Mapping[str, Any]] = []
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)

T = TypeVar("T")
Opened = AbstractAsyncContextManager[Sidecar]
Started = Future[tuple[Sidecar, asyncio.AbstractEventLoop, asyncio.Event, GrpcServer | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSidecar:
    """An application that answers at `client.base_url`, and what a test may want to look at or change behind it."""

    client: httpx.Client
    settings: Settings
    sidecar: Sidecar
    loop: asyncio.AbstractEventLoop
    answers: DocumentedAnswers
    grpc: GrpcServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a test that speaks HTTP by hand."""
        return str(self.client.base_url.host), int(self.client.base_url.port or 0)

    @property
    def database(self) -> Path:
        """The file with decisions and revisions."""
        return self.settings.state / "baleen.db"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something in the application's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_START_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric, without a request of its own; 0 when nothing of these labels was counted."""
        return self.sidecar.ports.registry.get_sample_value(name, labels) or 0.0

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return int(self.metric("baleen_requests_in_flight"))

    def count_tasks(self) -> int:
        """Return how many tasks the application's event loop has, the one that counts them among them."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return self.run(count())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left of any call: no request, no stream, and no byte of either."""
        calls = self.sidecar.app.calls
        assert calls is not None
        return calls.held_bytes == 0 and self.in_flight == 0 and self.metric("baleen_streams_open") == 0

    def write_policy(self, name: str, *manifests: Mapping[str, Any]) -> PolicySnapshot:
        """Write a file of the policies' folder and have it read at once, without waiting for the watcher."""
        write_manifests(self.settings.policies / name, *manifests)
        return self.reload()

    def reload(self) -> PolicySnapshot:
        """Read the policies' folder now."""
        return self.run(self.sidecar.policies.load())


class StartSidecar(Protocol):
    """Starts an application for one test; see the fixture `start_sidecar`."""

    def __call__(
        self,
        *,
        policies: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        inference: Inference | None = None,
        ports: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> RunningSidecar: ...


@pytest.fixture(scope="session")
def locator() -> ModelLocator:
    """Know where the files of the example deployments' models are."""
    return ModelLocator(ModelStore(), EXAMPLES / "models")


@pytest.fixture(scope="session")
def loaded_models(locator: ModelLocator) -> tuple[LoadedModel, ...]:
    """Read the models of the example deployments once: their tokenizers take seconds."""
    deployments = read_deployments(EXAMPLES / "models")
    return tuple(locator.load(model) for deployment in deployments for model in deployment.models)


@pytest.fixture(scope="session")
def sidecar(
    tmp_path_factory: pytest.TempPathFactory,
    shared_triton: str,
    locator: ModelLocator,
    loaded_models: tuple[LoadedModel, ...],
) -> Iterator[RunningSidecar]:
    """Give the application with the example policies, and the shipped models on the shared Triton."""
    settings = replace(make_settings(tmp_path_factory.mktemp("sidecar")), allowed_private_networks=LOOPBACK)
    shutil.copytree(EXAMPLES / "policies", settings.policies, dirs_exist_ok=True)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Sidecar]:
        inference = RoutedInference(lambda at: TritonInference(at, timeout_seconds=settings.model_timeout_seconds))
        inference.route({loaded.model.name: (shared_triton,) for loaded in loaded_models})
        replica = inference.server(shared_triton)
        async with open_sidecar(settings, loaded_models, inference, breakers=inference) as opened:
            images, golden = opened.ports.images, locator.golden_file
            verify = VerifyModels(loaded_models, replica, images=images, golden_file=golden, loads=False)
            wrong = [str(problem) for found in await verify.check() for problem in found.problems]
            assert not wrong, wrong
            try:
                yield opened
            finally:
                await inference.close()

    with run_in_thread(settings, opened()) as running:
        yield running


@pytest.fixture
def start_sidecar(tmp_path: Path, loaded_models: tuple[LoadedModel, ...]) -> Iterator[StartSidecar]:
    """Start applications that end with the test; unless told otherwise, models score 0 and policies are the examples.

    `policies` has manifests by file name; `ports` replaces ports of the application by others; all else are settings.
    """
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(
            *,
            policies: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
            inference: Inference | None = None,
            ports: Mapping[str, Any] | None = None,
            **changes: Any,
        ) -> RunningSidecar:
            settings = replace(make_settings(tmp_path / f"sidecar-{next(numbers)}"), **changes)
            if policies is None:
                shutil.copytree(EXAMPLES / "policies", settings.policies, dirs_exist_ok=True)
            for name, manifests in (policies or {}).items():
                write_manifests(settings.policies / name, *manifests)
            opened = _with_ports(open_sidecar(settings, loaded_models, inference or FixedInference()), settings, ports)
            return stack.enter_context(run_in_thread(settings, opened))

        yield start


def make_settings(folder: Path) -> Settings:
    """Return the defaults, with a free port and folders below `folder`.

    Without the cache: a test that asks twice wants to see what the models say the second time.
    """
    settings = Settings(
        port=0,
        policies=folder / "policies",
        models=EXAMPLES / "models",
        state=folder / "state",
        cache_enabled=False,
    )
    settings.policies.mkdir(parents=True, exist_ok=True)
    return settings


def write_manifests(path: Path, *manifests: Mapping[str, Any]) -> None:
    """Write manifests as the documents of one YAML file; without any, the file is gone."""
    if manifests:
        path.write_text(yaml.safe_dump_all(manifests, allow_unicode=True), encoding="utf-8")
    else:
        path.unlink()


@contextlib.contextmanager
def run_in_thread(settings: Settings, opened: Opened) -> Iterator[RunningSidecar]:
    """Serve an application from a thread until the block is left."""
    started: Started = Future()
    listening = bind(settings.host, settings.port)
    # From here on a connection waits for the server instead of being refused.
    listening.listen()
    thread = threading.Thread(target=lambda: uvloop.run(_serve(settings, opened, listening, started)), name="sidecar")
    thread.start()
    try:
        sidecar, loop, stop, grpc = started.result(_START_SECONDS)
        try:
            with _open_client(listening) as (client, answers):
                yield RunningSidecar(
                    client=client, settings=settings, sidecar=sidecar, loop=loop, answers=answers, grpc=grpc
                )
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


@contextlib.contextmanager
def _open_client(listening: socket.socket) -> Iterator[tuple[httpx.Client, DocumentedAnswers]]:
    answers = DocumentedAnswers()
    hooks = {"response": [answers.check]}
    url = "http://{}:{}".format(*listening.getsockname()[:2])
    with plain_http.client(base_url=url, timeout=60, event_hooks=hooks) as client:
        if not _document:
            _document.append(client.get("/openapi.json").json())
        (answers.document,) = _document
        yield client, answers


async def _serve(settings: Settings, opened: Opened, listening: socket.socket, started: Started) -> None:
    stop = asyncio.Event()
    try:
        with listening:
            async with opened as sidecar:
                beside = open_grpc(sidecar.app, settings)
                serving = asyncio.create_task(run_server(sidecar.app, listening, beside=beside))
                started.set_result((sidecar, asyncio.get_running_loop(), stop, beside))
                await stop.wait()
                serving.cancel()
                await asyncio.wait([serving])
    except BaseException as failed:
        if started.done():
            raise
        started.set_exception(failed)


@asynccontextmanager
async def _with_ports(opened: Opened, settings: Settings, changes: Mapping[str, Any] | None) -> AsyncIterator[Sidecar]:
    async with opened as sidecar:
        if changes:
            # What is measured was registered with the old ports' registry, and can be registered there only once.
            ports = replace(sidecar.ports, registry=CollectorRegistry(), **changes)
            sidecar = replace(sidecar, ports=ports, app=build_app(ports, settings))
        yield sidecar


def post(running: RunningSidecar, content: Mapping[str, Any], **context: Any) -> httpx.Response:
    """Ask for a decision on `content`."""
    return running.client.post("/v1/moderate", json={"content": dict(content), "context": context})


def alter_database(path: Path, statement: str, *values: str) -> int:
    """Change a state folder's database by hand, as whoever has the disk could; return how many rows changed."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        return connection.execute(statement, values).rowcount
