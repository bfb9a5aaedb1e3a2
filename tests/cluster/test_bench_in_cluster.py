from contextlib import nullcontext

import pytest

from baleen_bench import cluster
from baleen_bench.scripts import IN_CLUSTER
from quick_bench import assert_measures_what_it_declares

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("name", sorted(IN_CLUSTER))
def test_every_benchmark_in_a_cluster_runs_and_measures_what_it_declares(name, private_control_plane, monkeypatch):
    private_control_plane.make_namespace(cluster.NAMESPACE)
    # To start one of its own takes longer than what is measured.
    monkeypatch.setattr(cluster, "control_plane", lambda: nullcontext(private_control_plane))

    assert_measures_what_it_declares(name, monkeypatch)
