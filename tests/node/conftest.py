"""Fixtures of the tests that run pods."""

import secrets
from collections.abc import Iterator

import pytest

from cluster_run import node_folder, node_problem
from node_cluster import NodeCluster, NodeUnavailable
from tiny_images import busybox_archive


@pytest.fixture(scope="session")
def node_ready(pytestconfig: pytest.Config) -> None:
    """Skip, and say why, where the machine cannot run a node; fail when what it needs could not be built."""
    problem = node_problem(pytestconfig)
    if isinstance(problem, NodeUnavailable):
        pytest.skip(str(problem))
    if problem is not None:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="package")
def node_cluster(node_ready: None, pytestconfig: pytest.Config) -> Iterator[NodeCluster]:
    """Give the cluster that tests share, with the image BUSYBOX; a test keeps to a namespace of its own.

    It ends with the last of them, for one that idles still takes a twentieth of a processor.
    """
    with NodeCluster(node_folder(pytestconfig), shared=True) as cluster:
        cluster.import_image(busybox_archive())
        yield cluster


@pytest.fixture
def restricted(node_cluster: NodeCluster) -> Iterator[str]:
    """Give a fresh namespace that admits only what the Pod Security Standard `restricted` does."""
    name = f"restricted-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    node_cluster.kubectl("delete", "namespace", name, "--wait=false")
