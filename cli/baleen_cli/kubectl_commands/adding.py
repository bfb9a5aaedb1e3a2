"""Add up what several gateways have on record, as if it had been one log."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Any, Final, Protocol, TypeVar

from baleen_core.decision.backtest import Ended, judge_backtest, merge_backtests
from baleen_core.decision.flips import FlipSummary, merge_flips
from baleen_core.decision.logs import find_contradiction, one_per_log
from baleen_core.errors import UpstreamError
from baleen_core.policy.schema import BacktestGate
from baleen_sidecar.usecases.simulate import Simulation
from baleen_sidecar.usecases.survey import TrialFlips
from baleen_sidecar.web.simulations import SimulationAnswer, to_backtest, to_simulation_answer, to_summary
from baleen_sidecar.web.surveys import RolloutFlipsAnswer, to_flips_answer


class _Compared(Protocol):
    """An answer about two revisions of a policy."""

    @property
    def policy(self) -> str:
        """Namespace and name."""

    @property
    def stable(self) -> str:
        """The digest of the one."""

    @property
    def candidate(self) -> str:
        """The digest of the other."""

    @property
    def ended(self) -> Any:
        """Why it looked no further back."""

    @property
    def log(self) -> str:
        """What all that read this log say alike; empty: nobody shares it."""


A = TypeVar("A", bound=_Compared)
T = TypeVar("T")

# A log that ended says nothing where another one had more.
_LEAST_FIRST = ("TimeLimit", "ScanLimit", "Abandoned", "Enough", "Window", "EndOfLog")
_CUT_SHORT: Final = frozenset({"TimeLimit", "Abandoned"})
"""What ended so looked as far back as there was time; how far others looked says nothing of it."""

_BOUNDS: Mapping[str, str] = {
    Ended.ENOUGH: "no more than --decisions were compared at each gateway; ask for more",
    Ended.SCAN_LIMIT: "a gateway looks at no more for that many --decisions; ask for more, or want fewer",
    Ended.TIME_LIMIT: "a gateway could judge no more in the time for it; want fewer",
}
"""What kept from finding more decisions, and how to get them."""


def add_simulations(answers: Mapping[str, SimulationAnswer], gate: BacktestGate | None) -> SimulationAnswer:
    """Add up simulations of one draft, one of each log, and hold all of it to the gate.

    Raises:
        UpstreamError: they did not compare the same revisions, or contradict each other.
    """
    one, logs = _same(answers), _logs(answers, lambda each: to_backtest(each).flips)
    found = reduce(merge_backtests, map(to_backtest, logs))
    namespace, _, name = one.policy.partition("/")
    ended = _ended(logs)
    return to_simulation_answer(
        Simulation(
            policy=(namespace, name),
            stable=one.stable,
            candidate=one.candidate,
            found=found,
            ended=ended,
            gate=None if gate is None else judge_backtest(gate, found, bound=_BOUNDS.get(str(ended), "")),
            log=_only_log(logs),
        )
    )


def add_flips(answers: Mapping[str, RolloutFlipsAnswer]) -> RolloutFlipsAnswer:
    """Add up the flips of one rollout, one answer of each log.

    Raises:
        UpstreamError: they are of several, or contradict each other.
    """
    one, found = _same(answers), _logs(answers, _flips)
    parts = map(_flips, found)
    namespace, _, name = one.policy.partition("/")
    return to_flips_answer(
        TrialFlips(
            policy=(namespace, name),
            stable=one.stable,
            candidate=one.candidate,
            found=reduce(merge_flips, parts),
            erased=_total(found, lambda each: each.erased),
            scanned=_total(found, lambda each: each.scanned),
            ended=_ended(found),
            log=_only_log(found),
        )
    )


def _flips(answer: RolloutFlipsAnswer) -> FlipSummary:
    return to_summary(answer.matrix, answer.flips, answer.categories, answer.languages, answer.groups)


def _same(answers: Mapping[str, A]) -> A:
    """Return one of the answers, all of which are about the same revisions."""
    by_sides: dict[tuple[str, str], list[str]] = {}
    for name, each in answers.items():
        by_sides.setdefault((each.stable, each.candidate), []).append(name)
    if len(by_sides) > 1:
        found = "; ".join(
            f"{', '.join(sorted(names))}: {stable[:17]} and {candidate[:17]}"
            for (stable, candidate), names in sorted(by_sides.items())
        )
        raise UpstreamError(f"gateways do not compare the same revisions ({found}): try again once they have converged")
    return next(iter(answers.values()))


def _logs(answers: Mapping[str, A], flips_of: Callable[[A], FlipSummary]) -> list[A]:
    """Return one of the answers of each log."""
    for ended in sorted({str(each.ended) for each in answers.values()} - _CUT_SHORT):
        alike = {name: each for name, each in answers.items() if str(each.ended) == ended}
        contradiction = find_contradiction(alike, lambda each: each.log, lambda each: flips_of(each).overall)
        if contradiction is not None:
            raise UpstreamError(contradiction.told())
    return list(one_per_log(answers, lambda each: each.log, lambda each: flips_of(each).overall.total).values())


def _only_log(logs: Sequence[A]) -> str:
    return logs[0].log if len(logs) == 1 else ""


def _ended(answers: Collection[A]) -> Any:
    return min((each.ended for each in answers), key=lambda ended: _LEAST_FIRST.index(str(ended)))


def _total(answers: Collection[T], count: Callable[[T], int]) -> int:
    return sum(map(count, answers))
