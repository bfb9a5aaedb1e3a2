"""Fixtures of the tests that talk to a real API server."""

from collections.abc import Callable

import pytest

from cluster_fixtures import gateway, operator, site
from commands import Ended
from control_plane import ControlPlane
from control_plane_fixtures import (
    cluster_binaries,
    control_plane,
    lent_control_plane,
    namespace,
    private_control_plane,
)
from published import kubectl_baleen

__all__ = [
    "baleen",
    "cluster_binaries",
    "control_plane",
    "gateway",
    "lent_control_plane",
    "namespace",
    "operator",
    "private_control_plane",
    "site",
]


@pytest.fixture
def baleen(control_plane: ControlPlane, namespace: str) -> Callable[..., Ended]:
    """Run a command of the kubectl plugin as whoever is on call, in the namespace of the test."""

    def baleen(command: str, *arguments: object, user: str = "on-call", within: str = namespace) -> Ended:
        where = ["-n", within] if within else []
        return kubectl_baleen(command, *arguments, *where, "--kubeconfig", control_plane.kubeconfig(user))

    return baleen
