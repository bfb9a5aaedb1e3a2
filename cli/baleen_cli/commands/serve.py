"""`baleen serve`: a whole Baleen on this machine."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from baleen_cli.console import note
from baleen_cli.local import Prepared, prepare, run_local, wait_until_ready
from baleen_sidecar.logs import set_up_logging
from baleen_sidecar.main import ended_by_signals
from baleen_sidecar.settings import Settings

Policies = Annotated[Path | None, typer.Option(help="Folder of policies, lists and overrides")]
Models = Annotated[Path | None, typer.Option(help="Folder of ModelDeployments")]
State = Annotated[Path | None, typer.Option(help="Folder of the decision log; one process at a time")]
Host = Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback with BALEEN_API_KEYS_FILE alone")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one", min=0, max=65535)]


def serve(
    policies: Policies = None, models: Models = None, state: State = None, host: Host = None, port: Port = None
) -> None:
    """Serve the policies and models of two folders, with Triton started beside it.

    Every setting can also be given as BALEEN_<NAME>; the options win.
    """
    set_up_logging()
    given = {"policies": policies, "models": models, "state": state, "host": host, "port": port}
    settings = read_settings(os.environ, {name: value for name, value in given.items() if value is not None})
    uvloop.run(_serve(prepare(settings)))


def read_settings(env: Mapping[str, str], given: Mapping[str, Any]) -> Settings:
    """Read settings from the environment and let options win.

    Raises:
        InvalidError: names every variable or option that is wrong.
    """
    environment = {**env, **{f"BALEEN_{name.upper()}": str(value) for name, value in given.items()}}
    return Settings.from_env(environment)


async def _serve(prepared: Prepared) -> None:
    with ended_by_signals():
        await _serve_until_ended(prepared)


async def _serve_until_ended(prepared: Prepared) -> None:
    async with run_local(prepared) as running:
        note(f"answering at {running.url} (docs at {running.url}/docs); waiting for the models' golden answers")
        ready = asyncio.create_task(wait_until_ready(running))
        ended = asyncio.create_task(running.until_ended())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            note("ready: every model gave its golden answers")
        ready.cancel()
        await ended
