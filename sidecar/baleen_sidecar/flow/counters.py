"""How many decisions each revision took part in, and what both sides of a rollout said: what the operator is told."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final, TypeVar

from baleen_core.assignment import GROUPS
from baleen_core.policy_stream import VERDICT_PAIRS, TrialCounts, flip_index
from baleen_core.records import Decision, side_of

MAX_REVISIONS: Final = 10_000
"""Of more, those that judged longest ago are forgotten."""
MAX_ROLLOUTS: Final = 1_000
"""Of more, those for which nothing was decided for longest are forgotten; one takes about 5 KB."""


K = TypeVar("K")
C = TypeVar("C")

Rollout = tuple[str, str, str]
"""The name of a policy, as decisions have it, and the digests of what is stable and of the candidate."""


class DecisionCounts:
    """Counts since the process began, by digest and decision."""

    def __init__(self, limit: int = MAX_REVISIONS) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()

    def count(self, decision: Decision) -> None:
        """Count a decision for every revision that judged."""
        for ref in decision.policies:
            _find(self._counts, ref.digest, self._limit)[decision.decision.value] += 1

    def of(self, digest: str) -> Mapping[str, int]:
        """Return how often each decision was given with this revision."""
        return dict(self._counts.get(digest, {}))


class RolloutCounts:
    """Counts since the process began, by rollout: the name of its policy and the digests of both of its sides."""

    def __init__(self, process: str, limit: int = MAX_ROLLOUTS) -> None:
        """`process` names this process, and no other that was before it."""
        self._process = process
        self._limit = limit
        self._flips: OrderedDict[Rollout, Counter[int]] = OrderedDict()
        self._cohorts: OrderedDict[Rollout, Counter[str]] = OrderedDict()

    def count(self, decision: Decision) -> None:
        """Count a decision once for every rollout that it was made in."""
        for rollout, trial in {(each.name, each.stable, each.candidate): each for each in decision.trials}.items():
            place = flip_index(trial.group, trial.stable_verdict, trial.candidate_verdict)
            _find(self._flips, rollout, self._limit)[place] += 1
            _find(self._cohorts, rollout, self._limit)[side_of(decision, trial).value] += 1

    def of(self, policy: str, stable: str, candidate: str) -> TrialCounts:
        """Return what was counted for a rollout; nothing but zeros for one that nothing was decided in."""
        rollout = policy, stable, candidate
        flips = self._flips.get(rollout, Counter())
        return TrialCounts(
            stable=stable,
            candidate=candidate,
            process=self._process,
            flips=tuple([flips[place] for place in range(GROUPS * VERDICT_PAIRS)]),
            cohorts=dict(self._cohorts.get(rollout, {})),
        )


def _find(counts: OrderedDict[K, Counter[C]], key: K, limit: int) -> Counter[C]:
    """Return the counter of a key, which is the newest from then on; beyond the limit the oldest makes room for it."""
    found = counts.get(key)
    if found is not None:
        counts.move_to_end(key)
        return found
    made = counts[key] = Counter()
    if len(counts) > limit:
        counts.popitem(last=False)
    return made
