"""Fixtures of the tests that talk to a real API server."""

from cluster_fixtures import cluster_binaries, control_plane, namespace, private_control_plane

__all__ = ["cluster_binaries", "control_plane", "namespace", "private_control_plane"]
