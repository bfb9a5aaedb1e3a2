"""What holds for the whole suite."""

import gc
import os
from typing import Any

import pytest
from hypothesis import settings

import forked
import forked_workers
from baleen_core.model.python_backend import SILENT
from forked import ForkedProcess
from logged_process import LoggedProcess

pytest_plugins = ["cluster_run", "postgres_server", "redis_server"]

# How long one example takes is the machine's affair, and no law of the product. Each run has other examples, so many
# runs see many; `--hypothesis-profile=thorough` sees them in one.
settings.register_profile("baleen", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1_000)
settings.load_profile("baleen")

LoggedProcess.start = ForkedProcess


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Import the tests once for all workers."""
    forked_workers.begin(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let all workers fork from one process."""
    node.workerinput["fork_server"] = forked.serve()


def pytest_configure(config: pytest.Config) -> None:
    """Join the others, in a worker."""
    if hasattr(config, "workerinput"):
        forked.join(config.workerinput["fork_server"])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no process behind."""
    if not hasattr(config, "workerinput"):
        forked_workers.end()
        forked.end()


# What tests import, too, tells nobody what they load.
os.environ.update(SILENT)
# Programs in Go that end at once (kubectl, helm, buildah) otherwise spend a fifth of their time on garbage.
os.environ.setdefault("GOGC", "400")
# Nothing here multiplies large matrices, and OpenBLAS has threads for it that spin from the import of numpy on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# And a quarter of what a server in Go does is to wake threads that find nothing to do on two cores that are all taken.
os.environ.setdefault("GOMAXPROCS", "1")

# At the default, every 700 new objects are looked through for cycles, and now and then all objects of 8,000 tests.
gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Never look again through what the tests are made of, which stays to the end."""
    gc.collect()
    gc.freeze()
