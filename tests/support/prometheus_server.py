"""A real Prometheus for tests, from the machine or its Debian package: it scrapes itself, under a label of ours."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from baleen_cli.triton.process import free_port
from baleen_operator.adapters.certificates import Made, make_pair
from debian_packages import PackagesMissing, unpack
from plain_http import get

START_SECONDS: Final = 60
CANDIDATE: Final = "sha256:" + "c" * 64
"""The label `revision` of the one series that it has."""
_CONFIG: Final = """
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: itself
  static_configs:
  - {{targets: ["127.0.0.1:{port}"], labels: {{revision: "{revision}"}}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusServer:
    """A server that answers at this base address."""

    url: str


def _find_prometheus() -> str:
    if found := shutil.which("prometheus"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(unpack("prometheus", cache / "baleen" / "prometheus", alone=True) / "usr/bin/prometheus")


def certificate() -> Made:
    """Return a pair for this machine, and the authority that signed it."""
    return make_pair(["127.0.0.1"], datetime.now(UTC), timedelta(hours=1))


@contextmanager
def running_prometheus() -> Iterator[PrometheusServer]:
    """Run a server of its own, and leave nothing of it behind."""
    try:
        command = _find_prometheus()
    except PackagesMissing as exc:
        pytest.skip(str(exc))
    folder, port = Path(tempfile.mkdtemp(prefix="baleen-prometheus-")), free_port()
    (folder / "config.yaml").write_text(_CONFIG.format(port=port, revision=CANDIDATE))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [command, f"--config.file={folder / 'config.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _await_series(url, process, folder / "log")
        yield PrometheusServer(url=url)
    finally:
        process.kill()
        process.wait(START_SECONDS)
        shutil.rmtree(folder)


def _await_series(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once it has looked at itself."""
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            if get(f"{url}/api/v1/query", params={"query": "up == 1"}).json()["data"]["result"]:
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        if process.poll() is not None or time.monotonic() > give_up:
            raise AssertionError(log.read_text())
        time.sleep(0.05)


@pytest.fixture(scope="session")
def prometheus() -> Iterator[PrometheusServer]:
    """One server for all tests of a process, which change nothing in it."""
    with running_prometheus() as server:
        yield server
