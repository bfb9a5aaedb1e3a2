"""The gate of logged decisions: what is asked before a candidate begins, and what the answer means.

The answer to a question counts once it stands in the status, and stands there for good unless it is Inconclusive: so a
restart asks nobody again, and no later look at other decisions changes what was said of this candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from baleen_core.decision.backtest import Backtest, GateResult, GateVerdict, judge_worst
from baleen_core.policy.gates import say_backtest
from baleen_core.policy.schema import BacktestGate
from baleen_operator.plan.conditions import shorten, write_time
from baleen_operator.resources.policy import MAX_BACKTESTS, MAX_GATE_MESSAGE, Backtested

UNANSWERED_SECONDS: Final = (2.0, 60.0)
"""How soon a question that was not answered is asked again: at first, and at last."""
INCONCLUSIVE_SECONDS: Final = (30.0, 600.0)
"""How soon one whose answer said nothing is: until then more decisions may be logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether a candidate (its digest) may come after what is stable, by a gate."""

    candidate: str
    stable: str
    gate: BacktestGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking the gateways: which question is `under_way`, and the answer to the last `question`.

    `found` is what their logs say together, `also` what they say by those of two readers of a log who say worse of it,
    and `bound` what kept them from looking further back; without it, `problem` says why there is no answer. `tries`
    counts how often this question was asked, `time` is when it was answered.
    """

    under_way: Question | None = None
    question: Question | None = None
    found: Backtest | None = None
    also: tuple[Backtest, ...] = ()
    bound: str = ""
    problem: str = ""
    tries: int = 0
    time: datetime | None = None


class Gating(StrEnum):
    """Whether a gate lets a candidate begin."""

    OPEN = "Open"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ASKING = "Asking"
    UNANSWERED = "Unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLook:
    """What a look at a gate found: how it stands, in words, and what is to be done.

    `question` is to be asked now, `record` to be kept; after `wait_seconds` alone it is to be looked at again.
    """

    gating: Gating
    message: str = ""
    question: Question | None = None
    record: Backtested | None = None
    wait_seconds: float | None = None

    @property
    def again(self) -> bool:
        """Say whether what was found opens the gate as soon as it is on record."""
        return self.record is not None and self.record.verdict == GateVerdict.PASS


def look(question: Question, known: Sequence[Backtested], asked: Asked, now: datetime) -> GateLook:
    """Say whether a gate is open by what is on record of it, and else what to do about it."""
    record = find_record(question, known)
    if record is not None and record.verdict == GateVerdict.PASS:
        return GateLook(gating=Gating.OPEN)
    if record is not None and record.verdict == GateVerdict.FAIL:
        return GateLook(gating=Gating.FAILED, message=record.message)
    if asked.question == question and asked.found is not None and asked.under_way != question:
        record = _keep(
            question, judge_worst(question.gate, (asked.found, *asked.also), bound=asked.bound), record, asked, now
        )
        if record.verdict == GateVerdict.PASS:
            return GateLook(gating=Gating.ASKING, message=record.message, record=record)
        if record.verdict == GateVerdict.FAIL:
            return GateLook(gating=Gating.FAILED, message=record.message, record=record)
    seen = _see(question, record, asked)
    if asked.under_way == question:
        return seen
    if asked.question != question or asked.time is None:
        return replace(seen, question=question)
    first, last = UNANSWERED_SECONDS if asked.found is None else INCONCLUSIVE_SECONDS
    pause = min(last, first * 2 ** min(max(0, asked.tries - 1), 10))
    spent = (now - asked.time).total_seconds()
    # A clock that was put back says nothing of how long it was.
    if 0 <= spent < pause:
        return replace(seen, wait_seconds=pause - spent)
    return replace(seen, question=question)


def find_record(question: Question, known: Sequence[Backtested]) -> Backtested | None:
    """Return what is on record of a question."""
    named = (question.candidate, question.stable, say_backtest(question.gate))
    return next((each for each in known if (each.candidate, each.stable, each.gate) == named), None)


def records_after(known: Sequence[Backtested], found: Backtested | None) -> tuple[Backtested, ...]:
    """Return the records with the one that was found, newest first; the oldest of too many are forgotten."""
    if found is None:
        return tuple(known)
    others = (each for each in known if each.identity != found.identity)
    return (found, *others)[:MAX_BACKTESTS]


def _see(question: Question, record: Backtested | None, asked: Asked) -> GateLook:
    """Say how a gate stands that neither passed nor failed."""
    if asked.question == question and asked.found is None and asked.problem:
        return GateLook(gating=Gating.UNANSWERED, message=asked.problem, record=record)
    if record is not None:
        return GateLook(gating=Gating.INCONCLUSIVE, message=record.message, record=record)
    message = f"the gateways judge their last {question.gate.decisions:,} decisions again by it"
    return GateLook(gating=Gating.ASKING, message=message)


def _keep(question: Question, result: GateResult, record: Backtested | None, asked: Asked, now: datetime) -> Backtested:
    """Write down what was found; what says the same as before stays as it was."""
    message = shorten(result.message, MAX_GATE_MESSAGE)
    if record is not None and (record.verdict, record.message) == (result.verdict, message):
        return record
    return Backtested(
        candidate=question.candidate,
        stable=question.stable,
        gate=say_backtest(question.gate),
        verdict=result.verdict.value,
        reason=result.reason.value,
        message=message,
        time=write_time(asked.time or now),
    )
