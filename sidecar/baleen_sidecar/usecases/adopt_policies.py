"""Put the policies at hand in force: check all, keep what was good, record what changed.

Level-triggered: it is given all that is there now; the same input leads to the same state, however often it comes.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from baleen_core.checking import Checked, check_policy
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import BaleenError, InvalidError, PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.in_force import Override, Route, in_force, parse_override
from baleen_core.policy.lists import canonical_list
from baleen_core.policy.proof import find_unproven
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.scope import find_conflicts
from baleen_core.reading import unknown_name
from baleen_sidecar.ports import Activation, Key, RevisionStore
from baleen_sidecar.usecases.history import (
    APPLIED,
    PINNED,
    REMOVED,
    ROLLED_BACK,
    activation,
    key_of,
    name_of,
    reason_for,
    record,
)
from baleen_sidecar.usecases.loading import Identity, PolicyLoader
from baleen_sidecar.usecases.policy_documents import Documents, Sorted, short, sort_documents

ROLLBACK_WINDOW: Final = 10
"""How many activations back something good is looked for when what is newer cannot be used."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adopted:
    """What became of one policy, and the row that its history is owed, if any."""

    policy: LoadedPolicy | None
    status: PolicyStatus
    activation: Activation | None


class AdoptPolicies:
    """Holds the policies in force, and replaces them as a whole."""

    def __init__(
        self,
        store: RevisionStore,
        models: tuple[Model, ...],
        *,
        executor: Executor,
        wall_seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._models = models
        signals = frozenset(f"{model.name}.{signal.name}" for model in models for signal in model.signals)
        self._loader = PolicyLoader(store, lambda: signals, executor=executor)
        self._executor = executor
        self._wall_seconds = wall_seconds
        self._never_loosen: dict[Key, tuple[str, ...]] = {}
        self._current = PolicySnapshot()

    def current(self) -> PolicySnapshot:
        """Return the policies in force now."""
        return self._current

    async def adopt(self, documents: Documents) -> PolicySnapshot:
        """Check everything, put in force what is valid, and keep the last good revision of what is not.

        Raises:
            StateError: the history cannot be read; what is in force stays.
        """
        found = sort_documents(documents)
        # What could not be read may be any policy or override, so then none counts as removed.
        is_whole = not documents.problems and not found.problems
        last = {key_of(row): row for row in await self._store.last_active() if row.digest}
        gone = [key for key in last if is_whole and key not in found.policies]
        keys = sorted(set(found.policies) | set(last) - set(gone))
        adopted = [await self._adopt_one(key, found, is_whole=is_whole) for key in keys]
        loaded = tuple(each.policy for each in adopted if each.policy is not None)
        self._loader.keep_only(loaded)
        self._current = PolicySnapshot(
            policies=loaded,
            statuses=tuple(each.status for each in adopted),
            problems=(
                *documents.problems,
                *found.problems,
                *find_conflicts([each.candidate for each in loaded]),
                *_overrides_of_nothing(found, keys),
            ),
        )
        # Only now: a disk that is full must not keep a policy, least of all an override, from acting.
        owed = [activation(key, "", "", REMOVED) for key in gone]
        owed += [each.activation for each in adopted if each.activation is not None]
        _, unrecorded = await record(self._store, owed, now=self._now())
        if unrecorded:
            self._current = replace(self._current, problems=(*self._current.problems, *unrecorded))
        return self._current

    async def _adopt_one(self, key: Key, found: Sorted, *, is_whole: bool) -> _Adopted:
        history = await self._store.history(name_of(key), limit=ROLLBACK_WINDOW)
        problems: list[Problem] = []
        said = await self._read(key, found, history, problems)
        known = {row.digest: row for row in reversed(history) if row.digest} | ({said.digest: said} if said else {})
        override, must_stay = await self._read_override(key, found, history, problems, is_whole=is_whole)
        if override and override.pin:
            row = await self._store.find_activation(name_of(key), digest=override.pin.digest)
            if row is not None:
                known.setdefault(row.digest, row)
        before = tuple(row.digest for row in history if row.digest)
        must_stay = must_stay and bool(before)
        routed = [row.digest for row in history if row.digest and not row.reason.startswith((PINNED, ROLLED_BACK))]
        is_paused = said is not None and (_is_paused(found.policies[key]) or bool(override and override.paused))
        stable = said.digest if said and not must_stay and not is_paused else before[0] if before else ""
        if is_paused and not must_stay and routed:
            stable = routed[0]
        route = Route(stable=stable, recent_stable=before)
        policy = await self._first_whole(key, route, override, known, problems)
        standing = _standing(policy, said, must_stay=must_stay, is_paused=is_paused)
        owed = None
        if policy is not None and (not history or history[0].digest != policy.candidate.revision.digest):
            digest = policy.candidate.revision.digest
            owed = activation(key, digest, policy.candidate.version, reason_for(standing, digest, override))
        status = PolicyStatus(
            namespace=key[0],
            name=key[1],
            version=policy.candidate.version if policy else "",
            digest=policy.candidate.revision.digest if policy else None,
            standing=standing,
            problems=tuple(problems),
        )
        return _Adopted(policy=policy, status=status, activation=owed)

    async def _read(
        self, key: Key, found: Sorted, history: Sequence[Activation], problems: list[Problem]
    ) -> Activation | None:
        """Return the revision that the policy says now, on record; None with its problems when it may not act."""
        if key not in found.policies:
            problems.append(Problem(field="", message="its file cannot be read now"))
            return None
        try:
            checked = await self._off_loop(lambda: check_policy(found.policies[key], found.contents, self._models))
            return await self._keep(key, checked, history)
        except InvalidError as exc:
            problems += exc.problems
        except BaleenError as exc:
            problems.append(Problem(field="", message=f"it cannot be put on record: {exc}"))
        return None

    async def _read_override(
        self, key: Key, found: Sorted, history: Sequence[Activation], problems: list[Problem], *, is_whole: bool
    ) -> tuple[Override | None, bool]:
        """Return the override, and whether what is in force must stay because what overrides it cannot be read.

        Somebody wrote it in an incident: to fall back to the policy would undo just that.
        """
        if key not in found.overrides:
            was_overridden = bool(history) and history[0].reason.startswith((PINNED, ROLLED_BACK))
            if not is_whole and was_overridden:
                problems.append(Problem(field="", message="its override cannot be read now; what is in force stays"))
                return None, True
            return None, False
        try:
            override = parse_override(found.overrides[key])
        except InvalidError as exc:
            problems += [replace(problem, field=f"ModerationOverride: {problem.field}") for problem in exc.problems]
            return None, True
        if override.pin and await self._store.find_activation(name_of(key), digest=override.pin.digest) is None:
            message = f"{override.pin.digest} was never in force for this policy; its history has those that were"
            problems.append(Problem(field="ModerationOverride: spec.pin.digest", message=message))
            return replace(override, pin=None), True
        return override, False

    async def _keep(self, key: Key, checked: Checked, history: Sequence[Activation]) -> Activation:
        """Store a valid policy's revision and lists.

        Raises:
            PolicyError: its version already names other content, its scope or type is not what it was, or it may be
            softer where neither it nor what was valid before lets it be.
            StateError: it cannot be stored.
        """
        policy = checked.policy
        revision = make_revision(policy, checked.lists)
        named = await self._store.find_activation(name_of(key), version=policy.version) if policy.version else None
        if named and named.digest != revision.digest:
            message = f"{policy.version} already names {short(named.digest)}; give the changed content a new version"
            raise PolicyError([Problem(field="spec.version", message=message)])
        before = await self._store.get_revision(history[0].digest) if history and history[0].digest else None
        if before is not None:
            was, now = read_revision(before), read_revision(revision)
            changed = [name for name in ("scope", "type") if getattr(was, name) != getattr(now, name)]
            if changed:
                message = "cannot be changed; write a policy of another name and delete this one"
                raise PolicyError([Problem(field=f"spec.{name}", message=message) for name in changed])
            # What was in force before was so then: going back is no change to be proven.
            if revision.digest not in {row.digest for row in history}:
                protected = sorted({*policy.gates.never_loosen, *self._never_loosen.get(key, ())})
                if unproven := find_unproven(was, now, protected):
                    raise PolicyError(unproven)
        for content in checked.lists.values():
            await self._store.put_list(content.digest, canonical_list(content))
        await self._store.put_revision(name_of(key), revision)
        self._never_loosen[key] = policy.gates.never_loosen
        return activation(key, revision.digest, policy.version, APPLIED)

    async def _first_whole(
        self,
        key: Key,
        route: Route,
        override: Override | None,
        known: Mapping[str, Activation],
        problems: list[Problem],
    ) -> LoadedPolicy | None:
        """Load what is in force; a revision that is gone or altered is a problem, and the next one is tried."""
        present = set(known)
        while digest := in_force(route, override, present, now=self._now()):
            try:
                return await self._loader.load(Identity(key=key, digest=digest, version=known[digest].version))
            except BaleenError as exc:
                problems.append(Problem(field="", message=f"revision {short(digest)} cannot be used: {exc}"))
                present.discard(digest)
        return None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_seconds(), UTC)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _overrides_of_nothing(found: Sorted, keys: Collection[Key]) -> list[Problem]:
    """Name overrides that match no policy: whoever wrote one in an incident must not believe that it acts."""
    names = {name_of(key) for key in keys}
    strays = sorted(name_of(key) for key in set(found.overrides) - set(keys))
    return [
        Problem(field=f"ModerationOverride {stray}", message=unknown_name(stray, names, "policy")) for stray in strays
    ]


def _is_paused(manifest: Mapping[str, Any]) -> bool:
    """Say whether a policy that is known to be valid says that it waits."""
    return bool(manifest["spec"].get("paused"))


def _standing(policy: LoadedPolicy | None, said: Activation | None, *, must_stay: bool, is_paused: bool) -> Standing:
    if policy and said and policy.candidate.revision.digest == said.digest:
        return Standing.CURRENT
    if is_paused and not must_stay:
        return Standing.PAUSED
    if policy is None:
        return Standing.NOTHING
    return Standing.LAST_GOOD if must_stay or said is None else Standing.OVERRIDDEN
