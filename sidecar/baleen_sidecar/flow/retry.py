"""How much may be asked twice: one budget for retries and hedges, so that failing never multiplies the load.

The budget is that of "Site Reliability Engineering" (Beyer et al., 2016, chapter 22: retries are at most a tenth of a
client's requests), kept as a balance: each call pays in a share of a retry, and each retry takes a whole one out. A
small balance is there at the start. Hedging, a second call once the first takes longer than nearly all do, is Dean and
Barroso's ("The Tail at Scale", CACM 2013). Both act on a whole call to a model, and go to another replica.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from baleen_core.percentiles import percentile_of

WHOLE: Final = 1_000_000
"""One retry, in the millionths that balances are kept in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    """How much may be asked again; `ratio` is in millionths of the calls, and 0 means never."""

    ratio: int = 100_000
    reserve: int = 10
    """So many may be there before the first call: the first failures come before much was paid in."""
    highest: int = 100
    """More than this is not saved up."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """What is left, in millionths of a retry."""

    balance: int


def new_budget(rules: RetryRules) -> RetryBudget:
    """Return a budget before the first call."""
    return RetryBudget(rules.reserve * WHOLE if rules.ratio else 0)


def after_first(budget: RetryBudget, rules: RetryRules) -> RetryBudget:
    """Pay in for a call that was made for the first time."""
    highest = max(rules.reserve, rules.highest) * WHOLE
    return RetryBudget(min(highest, budget.balance + rules.ratio)) if rules.ratio else RetryBudget(0)


def may_spend(budget: RetryBudget, *, keeping: int = 0) -> bool:
    """Say whether a call may be made again, with so many retries still left after it."""
    return budget.balance >= (1 + keeping) * WHOLE


def after_spent(budget: RetryBudget) -> RetryBudget:
    """Take out one retry or hedge."""
    return RetryBudget(budget.balance - WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeRules:
    """When a call is taken to hang: after longer than `percent` of the last calls took, and never at once."""

    percent: int = 95
    calls: int = 20
    """With fewer to compare with, nothing is hedged."""
    least_seconds: float = 0.01
    keeping: int = 5
    """Hedges leave so many retries: what fails matters more than what is late."""


def hedge_seconds(durations: Sequence[float], rules: HedgeRules) -> float | None:
    """Return after how long a call is made a second time; None: it is not."""
    if len(durations) < rules.calls:
        return None
    return max(rules.least_seconds, percentile_of(durations, rules.percent))
