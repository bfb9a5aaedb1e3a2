"""Gates of two policies together: what one edit has to pass, so that it cannot remove the gate that would stop it."""

from baleen_core.policy.schema import BacktestGate
from baleen_core.ratio import format_ratio


def stricter_backtest(one: BacktestGate | None, other: BacktestGate | None) -> BacktestGate | None:
    """Return a gate that lets through only what both do: the more decisions, and the lower of each limit."""
    if one is None or other is None:
        return one or other
    return BacktestGate(
        decisions=max(one.decisions, other.decisions),
        max_flip_rate=_lower(one.max_flip_rate, other.max_flip_rate),
        max_new_blocks=_lower(one.max_new_blocks, other.max_new_blocks),
    )


def say_backtest(gate: BacktestGate) -> str:
    """Write a gate in one line, such as `decisions 5000, maxFlipRate 2%, maxNewBlocks 0.5%`."""
    limits = (("maxFlipRate", gate.max_flip_rate), ("maxNewBlocks", gate.max_new_blocks))
    said = [f"{field} {format_ratio(limit)}" for field, limit in limits if limit is not None]
    return ", ".join((f"decisions {gate.decisions}", *said))


def _lower(one: int | None, other: int | None) -> int | None:
    given = [each for each in (one, other) if each is not None]
    return min(given, default=None)
