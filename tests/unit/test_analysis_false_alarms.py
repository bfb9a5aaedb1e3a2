"""The guarantee itself, on simulated traffic: fixed seeds, fewer rollouts than bench/ has."""

from dataclasses import replace

import numpy as np
import pytest

from baleen_bench.streams import STREAMS, simulate
from baleen_core.analysis.estimate import paired, paired_change
from baleen_core.analysis.verdict import MIN_GROUPS

ROLLOUTS = 200


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(STREAMS["independent"], id="independent"),
        pytest.param(replace(STREAMS["zipf_5_20"], spread=0.1), id="authors who differ much"),
        pytest.param(STREAMS["zipf_50_5"], id="half of the traffic by one author"),
    ],
)
def test_looking_often_finds_no_change_where_there_is_none_and_a_usual_test_does(stream):
    alarms = naive = 0
    for some in simulate(stream, rollouts=ROLLOUTS, looks=40, decisions=400, increase=0.0, seed=7):
        counts = (some.decisions, some.lost, some.gained, some.gained + some.lost)
        found = paired_change(*counts, alpha=0.005, scale=0.02)
        alarms += (((found.lower > 0) | (found.upper < 0)) & (found.groups >= MIN_GROUPS)).any(axis=1).sum()
        usual = paired(*counts)
        naive += (np.abs(usual.change) > 2.576 * np.sqrt(usual.independent)).any(axis=1).sum()

    # At 1 % each, six or more of 200 come once in 60 runs; the seed is fixed.
    assert alarms <= 5
    assert naive > 3 * alarms + 10


def test_a_real_change_is_found_in_time():
    (some,) = simulate(STREAMS["zipf_5_5"], rollouts=100, looks=20, decisions=800, increase=0.02, seed=7)
    found = paired_change(some.decisions, some.lost, some.gained, some.gained + some.lost, alpha=0.005, scale=0.02)

    assert (found.lower > 0.01).any(axis=1).mean() > 0.9
