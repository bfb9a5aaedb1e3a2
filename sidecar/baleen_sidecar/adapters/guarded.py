"""Calls of one model at one server, each under the breaker of the two, and each watched to its end.

Whoever waits for a call may give up; the call goes on, under the model's own time budget, and says in the end whether
the server is well. So a server that hangs is found out although every caller is gone by then, and one that is well is
not blamed for callers in a hurry. One that hangs for certain, by flow.hangs, is not waited for until then: its calls
are let go, and whoever waited for them hears so at once.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from baleen_core.errors import ModelUnavailable, Unanswerable
from baleen_core.model.schema import Model, Resilience
from baleen_sidecar.flow.breaker import (
    Breaker,
    BreakerRules,
    Manual,
    Outcome,
    Permit,
    State,
    after_call,
    after_hang,
    after_order,
    after_probe,
    before_call,
    find_state,
    may_call,
)
from baleen_sidecar.flow.hangs import Answered, HangRules, is_hung, suspicious_seconds
from baleen_sidecar.flow.outliers import OutlierRules, eject_seconds
from baleen_sidecar.flow.recent import Recent, Tally
from baleen_sidecar.ports import BreakerKind, BreakerReport, Order, Tensors, Work

log = logging.getLogger(__name__)

MAX_ABANDONED: Final = 64
"""Calls of one model at one server that nobody waits for any more; with so many under way, no more are begun."""
_ANSWERS: Final = 64
_LONGEST_WHY: Final = 300
"""Characters of a server's words that are kept."""


class Connection(Protocol):
    """One server, such as TritonInference.

    A call that is cancelled is not waited for any more, whatever becomes of it at the server.
    """

    async def infer(self, model: Model, inputs: Tensors, work: Work) -> Tensors:
        """See ports.Inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What guards take from the world: a monotonic clock, and chance (0 to 1)."""

    monotonic_seconds: Callable[[], float]
    jitter: Callable[[], float]


@dataclass(slots=True)
class _Running:
    """A call that is under way: when it was begun, how much it is, and why it is let go if it is."""

    begun: float
    size: int
    let_go_why: str = ""


class Guard:
    """One model at one server: its breaker, and the calls that are under way."""

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        """`name` is the breaker's, such as `server/image-safety/triton-a:8001`."""
        self.name = name
        self._around = surroundings
        self._rules = BreakerRules()
        self._outliers = OutlierRules()
        self._breaker = Breaker(since=surroundings.monotonic_seconds())
        self._order: Order | None = None
        self._hangs = HangRules()
        self._running: dict[asyncio.Task[Tensors], _Running] = {}
        self._let_go = 0
        self._answers: deque[Answered] = deque(maxlen=_ANSWERS)
        self._heard_at = surroundings.monotonic_seconds()
        self._has_missed = False
        self._abandoned = 0
        self._recent = Recent()
        self._ejected_until = 0.0
        self._ejections = 0
        self._ejected_why = ""
        self._changes: Counter[State] = Counter()
        self._tried: Counter[Outcome] = Counter()

    @property
    def durations(self) -> tuple[float, ...]:
        """Seconds of the last calls that were answered."""
        return tuple(each.seconds for each in self._answers)

    @property
    def running(self) -> int:
        """How many calls are under way, waited for or not."""
        return len(self._running)

    @property
    def why(self) -> str:
        """Why it is as it is; empty when all is well."""
        return self._breaker.why

    @property
    def probe_at(self) -> float | None:
        """Return when golden questions are due for the breaker's sake; None: they are not."""
        if self._breaker.is_manual or self._breaker.state is State.CLOSED:
            return None
        return self._breaker.probe_at

    def is_late(self) -> bool:
        """Say whether calls are under way and the server has been silent for suspiciously long, by flow.hangs."""
        silent = self._silent_seconds()
        suspicious = self._suspicious_seconds()
        return silent is not None and suspicious is not None and silent >= suspicious

    def state(self) -> State:
        """Return the breaker's state now."""
        return find_state(self._breaker, now=self._now())

    def may_call(self) -> bool:
        """Say whether a live call may be begun now."""
        return may_call(self._breaker, now=self._now(), rules=self._rules)

    def is_ejected(self) -> bool:
        """Say whether it is better left alone, while there are others."""
        return self._now() < self._ejected_until

    def follow(self, resilience: Resilience) -> None:
        """Go by these rules from now on."""
        self._rules = rules_of(resilience)

    def begin(self, connection: Connection, model: Model, inputs: Tensors, work: Work) -> asyncio.Task[Tensors] | None:
        """Begin a live call; None: the breaker does not allow it, or too many callers left calls behind.

        Whoever stops waiting for the call before its end says so by `abandon`.
        """
        if self._abandoned >= MAX_ABANDONED:
            return None
        now = self._now()
        before = self._breaker.state
        self._breaker, permit = before_call(self._breaker, now=now, rules=self._rules)
        self._note(before)
        if permit is None:
            return None
        running = _Running(now, max(1, sum(array.size for array in inputs.values())))
        call = asyncio.create_task(_call(running, connection, model, inputs, work), name=f"call {self.name}")
        self._running[call] = running
        call.add_done_callback(lambda _: self._end(call, permit, now))
        return call

    def abandon(self, call: asyncio.Task[Tensors]) -> None:
        """Let a call go on that nobody waits for any more."""
        if not call.done():
            self._abandoned += 1
            call.add_done_callback(self._forget)

    def heard(self) -> None:
        """Take note that the server answered, be it to golden questions."""
        self._heard_at = self._now()
        self._has_missed = False

    def looked(self, model: Model, *, is_living: bool) -> None:
        """Take note of whether the server says that it has the model; let its calls go if it is certain that it hangs.

        That takes a golden question, too, that had no answer since the server was last heard: see flow.hangs.
        """
        silent, suspicious = self._silent_seconds(), self._suspicious_seconds()
        if silent is None or not self._has_missed or self._breaker.is_manual:
            return
        if not is_hung(silent, suspicious, is_living=is_living, rules=self._hangs):
            return
        why = f"nothing was answered for {silent:.3g} s, nor a golden question"
        before = self._breaker.state
        self._breaker = after_hang(
            self._breaker, now=self._now(), jitter=self._around.jitter(), rules=self._rules, why=why
        )
        self._note(before)
        self._let_go += len(self._running)
        for call, running in self._running.items():
            running.let_go_why = f"model {model.name} {model.version}: {why}"
            call.cancel()

    def missed(self) -> None:
        """Take note that a golden question had no answer."""
        self._has_missed = True

    def probed(self, *, is_good: bool, begun: float) -> None:
        """Take note of golden questions that were asked at `begun` (monotonic seconds)."""
        before = self._breaker.state
        self._breaker = after_probe(
            self._breaker,
            is_good=is_good,
            begun=begun,
            now=self._now(),
            jitter=self._around.jitter(),
            rules=self._rules,
        )
        self._note(before)

    def order(self, order: Order) -> None:
        """Do what an administrator wants."""
        before = self._breaker.state
        self._order = None if order.state is Manual.AUTO else order
        why = f"{order.by}: {order.reason}" if order.reason else order.by
        self._breaker = after_order(self._breaker, order.state, now=self._now(), rules=self._rules, why=why)
        self._note(before)

    def recent(self) -> Tally:
        """Return what came of the calls of late, whatever the breaker made of it."""
        return self._recent.total(now=self._now(), span_seconds=self._outliers.window_seconds)

    def eject(self, why: str) -> None:
        """Leave it alone for a while, longer each time; what it did so far is forgotten."""
        self._ejections += 1
        self._ejected_until = self._now() + eject_seconds(self._ejections, self._outliers)
        self._ejected_why = why
        self._recent = Recent()
        log.warning("replica left alone", extra={"breaker": self.name, "cause": why})

    def report(self) -> BreakerReport:
        """Return what is to be known of it."""
        tally = self.recent()
        is_ejected = self.is_ejected()
        return BreakerReport(
            name=self.name,
            kind=BreakerKind.SERVER,
            state=self.state(),
            since=self._breaker.since,
            calls=tally.calls,
            failures=tally.failures,
            slow=tally.slow,
            failures_in_a_row=self._breaker.failures,
            trials=self._breaker.trials,
            under_way=len(self._running),
            why=self._breaker.why or (self._ejected_why if is_ejected else ""),
            next_try_at=self._breaker.next_try_at,
            ejected_until=self._ejected_until if is_ejected else None,
            order=self._order,
            changes=dict(self._changes),
            tried=dict(self._tried),
            ejections=self._ejections,
            let_go=self._let_go,
        )

    async def close(self) -> None:
        """End what is still under way."""
        left = list(self._running)
        for call in left:
            call.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _end(self, call: asyncio.Task[Tensors], permit: Permit, begun: float) -> None:
        running = self._running.pop(call)
        now = self._now()
        seconds = now - begun
        failed = None if call.cancelled() else call.exception()
        outcome = outcome_of(call.cancelled(), failed)
        if outcome is Outcome.DONE:
            self.heard()
            self._answers.append(Answered(running.size, seconds))
        if outcome is not Outcome.IGNORED:
            slowest = self._rules.slow_seconds
            is_done = outcome is Outcome.DONE
            tally = Tally(
                calls=1,
                failures=int(not is_done),
                slow=int(is_done and slowest is not None and seconds > slowest),
                seconds=seconds if is_done else 0.0,
            )
            self._recent = self._recent.adding(tally, now=now, span_seconds=self._outliers.window_seconds)
        if permit.is_trial:
            self._tried[outcome] += 1
        before = self._breaker.state
        self._breaker = after_call(
            self._breaker,
            permit,
            outcome,
            now=now,
            seconds=seconds,
            jitter=self._around.jitter(),
            rules=self._rules,
            why=str(failed)[:_LONGEST_WHY],
        )
        self._note(before)

    def _forget(self, _: asyncio.Task[Tensors]) -> None:
        self._abandoned -= 1

    def _silent_seconds(self) -> float | None:
        """Return for how long the server has had a call to answer and answered none; None: it has none."""
        oldest = next(iter(self._running.values()), None)
        return None if oldest is None else self._now() - max(oldest.begun, self._heard_at)

    def _suspicious_seconds(self) -> float | None:
        size = max((each.size for each in self._running.values()), default=1)
        return suspicious_seconds(self._answers, size, self._hangs)

    def _note(self, before: State) -> None:
        if self._breaker.state is before:
            return
        self._changes[self._breaker.state] += 1
        level = logging.WARNING if self._breaker.state is State.OPEN else logging.INFO
        facts = {"breaker": self.name, "state": self._breaker.state.value, "cause": self._breaker.why}
        log.log(level, "breaker changed", extra=facts)

    def _now(self) -> float:
        return self._around.monotonic_seconds()


async def _call(running: _Running, connection: Connection, model: Model, inputs: Tensors, work: Work) -> Tensors:
    try:
        return await connection.infer(model, inputs, work)
    except asyncio.CancelledError:
        if running.let_go_why:
            raise ModelUnavailable(running.let_go_why) from None
        raise


def outcome_of(was_cancelled: bool, failed: BaseException | None) -> Outcome:
    """Say what the end of a call tells about the server: content that has no answer, or work shed, tells nothing."""
    if was_cancelled or isinstance(failed, Unanswerable):
        return Outcome.IGNORED
    if failed is None:
        return Outcome.DONE
    return Outcome.FAILED if isinstance(failed, ModelUnavailable) else Outcome.IGNORED


def rules_of(resilience: Resilience) -> BreakerRules:
    """Turn what a ModelDeployment says into the rules of a breaker."""
    breaker = resilience.breaker
    slow = breaker.slow_call_milliseconds
    return BreakerRules(
        failure_threshold=breaker.failure_threshold,
        success_threshold=breaker.success_threshold,
        first_wait_seconds=breaker.first_probe_milliseconds / 1000,
        max_wait_seconds=float(breaker.max_open_seconds),
        slow_seconds=None if slow is None else slow / 1000,
    )


def combine(name: str, reports: Sequence[BreakerReport]) -> BreakerReport:
    """Say of a model what its servers say together: it is open when all are."""
    states = {each.state for each in reports}
    state = State.CLOSED if State.CLOSED in states else State.HALF_OPEN if State.HALF_OPEN in states else State.OPEN
    like = [each for each in reports if each.state is state]
    tries = [each.next_try_at for each in reports if each.next_try_at is not None]
    return replace(
        like[0],
        name=name,
        kind=BreakerKind.MODEL,
        since=max(each.since for each in like) if state is State.OPEN else min(each.since for each in like),
        calls=sum(each.calls for each in reports),
        failures=sum(each.failures for each in reports),
        slow=sum(each.slow for each in reports),
        failures_in_a_row=min(each.failures_in_a_row for each in reports),
        trials=sum(each.trials for each in reports),
        under_way=sum(each.under_way for each in reports),
        why="" if state is State.CLOSED else like[0].why,
        next_try_at=min(tries, default=None) if state is not State.CLOSED else None,
        ejected_until=None,
        order=None,
        changes={},
        tried={},
        ejections=0,
        let_go=0,
    )
