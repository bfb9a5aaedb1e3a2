"""How long to wait before starting again something that ended: longer each time, and never in step with others."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffRules:
    """Waits double from `first_seconds` to `highest_seconds`; a run of `settled_seconds` counts as a success."""

    first_seconds: float = 0.5
    highest_seconds: float = 30.0
    spread: float = 0.2
    settled_seconds: float = 60.0


def wait_seconds(failures: int, *, jitter: float, rules: BackoffRules) -> float:
    """Return the wait after so many failures (1 or more) in a row; `jitter`, 0 to 1, shortens it by up to `spread`."""
    doublings = min(failures - 1, 32)  # 2**32 is above any highest wait; more would only overflow the float
    full: float = min(rules.highest_seconds, rules.first_seconds * 2**doublings)
    return full * (1 - rules.spread * jitter)


def next_failures(failures: int, *, ran_seconds: float, rules: BackoffRules) -> int:
    """Count an end after a run of `ran_seconds`: one that lasted starts the count again."""
    return 1 if ran_seconds >= rules.settled_seconds else failures + 1
