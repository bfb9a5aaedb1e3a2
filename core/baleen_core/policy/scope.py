"""Which policies bind a request: where each counts, and who wins where several do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from baleen_core.errors import Problem
from baleen_core.policy.schema import Enforcement, RevisionContent, Role, Scope
from baleen_core.records import Context

SCOPE_CONFLICT: Final = "ScopeConflict"
_BELOW: Final = "/*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy and the revision in force for it; `created` is RFC 3339 in UTC, and empty without a cluster."""

    name: str
    namespace: str
    created: str
    revision: RevisionContent
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What binds a request: the winner of each type (by type), every floor, and what is only tried out.

    Without a winner there is no policy for the request: floors limit policies, and do not stand in for one.
    """

    winners: tuple[Candidate, ...]
    floors: tuple[Candidate, ...]
    dry_runs: tuple[Candidate, ...]


def matches(scope: Scope, context: Context) -> bool:
    """Say whether a policy of this scope counts where the content comes from; `site-7/*` is all below site-7."""
    return (
        scope.tenant in (None, context.tenant)
        and scope.surface in (None, context.surface)
        and _matches_source(scope.source, context.source)
    )


def precedence(candidate: Candidate) -> tuple[object, ...]:
    """Return a key by which the candidate that wins sorts first.

    More fixed fields win; then tenant before surface before source; then the longer source path; then the earlier
    creation; then the first namespace and name.
    """
    scope = candidate.revision.scope
    is_absent = [field is None for field in (scope.tenant, scope.surface, scope.source)]
    path_length = len(scope.source.removesuffix(_BELOW).split("/")) if scope.source else 0
    return (sum(is_absent), *is_absent, -path_length, candidate.created, candidate.namespace, candidate.name)


Place = tuple[str | None, str | None, str | None]
"""The fields of a scope: tenant, surface, source."""


def index_by_place(candidates: Iterable[Candidate]) -> Mapping[Place, Sequence[Candidate]]:
    """Put candidates in order by the place that their scope names."""
    found: dict[Place, list[Candidate]] = {}
    for each in candidates:
        scope = each.revision.scope
        found.setdefault((scope.tenant, scope.surface, scope.source), []).append(each)
    return found


def find_here(index: Mapping[Place, Sequence[Candidate]], context: Context) -> list[Candidate]:
    """Return the candidates whose scope matches, without looking at all the others."""
    sources = dict.fromkeys((None, *_spellings(context.source)))
    tenants, surfaces = {None, context.tenant}, {None, context.surface}
    places = ((tenant, surface, source) for tenant in tenants for surface in surfaces for source in sources)
    return [each for place in places for each in index.get(place, ())]


def _spellings(source: str | None) -> Iterator[str]:
    """Yield every source that a scope can name so that it matches this one."""
    if source is None:
        return
    if not source.endswith(_BELOW):
        yield source
    for place, character in enumerate(source):
        if character == "/" and place + 1 < len(source):
            yield source[: place + 1] + "*"


def resolve(candidates: Sequence[Candidate], context: Context) -> Effective:
    """Return what binds a request, each part in order of precedence; the order of the candidates is irrelevant.

    A DryRun policy neither wins nor hides a wider one, and floors do not compete with anyone.
    """
    here = sorted((each for each in candidates if matches(each.revision.scope, context)), key=precedence)
    enforced = [each for each in here if _is_enforced(each)]
    winners: dict[str, Candidate] = {}
    for each in enforced:
        if each.revision.role is Role.POLICY:
            winners.setdefault(each.revision.type, each)
    return Effective(
        winners=tuple(winners[type] for type in sorted(winners)),
        floors=tuple(each for each in enforced if each.revision.role is Role.FLOOR),
        dry_runs=tuple(each for each in here if not _is_enforced(each)),
    )


def find_conflicts(candidates: Iterable[Candidate]) -> tuple[Problem, ...]:
    """Name each policy that can never win since another one of the same type has the same scope.

    Floors never conflict: all of them bind.
    """
    rivals: dict[tuple[str, str | None, str | None, str | None], list[Candidate]] = {}
    for each in candidates:
        revision, scope = each.revision, each.revision.scope
        if _is_enforced(each) and revision.role is not Role.FLOOR:
            rivals.setdefault((revision.type, scope.tenant, scope.surface, scope.source), []).append(each)
    # There may be thousands of policies, and conflicts are few: only they are put in order.
    several = (each for some in rivals.values() if len(some) > 1 for each in some)
    winners: dict[tuple[str, Scope], Candidate] = {}
    conflicts = []
    for each in sorted(several, key=precedence):
        winner = winners.setdefault((each.revision.type, each.revision.scope), each)
        if winner is not each:
            conflicts.append(
                Problem(
                    field=f"{each.namespace}/{each.name}",
                    message=f"{SCOPE_CONFLICT}: {winner.namespace}/{winner.name} has the same type and scope and wins; "
                    "narrow the scope of one of them, or delete one",
                )
            )
    return tuple(conflicts)


def _is_enforced(candidate: Candidate) -> bool:
    return candidate.revision.policy.enforcement is Enforcement.ENFORCE


def _matches_source(wanted: str | None, source: str | None) -> bool:
    if wanted is None:
        return True
    if source is None or not wanted.endswith(_BELOW):
        return source == wanted
    above = wanted.removesuffix("*")
    return source.startswith(above) and source != above
