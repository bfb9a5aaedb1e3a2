"""Turn the resources at hand into the policies in force: check all, keep what was good, record what changed.

Level-triggered: it is given all that is there now; the same input leads to the same state, however often it comes.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import CompiledList, compile_list
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import BaleenError, IntegrityError, InvalidError, PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.in_force import Override, Route, in_force, parse_override
from baleen_core.policy.lists import canonical_list, read_list, restore_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import ListContent, ListSource, ListSourceType, Policy, PolicyList
from baleen_core.policy.scope import Candidate, find_conflicts
from baleen_core.validation import find_problems
from baleen_sidecar.ports import Activation, RevisionStore

DEFAULT_NAMESPACE: Final = "default"
KINDS: Final = ("ModerationPolicy", "ModerationOverride", "ConfigMap", "Secret")
PASSED_OVER: Final = ("ModelDeployment", "Namespace", "Kustomization")
"""Kinds that may lie in the same folder and are not ours to read here."""
ROLLBACK_WINDOW: Final = 10
REMOVED: Final = "Removed"

Key = tuple[str, str]
"""Namespace and name."""
Place = tuple[ListSourceType, str, str]
"""Where the text of a list is: kind, namespace and name."""

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One resource as it is written, and the file it is in."""

    file: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Everything that is there now; with `problems`, some of it could not be read."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Documents by kind and name."""

    policies: Mapping[Key, Mapping[str, Any]]
    overrides: Mapping[Key, Mapping[str, Any]]
    contents: Mapping[Place, Mapping[str, Any]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A policy that is valid, with the content of its lists by their names."""

    policy: Policy
    lists: Mapping[str, ListContent]


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
        self._signals = frozenset(f"{model.name}.{signal.name}" for model in models for signal in model.signals)
        self._executor = executor
        self._wall_seconds = wall_seconds
        self._compiled_lists: dict[tuple[str, int | None], CompiledList] = {}
        self._current = PolicySnapshot()

    def current(self) -> PolicySnapshot:
        """Return the policies in force now."""
        return self._current

    async def adopt(self, documents: Documents) -> PolicySnapshot:
        """Check everything, put in force what is valid, and keep the last good revision of what is not."""
        found = sort_documents(documents)
        last = {_key_of(row): row for row in await self._store.last_active()}
        # What could not be read may be any policy, so then none counts as removed.
        is_whole = not documents.problems and not found.problems
        gone = [key for key, row in last.items() if is_whole and key not in found.policies and row.digest]
        for key in gone:
            await self._record(key, "", "", REMOVED)
        keys = sorted(set(found.policies) | {key for key, row in last.items() if row.digest and key not in gone})
        loaded, statuses = [], []
        for key in keys:
            policy, status = await self._adopt_one(key, found)
            statuses.append(status)
            if policy is not None:
                loaded.append(policy)
        conflicts = find_conflicts([policy.candidate for policy in loaded])
        self._compiled_lists = {
            place: compiled
            for place, compiled in self._compiled_lists.items()
            if any(compiled is each for policy in loaded for each in policy.lists)
        }
        self._current = PolicySnapshot(
            policies=tuple(loaded),
            statuses=tuple(statuses),
            problems=(*documents.problems, *found.problems, *conflicts),
        )
        return self._current

    async def _adopt_one(self, key: Key, found: Sorted) -> tuple[LoadedPolicy | None, PolicyStatus]:
        history = await self._store.history(_name(key), limit=ROLLBACK_WINDOW)
        previous = [row for row in history if row.digest]
        problems: list[Problem] = []
        override = self._read_override(key, found, problems)
        said: Activation | None = None
        if key in found.policies:
            try:
                checked = await self._off_loop(lambda: check_policy(found.policies[key], found.contents, self._models))
                said = await self._keep(key, checked, previous)
            except InvalidError as exc:
                problems += exc.problems
        else:
            problems.append(Problem(field="", message="its file cannot be read now"))
        known = {row.digest: row for row in reversed(previous)} | ({said.digest: said} if said else {})
        route = Route(
            stable=said.digest if said else previous[0].digest if previous else "",
            recent_stable=tuple(row.digest for row in previous),
        )
        policy = await self._first_whole(key, route, override, known, problems)
        standing = _standing(policy, said)
        digest = policy.candidate.revision.digest if policy else None
        if digest is not None and (not history or history[0].digest != digest):
            await self._record(key, digest, known[digest].version, _reason(standing, digest, override))
        status = PolicyStatus(
            namespace=key[0],
            name=key[1],
            version=known[digest].version if digest else "",
            digest=digest,
            standing=standing,
            problems=tuple(problems),
        )
        return policy, status

    def _read_override(self, key: Key, found: Sorted, problems: list[Problem]) -> Override | None:
        if key not in found.overrides:
            return None
        try:
            return parse_override(found.overrides[key])
        except InvalidError as exc:
            problems += [replace(problem, field=f"ModerationOverride: {problem.field}") for problem in exc.problems]
            return None

    async def _keep(self, key: Key, checked: Checked, previous: list[Activation]) -> Activation:
        """Store a valid policy's revision and lists, unless its version already names other content."""
        revision = make_revision(checked.policy, checked.lists)
        version = checked.policy.version
        for row in previous:
            if version and row.version == version and row.digest != revision.digest:
                message = f"{version} already names {short(row.digest)}; give the changed content a new version"
                raise PolicyError([Problem(field="spec.version", message=message)])
        for content in checked.lists.values():
            await self._store.put_list(content.digest, canonical_list(content))
        await self._store.put_revision(_name(key), revision)
        return Activation(policy=_name(key), digest=revision.digest, version=version, time="", reason="")

    async def _first_whole(
        self,
        key: Key,
        route: Route,
        override: Override | None,
        known: Mapping[str, Activation],
        problems: list[Problem],
    ) -> LoadedPolicy | None:
        """Load what is in force; a revision that is gone or altered is a problem, and the next one is tried."""
        present = {digest for digest in (*known, *_pinned(override)) if digest}
        while digest := in_force(route, override, present):
            version = known[digest].version if digest in known else ""
            try:
                return await self._load(key, digest, version)
            except BaleenError as exc:
                problems.append(Problem(field="", message=f"revision {short(digest)} cannot be used: {exc}"))
                present.discard(digest)
        return None

    async def _load(self, key: Key, digest: str, version: str) -> LoadedPolicy:
        revision = await self._store.get_revision(digest)
        if revision is None:
            raise IntegrityError("the store", expected=digest, found="nothing")
        content = read_revision(revision)
        lists = [await self._load_list(each) for each in content.policy.lists]
        candidate = Candidate(name=key[1], namespace=key[0], created="", revision=content, version=version)
        compiled = compile_policy(key[1], version, content, self._signals)
        return LoadedPolicy(candidate=candidate, compiled=compiled, lists=tuple(lists))

    async def _load_list(self, wanted: PolicyList) -> CompiledList:
        digest = wanted.digest or ""
        place = (digest, wanted.max_distance)
        if place not in self._compiled_lists:
            text = await self._store.get_list(digest)
            if text is None:
                raise IntegrityError(f"list {wanted.name}", expected=digest, found="nothing")

            def compile_text(text: str = text) -> CompiledList:
                return compile_list(restore_list(wanted.type, digest, text), max_distance=wanted.max_distance)

            self._compiled_lists[place] = await self._off_loop(compile_text)
        return self._compiled_lists[place]

    async def _record(self, key: Key, digest: str, version: str, reason: str) -> None:
        time = datetime.fromtimestamp(self._wall_seconds(), UTC).isoformat(timespec="milliseconds")
        await self._store.record_activation(
            Activation(policy=_name(key), digest=digest, version=version, time=time, reason=reason)
        )

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def sort_documents(documents: Documents) -> Sorted:
    """Put documents in order by kind and name; what is no resource of ours, or is there twice, is a problem."""
    policies: dict[Key, Mapping[str, Any]] = {}
    overrides: dict[Key, Mapping[str, Any]] = {}
    contents: dict[Place, Mapping[str, Any]] = {}
    problems: list[Problem] = []
    for document in documents.documents:
        body, kind = document.body, document.body.get("kind")
        if kind in PASSED_OVER:
            continue
        try:
            key = _key(body)
            match kind:
                case "ModerationPolicy":
                    _put(policies, key, body)
                case "ModerationOverride":
                    _put(overrides, key, body)
                case "ConfigMap" | "Secret":
                    _put(contents, (ListSourceType(kind), *key), _texts(body))
                case _:
                    raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        except ValueError as exc:
            problems.append(Problem(field=document.file, message=str(exc)))
    return Sorted(policies=policies, overrides=overrides, contents=contents, problems=tuple(problems))


def check_policy(
    manifest: Mapping[str, Any],
    contents: Mapping[Place, Mapping[str, Any]],
    models: Sequence[Model],
    *,
    with_tests: bool = True,
) -> Checked:
    """Parse a policy, find its lists, run its tests.

    Raises:
        PolicyError: everything that is wrong with it.
    """
    policy = parse_policy(manifest)
    lists: dict[str, ListContent] = {}
    problems: list[Problem] = []
    for index, each in enumerate(policy.content.lists):
        path = f"spec.policy.lists[{index}]"
        try:
            assert each.source is not None, "a policy as written has the source of each list"
            lists[each.name] = read_list(each.type, _find_text(each.source, policy.namespace, contents))
        except InvalidError as exc:
            problems += [replace(one, field=f"{path}.{one.field}".rstrip(".")) for one in exc.problems]
        except LookupError as exc:
            problems.append(Problem(field=f"{path}.source", message=str(exc.args[0])))
    # With a list missing, tests that need it would fail for a reason that is not theirs.
    judged = policy if with_tests else replace(policy, tests=())
    problems += () if problems else find_problems(judged, lists, models)
    if problems:
        raise PolicyError(problems)
    return Checked(policy=policy, lists=lists)


def short(digest: str) -> str:
    """Shorten a digest for people."""
    return digest[:17]


def _find_text(source: ListSource, namespace: str, contents: Mapping[Place, Mapping[str, Any]]) -> str:
    found = contents.get((source.type, namespace, source.name))
    if found is None:
        known = (
            ", ".join(sorted(f"{kind.value} {name}" for kind, space, name in contents if space == namespace)) or "none"
        )
        raise LookupError(
            f"there is no {source.type.value} {source.name!r} in namespace {namespace}; there are: {known}"
        )
    if source.key not in found:
        keys = ", ".join(sorted(map(str, found))) or "none"
        raise LookupError(f"{source.type.value} {source.name!r} has no key {source.key!r}; its keys: {keys}")
    text = found[source.key]
    if not isinstance(text, str):
        raise LookupError(f"key {source.key!r} of {source.type.value} {source.name!r} is not text")
    return text


def _texts(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data") or {}
    if not isinstance(data, Mapping):
        raise ValueError("data is not a mapping of keys to text")
    if body["kind"] == "ConfigMap":
        return data
    try:
        decoded = {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
    except (binascii.Error, TypeError, UnicodeDecodeError) as exc:
        raise ValueError(f"data of the Secret is not base64 of UTF-8 text: {exc}") from None
    return decoded | dict(body.get("stringData") or {})


def _key(body: Mapping[str, Any]) -> Key:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ValueError("metadata.name is missing")
    return str(metadata.get("namespace") or DEFAULT_NAMESPACE), metadata["name"]


def _put(found: dict[H, Mapping[str, Any]], key: H, body: Mapping[str, Any]) -> None:
    if key in found:
        raise ValueError(f"{body.get('kind', 'the resource')} {key} is there twice; the first one counts")
    found[key] = body


def _pinned(override: Override | None) -> tuple[str, ...]:
    return (override.pin.digest,) if override and override.pin else ()


def _standing(policy: LoadedPolicy | None, said: Activation | None) -> Standing:
    if policy is None:
        return Standing.NOTHING
    if said is None:
        return Standing.LAST_GOOD
    return Standing.CURRENT if policy.candidate.revision.digest == said.digest else Standing.OVERRIDDEN


def _reason(standing: Standing, digest: str, override: Override | None) -> str:
    if standing is Standing.CURRENT:
        return "Applied"
    if override and override.pin and override.pin.digest == digest:
        return f"Pinned: {override.pin.reason}" if override.pin.reason else "Pinned"
    return "RolledBack" if override else standing.value


def _key_of(row: Activation) -> Key:
    namespace, _, name = row.policy.partition("/")
    return namespace, name


def _name(key: Key) -> str:
    return "/".join(key)
