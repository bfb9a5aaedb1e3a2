"""What gateways counted of a rollout, put together: since it began, whoever came and went, and what it says."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from baleen_core.analysis.counts import GROUPS, CohortCounts, LatencyCounts, PairedCounts
from baleen_core.analysis.looks import Streak
from baleen_core.analysis.metrics import PAIRED, MetricType
from baleen_core.analysis.verdict import Analysis, Counts, Coverage, analyse
from baleen_core.policy.schema import AnalysisPlan, Verdict
from baleen_core.policy_stream import LATENCY_BOUNDS, TrialCounts, flip_index, read_cell
from baleen_core.records import Cohort

Processes = Mapping[str, TrialCounts]
"""What each process of a gateway said last."""
MAX_PROCESSES: Final = 1000
"""Of more, those that said something longest ago are forgotten."""
NOTHING: Final = (0,) * (flip_index(GROUPS - 1, Verdict.BLOCK, Verdict.BLOCK) + 1)
_EVENTS: Final = {MetricType.BLOCK_RATE: Verdict.BLOCK, MetricType.REVIEW_RATE: Verdict.REVIEW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How many decisions each side made."""

    stable: int = 0
    candidate: int = 0

    def beyond(self, others: "Known") -> "Known":
        """Return how many more these are than others, for each side."""
        return Known(stable=max(0, self.stable - others.stable), candidate=max(0, self.candidate - others.candidate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted of a rollout: decisions by `flip_index`, and how many of them the candidate decided.

    `weights` are those of `TrialCounts`. `made` are decisions of each side that gateways know of, `lost` those that
    gateways knew of which are gone. `doubted` names gateways whose counts cannot be true.
    """

    flips: tuple[int, ...] = NOTHING
    exposed: int = 0
    weights: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    made: Known = Known()
    lost: Known = Known()
    doubted: tuple[str, ...] = ()

    @property
    def decisions(self) -> int:
        """Return how many decisions both sides judged."""
        return sum(self.flips)

    @property
    def known(self) -> Known:
        """Return how many decisions of each side are known of, counted or not."""
        return Known(stable=self.made.stable + self.lost.stable, candidate=self.made.candidate + self.lost.candidate)

    @property
    def coverage(self) -> Coverage:
        """Return what of the decisions that are known of is counted."""
        return Coverage(
            stable_made=self.known.stable,
            stable_counted=self.decisions - self.exposed,
            candidate_made=self.known.candidate,
            candidate_counted=self.exposed,
            doubted=self.doubted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """How often the candidate says `to` where the stable revision says `from_`."""

    from_: Verdict
    to: Verdict
    count: int


def newest(before: Processes, said: Iterable[TrialCounts]) -> Processes:
    """Return what each process said last; one that is gone has said it for good, unless too many came and went.

    What cannot be true is passed over, see `find_doubted`.
    """
    found = dict(before)
    for each in said:
        if is_believable(before, each):
            found.pop(each.process, None)
            found[each.process] = each
    return dict(list(found.items())[-MAX_PROCESSES:])


def is_believable(before: Processes, said: TrialCounts) -> bool:
    """Say whether counts can be true by themselves, and after what the same process said before."""
    known = before.get(said.process)
    return said.is_sound and (known is None or said.follows(known))


def find_doubted(before: Processes, said: Mapping[str, TrialCounts]) -> tuple[str, ...]:
    """Name those, of gateways by name, who say what cannot be true."""
    return tuple(sorted(name for name, each in said.items() if not is_believable(before, each)))


def tally(processes: Processes, baseline: Processes) -> Tally:
    """Add up what was counted since a baseline; a process that is not in it has counted nothing before."""
    flips, exposed = list(NOTHING), 0
    made: Counter[Cohort] = Counter()
    weights: dict[int, Counter[int]] = {}
    for name, each in processes.items():
        before = baseline.get(name)
        for index, count in enumerate(each.flips):
            flips[index] += max(0, count - (before.flips[index] if before else 0))
        decided = each.cohorts.get(Cohort.CANDIDATE, 0)
        exposed += max(0, decided - (before.cohorts.get(Cohort.CANDIDATE, 0) if before else 0))
        for side in Cohort:
            made[side] += max(0, each.made_by(side) - (before.made_by(side) if before else 0))
        for weight, cells in each.weights.items():
            earlier = before.weights.get(weight, {}) if before else {}
            added = weights.setdefault(weight, Counter())
            for cell, count in cells.items():
                added[cell] += max(0, count - earlier.get(cell, 0))
    known = Known(stable=made[Cohort.STABLE], candidate=made[Cohort.CANDIDATE])
    return Tally(flips=tuple(flips), exposed=exposed, weights=weights, made=known)


def compare(
    plan: AnalysisPlan,
    found: Tally,
    *,
    has_cohorts: bool = True,
    looks: Mapping[str, Streak] | None = None,
    is_exposed: bool = True,
) -> Analysis:
    """Say what counts and looks tell of the candidate; all else as in `analyse`."""
    counts: dict[str, Counts] = {}
    for each in plan.metrics:
        if each.type is MetricType.PROMQL:
            continue
        if each.type in PAIRED:
            counts[each.name] = paired_counts(each.type, found.flips)
        elif each.type is MetricType.LATENCY_P99:
            counts[each.name] = tuple(map(latency_counts, found.weights.values()))
        else:
            counts[each.name] = tuple(map(cohort_counts, found.weights.values()))
    return analyse(
        plan.metrics,
        counts,
        coverage=found.coverage,
        confidence=plan.confidence,
        has_cohorts=has_cohorts,
        looks=looks,
        is_exposed=is_exposed,
    )


def paired_counts(type: MetricType, flips: Sequence[int]) -> PairedCounts:
    """Return the columns of a metric that both sides judge; `flips` are counts by `flip_index`."""

    def column(is_counted: dict[tuple[Verdict, Verdict], bool]) -> tuple[int, ...]:
        pairs = [pair for pair, counts in is_counted.items() if counts]
        return tuple(sum(flips[flip_index(group, *pair)] for pair in pairs) for group in range(GROUPS))

    pairs = [(stable, candidate) for stable in Verdict for candidate in Verdict]
    if type is MetricType.FLIP_RATE:
        differ = column({pair: pair[0] is not pair[1] for pair in pairs})
        return PairedCounts(
            decisions=column(dict.fromkeys(pairs, True)), stable=(0,) * GROUPS, candidate=differ, differing=differ
        )
    event = _EVENTS[type]
    return PairedCounts(
        decisions=column(dict.fromkeys(pairs, True)),
        stable=column({pair: pair[0] is event for pair in pairs}),
        candidate=column({pair: pair[1] is event for pair in pairs}),
        differing=column({pair: (pair[0] is event) != (pair[1] is event) for pair in pairs}),
    )


def cohort_counts(cells: Mapping[int, int]) -> CohortCounts:
    """Return decisions and failures of both cohorts; `cells` are counts by `cell_index` of one weight."""
    decisions = {side: [0] * GROUPS for side in Cohort}
    failures = {side: [0] * GROUPS for side in Cohort}
    for index, count in cells.items():
        group, side, _, has_failed = read_cell(index)
        decisions[side][group] += count
        failures[side][group] += count if has_failed else 0
    return CohortCounts(
        stable_decisions=tuple(decisions[Cohort.STABLE]),
        stable_events=tuple(failures[Cohort.STABLE]),
        candidate_decisions=tuple(decisions[Cohort.CANDIDATE]),
        candidate_events=tuple(failures[Cohort.CANDIDATE]),
    )


def latency_counts(cells: Mapping[int, int]) -> LatencyCounts:
    """Return histograms of both cohorts; `cells` are counts by `cell_index` of one weight."""
    found = {side: [[0] * GROUPS for _ in LATENCY_BOUNDS] for side in Cohort}
    for index, count in cells.items():
        group, side, bucket, _ = read_cell(index)
        found[side][bucket][group] += count
    return LatencyCounts(
        bounds=LATENCY_BOUNDS,
        stable=tuple(map(tuple, found[Cohort.STABLE])),
        candidate=tuple(map(tuple, found[Cohort.CANDIDATE])),
    )


def find_flips(found: Tally) -> tuple[Flip, ...]:
    """Return how often the sides differ, the most frequent first."""
    every = [
        Flip(
            from_=stable,
            to=candidate,
            count=sum(found.flips[flip_index(group, stable, candidate)] for group in range(GROUPS)),
        )
        for stable in Verdict
        for candidate in Verdict
        if stable is not candidate
    ]
    return tuple(sorted((each for each in every if each.count), key=lambda each: -each.count))
