"""What the node tier says where it cannot be had; the cluster itself is the matter of tests/node."""

import os

import pytest

from debian_packages import PackagesMissing, need_commands
from node_cluster import NodeCluster, NodeUnavailable, prepare


def test_who_is_not_root_has_no_node_and_is_told_why(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NodeUnavailable, match="a node needs root"):
        prepare()


def test_who_is_not_root_is_told_which_packages_are_missing(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    need_commands({"sh": "dash"})

    with pytest.raises(PackagesMissing, match="only root can install them: no-such-package"):
        need_commands({"sh": "dash", "no-such-command": "no-such-package"})


def test_a_folder_that_the_node_hides_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/var/tmp")

    with pytest.raises(ValueError, match="lies below /var"):
        NodeCluster(tmp_path / "link" / "cluster")
