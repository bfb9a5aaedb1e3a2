"""Flips: what two revisions of a policy say of the same evidence, counted from verdict to verdict.

Summaries can be merged in any order and grouping, and come out the same: counts are sums, and the examples of each kind
of flip are the decisions whose ids have the smallest hashes (a bottom-k sample: Cohen and Kaplan, "Summarizing data
using bottom-k sketches", 2007), which no order and no chance has a say in.
"""

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from baleen_core.decision.categories import ALLOW, BLOCK, VERDICTS
from baleen_core.decision.engine import CompiledPolicy, Judgement, judge
from baleen_core.policy.parse import LANGUAGES
from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord, Trial

MAX_EXAMPLES: Final = 10
"""Ids that are kept for each kind of flip."""
NO_LANGUAGE: Final = "none"
"""What is no text, and text whose language could not be told."""
OTHER_LANGUAGE: Final = "other"
"""All languages that policies cannot name: callers could send any number of them."""

CELLS: Final = len(VERDICTS) ** 2

K = TypeVar("K")

Kind = tuple[Verdict, Verdict]
"""From which verdict to which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipMatrix:
    """How many decisions went from each verdict to each: nine counts, the row of Allow first, then Review, Block."""

    counts: tuple[int, ...] = (0,) * CELLS

    def count(self, before: Verdict, after: Verdict) -> int:
        """Return how many went from one verdict to the other."""
        return self.counts[cell_of(before.severity, after.severity)]

    @property
    def total(self) -> int:
        """How many decisions were judged by both."""
        return sum(self.counts)

    @property
    def flips(self) -> int:
        """How many of them came out differently."""
        return self.total - sum(self.counts[cell_of(same, same)] for same in range(len(VERDICTS)))

    @property
    def new_blocks(self) -> int:
        """How many are blocked and were not."""
        return sum(self.counts[cell_of(before, BLOCK)] for before in range(BLOCK))

    @property
    def new_allows(self) -> int:
        """How many are allowed and were not."""
        return sum(self.counts[cell_of(before, ALLOW)] for before in range(ALLOW + 1, len(VERDICTS)))

    def kinds(self) -> tuple[tuple[Kind, int], ...]:
        """Return each kind of flip that there is with its count, the most frequent first."""
        found = [
            ((before, after), self.count(before, after)) for before in VERDICTS for after in VERDICTS if before != after
        ]
        return tuple(sorted(((kind, count) for kind, count in found if count), key=lambda row: -row[1]))

    def plus(self, other: "FlipMatrix") -> "FlipMatrix":
        """Add the counts of both."""
        return FlipMatrix(counts=tuple(one + more for one, more in zip(self.counts, other.counts, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """One decision by its id, and the severities that two revisions give it: altogether, and in each category.

    `group` is any number by which the decisions are to be told apart, such as the test group of their author.
    """

    id: str
    before: int
    after: int
    categories: Mapping[str, tuple[int, int]]
    language: str | None
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSummary:
    """Flips altogether, and by category (of what it said itself), by language and by group, with examples' ids."""

    overall: FlipMatrix = field(default_factory=FlipMatrix)
    categories: Mapping[str, FlipMatrix] = field(default_factory=dict)
    languages: Mapping[str, FlipMatrix] = field(default_factory=dict)
    groups: Mapping[int, FlipMatrix] = field(default_factory=dict)
    examples: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)


def rejudged(
    decision_id: str,
    stable: tuple[CompiledPolicy, Judgement],
    candidate: tuple[CompiledPolicy, Judgement],
    *,
    language: str | None,
    group: int | None = None,
) -> Rejudged:
    """Put side by side what two revisions say of one decision; a category that says nothing of it says Allow."""
    before, after = _by_category(*stable), _by_category(*candidate)
    return Rejudged(
        id=decision_id,
        before=stable[1].severity,
        after=candidate[1].severity,
        categories={name: (before.get(name, ALLOW), after.get(name, ALLOW)) for name in before | after},
        language=language,
        group=group,
    )


def rejudge_trial(record: DecisionRecord, trial: Trial, stable: CompiledPolicy, candidate: CompiledPolicy) -> Rejudged:
    """Put side by side what both sides of a rollout said of a decision on record.

    Altogether it is what they said then. By category it is what they say of the evidence, which has all that either
    wanted; of a decision whose personal part was erased nobody knows that any more.
    """
    before, after, language = trial.stable_verdict.severity, trial.candidate_verdict.severity, record.evidence.language
    if record.erased:
        return Rejudged(id=record.id, before=before, after=after, categories={}, language=language, group=trial.group)
    sides = ((each, judge(each, record.evidence)) for each in (stable, candidate))
    found = rejudged(record.id, *sides, language=language, group=trial.group)
    return replace(found, before=before, after=after)


def summarize(decisions: Iterable[Rejudged]) -> FlipSummary:
    """Count flips; every decision counts in its language, and in each category that either revision has."""
    overall = [0] * CELLS
    categories: dict[str, list[int]] = {}
    languages: dict[str, list[int]] = {}
    groups: dict[int, list[int]] = {}
    ids: dict[Kind, list[str]] = {}
    for each in decisions:
        cell = cell_of(each.before, each.after)
        overall[cell] += 1
        languages.setdefault(language_key(each.language), [0] * CELLS)[cell] += 1
        if each.group is not None:
            groups.setdefault(each.group, [0] * CELLS)[cell] += 1
        for name, (before, after) in each.categories.items():
            categories.setdefault(name, [0] * CELLS)[cell_of(before, after)] += 1
        if each.before != each.after:
            ids.setdefault((VERDICTS[each.before], VERDICTS[each.after]), []).append(each.id)
    return FlipSummary(
        overall=FlipMatrix(counts=tuple(overall)),
        categories={name: FlipMatrix(counts=tuple(counts)) for name, counts in categories.items()},
        languages={name: FlipMatrix(counts=tuple(counts)) for name, counts in languages.items()},
        groups={group: FlipMatrix(counts=tuple(counts)) for group, counts in groups.items()},
        examples={kind: choose_examples(found) for kind, found in ids.items()},
    )


def merge_flips(one: FlipSummary, other: FlipSummary) -> FlipSummary:
    """Return the summary of all decisions of both, as if they had been summarized together."""
    return FlipSummary(
        overall=one.overall.plus(other.overall),
        categories=_merge(one.categories, other.categories),
        languages=_merge(one.languages, other.languages),
        groups=_merge(one.groups, other.groups),
        examples={
            kind: choose_examples((*one.examples.get(kind, ()), *other.examples.get(kind, ())))
            for kind in {**one.examples, **other.examples}
        },
    )


def choose_examples(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the MAX_EXAMPLES ids with the smallest hashes, in the order of these; no id twice."""
    return tuple(heapq.nsmallest(MAX_EXAMPLES, set(ids), key=_rank))


def cell_of(before: int, after: int) -> int:
    """Return the place in a matrix of a flip from one severity to another."""
    return before * len(VERDICTS) + after


def language_key(language: str | None) -> str:
    """Return the name under which a language is counted."""
    if language is None:
        return NO_LANGUAGE
    return language if language in LANGUAGES else OTHER_LANGUAGE


def _by_category(policy: CompiledPolicy, judgement: Judgement) -> dict[str, int]:
    said = {} if judgement.cleared else {each.category.name: each.severity for each in judgement.categories}
    return {category.name: said.get(category.name, ALLOW) for category in policy.categories}


def _merge(one: Mapping[K, FlipMatrix], other: Mapping[K, FlipMatrix]) -> dict[K, FlipMatrix]:
    nothing = FlipMatrix()
    return {key: one.get(key, nothing).plus(other.get(key, nothing)) for key in {**one, **other}}


def _rank(decision_id: str) -> tuple[bytes, str]:
    return hashlib.sha256(decision_id.encode(errors="surrogatepass")).digest(), decision_id
