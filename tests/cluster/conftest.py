"""Fixtures of the tests that talk to a real API server."""

from cluster_fixtures import (
    baleen,
    cluster_binaries,
    control_plane,
    gateway,
    lent_control_plane,
    namespace,
    operator,
    private_control_plane,
    site,
)

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
