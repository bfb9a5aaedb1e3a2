"""A whole Baleen in one process and a Triton beside it: what `baleen serve` and the demo run."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from baleen_cli.model_files import ModelLocator
from baleen_cli.models.progress import RichProgress
from baleen_cli.models.store import ModelStore
from baleen_cli.triton.install import Installation, default_root, install
from baleen_cli.triton.server import TritonServer
from baleen_core.errors import ModelError, Problem, StateError
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Backend, ModelDeployment
from baleen_sidecar.adapters.model_dir import read_deployments
from baleen_sidecar.adapters.routed import Replica, RoutedInference
from baleen_sidecar.adapters.triton import TritonInference
from baleen_sidecar.main import Sidecar, bind, open_grpc, open_sidecar, reserved_files, run_server, url_of
from baleen_sidecar.settings import Settings
from baleen_sidecar.usecases.verify_models import VerifyModels

PLACE = "triton"
"""Where models are asked, as breakers call it: the one server has another port each time that one is taken."""

log = logging.getLogger(__name__)
triton_log = logging.getLogger("triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that takes long and needs no running server: models with their files, Triton unpacked."""

    settings: Settings
    locator: ModelLocator
    deployments: tuple[ModelDeployment, ...]
    models: tuple[LoadedModel, ...]
    verify_interval_seconds: float
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A local Baleen that answers requests at `url`; `verified` is set once every model gave its golden answers."""

    url: str
    sidecar: Sidecar
    triton: TritonServer
    serving: asyncio.Task[None]
    background: tuple[asyncio.Task[None], ...]

    async def until_ended(self) -> None:
        """Return once the server was asked to end and has.

        Raises:
            StateError: one of the tasks that should never end cannot go on.
        """
        done, _ = await asyncio.wait((self.serving, *self.background), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                task.result()
            except OSError as exc:
                raise StateError(f"{task.get_name()} cannot go on: {exc}") from exc


def prepare(settings: Settings) -> Prepared:
    """Read the deployments, fetch their models and unpack Triton, where that was not done before.

    Raises:
        ModelError: a deployment is not valid, or wants a Triton that someone else runs.
        IntegrityError, NotFound, UpstreamError: a model or Triton cannot be had as promised.
    """
    deployments = read_deployments(settings.models)
    for deployment in deployments:
        if deployment.endpoints:
            message = "is for a Triton that someone else runs; `baleen serve` runs its own, so leave it out"
            raise ModelError([Problem(field=f"{deployment.name}: spec.runtime.external", message=message)])
        if deployment.backend is not Backend.PYTHON:
            message = "the Triton that `baleen serve` runs has only the backend Python"
            raise ModelError([Problem(field=f"{deployment.name}: spec.runtime.backend", message=message)])
    models = tuple(model for deployment in deployments for model in deployment.models)
    locator = ModelLocator(ModelStore(), settings.models)
    locator.fetch(models, RichProgress())
    return Prepared(
        settings=settings,
        locator=locator,
        deployments=tuple(deployments),
        models=tuple(locator.load(model) for model in models),
        verify_interval_seconds=min(deployment.verify_interval_seconds for deployment in deployments),
        installation=install(default_root(), log.info),
    )


class _Supervised:
    """The server as its supervisor speaks to it; what answers after a restart has to give its golden answers first."""

    def __init__(self, inference: TritonInference, replica: Replica) -> None:
        self._inference = inference
        self._replica = replica

    async def server_id(self) -> str | None:
        return await self._inference.server_id()

    async def connect(self, endpoint: str) -> None:
        self._replica.doubt_all()
        await self._inference.connect(endpoint)


@asynccontextmanager
async def run_local(prepared: Prepared) -> AsyncIterator[Running]:
    """Run Triton and the sidecar; on leaving, both have ended and nothing of them is left.

    Raises:
        InvalidError: the file of API keys is not in order.
        StateError: a port is taken, or the state folder is in use, newer or damaged.
    """
    settings = prepared.settings
    inference = TritonInference("127.0.0.1:1", timeout_seconds=settings.model_timeout_seconds)
    routed = RoutedInference(lambda _: inference)
    routed.route(
        {loaded.model.name: (PLACE,) for loaded in prepared.models},
        {model.name: each.resilience for each in prepared.deployments for model in each.models},
    )
    replica = routed.server(PLACE)
    server = TritonServer(
        prepared.installation,
        [loaded.model for loaded in prepared.models],
        locate=lambda model: prepared.locator.locate(model).onnx,
        runs=run_root(),
        log_line=pass_on,
        threads=max(1, (os.cpu_count() or 1)),
    )
    with bind(settings.host, settings.port) as listening:
        async with open_sidecar(settings, prepared.models, routed, breakers=routed) as sidecar:
            # Before anything has begun that would have to be ended where the port is taken.
            beside = open_grpc(sidecar.app, settings)
            verify = VerifyModels(
                prepared.models,
                replica,
                images=sidecar.ports.images,
                golden_file=prepared.locator.golden_file,
                on_stuck=server.restart,
                probe_at=replica.probe_at,
            )
            interval = min(settings.verify_interval_seconds, prepared.verify_interval_seconds)
            background = (
                asyncio.create_task(server.run(_Supervised(inference, replica), verify.check), name="triton"),
                asyncio.create_task(verify.run(interval), name="verify"),
                asyncio.create_task(sidecar.policies.watch(), name="policies"),
                *(asyncio.create_task(watch(), name="callers") for watch in sidecar.watched),
                *(
                    ()
                    if sidecar.ports.rescans is None
                    else (asyncio.create_task(sidecar.ports.rescans.run(), name="second looks"),)
                ),
            )
            serving = asyncio.create_task(
                run_server(sidecar.app, listening, beside=beside, reserved_files=reserved_files(settings)),
                name="server",
            )
            try:
                yield Running(
                    url=url_of(listening),
                    sidecar=sidecar,
                    triton=server,
                    serving=serving,
                    background=background,
                )
            finally:
                for task in (serving, *background):
                    task.cancel()
                ended = await asyncio.gather(serving, *background, return_exceptions=True)
                await routed.close()
                for task, outcome in zip((serving, *background), ended, strict=True):
                    if isinstance(outcome, Exception):
                        log.error("task failed", extra={"task": task.get_name()}, exc_info=outcome)


async def wait_until_ready(running: Running) -> None:
    """Return once every model gave its golden answers; readiness of the server alone is not believed."""
    inference, models = running.sidecar.ports.inference, running.sidecar.ports.models().models
    while True:
        if running.serving.done():
            return
        ready = [await inference.is_ready(loaded.model) for loaded in models]
        if all(ready):
            return
        await asyncio.sleep(0.1)


def run_root() -> Path:
    """Return the folder of running servers, on the same disk as the models so that files can be linked.

    Raises:
        StateError: it cannot be made.
    """
    root = default_root().parent / "run"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StateError(f"the folder for running servers cannot be made: {exc}") from exc
    return root


def pass_on(line: str) -> None:
    """Pass a line of Triton's log on to ours."""
    triton_log.info("triton", extra={"line": line})
