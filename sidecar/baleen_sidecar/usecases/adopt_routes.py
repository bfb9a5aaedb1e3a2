"""Put in force what a cluster publishes: each policy's route as a whole or not at all, and its override at once.

Level-triggered: it is given all that is published now; the same input leads to the same state, however often it comes.
What did not change since is not looked at again, so that one change among thousands of policies is cheap.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from baleen_core.canonical import digest_of
from baleen_core.decision.snapshot import LoadedPolicy, LoadedTrial, PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import BaleenError, IntegrityError, PolicyError, Problem
from baleen_core.policy.in_force import Override, Route, RoutedCandidate, candidate_in_force, in_force
from baleen_core.policy.schema import ListType, Revision, RevisionContent, Role, Scope
from baleen_core.policy.scope import find_conflicts
from baleen_core.records import Cohort
from baleen_core.resources import PublishedPolicy, PublishedRoute
from baleen_sidecar.flow.backoff import BackoffRules, wait_seconds
from baleen_sidecar.ports import Activation, Adopted, KeptPolicy, Key, PolicySource, Published, RevisionStore
from baleen_sidecar.usecases.history import REMOVED, activation, key_of, reason_for, record
from baleen_sidecar.usecases.loading import Identity, ListsMissing, PolicyLoader
from baleen_sidecar.usecases.policy_documents import short

log = logging.getLogger(__name__)

RETRY: Final = BackoffRules(first_seconds=0.25, highest_seconds=15.0)
"""When what is not whole is looked at again: lists are not watched, so nobody tells when one appears."""
FETCHES_AT_ONCE: Final = 4
MAX_ROWS_AT_ONCE: Final = 100
"""Rows of history, and revisions and lists that are owed, that are written between two adoptions."""
MAX_NAMED: Final = 5
"""How many of the known digests a message names where one is not known."""
UNREAD: Final = "cannot be read now; what is in force stays"


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What became of one policy, out of what, and when it has to be looked at again by itself.

    `whole` is the last route whose stable revision and candidate were verified with all that they name.
    """

    published: PublishedPolicy | None
    signals: frozenset[str]
    kept: KeptPolicy
    policy: LoadedPolicy | None
    status: PolicyStatus
    adopted: Adopted
    reason: str
    whole: PublishedRoute | None = None
    expires_at: datetime | None = None
    retry_at: datetime | None = None
    failures: int = 0

    def is_due(self, published: PublishedPolicy, signals: frozenset[str], now: datetime) -> bool:
        """Say whether looking again could come to anything else."""
        if any(time is not None and time <= now for time in (self.expires_at, self.retry_at)):
            return True
        if self.published is not published and self.published != published:
            return True
        return self.signals != signals and self.policy is not None and _has_rules(self.policy)


@dataclass(slots=True, kw_only=True)
class _Look:
    """One look at a policy: what is known at its beginning, and what is found out.

    `loaded` are revisions by digest, and `trial` is a candidate, that need not be loaded again.
    """

    published: PublishedPolicy
    kept: KeptPolicy | None
    now: datetime
    whole: PublishedRoute | None = None
    before: LoadedPolicy | None = None
    loaded: dict[str, LoadedPolicy] = field(default_factory=dict)
    trial: LoadedTrial | None = None
    failed: set[str] = field(default_factory=set)
    offered: dict[str, Revision] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    pending: str = ""

    def report(self, message: str, field: str = "") -> str:
        """Note a problem, and return its message."""
        self.problems.append(Problem(field=field, message=message))
        return message

    def identity(self, route: PublishedRoute, digest: str) -> Identity:
        """Say as what the revision is loaded."""
        versions = dict(self.published.versions)
        for known in (self.published.route, route):
            versions.setdefault(known.route.stable, known.version)
        if self.kept:
            versions.setdefault(self.kept.digest, self.kept.version)
            versions.setdefault(self.kept.candidate, self.kept.candidate_version)
        return Identity(key=self.published.key, digest=digest, version=versions.get(digest, ""), created=route.created)


class _Misplaced(PolicyError):
    """A route names a revision that was made for another place or use; there is nothing wrong with the revision."""


class AdoptRoutes:
    """Holds the policies in force, and replaces them as a whole."""

    def __init__(
        self,
        store: RevisionStore,
        source: PolicySource,
        signals: Callable[[], frozenset[str]],
        *,
        executor: Executor,
        wall_seconds: Callable[[], float],
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`signals` are all that the served models offer now; `jitter` gives numbers from 0 to 1."""
        self._store = store
        self._source = source
        self._signals = signals
        self._loader = PolicyLoader(store, signals, executor=executor)
        self._wall_seconds = wall_seconds
        self._jitter = jitter
        self._states: dict[Key, _State] = {}
        self._lacking: set[tuple[str, str, ListType]] = set()
        self._has_arrived = False
        self._on_record: dict[Key, str] | None = None
        self._published_problems: tuple[Problem, ...] = ()
        self._unrecorded: list[Problem] = []
        self._unkept: list[Problem] = []
        self._current = PolicySnapshot()

    def current(self) -> PolicySnapshot:
        """Return the policies in force now."""
        return self._current

    def adopted(self) -> Mapping[Key, Adopted]:
        """Return what is enforced for each policy that is published, and what it lacks."""
        return {key: state.adopted for key, state in self._states.items()}

    def kept(self) -> Mapping[Key, KeptPolicy]:
        """Return what must survive a restart so that the same is in force after it."""
        return {key: state.kept for key, state in self._states.items()}

    async def restore(self, kept: Mapping[Key, KeptPolicy]) -> None:
        """Put in force what was when it was kept, with nothing at hand but the store."""
        now, signals = self._now(), self._signals()
        for key, each in sorted(kept.items()):
            published = PublishedPolicy(
                route=each.route,
                override=each.override,
                override_problem=each.override_problem,
                revisions={},
                versions={each.digest: each.version, each.candidate: each.candidate_version},
            )
            self._states[key] = await self._look(_Look(published=published, kept=each, now=now), signals)
        self._replace()

    async def adopt(self, published: Published) -> datetime | None:
        """Adopt every epoch that is whole, obey every override, and keep what was in force where neither can be.

        Returns when it must be called again though nothing changes: a pin's time passes, what is lacking is due, or
        content or rows of history are owed.
        """
        now, signals, is_whole = self._now(), self._signals(), not published.problems
        looks_again = self._has_arrived or published.problems != self._published_problems
        self._has_arrived = False
        before, states = self._states, dict[Key, _State]()
        changed = published.problems != self._published_problems
        for key, policy in sorted(published.policies.items()):
            state = before.get(key)
            if state is None or state.is_due(policy, signals, now) or (looks_again and state.adopted.pending):
                found = await self._look_again(policy, state, signals, now, is_whole=is_whole)
                changed = changed or state is None or found.status != state.status or found.policy is not state.policy
                state = found
            states[key] = state
        for key in before.keys() - states.keys():
            changed = changed or is_whole or before[key].published is not None
            if not is_whole:
                # What could not be read may be any route, so none counts as removed.
                states[key] = _unread(before[key])
        self._states, self._published_problems = dict(sorted(states.items())), published.problems
        if changed:
            self._loader.keep_only(state.policy for state in states.values() if state.policy)
            self._replace()
        # Only now: a disk that is full must not keep a policy, least of all an override, from acting.
        has_more = [await self._keep(), await self._record(is_whole=is_whole)]
        if any(has_more):
            return now
        times = [time for state in states.values() for time in (state.expires_at, state.retry_at) if time is not None]
        if self._unkept or self._unrecorded:
            times.append(now + timedelta(seconds=RETRY.highest_seconds))
        return min(times, default=None)

    @property
    def lacks_lists(self) -> bool:
        """Say whether there are lists to ask the source for."""
        return bool(self._lacking)

    async def fetch_lists(self) -> bool:
        """Ask the source for the lists that are lacking; say whether any came, so that it is time to adopt again."""
        lacking, self._lacking = sorted(self._lacking), set()
        gate = asyncio.Semaphore(FETCHES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fetch_list(*each, gate)) for each in lacking]
        has_arrived = any(task.result() for task in tasks)
        self._has_arrived = self._has_arrived or has_arrived
        return has_arrived

    async def _fetch_list(self, namespace: str, digest: str, type: ListType, gate: asyncio.Semaphore) -> bool:
        async with gate:
            try:
                text = await self._source.read_list(namespace, digest, type)
                if text is None:
                    return False
                await self._loader.take_list(type, digest, text)
            except BaleenError as exc:
                log.warning("list not taken", extra={"namespace": namespace, "digest": digest, "cause": str(exc)})
                return False
        return True

    async def _look_again(
        self,
        published: PublishedPolicy,
        before: _State | None,
        signals: frozenset[str],
        now: datetime,
        *,
        is_whole: bool,
    ) -> _State:
        look = _Look(published=published, kept=before.kept if before else None, now=now)
        if before is None:
            return await self._look(look, signals)
        if not is_whole and before.kept.override and not (published.override or published.override_problem):
            look.published = replace(published, override_problem=UNREAD)
        look.whole = before.whole
        if policy := before.policy:
            look.before = policy
            is_offered_alike = before.signals == signals
            if is_offered_alike or not policy.compiled.rules:
                look.loaded[policy.candidate.revision.digest] = replace(policy, trial=None)
            if policy.trial and (is_offered_alike or not policy.trial.compiled.rules):
                look.trial = policy.trial
        is_same = before.published == published
        found = await self._look(look, signals, failures=before.failures if is_same else 0)
        return replace(found, published=published)

    async def _look(self, look: _Look, signals: frozenset[str], *, failures: int = 0) -> _State:
        """Find out what is in force for one policy."""
        published, kept = look.published, look.kept
        must_stay = bool(published.override_problem and kept and kept.digest)
        if published.override_problem:
            look.pending = look.report(published.override_problem, "ModerationOverride")
        override = kept.override if kept and published.override_problem else published.override
        _check_offers(look, override)
        route = kept.route if kept and must_stay else await self._adoptable(look, override)
        policy = await self._first_whole(look, route, override, must_stay=must_stay)
        if policy is not None:
            policy = await self._with_trial(look, route, override, policy)
        trial = policy.trial if policy else None
        tried = trial.compiled if trial else None
        candidate, candidate_version = (tried.revision.digest, tried.version) if tried else ("", "")
        digest, version = (policy.candidate.revision.digest, policy.candidate.version) if policy else ("", "")
        standing = _standing(policy, look, override)
        failures = failures + 1 if look.problems else 0
        wait = wait_seconds(failures, jitter=self._jitter(), rules=RETRY) if failures else 0.0
        return _State(
            published=published,
            signals=signals,
            kept=KeptPolicy(
                route=route,
                override=override,
                override_problem=published.override_problem,
                digest=digest,
                version=version,
                candidate=candidate,
                candidate_version=candidate_version,
            ),
            policy=policy,
            status=PolicyStatus(
                namespace=route.namespace,
                name=route.name,
                version=version,
                digest=digest or None,
                standing=standing,
                problems=tuple(look.problems),
                epoch=route.epoch,
            ),
            adopted=Adopted(
                epoch=route.epoch,
                digest=digest,
                pending=look.pending,
                candidate=candidate,
                rollout=trial.rollout if trial else "",
                weight=trial.exposure.weight_basis_points if trial else 0,
            ),
            reason=reason_for(standing, digest, override),
            whole=look.whole,
            expires_at=None if must_stay else _expiry(override, look.now),
            retry_at=look.now + timedelta(seconds=wait) if failures else None,
            failures=failures,
        )

    async def _adoptable(self, look: _Look, override: Override | None) -> PublishedRoute:
        """Return the published route if what it names is whole; else the one before, or one of epoch 0."""
        route = look.published.route
        stable, candidate = route.route.stable, route.route.candidate
        if not stable or _is_known_whole(route, look.whole):
            return route
        digest = stable
        try:
            content = await self._verify(look, route, stable, override)
            if candidate is not None:
                digest = candidate.digest
                _check_use(content, await self._verify(look, route, digest, override))
        except BaleenError as exc:
            if not isinstance(exc, _Misplaced):
                look.failed.add(digest)
            look.pending = look.report(f"epoch {route.epoch} is not whole: revision {short(digest)}: {exc}")
            if look.kept and (look.kept.route.route.stable or digest == stable):
                return _without_given_up(look.kept.route, route.route)
            # Where nothing was in force before, that only a candidate is not whole is no reason to be without a policy.
            left = Route() if digest == stable else replace(route.route, candidate=None)
            version = route.version if left.stable else ""
            return replace(route, epoch=0, route=left, version=version, time="", reason="", by="")
        look.whole = route
        return route

    async def _verify(
        self, look: _Look, route: PublishedRoute, digest: str, override: Override | None
    ) -> RevisionContent:
        """Return a revision that the route names once all that it names is here; loaded, if it is to judge."""
        both = {route.route.stable, digest}
        trial = candidate_in_force(route.route, override, both, now=look.now)
        if in_force(route.route, override, both, now=look.now) == digest:
            return (await self._load(look, route, digest)).candidate.revision
        if trial is not None and trial.digest == digest:
            return (await self._load_trial(look, route, trial)).compiled.revision
        with self._noting_lists(look.published.key):
            content = await self._loader.verify(look.identity(route, digest), look.offered.get(digest))
        _check_place(route, content)
        return content

    async def _with_trial(
        self, look: _Look, route: PublishedRoute, override: Override | None, policy: LoadedPolicy
    ) -> LoadedPolicy:
        """Add the candidate that judges beside a policy; that one cannot be used is a problem of the rollout alone."""
        trial = None
        if found := _candidate_of(look, route.route, override, policy.candidate.revision.digest):
            try:
                trial = await self._load_trial(look, route, found)
            except BaleenError as exc:
                message = look.report(f"candidate {short(found.digest)} cannot be used: {exc}")
                look.whole, look.pending = None, look.pending or message
        return _unchanged(replace(policy, trial=trial), look.before)

    async def _load_trial(self, look: _Look, route: PublishedRoute, routed: RoutedCandidate) -> LoadedTrial:
        identity, known = look.identity(route, routed.digest), look.trial
        if known and (known.compiled.revision.digest, known.compiled.version) == (identity.digest, identity.version):
            compiled, lists = known.compiled, known.lists
        else:
            with self._noting_lists(identity.key):
                loaded = await self._loader.load(identity, look.offered.get(routed.digest))
            compiled, lists = replace(loaded.compiled, cohort=Cohort.CANDIDATE), loaded.lists
        _check_place(route, compiled.revision)
        look.trial = LoadedTrial(
            compiled=compiled,
            lists=lists,
            exposure=routed.exposure,
            assignment=routed.assignment,
            rollout=route.rollout,
        )
        return look.trial

    async def _first_whole(
        self, look: _Look, route: PublishedRoute, override: Override | None, *, must_stay: bool
    ) -> LoadedPolicy | None:
        """Load what is in force; a revision that is gone or altered is a problem, and the next one is tried."""
        pinned = {override.pin.digest} if override and override.pin else set()
        known = look.offered.keys() | ({look.kept.digest} if look.kept else set())
        present = ({route.route.stable, *route.route.recent_stable} | (pinned & known)) - look.failed - {""}
        stays = look.kept.digest if look.kept and must_stay else None
        while digest := stays or in_force(route.route, override, present, now=look.now):
            try:
                return await self._load(look, route, digest)
            except BaleenError as exc:
                stays = None
                present.discard(digest)
                message = look.report(f"revision {short(digest)} cannot be used: {exc}")
                if look.whole and look.whole.route.stable == digest:
                    look.whole, look.pending = None, look.pending or message
        return None

    async def _load(self, look: _Look, route: PublishedRoute, digest: str) -> LoadedPolicy:
        identity = look.identity(route, digest)
        policy = look.loaded.get(digest)
        if policy and (policy.candidate.version, policy.candidate.created) == (identity.version, identity.created):
            _check_place(route, policy.candidate.revision)
            return policy
        with self._noting_lists(identity.key):
            policy = await self._loader.load(identity, look.offered.get(digest))
        _check_place(route, policy.candidate.revision)
        look.loaded[digest] = policy
        return policy

    @contextmanager
    def _noting_lists(self, key: Key) -> Iterator[None]:
        """Note which lists are to be asked for."""
        try:
            yield
        except ListsMissing as exc:
            self._lacking |= {(key[0], each.digest or "", each.type) for each in exc.lists}
            raise

    def _replace(self) -> None:
        loaded = tuple(state.policy for state in self._states.values() if state.policy)
        self._current = PolicySnapshot(
            policies=loaded,
            statuses=tuple(state.status for state in self._states.values()),
            problems=(
                *self._published_problems,
                *find_conflicts(each.candidate for each in loaded),
                *self._unkept,
                *self._unrecorded,
            ),
        )

    async def _keep(self) -> bool:
        """Keep what the store could not keep when it was adopted; say whether there is more to keep at once."""
        was_unkept, self._unkept = self._unkept, await self._loader.keep(at_once=MAX_ROWS_AT_ONCE)
        if was_unkept != self._unkept:
            self._replace()
        return self._loader.owes and not self._unkept

    async def _record(self, *, is_whole: bool) -> bool:
        """Write the history where it differs from what is in force; say whether there is more to write at once.

        What cannot be written is tried the next time.
        """
        was_unrecorded, self._unrecorded = self._unrecorded, []
        rows: list[Activation] = []
        try:
            if self._on_record is None:
                self._on_record = {key_of(row): row.digest for row in await self._store.last_active()}
        except BaleenError as exc:
            self._unrecorded = [Problem(field="history", message=f"it cannot be read, and so not written: {exc}")]
        else:
            on_record = self._on_record
            rows = [
                activation(key, state.kept.digest, state.kept.version, state.reason)
                for key, state in self._states.items()
                if state.kept.digest and on_record.get(key) != state.kept.digest
            ]
            if is_whole:
                gone = [key for key, digest in on_record.items() if digest and key not in self._states]
                rows += [activation(key, "", "", REMOVED) for key in gone]
            unwritten, self._unrecorded = await record(self._store, rows[:MAX_ROWS_AT_ONCE], now=self._now())
            missing = {row.policy for row in unwritten}
            written = (row for row in rows[:MAX_ROWS_AT_ONCE] if row.policy not in missing)
            on_record.update({key_of(row): row.digest for row in written})
        if was_unrecorded != self._unrecorded:
            self._replace()
        # A disk that is full is no reason to try the same rows again and again without a pause.
        return len(rows) > MAX_ROWS_AT_ONCE and not self._unrecorded

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_seconds(), UTC)


def _check_offers(look: _Look, override: Override | None) -> None:
    """Take what is offered of the revisions that are named, but for what was altered; name a pin that nobody knows."""
    published, pin = look.published, override.pin if override else None
    pin = None if pin and pin.is_over(look.now) else pin
    routed = {published.route.route.stable, *published.route.route.recent_stable}
    if published.route.route.candidate:
        routed.add(published.route.route.candidate.digest)
    named = routed | ({pin.digest} if pin else set())
    for digest in sorted(named & published.revisions.keys()):
        revision = published.revisions[digest]
        found = digest_of(revision.content.encode(errors="surrogatepass"))
        if found == digest:
            look.offered[digest] = revision
        else:
            look.report(
                f"revision {short(digest)} was altered: {IntegrityError('content', expected=digest, found=found)}"
            )
    kept = {look.kept.digest} if look.kept else set()
    if pin and pin.digest not in routed | look.offered.keys() | kept:
        known = [f"{published.versions.get(each) or 'no version'} {each}" for each in published.revisions]
        several = ", ".join(known[:MAX_NAMED]) or "none"
        message = f"{pin.digest} is not a revision of this policy that is here; there are: {several}"
        look.report(message, "ModerationOverride: spec.pin.digest")


def _check_place(route: PublishedRoute, content: RevisionContent) -> None:
    """Make sure that a route does not put a revision in force elsewhere than it was made for.

    Raises:
        _Misplaced: its type, role or scope is another.
    """
    wrong = [
        Problem(field=f"ModerationRoute: spec.{name}", message=f"is {said!r}; the revision is for {meant!r}")
        for name, said, meant in zip(
            ("type", "role", "scope"), _is_for(route), (content.type, content.role, content.scope), strict=True
        )
        if said != meant
    ]
    if wrong:
        raise _Misplaced(wrong)


def _check_use(stable: RevisionContent, candidate: RevisionContent) -> None:
    """Make sure that a candidate judges with effect exactly if the stable revision does.

    Raises:
        _Misplaced: one of them only tries out.
    """
    said, meant = candidate.policy.enforcement, stable.policy.enforcement
    if said is not meant:
        message = f"its enforcement is {said}, and that of the stable revision is {meant}"
        raise _Misplaced([Problem(field="ModerationRoute: spec.candidate", message=message)])


def _is_known_whole(route: PublishedRoute, whole: PublishedRoute | None) -> bool:
    """Say whether all that a route names was verified for another one already."""
    if whole is None or _is_for(whole) != _is_for(route) or whole.route.stable != route.route.stable:
        return False
    candidate, known = route.route.candidate, whole.route.candidate
    return candidate is None or (known is not None and known.digest == candidate.digest)


def _candidate_of(look: _Look, route: Route, override: Override | None, digest: str) -> RoutedCandidate | None:
    """Return the candidate that judges beside what is in force, which is `digest`."""
    routed, published = route.candidate, look.published.route.route
    if routed is None:
        return None
    if not look.published.override_problem:
        return candidate_in_force(route, override, {digest, routed.digest} - look.failed, now=look.now)
    # An override that cannot be read may reject it, so that none begins; one that is there stays, as all does, unless
    # the route, which can be read, has given it up.
    was_there = look.kept is not None and look.kept.candidate == routed.digest and digest == route.stable
    return routed if was_there and _names(published, routed.digest) else None


def _names(route: Route, digest: str) -> bool:
    """Say whether a route has a revision as stable or as its candidate."""
    return digest in (route.stable, route.candidate and route.candidate.digest)


def _without_given_up(route: PublishedRoute, newest: Route) -> PublishedRoute:
    """Return a route that stays, since the newest one is not whole, without a candidate that was given up since."""
    candidate = route.route.candidate
    if candidate is None or _names(newest, candidate.digest):
        return route
    return replace(route, route=replace(route.route, candidate=None))


def _has_rules(policy: LoadedPolicy) -> bool:
    return bool(policy.compiled.rules or (policy.trial and policy.trial.compiled.rules))


def _unchanged(policy: LoadedPolicy, before: LoadedPolicy | None) -> LoadedPolicy:
    """Return the object that was there before, if it is the same: a snapshot is replaced for nothing less."""
    if before is None or before.candidate is not policy.candidate or before.compiled is not policy.compiled:
        return policy
    return before if before.trial == policy.trial else policy


def _is_for(route: PublishedRoute) -> tuple[str, Role, Scope]:
    return route.type, route.role, route.scope


def _standing(policy: LoadedPolicy | None, look: _Look, override: Override | None) -> Standing:
    if policy is None:
        return Standing.NOTHING
    digest = policy.candidate.revision.digest
    if digest == look.published.route.route.stable:
        return Standing.CURRENT
    is_pinned = bool(override and override.pin and override.pin.digest == digest)
    return Standing.OVERRIDDEN if is_pinned or (override and not look.pending) else Standing.LAST_GOOD


def _expiry(override: Override | None, now: datetime) -> datetime | None:
    pin = override.pin if override else None
    return datetime.fromisoformat(pin.expire_time) if pin and pin.expire_time and not pin.is_over(now) else None


def _unread(state: _State) -> _State:
    """Keep what is in force for a policy whose route cannot be read now."""
    if state.published is None:
        return state
    problem = Problem(field="ModerationRoute", message=UNREAD)
    status = replace(state.status, problems=(*state.status.problems, problem))
    adopted = replace(state.adopted, pending=str(problem))
    return replace(state, published=None, status=status, adopted=adopted, expires_at=None, retry_at=None)
