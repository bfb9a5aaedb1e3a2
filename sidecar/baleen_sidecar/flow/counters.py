"""How many decisions each revision took part in, and what both sides of a rollout said: what the operator is told."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from msgspec import structs

from baleen_core.assignment import FULL, GROUPS
from baleen_core.policy_stream import MAX_WEIGHTS, VERDICT_PAIRS, TrialCounts, cell_index, flip_index
from baleen_core.records import Decision, DecisionRecord, Trial, side_of
from baleen_sidecar.flow.repeats import Repeats

MAX_REVISIONS: Final = 10_000
"""Of more, those that judged longest ago are forgotten."""
MAX_ROLLOUTS: Final = 1_000
"""Of more, those for which nothing was decided for longest are forgotten. One takes some 50 KB, and up to about
300 KB for each weight under much traffic of all latencies."""
MAX_LATE_SECONDS: Final = 3600.0
"""A sidecar's decision that comes later is not counted any more: it may have waited in the pod for days."""
MAX_AHEAD_SECONDS: Final = 60.0
"""By so much a sidecar's clock may be ahead."""

C = TypeVar("C")


class DecisionCounts:
    """Counts since the process began, by digest and decision."""

    def __init__(self, limit: int = MAX_REVISIONS) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()

    def count(self, decision: Decision) -> None:
        """Count a decision for every revision that judged."""
        for ref in decision.policies:
            _newest(self._counts, ref.digest, self._limit, Counter[str])[decision.decision.value] += 1

    def of(self, digest: str) -> Mapping[str, int]:
        """Return how often each decision was given with this revision."""
        return dict(self._counts.get(digest, {}))


@dataclass(slots=True)
class _Counted:
    """What was counted of one rollout: the fields of `TrialCounts`, without zeros."""

    flips: Counter[int] = field(default_factory=Counter)
    cohorts: Counter[str] = field(default_factory=Counter)
    weights: dict[int, Counter[int]] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)


class Adopted(Protocol):
    """What this process enforces for a policy, see `baleen_sidecar.ports.Adopted`."""

    @property
    def digest(self) -> str: ...
    @property
    def candidate(self) -> str: ...
    @property
    def rollout(self) -> str: ...
    @property
    def weight(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Both sides of a rollout that is under way here, by digest, and the weights that the candidate has had here."""

    stable: str
    candidate: str
    weights: frozenset[int]


class KnownRollouts:
    """The rollouts that are under way here, by name."""

    def __init__(self, adopted: Callable[[], Mapping[Any, Adopted]]) -> None:
        """`adopted` returns the same object until something about it changes."""
        self._adopted = adopted
        self._seen: Mapping[Any, Adopted] | None = None
        self._known: dict[str, Rollout] = {}

    def __call__(self) -> Mapping[str, Rollout]:
        current = self._adopted()
        if current is not self._seen:
            self._seen, before = current, self._known
            self._known = {
                each.rollout: Rollout(
                    stable=each.digest,
                    candidate=each.candidate,
                    weights=(before[each.rollout].weights if each.rollout in before else frozenset()) | {each.weight},
                )
                for each in current.values()
                if each.rollout
            }
        return self._known


class RolloutCounts:
    """Counts since the process began, by the name of the rollout: that of one try of one policy's."""

    def __init__(self, process: str, limit: int = MAX_ROLLOUTS, *, key: bytes = b"") -> None:
        """`process` names this process, and no other that was before it; `key` is that of `Repeats`."""
        self._process = process
        self._limit = limit
        self._counts: OrderedDict[str, _Counted] = OrderedDict()
        self._repeats = Repeats(key)

    def count(self, record: DecisionRecord) -> None:
        """Count a decision that was made here for every rollout that it was made in, once for each.

        What a client sends again counts once.
        """
        trials = {each.rollout: each for each in record.decision.trials}
        if trials and not self._repeats.is_repeated(record):
            for trial in trials.values():
                self._find(trial.rollout).made[side_of(trial).value] += 1
                self._add(trial, record)

    def count_claimed(self, record: DecisionRecord, rollouts: Mapping[str, Rollout], *, now: datetime) -> None:
        """Count a decision that a sidecar says it made, where it can be true of one of these `rollouts`, by name.

        One whose time is too far from `now` is known of, and not counted.
        """
        trials = {each.rollout: each for each in record.decision.trials if _is_of(each, rollouts.get(each.rollout))}
        if not trials or self._repeats.is_repeated(record):
            return
        late = (now - datetime.fromisoformat(record.time)).total_seconds()
        for trial in trials.values():
            self._find(trial.rollout).made[side_of(trial).value] += 1
            if -MAX_AHEAD_SECONDS <= late <= MAX_LATE_SECONDS:
                known = trial.weight in rollouts[trial.rollout].weights
                self._add(trial if known else structs.replace(trial, weight=0), record)

    def _add(self, trial: Trial, record: DecisionRecord) -> None:
        counted, side = self._find(trial.rollout), side_of(trial)
        counted.flips[flip_index(trial.group, trial.stable_verdict, trial.candidate_verdict)] += 1
        counted.cohorts[side.value] += 1
        if not 0 < trial.weight < FULL:
            return
        cells = counted.weights.get(trial.weight)
        if cells is None:
            if len(counted.weights) >= MAX_WEIGHTS:
                return
            cells = counted.weights[trial.weight] = Counter()
        # Callers wait for the models of both sides; those of the other one are no fault of the side that counts.
        seconds = max(0, record.latency_microseconds - record.apart_microseconds) / 1e6
        cells[cell_index(trial.group, side, seconds, failed=trial.failed)] += 1

    def of(self, rollout: str, stable: str, candidate: str) -> TrialCounts:
        """Return what was counted for a rollout of these digests; zeros for one that nothing was decided in."""
        counted = self._counts.get(rollout) or _Counted()
        return TrialCounts(
            stable=stable,
            candidate=candidate,
            rollout=rollout,
            process=self._process,
            flips=tuple([counted.flips[place] for place in range(GROUPS * VERDICT_PAIRS)]),
            cohorts=dict(counted.cohorts),
            weights={weight: dict(cells) for weight, cells in counted.weights.items()},
            made=dict(counted.made),
        )

    def _find(self, rollout: str) -> _Counted:
        return _newest(self._counts, rollout, self._limit, _Counted)


def _is_of(trial: Trial, rollout: Rollout | None) -> bool:
    return rollout is not None and (trial.stable, trial.candidate) == (rollout.stable, rollout.candidate)


def _newest(counts: OrderedDict[str, C], key: str, limit: int, make: Callable[[], C]) -> C:
    """Return what is counted of a key, which is the newest from then on; beyond the limit the oldest makes room."""
    found = counts.get(key)
    if found is not None:
        counts.move_to_end(key)
        return found
    made = counts[key] = make()
    if len(counts) > limit:
        counts.popitem(last=False)
    return made
