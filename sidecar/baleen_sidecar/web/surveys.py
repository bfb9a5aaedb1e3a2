"""The JSON of surveys: how each revision of a policy did, and on what the sides of a rollout differ."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from baleen_core.decision.flips import FlipSummary
from baleen_core.decision.performance import Outcomes, RevisionPerformance
from baleen_core.errors import ContentError, Problem
from baleen_core.reading import unknown_name
from baleen_sidecar.usecases.survey import LookedBack, Surveyed, TrialFlips
from baleen_sidecar.web.simulations import FlipAnswer, FlipsAnswer, Matrix, flips_by_kind, flips_by_name, to_matrix

REVISION: Final = "revision"
"""All that performance can be asked by."""
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class OutcomesAnswer(Struct, frozen=True):
    """How many decisions came out so."""

    allow: int
    review: int
    block: int


class RevisionAnswer(Struct, frozen=True, kw_only=True):
    """How one revision did.

    `outcomes` are the `decisions` that it counted for, `shares` the same as parts, 0 to 1; floors and other policies
    had a part in them. `categories` and `languages` are of the same decisions. `as_candidate` says for how many of them
    it was a rollout's candidate. `said` is what it said itself of all content that both sides of a rollout judged.
    `failed` counts decisions for which a model gave no score, `degraded` what was amiss, by name. `latency_seconds` has
    p50, p95 and p99 of what callers waited, each right within a fifth.
    """

    digest: str
    version: str
    decisions: int
    as_candidate: int
    outcomes: OutcomesAnswer
    shares: dict[str, float]
    said: OutcomesAnswer
    categories: dict[str, OutcomesAnswer]
    languages: dict[str, OutcomesAnswer]
    failed: int
    degraded: dict[str, int]
    latency_seconds: dict[str, float]


class PerformanceAnswer(Struct, frozen=True, kw_only=True):
    """How the revisions of a policy did in the last `seconds`: by the newest `decisions` that it had a part in.

    `scanned` decisions of all policies were looked at; `ended` says why no more. `in_force` is the digest that is here
    now, and `candidate` what judges beside it; empty where there is none. Other decisions of `no_namespace` were
    written by an earlier release, and may be of another namespace's policy of that name. Processes that share a log
    have the same `log`; empty: nobody shares it.
    """

    policy: str
    in_force: str
    candidate: str
    seconds: float
    decisions: int
    scanned: int
    ended: LookedBack
    revisions: tuple[RevisionAnswer, ...]
    log: str = ""
    no_namespace: int = 0


class RolloutFlipsAnswer(Struct, frozen=True, kw_only=True):
    """On what the sides of a rollout differ, over the newest decisions that both judged.

    `matrix` has a row for each verdict of the stable revision, and in it a column for each of the candidate: Allow,
    Review, Block. `groups` are test groups, 0 to 63, of the sticky key. Of the `erased` decisions the categories are
    not known. `scanned` decisions of all policies were looked at; `ended` says why no more. Processes that share a log
    have the same `log`; empty: nobody shares it.
    """

    policy: str
    stable: str
    candidate: str
    compared: int
    erased: int
    scanned: int
    ended: LookedBack
    matrix: Matrix
    flips: tuple[FlipAnswer, ...]
    categories: tuple[FlipsAnswer, ...]
    languages: tuple[FlipsAnswer, ...]
    groups: tuple[FlipsAnswer, ...]
    log: str = ""


def check_by(by: str) -> None:
    """Check by what performance is asked for.

    Raises:
        ContentError: by something else than the revision.
    """
    if by != REVISION:
        raise ContentError([Problem(field="by", message=unknown_name(by, [REVISION], "way to group decisions"))])


def read_sides(stable: str | None, candidate: str | None) -> tuple[str, str] | None:
    """Return the digests of a rollout's sides; None where neither is named.

    Raises:
        ContentError: only one is named.
    """
    if stable is None and candidate is None:
        return None
    if stable is None or candidate is None:
        missing, given = ("from", "to") if stable is None else ("to", "from")
        message = f"name it beside `{given}`: both digests of a rollout, or neither for the one under way"
        raise ContentError([Problem(field=missing, message=message)])
    return stable, candidate


def to_performance_answer(surveyed: Surveyed) -> PerformanceAnswer:
    """Turn a survey into what the caller sees; the revision with most decisions comes first."""
    return PerformanceAnswer(
        policy="/".join(surveyed.policy),
        in_force=surveyed.in_force,
        candidate=surveyed.candidate,
        seconds=round(surveyed.seconds, 3),
        decisions=surveyed.decisions,
        scanned=surveyed.scanned,
        ended=surveyed.ended,
        revisions=tuple(
            _to_revision(digest, each)
            for digest, each in sorted(surveyed.found.items(), key=lambda row: (-row[1].decisions, row[0]))
        ),
        log=surveyed.log,
        no_namespace=surveyed.no_namespace,
    )


def to_flips_answer(found: TrialFlips) -> RolloutFlipsAnswer:
    """Turn the flips of a rollout into what the caller sees."""
    flips = found.found
    return RolloutFlipsAnswer(
        policy="/".join(found.policy),
        stable=found.stable,
        candidate=found.candidate,
        compared=flips.overall.total,
        erased=found.erased,
        scanned=found.scanned,
        ended=found.ended,
        matrix=to_matrix(flips.overall),
        flips=flips_by_kind(flips),
        categories=flips_by_name(flips.categories),
        languages=flips_by_name(flips.languages),
        groups=_by_group(flips),
        log=found.log,
    )


def _by_group(flips: FlipSummary) -> tuple[FlipsAnswer, ...]:
    by_name = {each.name: each for each in flips_by_name({str(group): each for group, each in flips.groups.items()})}
    return tuple(by_name[str(group)] for group in sorted(flips.groups))


def _to_revision(digest: str, each: RevisionPerformance) -> RevisionAnswer:
    percentiles = {name: each.latency_seconds(ratio) for name, ratio in PERCENTILES.items()}
    shares = zip(("allow", "review", "block"), each.outcomes, strict=True)
    return RevisionAnswer(
        digest=digest,
        version=each.version,
        decisions=each.decisions,
        as_candidate=each.as_candidate,
        outcomes=OutcomesAnswer(*each.outcomes),
        shares={name: round(count / each.decisions, 6) if each.decisions else 0.0 for name, count in shares},
        said=OutcomesAnswer(*each.said),
        categories=_named(each.categories),
        languages=_named(each.languages),
        failed=each.failed,
        degraded=dict(sorted(each.degraded.items())),
        latency_seconds={name: round(value, 6) for name, value in percentiles.items() if value is not None},
    )


def _named(counts: Mapping[str, Outcomes]) -> dict[str, OutcomesAnswer]:
    return {name: OutcomesAnswer(*each) for name, each in sorted(counts.items())}
