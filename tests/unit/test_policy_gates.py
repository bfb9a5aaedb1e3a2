"""Gates of two policies together: whatever one of them would stop is stopped."""

from hypothesis import given
from hypothesis import strategies as st

from baleen_core.decision.backtest import Backtest, GateVerdict, judge_backtest
from baleen_core.decision.flips import FlipMatrix, FlipSummary
from baleen_core.policy.gates import say_backtest, stricter_backtest
from baleen_core.policy.schema import BacktestGate

limits = st.none() | st.integers(0, 1_000_000)
gates = st.builds(BacktestGate, decisions=st.integers(1, 60), max_flip_rate=limits, max_new_blocks=limits)
counts = st.tuples(*[st.integers(0, 20)] * 9)


@given(gates, gates, counts)
def test_together_they_let_through_only_what_both_do(one, other, cells):
    found = Backtest(flips=FlipSummary(overall=FlipMatrix(counts=cells)))
    both = stricter_backtest(one, other)

    passes = [judge_backtest(each, found).verdict is GateVerdict.PASS for each in (one, other, both)]
    assert passes[2] == (passes[0] and passes[1])


@given(st.none() | gates, st.none() | gates)
def test_it_makes_no_difference_whose_gate_is_whose(one, other):
    both = stricter_backtest(one, other)

    assert both == stricter_backtest(other, one) == stricter_backtest(both, one)


def test_a_gate_is_said_in_one_line():
    gate = BacktestGate(decisions=5000, max_flip_rate=20_000, max_new_blocks=5_000)

    assert say_backtest(gate) == "decisions 5000, maxFlipRate 2%, maxNewBlocks 0.5%"
    assert say_backtest(BacktestGate(decisions=9, max_new_blocks=0)) == "decisions 9, maxNewBlocks 0%"
