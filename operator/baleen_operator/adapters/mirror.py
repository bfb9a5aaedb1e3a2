"""What was last seen of the cluster: compact bytes by kind and key, and the few indexes that reconciling asks for."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from baleen_core.errors import InvalidError
from baleen_core.model.parse import parse_model_deployment
from baleen_core.model.schema import Model, ModelDeployment
from baleen_core.policy.schema import ListSourceType, Scope
from baleen_core.resources import DEPLOYMENT_KIND, PLURALS, POLICY_KIND, POLICY_LABEL, REVISION_KIND, ROUTE_KIND
from baleen_operator.reconcile.ports import Key, Manifest

logger = logging.getLogger(__name__)

MAX_REMEMBERED_DELETIONS: Final = 10_000

Source = tuple[ListSourceType, str, str]
"""Kind, namespace and name of what a list's entries are written in."""
Kinship = tuple[str, Scope]
"""Type and scope, for which policies compete."""
DEFAULT_TYPE: Final = "Moderation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the indexes keep of a policy, or of its route, which may outlive it."""

    kinship: Kinship | None = None
    sources: frozenset[Source] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something is not as it was: what, the policies that it is about, and the traits of a policy or route."""

    kind: str
    key: Key
    policies: frozenset[Key] = frozenset()
    before: Traits | None = None
    after: Traits | None = None
    models_changed: bool = False
    """What the deployments serve may be something else now."""


@dataclass(slots=True)
class _Entry:
    resource_version: int
    data: bytes
    policy: str = ""
    """The policy that a revision is of."""


@dataclass(slots=True)
class _Served:
    """What a ModelDeployment claims and serves as its generation says; nothing where that is not valid."""

    uid: str
    generation: int
    created: str
    names: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()


class Mirror:
    """Keeps the newest version of each resource, never an older one, and remembers what is gone.

    `on_change` hears of what others changed, and not of what was put with `own`. `is_allowed` says whether the
    installation lets a ModelDeployment run, and always the same of the same one.
    """

    def __init__(
        self,
        on_change: Callable[[Change], None] = lambda change: None,
        *,
        is_allowed: Callable[[ModelDeployment], bool] = lambda deployment: True,
    ) -> None:
        self.on_change = on_change
        self._is_allowed = is_allowed
        self._entries: dict[str, dict[Key, _Entry]] = {kind: {} for kind in PLURALS}
        self._gone: OrderedDict[tuple[str, Key], int] = OrderedDict()
        self._traits: dict[tuple[str, Key], Traits] = {}
        self._kin: dict[Kinship, dict[tuple[str, Key], None]] = {}
        self._readers: dict[Source, dict[Key, None]] = {}
        self._revisions: dict[Key, dict[Key, None]] = {}
        self._served: dict[Key, _Served] = {}
        self._held: dict[tuple[str, Key], list[tuple[int, Change]]] = {}
        self._claimed: tuple[tuple[Model, ...], Mapping[str, Key]] | None = ((), {})

    def get(self, kind: str, key: Key) -> Manifest | None:
        """Return a resource without its managedFields; None when it is not there."""
        entry = self._entries[kind].get(key)
        return None if entry is None else msgspec.json.decode(entry.data)

    def keys(self, kind: str) -> Sequence[Key]:
        """Return the keys of all resources of a kind."""
        return tuple(self._entries[kind])

    def count(self, kind: str) -> int:
        """Return how many resources of a kind there are."""
        return len(self._entries[kind])

    def revisions(self, key: Key) -> Sequence[Manifest]:
        """Return the revisions of a policy in the order of their names."""
        found = (self.get(REVISION_KIND, each) for each in sorted(self._revisions.get(key, ())))
        return tuple(each for each in found if each is not None)

    def sharing_scope(self, type: str, scope: Scope) -> Sequence[Key]:
        """Return the policies of this type and scope, or with a route of it, in the order of their keys."""
        return tuple(sorted({key for _, key in self._kin.get((type, scope), ())}))

    def models(self) -> Sequence[Model]:
        """Return the models of the deployments that are valid and allowed, and claim no name of an older one."""
        return self._claim_names()[0]

    def claimant(self, model: str) -> Key | None:
        """Return the deployment whose model of this name counts: the oldest valid one, also if it is not allowed."""
        return self._claim_names()[1].get(model)

    def reading(self, source: Source) -> Sequence[Key]:
        """Return the policies that have a list in this ConfigMap or Secret."""
        return tuple(sorted(self._readers.get(source, ())))

    def with_lists(self) -> Sequence[Key]:
        """Return the policies that have lists."""
        return tuple(sorted({key for keys in self._readers.values() for key in keys}))

    def reads_secrets(self, key: Key) -> bool:
        """Say whether a list of this policy is in a Secret."""
        traits = self._traits.get((POLICY_KIND, key))
        return traits is not None and any(kind is ListSourceType.SECRET for kind, _, _ in traits.sources)

    def put(self, kind: str, manifest: Manifest, *, own: bool = False) -> bool:
        """Keep a resource unless what is kept is as new; say whether it was newer."""
        metadata = manifest["metadata"]
        key = (metadata["namespace"], metadata["name"])
        version = int(metadata["resourceVersion"])
        known = self._entries[kind].get(key)
        if known is not None and known.resource_version >= version:
            return False
        if self._gone.get((kind, key), 0) >= version:
            return False
        self._gone.pop((kind, key), None)
        entry = _Entry(version, _compact(kind, manifest))
        self._entries[kind][key] = entry
        change = self._index(kind, key, known, entry, manifest)
        if not own:
            self._tell(change, version)
        return True

    def remove(self, kind: str, key: Key, resource_version: str | int, *, own: bool = False) -> bool:
        """Forget a resource, unless a newer one of its name is known; say whether it was known."""
        version = int(resource_version)
        known = self._entries[kind].get(key)
        if known is not None and known.resource_version > version:
            return False
        self._gone[kind, key] = max(version, self._gone.get((kind, key), 0))
        self._gone.move_to_end((kind, key))
        if len(self._gone) > MAX_REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)
        if known is None:
            return False
        del self._entries[kind][key]
        change = self._index(kind, key, known, None, None)
        if not own:
            self._tell(change, version)
        return True

    @contextmanager
    def writing(self, kind: str, key: Key) -> Iterator[Callable[[str], None]]:
        """Hold back what is seen of a resource while it is written; yields where its new version is to be told.

        The watch is often faster than the answer, and what it then reports is the operator's own doing.
        """
        own: list[int] = []
        held = self._held.setdefault((kind, key), [])
        try:
            yield lambda version: own.append(int(version))
        finally:
            self._held.pop((kind, key), None)
            for version, change in held:
                if version not in own:
                    self.on_change(change)

    def _tell(self, change: Change, version: int) -> None:
        held = self._held.get((change.kind, change.key))
        if held is None:
            self.on_change(change)
        else:
            held.append((version, change))

    def keep_only(self, kind: str, keys: Collection[Key], resource_version: str | int, namespace: str = "") -> None:
        """Forget what a list of a namespace (empty: of all) does not have, unless it is newer than that list."""
        gone = [key for key in self._entries[kind] if key not in keys and namespace in ("", key[0])]
        for key in gone:
            self.remove(kind, key, resource_version)

    def _index(
        self, kind: str, key: Key, known: _Entry | None, entry: _Entry | None, manifest: Manifest | None
    ) -> Change:
        if kind in (POLICY_KIND, ROUTE_KIND):
            return self._index_traits(kind, key, manifest)
        if kind == REVISION_KIND:
            return self._index_revision(key, known, entry, manifest)
        if kind == DEPLOYMENT_KIND:
            return self._index_deployment(key, manifest)
        return Change(kind=kind, key=key, policies=frozenset({key}))

    def _index_traits(self, kind: str, key: Key, manifest: Manifest | None) -> Change:
        before = self._traits.pop((kind, key), None)
        after = None if manifest is None else read_traits(manifest)
        if before is not None:
            _drop(self._kin, [before.kinship] if before.kinship else [], (kind, key))
            _drop(self._readers, before.sources, key)
        if after is not None:
            self._traits[kind, key] = after
            if after.kinship:
                self._kin.setdefault(after.kinship, {})[kind, key] = None
            for source in after.sources:
                self._readers.setdefault(source, {})[key] = None
        return Change(kind=kind, key=key, policies=frozenset({key}), before=before, after=after)

    def _index_revision(
        self, key: Key, known: _Entry | None, entry: _Entry | None, manifest: Manifest | None
    ) -> Change:
        policies = set()
        if known is not None:
            policies.add((key[0], known.policy))
            _drop(self._revisions, policies, key)
        if entry is not None and manifest is not None:
            # A label is not immutable as the spec is, and may be missing.
            entry.policy = str((manifest["metadata"].get("labels") or {}).get(POLICY_LABEL, ""))
            policies.add((key[0], entry.policy))
            self._revisions.setdefault((key[0], entry.policy), {})[key] = None
        return Change(kind=REVISION_KIND, key=key, policies=frozenset(each for each in policies if each[1]))

    def _index_deployment(self, key: Key, manifest: Manifest | None) -> Change:
        known = self._served.get(key)
        if manifest is None:
            self._served.pop(key, None)
        else:
            metadata = manifest["metadata"]
            uid, generation = str(metadata.get("uid", "")), int(metadata.get("generation", 0))
            # Each object of a name begins to count its generations anew, and its deletion may not have been seen.
            if known is not None and (known.uid, known.generation) == (uid, generation):
                return Change(kind=DEPLOYMENT_KIND, key=key)
            self._served[key] = self._read_served(manifest, uid, generation)
        # Even with models as they were: it may be another deployment of that name, and younger.
        self._claimed = None
        return Change(kind=DEPLOYMENT_KIND, key=key, models_changed=True)

    def _read_served(self, manifest: Manifest, uid: str, generation: int) -> _Served:
        created = str(manifest["metadata"].get("creationTimestamp", ""))
        try:
            deployment = parse_model_deployment(manifest)
        except InvalidError:
            # Its own reconcile says what is wrong with it.
            return _Served(uid, generation, created)
        # Gateways give a name to the oldest and know no rules: let go here, it would lead to this one all the same.
        names = tuple(model.name for model in deployment.models)
        return _Served(uid, generation, created, names, deployment.models if self._is_allowed(deployment) else ())

    def _claim_names(self) -> tuple[tuple[Model, ...], Mapping[str, Key]]:
        if self._claimed is None:
            claims: dict[str, Key] = {}
            models: list[Model] = []
            for key, served in sorted(self._served.items(), key=lambda each: (each[1].created, each[0])):
                # All its names are claimed, also when the deployment is refused for one of them.
                owners = [claims.setdefault(name, key) for name in served.names]
                if all(owner == key for owner in owners):
                    models += served.models
            self._claimed = tuple(models), claims
        return self._claimed


def read_traits(manifest: Manifest) -> Traits:
    """Read what is indexed of a policy or route from its resource, which may be wrong in any way."""
    spec = _mapping(manifest.get("spec"))
    namespace = manifest["metadata"]["namespace"]
    scope = _mapping(spec.get("scope"))
    fields = {name: scope.get(name) for name in ("tenant", "surface", "source")}
    kinship = None
    type = spec.get("type", DEFAULT_TYPE)
    if isinstance(type, str) and all(isinstance(value, str | None) for value in fields.values()):
        kinship = (type, Scope(**fields))
    sources = frozenset(_sources(namespace, _mapping(spec.get("policy")).get("lists")))
    return Traits(kinship=kinship, sources=sources)


def _sources(namespace: str, lists: object) -> Iterable[Source]:
    for each in lists if isinstance(lists, list) else ():
        source = _mapping(_mapping(each).get("source"))
        kind, name = source.get("type"), source.get("name")
        if kind in _SOURCE_TYPES and isinstance(name, str):
            yield ListSourceType(kind), namespace, name


_SOURCE_TYPES: Final = frozenset(each.value for each in ListSourceType)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _compact(kind: str, manifest: Manifest) -> bytes:
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    # Items of a list do not say what they are.
    return msgspec.json.encode(
        {"apiVersion": "moderation.baleen.dev/v1alpha1", "kind": kind, **manifest, "metadata": metadata}
    )


def _drop(index: dict[Any, dict[Any, None]], names: Iterable[Any], key: object) -> None:
    for name in names:
        found = index.get(name)
        if found is not None:
            found.pop(key, None)
            if not found:
                del index[name]
