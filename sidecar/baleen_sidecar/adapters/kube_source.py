"""What is published, from the API server: Routes, Revisions, Overrides and ModelDeployments, joined by policy."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from baleen_core.checking import texts_of
from baleen_core.errors import ClusterError, InvalidError, Problem
from baleen_core.policy.in_force import Override, parse_override
from baleen_core.policy.schema import MAX_LIST_BYTES, ListType, Revision
from baleen_core.resources import (
    DEPLOYMENT_KIND,
    MAX_SHARD_BYTES,
    OVERRIDE_KIND,
    REVISION_KIND,
    ROUTE_KIND,
    SHARD_KEY,
    SHARDS_ANNOTATION,
    PublishedPolicy,
    PublishedRoute,
    join_list,
    list_object_name,
    read_revision_resource,
    read_route,
)
from baleen_sidecar.adapters.kube_client import Call, KubeClient, Refused
from baleen_sidecar.adapters.latest import Latest
from baleen_sidecar.adapters.reflector import BACKOFF, Reflector
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.flow.reflection import Change, Manifest
from baleen_sidecar.ports import Adopted, Key, Published

log = logging.getLogger(__name__)

MAX_SHARDS: Final = 2 * MAX_LIST_BYTES // MAX_SHARD_BYTES
"""A shard ends before the line that would not fit, so that some are not full; none is half empty."""
MAX_SHARD_ANSWER_BYTES: Final = 8 * 1024 * 1024
_LIST_KINDS: Final = (("ConfigMap", "configmaps"), ("Secret", "secrets"))
_VOLATILE: Final = frozenset({"managedFields", "resourceVersion"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept(Generic[T]):
    """What was read of an object last, if ever it could be, and why it cannot be read as it is now."""

    value: T | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamedRevision:
    """A revision, the policy that it is of, and its version."""

    policy: str
    version: str
    revision: Revision


class KubeSource:
    """The PolicySource of a gateway; `run` follows the API server and belongs to the application's task group."""

    def __init__(self, client: KubeClient, *, namespaces: Sequence[str] = (), backoff: BackoffRules = BACKOFF) -> None:
        self._client = client
        self._routes: dict[Key, PublishedRoute] = {}
        self._overrides: dict[Key, tuple[Override | None, str]] = {}
        self._revisions: dict[Key, dict[str, _NamedRevision]] = {}
        self._deployments: dict[Key, Mapping[str, Any]] = {}
        self._problems: dict[tuple[str, Key], tuple[Problem, ...]] = {}
        self._touched: set[Key] = set()
        self._woken = asyncio.Event()
        self._known: Published | None = None
        self._latest: Latest[Published] = Latest()
        self.adopted: Mapping[Key, Adopted] = {}
        """What was reported last."""

        def follow(
            kind: str, namespace: str, read: Callable[[Manifest], T], on_change: Callable[[Change[_Kept[T]]], None]
        ) -> Reflector[_Kept[T]]:
            def keep(manifest: Manifest, before: _Kept[T] | None) -> _Kept[T]:
                return _read(kind, manifest, read, before)

            def changed(changes: Sequence[Change[_Kept[T]]]) -> None:
                for change in changes:
                    self._note_problems(kind, change)
                    on_change(change)
                self._woken.set()

            return Reflector(client, kind, keep, changed, namespace=namespace, backoff=backoff)

        self._reflectors: list[Reflector[Any]] = []
        for namespace in namespaces or ("",):
            self._reflectors += (
                follow(ROUTE_KIND, namespace, read_route, self._route_changed),
                follow(REVISION_KIND, namespace, _read_revision, self._revision_changed),
                follow(OVERRIDE_KIND, namespace, parse_override, self._override_changed),
                follow(DEPLOYMENT_KIND, namespace, _read_deployment, self._deployment_changed),
            )

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.follow())
            group.create_task(self._publish())

    def published(self) -> AsyncGenerator[Published, None]:
        """Yield the newest state whenever asked and there is one; for any number of readers."""
        return self._latest.follow()

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        """Read the shards of a list from ConfigMaps, or else from Secrets.

        Raises:
            ClusterError: the API server refused (verb and resource are named) or did not answer, or the object is not
            one of the operator's.
        """
        for kind, plural in _LIST_KINDS:
            first = await self._read_shard(kind, plural, namespace, list_object_name(digest, 0))
            if first is None:
                continue
            text, count = first
            shards = [text]
            for number in range(1, count):
                shard = await self._read_shard(kind, plural, namespace, list_object_name(digest, number))
                if shard is None:
                    return None
                shards.append(shard[0])
            return join_list(shards)
        return None

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        """Remember it for whoever asks for the convergence."""
        self.adopted = adopted

    @property
    def problem(self) -> str:
        """Say what is not followed now, the first of it in full."""
        found = list(dict.fromkeys(each.problem for each in self._reflectors if each.problem))
        return "" if not found else found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")

    async def _publish(self) -> None:
        """Publish what changed as soon as nothing more is at hand; nothing before everything was listed."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            if all(each.is_whole for each in self._reflectors):
                self._rebuild()

    def _rebuild(self) -> None:
        before = self._known
        policies = dict(before.policies) if before else {}
        is_same = before is not None
        for key in self._touched:
            found, known = self._join(key), policies.get(key)
            if found == known:
                continue
            is_same = False
            if found is None:
                del policies[key]
            else:
                policies[key] = found
        self._touched.clear()
        deployments = tuple(self._deployments[key] for key in sorted(self._deployments))
        problems = tuple(problem for place in sorted(self._problems) for problem in self._problems[place])
        if before is not None and is_same and (deployments, problems) == (before.deployments, before.problems):
            return
        self._known = Published(policies=policies, deployments=deployments, problems=problems)
        self._latest.put(self._known)

    def _join(self, key: Key) -> PublishedPolicy | None:
        route = self._routes.get(key)
        if route is None:
            return None
        override, problem = self._overrides.get(key, (None, ""))
        named = {route.route.stable, *route.route.recent_stable}
        named |= {route.route.candidate.digest} if route.route.candidate else set()
        named |= {override.pin.digest} if override and override.pin else set()
        # What nobody names cannot come into force: it must neither wake a thousand sidecars nor travel to them.
        mine = [each for each in self._revisions.get(key, {}).values() if each.revision.digest in named]
        return PublishedPolicy(
            route=route,
            override=override,
            override_problem=problem,
            revisions={each.revision.digest: each.revision for each in mine},
            versions={each.revision.digest: each.version for each in mine},
        )

    def _note_problems(self, kind: str, change: Change[_Kept[T]]) -> None:
        # An override that cannot be read holds back its own policy, and nothing else.
        if change.after is not None and change.after.problems and kind != OVERRIDE_KIND:
            self._problems[kind, change.key] = change.after.problems
            if change.before is None or change.before.problems != change.after.problems:
                log.warning("unreadable", extra={"problems": [str(each) for each in change.after.problems]})
        else:
            self._problems.pop((kind, change.key), None)

    def _route_changed(self, change: Change[_Kept[PublishedRoute]]) -> None:
        self._touched.add(change.key)
        if change.after is not None and change.after.value is not None:
            self._routes[change.key] = change.after.value
        else:
            self._routes.pop(change.key, None)

    def _override_changed(self, change: Change[_Kept[Override]]) -> None:
        self._touched.add(change.key)
        if change.after is None:
            self._overrides.pop(change.key, None)
        elif change.after.problems:
            self._overrides[change.key] = None, "; ".join(map(str, change.after.problems))
        else:
            self._overrides[change.key] = change.after.value, ""

    def _revision_changed(self, change: Change[_Kept[_NamedRevision]]) -> None:
        namespace, name = change.key
        if change.before is not None and change.before.value is not None:
            owner = (namespace, change.before.value.policy)
            self._touched.add(owner)
            if mine := self._revisions.get(owner):
                mine.pop(name, None)
                if not mine:
                    del self._revisions[owner]
        if change.after is not None and change.after.value is not None:
            owner = (namespace, change.after.value.policy)
            self._touched.add(owner)
            self._revisions.setdefault(owner, {})[name] = change.after.value

    def _deployment_changed(self, change: Change[_Kept[Mapping[str, Any]]]) -> None:
        if change.after is not None and change.after.value is not None:
            self._deployments[change.key] = change.after.value
        else:
            self._deployments.pop(change.key, None)

    async def _read_shard(self, kind: str, plural: str, namespace: str, name: str) -> tuple[str, int] | None:
        """Return a shard's text and how many there are; None when it is not there."""
        path = f"/api/v1/namespaces/{namespace}/{plural}/{name}"
        call = Call(verb="get", resource=plural, namespace=namespace, path=path)
        try:
            found = await self._client.get(call, limit_bytes=MAX_SHARD_ANSWER_BYTES)
        except Refused as exc:
            if exc.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        try:
            texts = texts_of({"kind": kind, "data": found.get("data")})
            annotations = found["metadata"].get("annotations") or {}
            return _shard_of(texts, annotations)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ClusterError(f"{kind} {namespace}/{name} is not a list as the operator writes it: {exc}") from None


def _shard_of(texts: Mapping[str, Any], annotations: Mapping[str, str]) -> tuple[str, int]:
    text = texts.get(SHARD_KEY)
    if not isinstance(text, str):
        raise ValueError(f"key {SHARD_KEY} has no text")
    count = int(annotations.get(SHARDS_ANNOTATION, "1")[:9])
    if not 1 <= count <= MAX_SHARDS:
        raise ValueError(f"annotation {SHARDS_ANNOTATION} is {count}; it must be 1 to {MAX_SHARDS}")
    return text, count


def _read(kind: str, manifest: Manifest, read: Callable[[Manifest], T], before: _Kept[T] | None) -> _Kept[T]:
    metadata = manifest["metadata"]
    try:
        return _Kept(value=read(manifest))
    except InvalidError as exc:
        # What is wrong with an override is said at its policy, where its place goes without saying.
        place = "" if kind == OVERRIDE_KIND else f"{kind} {metadata['namespace']}/{metadata['name']}: "
        problems = tuple(Problem(field=f"{place}{each.field}", message=each.message) for each in exc.problems)
        return _Kept(value=before.value if before else None, problems=problems)


def _read_revision(manifest: Manifest) -> _NamedRevision:
    policy, version, revision = read_revision_resource(manifest)
    return _NamedRevision(policy=policy, version=version, revision=revision)


def _read_deployment(manifest: Manifest) -> Mapping[str, Any]:
    # They change with every write, whoever writes what.
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _VOLATILE}
    return {**manifest, "metadata": metadata}
