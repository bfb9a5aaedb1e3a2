"""A whole Baleen in one process: how it ends where it cannot begin."""

import asyncio
import socket
from dataclasses import replace

import pytest

from baleen_cli.local import Prepared, run_local
from baleen_cli.model_files import ModelLocator
from baleen_cli.models.store import ModelStore
from baleen_cli.triton.install import Installation
from baleen_core.errors import StateError
from baleen_core.model.loaded import LoadedModel
from sidecars import make_settings
from tiny_models import Letters, make_model

MODEL = LoadedModel(model=make_model("words", recipe="tox-block/1"), sha256="aa", text=Letters())


async def test_where_the_port_of_grpc_is_taken_nothing_has_begun(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        prepared = Prepared(
            settings=replace(make_settings(tmp_path), grpc_port=taken.getsockname()[1]),
            locator=ModelLocator(ModelStore(), tmp_path),
            deployments=(),
            models=(MODEL,),
            verify_interval_seconds=1.0,
            installation=Installation(wheel=tmp_path / "wheel", site=tmp_path / "site"),
        )
        with pytest.raises(StateError, match="for gRPC"):
            async with run_local(prepared):
                pytest.fail("it began")

    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()
