"""Performance: what came of the decisions that each revision of a policy took part in, counted from records.

Counts can be merged in any order and grouping, and come out the same. Memory is bounded, whatever the records say: of
names, the first MAX_NAMES by the alphabet are counted each, and all others as one.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, TypeVar

from baleen_core.decision.flips import language_key
from baleen_core.decision.whose import PolicyOnRecord
from baleen_core.percentiles import percentile
from baleen_core.records import Cohort, DecisionRecord, Missing

MAX_NAMES: Final = 256
"""Revisions, categories, and things that were degraded, of which each is counted by its name."""
MAX_NAME_LENGTH: Final = 253
OTHER: Final = "other"

LATENCY_BOUNDS: Final = (*(100 * 1.2**step for step in range(75)), inf)
"""Microseconds, from 0.1 ms to more than a minute: a percentile out of these is right within a fifth."""

T = TypeVar("T")

Outcomes = tuple[int, int, int]
"""Allow, Review, Block."""
NO_OUTCOMES: Final[Outcomes] = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPerformance:
    """Of one revision: the decisions that it counted for, and what it says itself in rollouts.

    `outcomes` are the decisions as they were given, to which floors and other policies had their part; `categories` and
    `languages` are of the same decisions. `as_candidate` says for how many of them it was a rollout's candidate. `said`
    is its own verdict, of all content that both sides of a rollout judged. `failed` counts decisions for which a score
    was wanted and the model did not give it, `degraded` by name what else was amiss, and failed models. `latencies`
    has a count for each of LATENCY_BOUNDS.
    """

    version: str = ""
    outcomes: Outcomes = NO_OUTCOMES
    as_candidate: int = 0
    said: Outcomes = NO_OUTCOMES
    categories: Mapping[str, Outcomes] = field(default_factory=dict)
    languages: Mapping[str, Outcomes] = field(default_factory=dict)
    degraded: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    latencies: tuple[int, ...] = (0,) * len(LATENCY_BOUNDS)

    @property
    def decisions(self) -> int:
        """How many decisions it counted for."""
        return sum(self.outcomes)

    def latency_seconds(self, ratio: float) -> float | None:
        """Return the percentile (0 to 1) of what callers waited; None where it counted for nothing."""
        cumulative, total = [], 0
        for count in self.latencies:
            total += count
            cumulative.append(total)
        found = percentile(LATENCY_BOUNDS, cumulative, ratio)
        return None if found is None else found / 1e6


Performance = Mapping[str, RevisionPerformance]
"""By digest."""


def summarize_performance(policy: PolicyOnRecord, records: Iterable[DecisionRecord]) -> Performance:
    """Count decisions for each revision of the policy that judged, or tried to; not those that may be of another's."""
    found: dict[str, _Counted] = {}
    for record in records:
        decision, outcome = record.decision, record.decision.decision.severity
        for trial in decision.trials:
            if policy.is_meant(trial):
                found.setdefault(trial.stable, _Counted()).said[trial.stable_verdict.severity] += 1
                found.setdefault(trial.candidate, _Counted()).said[trial.candidate_verdict.severity] += 1
        # A revision judges once for a decision, in whichever roles.
        for digest, ref in {ref.digest: ref for ref in decision.policies if policy.is_meant(ref)}.items():
            counted = found.setdefault(digest, _Counted())
            counted.take(record, outcome)
            counted.as_candidate += ref.cohort is Cohort.CANDIDATE
            counted.version = max(counted.version, ref.version)
    return _bound({digest: counted.freeze() for digest, counted in found.items()}, _merge_two)


def merge_performance(one: Performance, other: Performance) -> Performance:
    """Return the performance in all decisions of both, as if they had been counted together."""
    return _bound({digest: _merged(one.get(digest), other.get(digest)) for digest in {**one, **other}}, _merge_two)


class _Counted:
    """What is being counted for one revision."""

    def __init__(self) -> None:
        self.version = ""
        self.outcomes, self.said = [0, 0, 0], [0, 0, 0]
        self.as_candidate = self.failed = 0
        self.categories: dict[str, list[int]] = {}
        self.languages: dict[str, list[int]] = {}
        self.degraded: dict[str, int] = {}
        self.latencies = [0] * len(LATENCY_BOUNDS)

    def take(self, record: DecisionRecord, outcome: int) -> None:
        self.outcomes[outcome] += 1
        self.languages.setdefault(language_key(record.evidence.language), [0, 0, 0])[outcome] += 1
        for name, severity in {each.name: each.decision.severity for each in record.decision.categories}.items():
            self.categories.setdefault(name, [0, 0, 0])[severity] += 1
        for name in set(record.decision.degraded):
            self.degraded[name] = self.degraded.get(name, 0) + 1
        self.failed += Missing.FAILED in record.evidence.missing.values()
        self.latencies[bisect_left(LATENCY_BOUNDS, record.latency_microseconds)] += 1

    def freeze(self) -> RevisionPerformance:
        return RevisionPerformance(
            version=self.version[:MAX_NAME_LENGTH],
            outcomes=_outcomes(self.outcomes),
            as_candidate=self.as_candidate,
            said=_outcomes(self.said),
            categories=_bound({name: _outcomes(each) for name, each in self.categories.items()}, add_outcomes),
            languages={name: _outcomes(each) for name, each in self.languages.items()},
            degraded=_bound(self.degraded, int.__add__),
            failed=self.failed,
            latencies=tuple(self.latencies),
        )


def _merged(one: RevisionPerformance | None, other: RevisionPerformance | None) -> RevisionPerformance:
    if one is None or other is None:
        found = one or other
        assert found is not None, "it is in one of them"
        return found
    return _merge_two(one, other)


def _merge_two(one: RevisionPerformance, other: RevisionPerformance) -> RevisionPerformance:
    return RevisionPerformance(
        version=max(one.version, other.version),
        outcomes=add_outcomes(one.outcomes, other.outcomes),
        as_candidate=one.as_candidate + other.as_candidate,
        said=add_outcomes(one.said, other.said),
        categories=_merge_outcomes(one.categories, other.categories),
        languages=_merge_outcomes(one.languages, other.languages),
        degraded=_bound(
            {
                name: one.degraded.get(name, 0) + other.degraded.get(name, 0)
                for name in {**one.degraded, **other.degraded}
            },
            int.__add__,
        ),
        failed=one.failed + other.failed,
        latencies=tuple([mine + theirs for mine, theirs in zip(one.latencies, other.latencies, strict=True)]),
    )


def _merge_outcomes(one: Mapping[str, Outcomes], other: Mapping[str, Outcomes]) -> Mapping[str, Outcomes]:
    names = {**one, **other}
    return _bound(
        {name: add_outcomes(one.get(name, NO_OUTCOMES), other.get(name, NO_OUTCOMES)) for name in names}, add_outcomes
    )


def add_outcomes(one: Outcomes, other: Outcomes) -> Outcomes:
    """Add the counts of both."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _outcomes(counts: list[int]) -> Outcomes:
    allowed, reviewed, blocked = counts
    return allowed, reviewed, blocked


def _bound(counts: Mapping[str, T], add: Callable[[T, T], T]) -> Mapping[str, T]:
    """Keep the first MAX_NAMES names; the rest, and names that nobody gives, are one.

    What is left out of a part is left out of the whole, which has all names that stand before it, too.
    """
    named = sorted(name for name in counts if name != OTHER and len(name) <= MAX_NAME_LENGTH)[:MAX_NAMES]
    if len(named) == len(counts):
        return counts
    kept = {name: counts[name] for name in named}
    rest = [count for name, count in counts.items() if name not in kept]
    found = rest[0]
    for count in rest[1:]:
        found = add(found, count)
    return kept | {OTHER: found}
