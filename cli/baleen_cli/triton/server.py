"""Keeps one Triton server running: starts it, watches it, and starts it again when it dies or hangs."""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from baleen_cli.triton.install import Installation
from baleen_cli.triton.process import Launch, LogLine, TritonProcess, free_port
from baleen_cli.triton.repository import write_repository
from baleen_cli.triton.run_folder import run_folder
from baleen_core.errors import UpstreamError
from baleen_core.model.schema import Model
from baleen_sidecar.flow.backoff import BackoffRules, next_failures, wait_seconds

log = logging.getLogger(__name__)


class Client(Protocol):
    """How the server is spoken to."""

    async def server_id(self) -> str | None:
        """Return the id of the server that answers, or None when none does in time."""

    async def connect(self, endpoint: str) -> None:
        """Speak to the server at `host:port` from now on; no model there is ready yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRules:
    """A server hangs when it missed `probes` of them in a row; with the client's probe of 1 s that takes 6 s."""

    probes: int = 4
    interval_seconds: float = 0.5
    start_seconds: float = 30.0
    stop_seconds: float = 10.0
    backoff: BackoffRules = field(default_factory=BackoffRules)


class TritonServer:
    """A server with the given models on a free port of the loopback interface, for as long as `run` runs."""

    def __init__(
        self,
        installation: Installation,
        models: Sequence[Model],
        *,
        locate: Callable[[Model], Path],
        runs: Path,
        log_line: LogLine,
        threads: int = 1,
        rules: WatchRules | None = None,
    ) -> None:
        """`locate` says where a model's ONNX file is; `runs` is on the same disk, so that files can be linked."""
        self._installation = installation
        self._models = models
        self._locate = locate
        self._runs = runs
        self._log_line = log_line
        self._threads = threads
        self._rules = rules or WatchRules()
        self._port = free_port()
        self._came_up = False
        self._process: TritonProcess | None = None
        self._restart = asyncio.Event()
        self.prepared = asyncio.Event()
        """Set while the server runs and `prepare` is done with it."""
        self.starts = 0
        """How often the server was started."""

    @property
    def endpoint(self) -> str:
        """`host:port` of its gRPC face; another one after the port was taken by somebody else."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        return self._process.pid if self._process else None

    async def run(self, client: Client, prepare: Callable[[], Awaitable[object]]) -> None:
        """Keep the server running until cancelled; nothing of it is left then.

        `prepare` is awaited each time that a server has come up empty: it loads the models and checks their answers.
        """
        failures = 0
        with run_folder(self._runs) as folder:
            await asyncio.to_thread(write_repository, folder / "repository", self._models, self._locate)
            while True:
                begun = time.monotonic()
                cause = await self._run_once(folder, client, prepare)
                backoff = self._rules.backoff
                failures = next_failures(failures, ran_seconds=time.monotonic() - begun, rules=backoff)
                wait = wait_seconds(failures, jitter=random.random(), rules=backoff)  # noqa: S311  no secret
                log.warning("triton restarts", extra={"cause": cause, "failures": failures, "wait_seconds": wait})
                await asyncio.sleep(wait)

    def restart(self) -> None:
        """End the server at once and start it again: for a model that hangs while the server itself answers."""
        self._restart.set()

    async def _run_once(self, folder: Path, client: Client, prepare: Callable[[], Awaitable[object]]) -> str:
        """Run the server until it ends or has to be ended, and return why."""
        self.starts += 1
        self._came_up = False
        self._restart.clear()
        launch = Launch(
            installation=self._installation,
            folder=folder,
            id=f"{folder.name}-{secrets.token_hex(4)}",
            port=self._port,
            threads=self._threads,
        )
        await client.connect(self.endpoint)
        process = self._process = await TritonProcess.start(launch, self._log_line)
        grace_seconds = 0.0
        try:
            return await _first(
                self._until_ended(process),
                self._until_asked(),
                self._until_silent(client, launch.id, prepare),
            )
        except asyncio.CancelledError:
            grace_seconds = self._rules.stop_seconds
            raise
        finally:
            self._process = None
            self.prepared.clear()
            if not self._came_up:
                self._port = free_port()  # somebody else may have taken the one that we found free
            await process.stop(grace_seconds=grace_seconds)

    async def _until_ended(self, process: TritonProcess) -> str:
        status = await process.ended()
        return f"ended with status {status}"

    async def _until_asked(self) -> str:
        await self._restart.wait()
        return "asked to"

    async def _until_silent(self, client: Client, server_id: str, prepare: Callable[[], Awaitable[object]]) -> str:
        try:
            async with asyncio.timeout(self._rules.start_seconds):
                while await client.server_id() != server_id:  # noqa: ASYNC110  no event of ours tells
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return f"did not answer within {self._rules.start_seconds:g} seconds of its start"
        self._came_up = True
        return await _first(self._prepare(prepare), self._until_missed(client, server_id))

    async def _prepare(self, prepare: Callable[[], Awaitable[object]]) -> str:
        try:
            await prepare()
        except UpstreamError as failed:
            return f"could not be prepared: {failed}"
        self.prepared.set()
        return await asyncio.Future()

    async def _until_missed(self, client: Client, server_id: str) -> str:
        missed = 0
        while missed < self._rules.probes:
            await asyncio.sleep(self._rules.interval_seconds)
            missed = 0 if await client.server_id() == server_id else missed + 1
        return f"missed {missed} probes in a row"


async def _first(*waiting: Coroutine[Any, Any, str]) -> str:
    """Return what the first of them returns or raises; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in waiting]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
