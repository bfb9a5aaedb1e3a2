"""Fixtures of the tests that need a cluster."""

import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_run import missing_tools, run_folder
from cluster_site import Site
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings
from operators import RunningOperator, running_operator


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


@pytest.fixture
def site(control_plane: ControlPlane, namespace: str) -> Site:
    """Give a namespace of the shared control plane, as its people use it."""
    return Site(plane=control_plane, namespace=namespace)


@pytest.fixture
def operator(site: Site) -> Iterator[RunningOperator]:
    """Run the operator for the site's namespace; it leads."""
    with running_operator(site.plane, site.namespace) as started:
        started.wait_until_leading()
        yield started


@pytest.fixture
def gateway(site: Site, tmp_path: Path) -> Iterator[RunningGateway]:
    """Run a gateway for the site's namespace."""
    with RunningGateway(**gateway_settings(site.plane, tmp_path / "gateway-1", site.namespace)) as started:
        yield started
