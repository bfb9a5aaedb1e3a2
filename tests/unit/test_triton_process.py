"""The environment that Triton is started in."""

import pytest

from baleen_cli.triton.install import Installation
from baleen_cli.triton.process import Launch, TritonProcess


@pytest.mark.parametrize(
    ("ours", "threads"),
    [pytest.param({}, "1", id="unset"), pytest.param({"OPENBLAS_NUM_THREADS": "3"}, "3", id="set")],
)
async def test_openblas_has_one_thread_unless_its_user_wants_more(ours, threads, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    installation = Installation(wheel=tmp_path, site=tmp_path)
    installation.server.parent.mkdir(parents=True)
    installation.server.write_text("#!/bin/sh\nenv\n")
    installation.server.chmod(0o755)
    lines = []

    launch = Launch(installation=installation, folder=tmp_path, id="1", port=1, threads=2)
    process = await TritonProcess.start(launch, lines.append)
    await process.ended()
    await process.kill()

    assert f"OPENBLAS_NUM_THREADS={threads}" in lines
    assert {"OMP_NUM_THREADS=2", "ORT_DISABLE_TELEMETRY=1"} <= set(lines)
