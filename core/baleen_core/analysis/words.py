"""An analysis in words and numbers for people."""

from math import isinf

from baleen_core.analysis.metrics import Interval, Metric, MetricType
from baleen_core.ratio import format_number, format_ratio


def figure(metric: Metric, value: float, *, change: bool = False) -> str:
    """Write a rate as `3.12%`, a latency as `120 ms`; a change has its sign."""
    sign = "+" if change else ""
    if metric.type is not MetricType.LATENCY_P99:
        return f"{round(100 * value, 4):{sign}.3g}%"
    milliseconds = round(1000 * value, 3)
    return f"{milliseconds:{sign},.0f} ms" if abs(milliseconds) >= 100 else f"{milliseconds:{sign}.3g} ms"


def interval_text(metric: Metric, interval: Interval) -> str:
    """Write where a change lies: `+1.4% to +2.8%`, `at least +3 ms`, `unknown`."""
    low, high = (figure(metric, value, change=True) for value in (interval.lower, interval.upper))
    match isinf(interval.lower), isinf(interval.upper):
        case False, False:
            return f"{low} to {high}"
        case False, True:
            return f"at least {low}"
        case True, False:
            return f"at most {high}"
    return "unknown"


def number_text(value: float) -> str:
    """Write what a query gave, by six digits: `0.0213`, `1.5e+09`."""
    return f"{value:.6g}"


def number_limits_text(metric: Metric) -> str:
    """Write what the number of a PromQL metric may be: `at least 0.5 and at most 2`."""
    limits = (("at least", metric.minimum), ("at most", metric.maximum))
    return " and ".join(f"{words} {format_number(limit)}" for words, limit in limits if limit is not None)


def limits_text(metric: Metric) -> str:
    """Write by how much a metric may change: `at most +1% and at most -1%`."""
    parts = []
    if metric.max_increase is not None:
        parts.append(f"+{format_ratio(metric.max_increase)}")
    if metric.max_decrease is not None:
        parts.append(f"-{format_ratio(metric.max_decrease)}")
    if metric.max_increase_milliseconds is not None:
        parts.append(f"+{metric.max_increase_milliseconds} ms")
    return " and ".join(f"at most {part}" for part in parts)
