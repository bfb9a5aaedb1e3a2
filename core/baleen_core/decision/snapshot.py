"""All policies in force at one moment, compiled; which of them bind a request is looked up by its place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from baleen_core.assignment import Assignment, Exposure, chance_of, is_exposed, locate, sticky_key
from baleen_core.decision.engine import CompiledPolicy, Sides, wanted_signals
from baleen_core.decision.lists import CompiledList, HashList
from baleen_core.errors import Problem
from baleen_core.policy.scope import Candidate, Place, find_here, index_by_place, resolve
from baleen_core.records import ContentType, Context

MAX_REMEMBERED_LANGUAGES: Final = 256
MAX_REMEMBERED_PLACES: Final = 4096
"""Places (tenant, surface, source) whose policies are remembered; a caller can invent any number of them."""


class Standing(StrEnum):
    """Why the revision that is in force is the one that is."""

    CURRENT = "Current"
    """It is what the policy says now."""
    LAST_GOOD = "LastGood"
    """What the policy says now is not valid, or cannot be read; this is what it said before."""
    OVERRIDDEN = "Overridden"
    """An Override pins it, or rejects what the policy says now."""
    PAUSED = "Paused"
    """What the policy says now waits, since it or its Override is paused; what was in force before, if anything, is."""
    NOTHING = "Nothing"
    """No revision of it ever was valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """What became of one policy: the digest in force and why, and everything that is wrong with what it says now.

    `epoch` is that of the adopted route, and 0 without a cluster.
    """

    namespace: str
    name: str
    version: str
    digest: str | None
    standing: Standing
    problems: tuple[Problem, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTrial:
    """The candidate of a rollout, ready to judge for those whom it is exposed to, and its lists by digest.

    `rollout` names this try of it.
    """

    compiled: CompiledPolicy
    lists: tuple[CompiledList, ...]
    exposure: Exposure
    assignment: Assignment
    rollout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A revision in force, ready to judge: where it binds, its compiled form, its lists by digest.

    With a `trial` another revision is rolled out beside it. Where that one binds is where this one does.
    """

    candidate: Candidate
    compiled: CompiledPolicy
    lists: tuple[CompiledList, ...]
    trial: LoadedTrial | None = None

    @property
    def all_lists(self) -> tuple[CompiledList, ...]:
        """Those of both revisions."""
        return self.lists + (self.trial.lists if self.trial is not None else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The policies that bind one place: the winner of each type, every floor, and those that only try out.

    Of a policy in a rollout it has the stable revision until `assigned` says for which content; `trials` have both.
    """

    winners: tuple[CompiledPolicy, ...]
    floors: tuple[CompiledPolicy, ...]
    dry_runs: tuple[CompiledPolicy, ...]
    lists: tuple[CompiledList, ...] = ()
    rollouts: tuple[tuple[CompiledPolicy, LoadedTrial], ...] = ()
    trials: tuple[Sides, ...] = ()
    _wanted: dict[tuple[ContentType, str | None], frozenset[str]] = field(default_factory=dict, compare=False)
    _wanted_alone: dict[tuple[ContentType, str | None, tuple[bool, ...]], frozenset[str]] = field(
        default_factory=dict, compare=False
    )

    def wanted(self, content_type: ContentType, language: str | None = None) -> frozenset[str]:
        """Name every signal that any of them would look at; remembered, for there are few languages."""
        key = (content_type, language)
        found = self._wanted.get(key)
        if found is None:
            found = wanted_signals(self.policies, content_type=content_type, language=language)
            if len(self._wanted) < MAX_REMEMBERED_LANGUAGES:
                self._wanted[key] = found
        return found

    def wanted_alone(self, content_type: ContentType, language: str | None = None) -> frozenset[str]:
        """Name every signal that those look at which count: as if no other side of a rollout were there; remembered."""
        key = (content_type, language, tuple([sides.exposed for sides in self.trials]))
        found = self._wanted_alone.get(key)
        if found is None:
            counting = (*self.winners, *self.floors, *self.dry_runs)
            found = wanted_signals(counting, content_type=content_type, language=language)
            if len(self._wanted_alone) < MAX_REMEMBERED_LANGUAGES:
                self._wanted_alone[key] = found
        return found

    def assigned(self, context: Context, content_digest: str) -> "InForce":
        """Return what binds one piece of content from here: of each policy in a rollout, the side that counts."""
        if not self.rollouts:
            return self
        chosen: dict[int, CompiledPolicy] = {}
        trials = []
        for stable, trial in self.rollouts:
            author = context.author.get("id")
            key = sticky_key(
                trial.assignment.keys,
                author=author if isinstance(author, str) else None,
                session=context.session,
                content_digest=content_digest,
            )
            spot = locate(trial.assignment.salt, key)
            exposed = is_exposed(trial.exposure, context.tenant, spot.place)
            trials.append(
                Sides(
                    stable=stable,
                    candidate=trial.compiled,
                    group=spot.group,
                    rollout=trial.rollout,
                    exposed=exposed,
                    weight=chance_of(trial.exposure, context.tenant),
                )
            )
            if exposed:
                chosen[id(stable)] = trial.compiled

        def counting(policies: tuple[CompiledPolicy, ...]) -> tuple[CompiledPolicy, ...]:
            return tuple([chosen.get(id(each), each) for each in policies])

        return InForce(
            winners=counting(self.winners),
            floors=counting(self.floors),
            dry_runs=counting(self.dry_runs),
            lists=self.lists,
            rollouts=self.rollouts,
            trials=tuple(trials),
            # Both sides look at the same signals, whichever counts.
            _wanted=self._wanted,
            _wanted_alone=self._wanted_alone,
        )

    @property
    def policies(self) -> tuple[CompiledPolicy, ...]:
        """All that judge, both sides of those in a rollout, in a fixed order."""
        judging = self.winners + self.floors + self.dry_runs
        if not self.rollouts:
            return judging
        sides = (side for stable, trial in self.rollouts for side in (stable, trial.compiled))
        return tuple({id(each): each for each in (*judging, *sides)}.values())

    @property
    def keep_days(self) -> int | None:
        """The longest that a policy which counts asks for decisions to be kept; None where none says anything."""
        terms = [policy.revision.policy.retention.decisions_days for policy in self.winners + self.floors]
        return max([days for days in terms if days is not None], default=None)

    @property
    def needs_pdq(self) -> bool:
        """Say whether any list is one of perceptual hashes."""
        return any(isinstance(each, HashList) for each in self.lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Policies by what is known of their candidates: the place that they are for, and the object itself."""

    places: Mapping[Place, Sequence[Candidate]]
    loaded: Mapping[int, LoadedPolicy]

    @classmethod
    def of(cls, policies: Iterable[LoadedPolicy]) -> Self:
        loaded = {id(policy.candidate): policy for policy in policies}
        return cls(places=index_by_place(policy.candidate for policy in loaded.values()), loaded=loaded)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySnapshot:
    """Immutable but for what it remembers; a reader that holds it sees one consistent set of policies."""

    policies: tuple[LoadedPolicy, ...] = ()
    statuses: tuple[PolicyStatus, ...] = ()
    problems: tuple[Problem, ...] = ()
    _places: dict[Place, InForce] = field(default_factory=dict, compare=False)
    _index: list[_Index] = field(default_factory=list, compare=False)

    def in_force(self, context: Context) -> InForce:
        """Return the policies that bind a request; without a winner there is no policy for it."""
        place = (context.tenant, context.surface, context.source)
        found = self._places.get(place)
        if found is None:
            found = self._resolve(context)
            if len(self._places) >= MAX_REMEMBERED_PLACES:
                self._places.clear()
            self._places[place] = found
        return found

    def _resolve(self, context: Context) -> InForce:
        # Thousands of policies are put in order once; each new place then looks at those of its own scopes alone.
        if not self._index:
            self._index.append(_Index.of(self.policies))
        index = self._index[0]
        effective = resolve(find_here(index.places, context), context)

        def chosen(candidates: Iterable[Candidate]) -> tuple[LoadedPolicy, ...]:
            return tuple(index.loaded[id(candidate)] for candidate in candidates)

        winners, floors, dry_runs = map(chosen, (effective.winners, effective.floors, effective.dry_runs))
        return InForce(
            winners=tuple(policy.compiled for policy in winners),
            floors=tuple(policy.compiled for policy in floors),
            dry_runs=tuple(policy.compiled for policy in dry_runs),
            lists=widest(each for policy in winners + floors + dry_runs for each in policy.all_lists),
            rollouts=tuple(
                (policy.compiled, policy.trial) for policy in winners + floors + dry_runs if policy.trial is not None
            ),
        )


def widest(lists: Iterable[CompiledList]) -> tuple[CompiledList, ...]:
    """Keep each list once: of perceptual hashes the one that looks furthest, since a policy checks its own distance."""
    by_digest: dict[str, CompiledList] = {}
    for each in lists:
        other = by_digest.get(each.digest)
        if other is None or _reach(each) > _reach(other):
            by_digest[each.digest] = each
    return tuple(by_digest[digest] for digest in sorted(by_digest))


def _reach(compiled: CompiledList) -> int:
    return compiled.max_distance if isinstance(compiled, HashList) else 0
