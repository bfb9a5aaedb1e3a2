"""When something that fails is asked no more, and how it comes back.

The pattern is Nygard's ("Release It!", 2nd edition, 2018, Circuit Breaker); slow calls that trip as failures do are
resilience4j's. A call ends in one of three ways, as in Netflix' concurrency-limits: one that nobody can judge (given
up before it was sent, refused for the content's own sake, shed) counts for nobody, and frees its place all the same.

What comes back is found out by *probes*, golden questions outside of live traffic: at 1, 2 and 4 seconds, then every
5 seconds or so, however long it was away, so that it is in use again within 10 seconds. Live trials follow a good
probe. Only what passes its probes and fails its trials is left alone for longer each time. A breaker of something that
cannot be probed, such as a camera, has that back-off from the start.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from baleen_sidecar.flow.backoff import BackoffRules, wait_seconds
from baleen_sidecar.flow.recent import Recent, Tally

PROBE_SECONDS: Final = 5.0
"""What the waits between probes grow to."""


class State(StrEnum):
    """Closed: asked as ever. Open: not asked. Half-open: a few trials at a time find out."""

    CLOSED = "Closed"
    HALF_OPEN = "HalfOpen"
    OPEN = "Open"


class Manual(StrEnum):
    """What an administrator can want of a breaker."""

    AUTO = "Auto"
    OPEN = "Open"
    CLOSED = "Closed"


class Outcome(StrEnum):
    """How a call ended; `IGNORED` says nothing about whom it was made to."""

    DONE = "Done"
    FAILED = "Failed"
    IGNORED = "Ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens and closes."""

    failure_threshold: int = 5
    """Opens after so many failures in a row."""
    success_threshold: int = 2
    """Closes after so many successes; also how many trials may be under way at once."""
    first_wait_seconds: float = 1.0
    """The wait before the first probe, and before the first trial after one that failed; both double."""
    max_wait_seconds: float = 60.0
    """The longest wait before another trial."""
    spread: float = 0.2
    """By how much of itself a wait is changed by chance, so that many do not come back in step."""
    slow_seconds: float | None = None
    """A call that takes longer is slow; None: none is."""
    window_seconds: float = 30.0
    window_calls: int = 20
    window_percent: int = 50
    """Opens too when of at least `window_calls` within the window so many percent failed, or were slow."""
    is_probed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to make one call; give it back with the outcome, whatever that is."""

    period: int
    is_trial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of one breaker; times are monotonic seconds.

    `period` counts changes of state, so that a call which began in an earlier one decides nothing in this. `failures`
    are in a row; `successes` are of this half-open period; `refusals` is how often trials failed although probes pass.
    """

    state: State = State.CLOSED
    since: float = 0.0
    why: str = ""
    is_manual: bool = False
    period: int = 0
    failures: int = 0
    successes: int = 0
    trials: int = 0
    refusals: int = 0
    missed: int = 0
    """Probes that failed since it opened."""
    has_passed: bool = False
    """Whether the last probe since it opened was good."""
    probe_at: float = math.inf
    trial_at: float = math.inf
    recent: Recent = field(default_factory=Recent)

    @property
    def next_try_at(self) -> float | None:
        """Return when it is found out again whether it may close; None: by the next calls, or never by itself."""
        if self.is_manual or self.state is State.CLOSED:
            return None
        at = self.trial_at if self.has_passed and self.state is State.OPEN else self.probe_at
        return None if math.isinf(at) else at


def may_forget(breaker: Breaker, *, now: float, rules: BreakerRules) -> bool:
    """Say whether there is nothing to remember: it may be thrown away, and begun anew when it is needed."""
    if breaker.state is not State.CLOSED or breaker.is_manual or breaker.trials:
        return False
    owes = breaker.refusals and now - breaker.since < rules.max_wait_seconds
    return not owes and not breaker.recent.total(now=now, span_seconds=rules.window_seconds).failures


def find_state(breaker: Breaker, *, now: float) -> State:
    """Return the state at this moment: what is open and has waited long enough is half-open to the next caller."""
    if breaker.state is State.OPEN and not breaker.is_manual and breaker.has_passed and now >= breaker.trial_at:
        return State.HALF_OPEN
    return breaker.state


def may_call(breaker: Breaker, *, now: float, rules: BreakerRules) -> bool:
    """Say whether one more call is allowed now."""
    match find_state(breaker, now=now):
        case State.CLOSED:
            return True
        case State.HALF_OPEN:
            return breaker.trials < rules.success_threshold
    return False


def before_call(breaker: Breaker, *, now: float, rules: BreakerRules) -> tuple[Breaker, Permit | None]:
    """Ask for leave to make a call; None is a refusal."""
    if not may_call(breaker, now=now, rules=rules):
        return breaker, None
    if breaker.state is State.CLOSED:
        return breaker, Permit(period=breaker.period)
    if breaker.state is State.OPEN:
        breaker = _half_open(breaker, now=now, rules=rules)
    breaker = replace(breaker, trials=breaker.trials + 1)
    return breaker, Permit(period=breaker.period, is_trial=True)


def after_call(
    breaker: Breaker,
    permit: Permit,
    outcome: Outcome,
    *,
    now: float,
    seconds: float,
    jitter: float,
    rules: BreakerRules,
    why: str = "",
) -> Breaker:
    """Take note of how a call ended after so many seconds; `jitter` is 0 to 1, `why` is the failure in words."""
    if permit.is_trial:
        breaker = replace(breaker, trials=breaker.trials - 1)
    if outcome is Outcome.IGNORED or permit.period != breaker.period:
        return breaker
    is_slow = outcome is Outcome.DONE and rules.slow_seconds is not None and seconds > rules.slow_seconds
    if breaker.state is State.HALF_OPEN:
        if outcome is Outcome.DONE and not is_slow:
            return _after_success(breaker, now=now, rules=rules)
        reason = f"a trial was slow: {seconds:.3g} s" if is_slow else f"a trial failed: {why}"
        return _opened(breaker, reason, now=now, jitter=jitter, rules=rules, refused=True)
    failed = outcome is Outcome.FAILED
    tally = Tally(calls=1, failures=int(failed), slow=int(is_slow), seconds=0.0 if failed else seconds)
    breaker = replace(
        breaker,
        failures=breaker.failures + 1 if failed else 0,
        recent=breaker.recent.adding(tally, now=now, span_seconds=rules.window_seconds),
    )
    if breaker.is_manual or not (reason := _find_reason(breaker, why, now=now, rules=rules)):
        return breaker
    return _opened(breaker, reason, now=now, jitter=jitter, rules=rules, refused=not rules.is_probed)


def after_probe(
    breaker: Breaker, *, is_good: bool, begun: float, now: float, jitter: float, rules: BreakerRules
) -> Breaker:
    """Take note of a golden question that was asked at `begun`; the next one is due so long after that, not after now.

    With nobody to try it live, good probes close a half-open breaker as trials would.
    """
    if breaker.is_manual or breaker.state is State.CLOSED:
        return breaker
    if not is_good:
        missed = breaker.missed + 1
        probe_at = begun + probe_wait(missed, jitter=jitter, rules=rules)
        # An outage, then, and nothing that fails live calls alone: no back-off is owed.
        away = replace(breaker, missed=missed, has_passed=False, refusals=0, probe_at=probe_at, trial_at=now)
        if breaker.state is State.OPEN:
            return away
        return _enter(away, State.OPEN, "a golden question had no answer", now=now)
    if breaker.state is State.HALF_OPEN:
        return _after_success(replace(breaker, probe_at=begun + rules.first_wait_seconds), now=now, rules=rules)
    if now >= breaker.trial_at:
        return _half_open(breaker, now=now, rules=rules)
    return replace(breaker, has_passed=True, probe_at=begun + _spread(PROBE_SECONDS, jitter, rules))


def after_hang(breaker: Breaker, *, now: float, jitter: float, rules: BreakerRules, why: str) -> Breaker:
    """Take note that what it is of hangs for certain, although none of its calls has ended."""
    if breaker.is_manual or breaker.state is State.OPEN:
        return breaker
    return _opened(breaker, why, now=now, jitter=jitter, rules=rules, refused=not rules.is_probed)


def after_order(breaker: Breaker, wanted: Manual, *, now: float, rules: BreakerRules, why: str = "") -> Breaker:
    """Do what an administrator wants; left to itself again, an open one is probed or tried at once."""
    if wanted is not Manual.AUTO:
        state = State.OPEN if wanted is Manual.OPEN else State.CLOSED
        return _enter(replace(breaker, is_manual=True, probe_at=math.inf, trial_at=math.inf), state, why, now=now)
    if not breaker.is_manual:
        return breaker
    freed = replace(breaker, is_manual=False, refusals=0, missed=0)
    if breaker.state is State.CLOSED:
        return _enter(freed, State.CLOSED, "", now=now)
    freed = replace(freed, has_passed=not rules.is_probed, probe_at=now if rules.is_probed else math.inf, trial_at=now)
    return _enter(freed, State.OPEN, why, now=now)


def probe_wait(missed: int, *, jitter: float, rules: BreakerRules) -> float:
    """Return the seconds between a probe and the next after so many that failed: 1 before any, then 2, 4, 5, 5, …"""
    highest = max(PROBE_SECONDS, rules.first_wait_seconds)
    wait = rules.first_wait_seconds * 2.0 ** min(missed, 32)
    return wait if wait < highest else _spread(highest, jitter, rules)


def _find_reason(breaker: Breaker, why: str, *, now: float, rules: BreakerRules) -> str:
    if breaker.failures >= rules.failure_threshold:
        return f"{breaker.failures} in a row failed: {why}"
    recent = breaker.recent.total(now=now, span_seconds=rules.window_seconds)
    if recent.calls < rules.window_calls:
        return ""
    for count, what in ((recent.failures, "failed"), (recent.slow, f"took longer than {rules.slow_seconds} s")):
        if count * 100 >= rules.window_percent * recent.calls:
            return f"{count} of {recent.calls} within {rules.window_seconds:g} s {what}"
    return ""


def _after_success(breaker: Breaker, *, now: float, rules: BreakerRules) -> Breaker:
    if breaker.successes + 1 < rules.success_threshold:
        return replace(breaker, successes=breaker.successes + 1)
    return _enter(replace(breaker, probe_at=math.inf, trial_at=math.inf), State.CLOSED, "", now=now)


def _opened(breaker: Breaker, why: str, *, now: float, jitter: float, rules: BreakerRules, refused: bool) -> Breaker:
    # One that held for long after it closed owes nothing for what was before.
    is_settled = breaker.state is State.CLOSED and now - breaker.since >= rules.max_wait_seconds
    refusals = (0 if is_settled else breaker.refusals) + int(refused)
    backoff = BackoffRules(
        first_seconds=rules.first_wait_seconds, highest_seconds=rules.max_wait_seconds, spread=rules.spread
    )
    waits = replace(
        breaker,
        refusals=refusals,
        missed=0,
        has_passed=not rules.is_probed,
        probe_at=now + probe_wait(0, jitter=jitter, rules=rules) if rules.is_probed else math.inf,
        trial_at=now + wait_seconds(refusals, jitter=jitter, rules=backoff) if refusals else now,
    )
    return _enter(waits, State.OPEN, why, now=now)


def _half_open(breaker: Breaker, *, now: float, rules: BreakerRules) -> Breaker:
    probe_at = now + rules.first_wait_seconds if rules.is_probed else math.inf
    return _enter(replace(breaker, probe_at=probe_at, trial_at=math.inf), State.HALF_OPEN, breaker.why, now=now)


def _enter(breaker: Breaker, state: State, why: str, *, now: float) -> Breaker:
    return replace(
        breaker,
        state=state,
        since=now,
        why=why,
        period=breaker.period + 1,
        failures=0,
        successes=0,
        recent=Recent(),
    )


def _spread(seconds: float, jitter: float, rules: BreakerRules) -> float:
    return seconds * (1 + rules.spread * (2 * jitter - 1))
