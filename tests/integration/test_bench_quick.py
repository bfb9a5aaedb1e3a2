import pytest

from baleen_bench.scripts import IN_CLUSTER, NAMES, ON_NODE
from quick_bench import assert_measures_what_it_declares


@pytest.mark.triton
@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_CLUSTER | ON_NODE])
def test_every_benchmark_runs_and_measures_what_it_declares(name, monkeypatch):
    assert_measures_what_it_declares(name, monkeypatch)
