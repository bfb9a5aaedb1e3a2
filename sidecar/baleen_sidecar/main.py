"""Make the adapters and run the server; who runs Triton, and where policies come from, is the caller's business."""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from baleen_core.errors import StateError
from baleen_core.model.loaded import LoadedModel
from baleen_sidecar.adapters.fetch import HttpFetcher
from baleen_sidecar.adapters.frames import DecodingLimits, ProcessFrameDecoder
from baleen_sidecar.adapters.images import PillowImages
from baleen_sidecar.adapters.language import EldcLanguageDetector
from baleen_sidecar.adapters.measured import MeasuredInference
from baleen_sidecar.adapters.pdq import PdqHash
from baleen_sidecar.adapters.policy_dir import PolicyFolder
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteRevisionStore, StateFolder, migrate
from baleen_sidecar.app import Ports, build_app
from baleen_sidecar.ports import Inference
from baleen_sidecar.settings import Settings
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.moderate import Shell
from baleen_sidecar.web.moderate import ASGIApp
from baleen_sidecar.web.protocol import BoundedHttpProtocol

log = logging.getLogger(__name__)

CPU_THREADS = 2
"""Threads for decoding and preparing media. Pillow and hashing free the GIL."""
SHUTDOWN_SECONDS = 10
KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Everything that is open while a sidecar runs: the application, and the folder that its policies come from."""

    app: ASGIApp
    policies: PolicyFolder
    ports: Ports


class Chance:
    """Unguessable bytes from the operating system, asked for in blocks: each call would cost more than a decision."""

    BLOCK_BYTES: Final = 4096

    def __init__(self) -> None:
        self._block = b""

    def __call__(self, count: int) -> bytes:
        """Return `count` bytes that were returned to nobody else."""
        if len(self._block) < count:
            self._block = os.urandom(max(count, self.BLOCK_BYTES))
        taken, self._block = self._block[:count], self._block[count:]
        return taken


@asynccontextmanager
async def open_sidecar(
    settings: Settings, models: Sequence[LoadedModel], inference: Inference
) -> AsyncIterator[Sidecar]:
    """Open the state folder and all adapters, and read the policies once; on leaving, everything is closed again.

    Raises:
        StateError: the state folder is in use, newer or damaged.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    async with AsyncExitStack() as stack:
        state = stack.enter_context(StateFolder(settings.state))
        await asyncio.to_thread(migrate, state.database)
        executor = stack.enter_context(ThreadPoolExecutor(CPU_THREADS, thread_name_prefix="media"))
        decisions = await stack.enter_async_context(SqliteDecisionLog(state.database, durability=settings.durability))
        store = SqliteRevisionStore(state.database)
        fetcher = HttpFetcher(
            limit_bytes=max(settings.image_limit_bytes, settings.video_limit_bytes),
            timeout_seconds=settings.fetch_timeout_seconds,
            limit_redirects=settings.fetch_limit_redirects,
            allowed_private_networks=settings.allowed_private_networks,
        )
        stack.push_async_callback(fetcher.aclose)
        adopt = AdoptPolicies(
            store, tuple(loaded.model for loaded in models), executor=executor, wall_seconds=time.time
        )
        policies = PolicyFolder(settings.policies, adopt)
        ports = Ports(
            policies=adopt.current,
            models=models,
            inference=MeasuredInference(inference, registry),
            log=decisions,
            store=store,
            languages=EldcLanguageDetector(),
            images=PillowImages(max_bytes=settings.image_limit_bytes, max_pixels=settings.image_limit_pixels),
            frames=ProcessFrameDecoder(
                DecodingLimits(
                    max_bytes=settings.video_limit_bytes,
                    max_milliseconds=settings.video_limit_seconds * 1000,
                    max_pixels=settings.image_limit_pixels,
                )
            ),
            perceptual_hash=PdqHash(),
            fetcher=fetcher,
            shell=Shell(wall_seconds=time.time, monotonic_seconds=time.monotonic, chance=Chance(), executor=executor),
            registry=registry,
        )
        await policies.load()
        yield Sidecar(app=build_app(ports, settings), policies=policies, ports=ports)


def bind(settings: Settings) -> socket.socket:
    """Take the port before anything slow is started.

    Raises:
        StateError: the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        # Until one of them listens, two processes can have the same port.
        listening.listen()
    except OSError as exc:
        listening.close()
        raise StateError(f"cannot listen on {settings.host} port {settings.port}: {exc.strerror}") from exc
    return listening


class Server(uvicorn.Server):
    """Ends by SIGTERM or SIGINT and leaves it at that."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while requests are answered.

        uvicorn's own method raises them again at its end: the process would die before all else is closed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def run_server(app: ASGIApp, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; those under way are finished first, within SHUTDOWN_SECONDS."""
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        # An upgraded connection would be outside its limits, and nothing here speaks it.
        ws="none",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="off",
    )
    await Server(config).serve(sockets=[listening])
