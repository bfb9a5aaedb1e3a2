"""Backtest: judge logged decisions again, by the revision in force and by a candidate; hold what differs to a gate.

Both revisions judge the evidence on record, so all that differs comes from the edit. What is compared is what the
policy itself says: floors and policies of other types, which judged beside it, stay as they were.

A decision is left out, and counted as unknown, where the evidence does not tell what one of the two would say now:

- A model that is served now, and takes such content, was not asked then.
- A list was not looked up then. Text and pictures are not on record, so it cannot be looked up any more; the digest of
  the content is, so lists of digests can. A list whose hit would change nothing, since the verdict is as strict without
  it, leaves nothing out.
- An earlier release wrote it, without the policy's namespace, and it was judged by a revision that the policy is not
  known to have had: it may be that of another namespace's policy of the same name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from msgspec import structs

from baleen_core.decision.categories import is_unseen
from baleen_core.decision.columns import fits_columns, is_columnar, summarize_columns
from baleen_core.decision.engine import CompiledPolicy, Judgement, judge, max_distance_of, wanted_signals
from baleen_core.decision.flips import FlipMatrix, FlipSummary, Rejudged, merge_flips, rejudged, summarize
from baleen_core.decision.lists import CompiledList, find_hits
from baleen_core.decision.replay import judging_revisions
from baleen_core.decision.whose import PolicyOnRecord
from baleen_core.policy.schema import BacktestGate, ListType, PolicyList, RevisionContent, Verdict
from baleen_core.policy.scope import matches
from baleen_core.ratio import MILLION, format_ratio
from baleen_core.records import ContentType, DecisionRecord, Evidence, Missing

MAX_UNKNOWN: Final = 50_000
"""Millionths of the decisions that may be unknown; those that are not known are seldom like the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The revision in force, a candidate, and what has to be known beside the log to judge by both.

    `offers` says of each signal that is served now (`<model>.<signal>`) whether its model takes `text` or `image`.
    `looked_up` has, by the digest of each revision that may have judged, what `looked_up_by` says of it. `lists` are
    the lists of digests of both revisions, compiled. `digests` are revisions that the policy is known to have had.
    """

    stable: CompiledPolicy
    candidate: CompiledPolicy
    offers: Mapping[str, str] = field(default_factory=dict)
    looked_up: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lists: tuple[CompiledList, ...] = ()
    digests: frozenset[str] = frozenset()

    @property
    def policy(self) -> PolicyOnRecord:
        """The policy as it is looked for on record."""
        sides = (self.stable.revision.digest, self.candidate.revision.digest)
        return PolicyOnRecord(namespace=self.stable.namespace, name=self.stable.name, digests=self.digests.union(sides))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What became of logged decisions: flips of those that were compared, and how many could not be.

    `unknown` are those that the evidence says too little of, `signals` and `lists` for how many of them each signal or
    list (by its name) was wanting, `erased` how many of them were erased on request, and `no_namespace` how many may be
    of another namespace's policy. `elsewhere` are those that the policy had no part in, or would have none in.
    """

    flips: FlipSummary = field(default_factory=FlipSummary)
    unknown: int = 0
    signals: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)
    elsewhere: int = 0
    erased: int = 0
    no_namespace: int = 0

    @property
    def compared(self) -> int:
        """How many decisions were judged by both revisions."""
        return self.flips.overall.total

    @property
    def flip_rate(self) -> int:
        """The part of them that came out differently, in millionths, rounded down."""
        return self._rate(self.flips.overall.flips)

    @property
    def new_block_rate(self) -> int:
        """The part of them that is blocked and was not, in millionths, rounded down."""
        return self._rate(self.flips.overall.new_blocks)

    @property
    def new_allow_rate(self) -> int:
        """The part of them that is allowed and was not, in millionths, rounded down."""
        return self._rate(self.flips.overall.new_allows)

    def _rate(self, count: int) -> int:
        return count * MILLION // self.compared if self.compared else 0


class GateVerdict(StrEnum):
    """What a gate says of a backtest."""

    PASS = "Pass"  # noqa: S105 - no password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class GateReason(StrEnum):
    """Why a gate says so, in one word that does not change."""

    WITHIN_LIMITS = "WithinLimits"
    TOO_MANY_FLIPS = "TooManyFlips"
    TOO_MANY_NEW_BLOCKS = "TooManyNewBlocks"
    TOO_FEW_DECISIONS = "TooFewDecisions"
    SIGNALS_MISSING = "SignalsMissing"
    LISTS_NOT_LOOKED_UP = "ListsNotLookedUp"
    DECISIONS_ERASED = "DecisionsErased"
    NAMESPACE_MISSING = "NamespaceMissing"


_WORST_FIRST: Final = (GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.PASS)


class Ended(StrEnum):
    """Why whoever judges a log again looked no further back."""

    ENOUGH = "Enough"
    """As many decisions were compared as were asked for."""
    END_OF_LOG = "EndOfLog"
    """There are no earlier decisions."""
    SCAN_LIMIT = "ScanLimit"
    """So many decisions were looked at as are for each that was asked for."""
    TIME_LIMIT = "TimeLimit"
    """The time for it was over."""
    ABANDONED = "Abandoned"
    """Nobody wants to know any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """A gate's verdict, why, and in `message` the numbers and what the author can change."""

    verdict: GateVerdict
    reason: GateReason
    message: str


def looked_up_by(revision: RevisionContent) -> Mapping[str, int]:
    """Return the lists that a revision looks up by their digests, and how far: bits for perceptual hashes, else 0."""
    widest: dict[str, int] = {}
    for each in revision.policy.lists:
        widest[each.digest or ""] = max(_reach(each), widest.get(each.digest or "", 0))
    return widest


def backtest(comparison: Comparison, records: Iterable[DecisionRecord]) -> Backtest:
    """Judge decisions again; those of policies that have only categories in columns, all else one by one."""
    all_at_once = is_columnar(comparison.stable) and is_columnar(comparison.candidate)
    policy = comparison.policy
    columnar: list[DecisionRecord] = []
    others: list[DecisionRecord] = []
    elsewhere = no_namespace = 0
    for record in records:
        had_part = _had_part(comparison, policy, record)
        if had_part is None:
            no_namespace += 1
        elif not had_part:
            elsewhere += 1
        elif all_at_once and not record.erased and fits_columns(record.evidence):
            columnar.append(record)
        else:
            others.append(record)
    flips, unscored = summarize_columns(comparison.stable, comparison.candidate, columnar, comparison.offers)
    in_columns = Backtest(
        flips=flips,
        unknown=unscored.decisions + no_namespace,
        signals=unscored.signals,
        elsewhere=elsewhere,
        no_namespace=no_namespace,
    )
    return merge_backtests(in_columns, backtest_one_by_one(comparison, others))


def backtest_one_by_one(comparison: Comparison, records: Iterable[DecisionRecord]) -> Backtest:
    """Judge decisions again with the engine alone: what `backtest` says, slower."""
    wanted, policy = _Wanted(comparison), comparison.policy
    compared: list[Rejudged] = []
    elsewhere = unknown = erased = no_namespace = 0
    signals: dict[str, int] = {}
    lists: dict[str, int] = {}
    for record in records:
        had_part = _had_part(comparison, policy, record)
        if had_part is None:
            unknown += 1
            no_namespace += 1
            continue
        if not had_part:
            elsewhere += 1
            continue
        found = _rejudge(comparison, record, wanted)
        if isinstance(found, Rejudged):
            compared.append(found)
            continue
        unknown += 1
        erased += record.erased
        for names, counts in ((found.signals, signals), (found.lists, lists)):
            for name in names:
                counts[name] = counts.get(name, 0) + 1
    return Backtest(
        flips=summarize(compared),
        unknown=unknown,
        signals=signals,
        lists=lists,
        elsewhere=elsewhere,
        erased=erased,
        no_namespace=no_namespace,
    )


def merge_backtests(one: Backtest, other: Backtest) -> Backtest:
    """Return the backtest of all decisions of both, by the same comparison."""
    return Backtest(
        flips=merge_flips(one.flips, other.flips),
        unknown=one.unknown + other.unknown,
        signals=_add(one.signals, other.signals),
        lists=_add(one.lists, other.lists),
        elsewhere=one.elsewhere + other.elsewhere,
        erased=one.erased + other.erased,
        no_namespace=one.no_namespace + other.no_namespace,
    )


def judge_backtest(gate: BacktestGate, found: Backtest, *, bound: str = "") -> GateResult:
    """Say whether a candidate may go on; `bound` is what kept from looking further back, if the log goes on there.

    With too few decisions, or too many of which nothing is known, nothing is said either way, unless the limits are
    broken even if none of the unknown ones flipped.
    """
    if found.compared + found.unknown < gate.decisions or not found.compared + found.unknown:
        of = f"{_count(found.compared + found.unknown, 'decision')} of this policy"
        message = (
            f"{of} were found, and {gate.decisions:,} are wanted: {bound}"
            if bound
            else f"the log has {of}, and {gate.decisions:,} are wanted: wait until more are logged, or want fewer"
        )
        return _inconclusive(GateReason.TOO_FEW_DECISIONS, message)
    if failure := _find_failure(gate, found, of=found.compared + found.unknown):
        return failure
    if found.compared < gate.decisions or found.unknown * MILLION > MAX_UNKNOWN * (found.compared + found.unknown):
        return _explain_unknown(found)
    if failure := _find_failure(gate, found, of=found.compared):
        return failure
    message = (
        f"{_share(found.flips.overall.flips, found.compared)} of {found.compared:,} logged decisions would come out "
        f"differently, {_share(found.flips.overall.new_blocks, found.compared)} would be newly blocked"
    )
    return GateResult(verdict=GateVerdict.PASS, reason=GateReason.WITHIN_LIMITS, message=message)


def judge_worst(gate: BacktestGate, found: Sequence[Backtest], *, bound: str = "") -> GateResult:
    """Hold a candidate to the worst of what may be true, of which there is one at least; see `judge_backtest`."""
    results = (judge_backtest(gate, each, bound=bound) for each in found)
    return min(results, key=lambda each: _WORST_FIRST.index(each.verdict))


def _find_failure(gate: BacktestGate, found: Backtest, *, of: int) -> GateResult | None:
    overall = found.flips.overall
    for count, limit, reason, words, named in (
        (overall.new_blocks, gate.max_new_blocks, GateReason.TOO_MANY_NEW_BLOCKS, "be newly blocked", "maxNewBlocks"),
        (overall.flips, gate.max_flip_rate, GateReason.TOO_MANY_FLIPS, "come out differently", "maxFlipRate"),
    ):
        if limit is not None and count * MILLION > limit * of:
            is_about = Verdict.BLOCK if reason is GateReason.TOO_MANY_NEW_BLOCKS else None
            message = (
                f"{_share(count, of)} of {_count(of, 'logged decision')} would {words} ({count:,}), above {named} "
                f"({format_ratio(limit)}): {_tell(found.flips, is_about)}. "
                f"Change the candidate there, or raise {named} if that is what is wanted"
            )
            return GateResult(verdict=GateVerdict.FAIL, reason=reason, message=message)
    return None


def _tell(flips: FlipSummary, to: Verdict | None) -> str:
    """Say where flips come from: each kind, the categories and languages with most of them, and examples."""
    kinds = [(kind, count) for kind, count in flips.overall.kinds() if to in (None, kind[1])]
    words = [f"{before} → {after} {count:,}" for (before, after), count in kinds]

    def most(matrices: Mapping[str, FlipMatrix]) -> str:
        counted = [(each.flips if to is None else each.new_blocks, name) for name, each in matrices.items()]
        return ", ".join(f"{name} ({count:,})" for count, name in sorted(counted, key=_by_count)[:3] if count)

    parts = [", ".join(words)]
    if categories := most(flips.categories):
        parts.append(f"by category {categories}")
    if languages := most(flips.languages):
        parts.append(f"by language {languages}")
    ids = [decision_id for kind, _ in kinds for decision_id in flips.examples.get(kind, ())[:1]]
    parts.append(f"for example {', '.join(ids)}")
    return "; ".join(parts)


def _by_count(row: tuple[int, str]) -> tuple[int, str]:
    return -row[0], row[1]


def _explain_unknown(found: Backtest) -> GateResult:
    def told(counts: Mapping[str, int]) -> str:
        ordered = sorted(((count, name) for name, count in counts.items()), key=_by_count)
        return ", ".join(f"{name} (for {count:,})" for count, name in ordered)

    of = f"{found.unknown:,} of {_count(found.compared + found.unknown, 'logged decision')}"
    others = (*found.signals.values(), *found.lists.values())
    if found.no_namespace > max((found.erased, *others)):
        message = (
            f"{of} cannot be judged again, {found.no_namespace:,} of them since an earlier release wrote them without "
            "the policy's namespace, so that they may be another policy's: wait until more are logged, or want fewer"
        )
        return _inconclusive(GateReason.NAMESPACE_MISSING, message)
    if found.erased > max((0, *others)):
        message = (
            f"{of} cannot be judged again, {found.erased:,} of them since they were erased on request: wait until more "
            "are logged, or want fewer"
        )
        return _inconclusive(GateReason.DECISIONS_ERASED, message)
    if max(found.signals.values(), default=0) >= max(found.lists.values(), default=0):
        message = (
            f"{of} have no scores of signals that are needed: {told(found.signals)}. Their models were not asked then: "
            "let a policy that is only tried out (enforcement: DryRun) ask them for a while, or use a Shadow step"
        )
        return _inconclusive(GateReason.SIGNALS_MISSING, message)
    message = (
        f"{of} were made without looking up lists that are needed: {told(found.lists)}. Content is not logged, so it "
        "cannot be looked up now: use a Shadow step, or let a policy that is only tried out (enforcement: DryRun) look "
        "them up for a while"
    )
    return _inconclusive(GateReason.LISTS_NOT_LOOKED_UP, message)


def _inconclusive(reason: GateReason, message: str) -> GateResult:
    return GateResult(verdict=GateVerdict.INCONCLUSIVE, reason=reason, message=message)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _share(count: int, of: int) -> str:
    """Write a share to a hundredth of a per cent, which is what people read; small ones are not shown as none."""
    if count and count * 10_000 < of:
        return "less than 0.01%"
    return format_ratio(round(count * 10_000 / of) * 100) if of else "0%"


def _had_part(comparison: Comparison, policy: PolicyOnRecord, record: DecisionRecord) -> bool | None:
    """Say whether the policy judged, and both revisions bind the place; None where it may have judged."""
    stable, context = comparison.stable, record.evidence.context
    judged = policy.is_among([ref for ref in record.decision.policies if ref.type == stable.revision.type])
    if judged is False:
        return False
    binds = matches(stable.revision.scope, context) and matches(comparison.candidate.revision.scope, context)
    return judged if binds else False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unknown:
    """The signals and the lists (by name) that a decision wants and its evidence does not know."""

    signals: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()


class _Wanted:
    """The signals that either revision looks at, by type of content and language, of which there are few."""

    def __init__(self, comparison: Comparison) -> None:
        self._policies = (comparison.stable, comparison.candidate)
        self._found: dict[tuple[ContentType, str | None], frozenset[str]] = {}

    def __call__(self, kind: ContentType, language: str | None) -> frozenset[str]:
        key = (kind, language)
        if key not in self._found:
            self._found[key] = wanted_signals(self._policies, kind, language)
        return self._found[key]


def _rejudge(comparison: Comparison, record: DecisionRecord, wanted: _Wanted) -> Rejudged | _Unknown:
    if record.erased:
        # Who wrote it and which entries of lists it matched is not known any more.
        return _Unknown()
    evidence, signals = _complete(comparison, record.evidence, wanted)
    evidence, unknown_lists = _look_up(comparison, record, evidence)
    if signals:
        return _Unknown(signals=signals, lists=frozenset(each.name for each in unknown_lists))
    stable, candidate = judge(comparison.stable, evidence), judge(comparison.candidate, evidence)
    matter = [
        each.name
        for policy, judgement in ((comparison.stable, stable), (comparison.candidate, candidate))
        for each in unknown_lists
        if each in policy.lists.get(each.digest or "", ()) and _may_change(judgement, each)
    ]
    if matter:
        return _Unknown(lists=frozenset(matter))
    return rejudged(
        record.id, (comparison.stable, stable), (comparison.candidate, candidate), language=evidence.language
    )


def _complete(comparison: Comparison, evidence: Evidence, wanted: _Wanted) -> tuple[Evidence, frozenset[str]]:
    """Note which signals do not apply to the content; return those that were not asked for then and would be now."""
    if is_unseen(evidence):
        return evidence, frozenset()
    unknown, inapplicable = set(), []
    for signal in wanted(evidence.content.type, evidence.language):
        why = evidence.missing.get(signal, Missing.NOT_SERVED)
        accepts = comparison.offers.get(signal)
        if signal in evidence.signals or why is not Missing.NOT_SERVED or accepts is None:
            continue
        if (accepts == "text") == (evidence.content.type == "text"):
            unknown.add(signal)
        else:
            inapplicable.append(signal)
    if inapplicable:
        missing = evidence.missing | dict.fromkeys(inapplicable, Missing.NOT_APPLICABLE)
        evidence = structs.replace(evidence, missing=missing)
    return evidence, frozenset(unknown)


def _look_up(
    comparison: Comparison, record: DecisionRecord, evidence: Evidence
) -> tuple[Evidence, tuple[PolicyList, ...]]:
    """Look content up in lists of digests that were not looked up then; return all other lists that were not."""
    wanted = {
        each: None
        for policy in (comparison.stable, comparison.candidate)
        for lists in policy.lists.values()
        for each in lists
        if _applies(each, evidence)
    }
    if not wanted:
        return evidence, ()
    # Of a rollout also the side that did not count: content is looked up in the lists of both.
    known = [comparison.looked_up.get(digest, {}) for digest in judging_revisions(record.decision)]
    unknown = [each for each in wanted if not _is_on_record(each, evidence, known)]
    compiled = {each.digest: each for each in comparison.lists}
    late = {each.digest: compiled[each.digest] for each in unknown if each.digest in compiled}
    hits = find_hits(tuple(late.values()), text=None, digest=evidence.content.digest, pdq=None)
    if hits:
        evidence = structs.replace(evidence, lists=(*evidence.lists, *hits))
    return evidence, tuple(each for each in unknown if each.digest not in late)


def _is_on_record(each: PolicyList, evidence: Evidence, known: Sequence[Mapping[str, int]]) -> bool:
    """Say whether a hit is on record, or would be if there had been one."""
    reach, digest = _reach(each), each.digest or ""
    if any(digest in lists and lists[digest] >= reach for lists in known):
        return True
    return any(hit.list_digest == digest and (hit.distance or 0) <= reach for hit in evidence.lists)


def _applies(each: PolicyList, evidence: Evidence) -> bool:
    if each.type is ListType.DIGEST:
        return True
    return (each.type is ListType.TERMS) == (evidence.content.type == "text")


def _may_change(judgement: Judgement, each: PolicyList) -> bool:
    """Say whether a hit of the list could change what was judged without it."""
    if each.action is Verdict.ALLOW:
        return judgement.severity > 0
    if judgement.cleared:
        return each.action is Verdict.BLOCK
    return each.action.severity > judgement.severity


def _reach(each: PolicyList) -> int:
    return max_distance_of(each) if each.type is ListType.PERCEPTUAL_HASH else 0


def _add(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
