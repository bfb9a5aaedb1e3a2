"""Fixtures of the tests that need a control plane, and nothing of the product's processes."""

import re
import secrets
import shutil
from collections.abc import Iterator

import pytest

from cluster_run import missing_tools, run_folder
from control_plane import ControlPlane


@pytest.fixture(scope="session", autouse=True)
def cluster_binaries(pytestconfig: pytest.Config) -> None:
    """Fail every test here, skip none, when the binaries could not be had."""
    if problem := missing_tools(pytestconfig):
        pytest.fail(problem, pytrace=False)


@pytest.fixture(scope="session")
def control_plane(cluster_binaries: None, pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """Give the control plane that the whole run shares; a test keeps to a namespace of its own."""
    with ControlPlane(run_folder(pytestconfig), shared=True) as plane:
        yield plane


@pytest.fixture(scope="session")
def lent_control_plane(
    cluster_binaries: None, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """Give a control plane that one test after the other has for itself: to start one for each is dear."""
    with ControlPlane(tmp_path_factory.mktemp("lent") / "control-plane") as plane:
        yield plane
    # What was called there counts when the roles are compared with the calls.
    kept = run_folder(pytestconfig) / "private"
    kept.mkdir(exist_ok=True)
    shutil.move(plane.audit_log, kept / f"{secrets.token_hex(8)}.log")


@pytest.fixture
def private_control_plane(lent_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Give a control plane of the test's own, whose API server, kinds and roles it may take away."""
    yield lent_control_plane
    lent_control_plane.restore()


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """Give a fresh namespace. It goes with the control plane: to delete one takes 0.2 s of CPU time, kind by kind."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    name = f"{words[:40].rstrip('-')}-{secrets.token_hex(4)}"
    with control_plane.client() as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
    return name
