"""Fixtures of the tests that need a site: a namespace, an operator, a gateway."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_site import Site
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings
from operators import RunningOperator, running_operator


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
