"""Refuse a source's media for a while once what it sends cannot be read: a broken camera must not cost what it does."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from baleen_core.errors import BaleenError, ContentError, FetchError, SourceUnavailable, TooLarge, WrongType
from baleen_core.records import Context
from baleen_sidecar.flow.breaker import (
    Breaker,
    BreakerRules,
    Manual,
    Outcome,
    Permit,
    State,
    after_call,
    after_order,
    before_call,
    find_state,
    may_forget,
)
from baleen_sidecar.ports import BreakerKind, BreakerReport, Order

log = logging.getLogger(__name__)

PREFIX: Final = "source/"
MAX_SOURCES: Final = 1000
"""Sources whose breakers are remembered; those that had no failure of late need none."""
_SUCCESSES: Final = 3
_LONGEST_NAME: Final = 512
_FAULTS: Final[tuple[tuple[type[BaleenError], str], ...]] = (
    (FetchError, "its address could not be read"),
    (TooLarge, "it was over a limit"),
    (WrongType, "it was of a type that is not accepted"),
    (ContentError, "it could not be read"),
)
"""Not in the words of the error: these may quote what one caller sent, and are shown to the next, and logged."""


class GuardSources:
    """A breaker for each source of a tenant, that counts media for the source's own faults: unreadable, not there.

    A model that fails, a policy that is missing or a caller that gives up is no fault of the source.
    """

    def __init__(
        self,
        rules: BreakerRules | None,
        *,
        monotonic_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
    ) -> None:
        """Without rules, only what is ordered by hand counts."""
        self._is_automatic = rules is not None
        self._rules = rules or source_rules(1) or BreakerRules()
        self._monotonic_seconds = monotonic_seconds
        self._chance = chance
        self._breakers: dict[str, Breaker] = {}
        self._orders: dict[str, Order] = {}

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        """Read and judge media of this context inside; without a source, nothing is watched.

        Raises:
            SourceUnavailable: the source's breaker is open.
        """
        if context.source is None:
            yield
            return
        name = _name_of(context)
        permit = self._enter(name)
        outcome, why, begun = Outcome.IGNORED, "", self._monotonic_seconds()
        try:
            yield
            outcome = Outcome.DONE
        except (ContentError, FetchError) as failed:
            outcome, why = Outcome.FAILED, _say(failed)
            raise
        finally:
            self._leave(name, permit, outcome, begun=begun, why=why)

    def reports(self) -> tuple[BreakerReport, ...]:
        """See ports.Breakers: those of sources that had failures of late, or that somebody gave an order for."""
        now = self._monotonic_seconds()
        return tuple(self._report(name, breaker, now) for name, breaker in sorted(self._breakers.items()))

    def state(self, context: Context) -> State | None:
        """Return the state of the breaker of a context's source; None: it has none, as all is well with it."""
        breaker = self._breakers.get(_name_of(context))
        return None if breaker is None else find_state(breaker, now=self._monotonic_seconds())

    def order(self, name: str, order: Order) -> BreakerReport | None:
        """See ports.Breakers; a source may be shut, or kept open, before it ever sent anything."""
        if not name.startswith(PREFIX) or len(name) > _LONGEST_NAME:
            return None
        now = self._monotonic_seconds()
        before = self._breakers.get(name)
        if before is None and order.state is Manual.AUTO:
            return None
        why = f"{order.by}: {order.reason}" if order.reason else order.by
        changed = after_order(before or Breaker(since=now), order.state, now=now, rules=self._rules, why=why)
        self._orders.pop(name, None)
        if order.state is not Manual.AUTO:
            self._orders[name] = order
        self._keep(name, changed)
        return self._report(name, changed, now)

    def _enter(self, name: str) -> Permit:
        now = self._monotonic_seconds()
        breaker = self._breakers.get(name) or Breaker(since=now)
        changed, permit = before_call(breaker, now=now, rules=self._rules)
        self._note(name, breaker, changed)
        if permit is None:
            raise self._refusal(name, changed, now)
        return permit

    def _leave(self, name: str, permit: Permit, outcome: Outcome, *, begun: float, why: str) -> None:
        now = self._monotonic_seconds()
        breaker = self._breakers.get(name)
        if breaker is None:
            if permit.is_trial:
                return  # It was forgotten, in favour of others, and knows of no trial.
            breaker = Breaker(since=now, period=permit.period)
        if outcome is Outcome.FAILED and not self._is_automatic:
            outcome = Outcome.IGNORED
        jitter = int.from_bytes(self._chance(2)) / 0xFFFF
        changed = after_call(
            breaker, permit, outcome, now=now, seconds=now - begun, jitter=jitter, rules=self._rules, why=why
        )
        self._note(name, breaker, changed)

    def _note(self, name: str, before: Breaker, after: Breaker) -> None:
        if after is before:
            return
        if after.state is not before.state:
            level = logging.WARNING if after.state is State.OPEN else logging.INFO
            log.log(level, "breaker changed", extra={"breaker": name, "state": after.state.value, "cause": after.why})
        self._keep(name, after)

    def _keep(self, name: str, breaker: Breaker) -> None:
        if may_forget(breaker, now=self._monotonic_seconds(), rules=self._rules):
            self._breakers.pop(name, None)
            return
        if name not in self._breakers and len(self._breakers) >= MAX_SOURCES:
            self._forget_one()
        self._breakers[name] = breaker

    def _forget_one(self) -> None:
        """Forget the one that is missed least: closed before open, and those with an order or trials at last."""
        now = self._monotonic_seconds()
        rank = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
        least = min(
            self._breakers,
            key=lambda name: (
                self._breakers[name].is_manual,
                self._breakers[name].trials > 0,
                rank[find_state(self._breakers[name], now=now)],
                self._breakers[name].since,
            ),
        )
        del self._breakers[least]
        self._orders.pop(least, None)

    def _refusal(self, name: str, breaker: Breaker, now: float) -> SourceUnavailable:
        if breaker.is_manual:
            order = self._orders.get(name)
            reason = f": {order.reason}" if order is not None and order.reason else ""
            return SourceUnavailable(f"the breaker {name} was opened by hand{reason}", retry_after_seconds=60)
        at = breaker.next_try_at
        seconds = 1 if at is None else max(1, round(at - now + 0.5))
        message = f"the breaker {name} is open: {breaker.why}; media of this source is tried again in {seconds} s"
        return SourceUnavailable(message, retry_after_seconds=seconds)

    def _report(self, name: str, breaker: Breaker, now: float) -> BreakerReport:
        tally = breaker.recent.total(now=now, span_seconds=self._rules.window_seconds)
        return BreakerReport(
            name=name,
            kind=BreakerKind.SOURCE,
            state=find_state(breaker, now=now),
            since=breaker.since,
            calls=tally.calls,
            failures=tally.failures,
            failures_in_a_row=breaker.failures,
            trials=breaker.trials,
            under_way=breaker.trials,
            why=breaker.why,
            next_try_at=breaker.next_try_at,
            order=self._orders.get(name),
        )


def _say(failed: BaleenError) -> str:
    return next(words for kind, words in _FAULTS if isinstance(failed, kind))


def source_rules(failure_threshold: int) -> BreakerRules | None:
    """Return the rules for sources: as for models, with a success more, and a back-off where models have probes."""
    if not failure_threshold:
        return None
    return BreakerRules(failure_threshold=failure_threshold, success_threshold=_SUCCESSES, is_probed=False)


def _name_of(context: Context) -> str:
    """Return the name of a source's breaker: tenants have their own, so that none can shut another's camera."""
    return f"{PREFIX}{context.source}" if context.tenant is None else f"{PREFIX}{context.tenant}:{context.source}"
