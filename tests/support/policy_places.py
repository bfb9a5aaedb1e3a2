"""Places that policies come from, each with what follows it, so that one suite can ask the same of all of them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from api_access import Administrator, Disturbed, TcpProxy, gateway_access, kube_client
from baleen_core.assignment import Assignment, Exposure
from baleen_core.decision.snapshot import PolicySnapshot
from baleen_core.errors import Problem
from baleen_core.policy.in_force import Route, RoutedCandidate, parse_override
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision
from baleen_core.policy.schema import ListContent, ListType, Revision
from baleen_core.resources import PublishedRoute
from baleen_sidecar.adapters.kube_source import KubeSource
from baleen_sidecar.adapters.policy_dir import PolicyFolder
from baleen_sidecar.adapters.stream_source import StreamSource
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.ports import PolicySource, Published
from baleen_sidecar.testing import MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.adopt_routes import AdoptRoutes
from control_plane import ControlPlane
from gateways import FedSource, Gateway
from policies import policy_manifest
from publishing import Publication

LOOK_SECONDS = 0.1
"""How soon what is lacking is asked for again."""
QUICK = BackoffRules(first_seconds=0.05, highest_seconds=0.5, spread=1.0, settled_seconds=10)


class Place(Protocol):
    """Where policies are written, and what is in force because of it. A policy is one list of terms."""

    async def put(self, name: str, terms: str) -> None:
        """Write a policy, or another content of one."""

    async def override(self, name: str, **spec: Any) -> None:
        """Write what the person on call says."""

    async def lift(self, name: str) -> None:
        """Take the override away."""

    async def remove(self, name: str) -> None:
        """Take a policy away."""

    async def spoil(self, name: str) -> None:
        """Make a policy unreadable."""

    def snapshot(self) -> PolicySnapshot:
        """Return what is in force."""


class Remote(Place, Protocol):
    """A place that can be out of reach, and where policies are rolled out."""

    source: PolicySource

    async def roll_out(self, name: str, terms: str, exposure: Exposure) -> None:
        """Write other terms as a candidate beside what was put last."""

    async def go_away(self) -> None:
        """Be out of reach."""

    async def come_back(self) -> None:
        """Be there again."""


def content_of(terms: str) -> ListContent:
    """Return the list of a policy."""
    return read_list(ListType.TERMS, terms)


def manifest_of(namespace: str, name: str) -> dict[str, Any]:
    """Write a policy as its author does."""
    source = {"type": "ConfigMap", "name": f"{name}-terms", "key": "terms"}
    written = policy_manifest({"lists": [{"name": "terms", "type": "Terms", "action": "Review", "source": source}]})
    # Two policies of one scope would compete.
    written["spec"]["scope"] = {"surface": name}
    written["metadata"] = {"name": name, "namespace": namespace}
    return written


def revision_of(name: str, terms: str) -> Revision:
    """Return the revision that a policy with these terms is."""
    return make_revision(parse_policy(manifest_of("any", name)), {"terms": content_of(terms)})


@dataclass
class FolderPlace:
    """Files that somebody edits."""

    folder: Path
    adopt: AdoptPolicies
    namespace: str = "trust-safety"

    async def put(self, name: str, terms: str) -> None:
        metadata = {"name": f"{name}-terms", "namespace": self.namespace}
        texts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"terms": terms}}
        self._write(name, manifest_of(self.namespace, name), texts)

    async def override(self, name: str, **spec: Any) -> None:
        self._write(f"{name}-override", _override(self.namespace, name, spec))

    async def lift(self, name: str) -> None:
        (self.folder / f"{name}-override.yaml").unlink()

    async def remove(self, name: str) -> None:
        (self.folder / f"{name}.yaml").unlink()

    async def spoil(self, name: str) -> None:
        (self.folder / f"{name}.yaml").write_text("kind: [ModerationPolicy")

    def snapshot(self) -> PolicySnapshot:
        return self.adopt.current()

    def _write(self, file: str, *manifests: Any) -> None:
        # At once, as a mounted ConfigMap is changed: half a file would be another case.
        part = self.folder / f".{file}"
        part.write_text(yaml.safe_dump_all(manifests))
        part.rename(self.folder / f"{file}.yaml")


@dataclass
class Publisher:
    """What an operator makes of policies that are written one after the other."""

    namespace: str
    contents: dict[str, list[str]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    def publish(self, name: str, terms: str) -> Publication:
        """Return everything that is to be known of the policy from now on."""
        self.contents.setdefault(name, []).append(terms)
        return self._write(name, None)

    def roll_out(self, name: str, terms: str, exposure: Exposure) -> Publication:
        """Return everything that is to be known of the policy with a candidate beside it."""
        candidate = RoutedCandidate(
            digest=revision_of(name, terms).digest, exposure=exposure, assignment=Assignment(salt="salt")
        )
        return self._write(name, candidate, terms)

    def _write(self, name: str, candidate: RoutedCandidate | None, *more: str) -> Publication:
        history = self.contents[name]
        self.epochs[name] = self.epochs.get(name, 0) + 1
        revisions = [revision_of(name, each) for each in history]
        policy = parse_policy(manifest_of(self.namespace, name))
        route = PublishedRoute(
            namespace=self.namespace,
            name=name,
            epoch=self.epochs[name],
            type=policy.type,
            role=policy.role,
            scope=policy.scope,
            created="2026-01-01T00:00:00Z",
            route=Route(
                stable=revisions[-1].digest,
                recent_stable=tuple(dict.fromkeys(each.digest for each in reversed(revisions[:-1]))),
                candidate=candidate,
            ),
        )
        revisions += [revision_of(name, each) for each in more]
        versions = tuple((f"v{number}", revision) for number, revision in enumerate(revisions, 1))
        lists = tuple(content_of(each) for each in (*history, *more))
        return Publication(route=route, revisions=versions, lists=lists)


@dataclass
class ClusterPlace:
    """Objects of an API server, in reach through a proxy."""

    source: PolicySource
    adopt: AdoptRoutes
    admin: Administrator
    proxy: TcpProxy
    transport: Disturbed
    publisher: Publisher

    async def put(self, name: str, terms: str) -> None:
        self.admin.put(*self.publisher.publish(name, terms).manifests())

    async def roll_out(self, name: str, terms: str, exposure: Exposure) -> None:
        self.admin.put(*self.publisher.roll_out(name, terms, exposure).manifests())

    async def override(self, name: str, **spec: Any) -> None:
        self.admin.put(_override(self.publisher.namespace, name, spec))

    async def lift(self, name: str) -> None:
        self.admin.delete("ModerationOverride", self.publisher.namespace, name)

    async def remove(self, name: str) -> None:
        self.admin.delete("ModerationRoute", self.publisher.namespace, name)

    async def spoil(self, name: str) -> None:
        self.transport.replaced[b'"role":"Policy"'] = b'"role":"Advice"'
        await self.put(name, "of a later release")

    def snapshot(self) -> PolicySnapshot:
        return self.adopt.current()

    async def go_away(self) -> None:
        self.proxy.is_open = False
        self.proxy.cut()

    async def come_back(self) -> None:
        self.proxy.is_open = True


@dataclass
class StreamPlace:
    """A gateway's stream."""

    source: PolicySource
    adopt: AdoptRoutes
    gateway: Gateway
    publisher: Publisher

    @property
    def fed(self) -> FedSource:
        """Return what the gateway itself follows."""
        found = self.gateway.source
        assert isinstance(found, FedSource)
        return found

    async def put(self, name: str, terms: str) -> None:
        self._publish(self.publisher.publish(name, terms))

    async def roll_out(self, name: str, terms: str, exposure: Exposure) -> None:
        self._publish(self.publisher.roll_out(name, terms, exposure))

    def _publish(self, published: Publication) -> None:
        self.fed.lists |= {each.digest: canonical_list(each) for each in published.lists}
        known = self.fed.state.policies.get(published.policy.key)
        self._say(replace(published.policy, override=known.override if known else None))

    async def override(self, name: str, **spec: Any) -> None:
        override = parse_override(_override(self.publisher.namespace, name, spec))
        self._say(replace(self.fed.state.policies[self.publisher.namespace, name], override=override))

    async def lift(self, name: str) -> None:
        self._say(replace(self.fed.state.policies[self.publisher.namespace, name], override=None))

    async def remove(self, name: str) -> None:
        gone = (self.publisher.namespace, name)
        self.fed.say(*(each for key, each in self.fed.state.policies.items() if key != gone))

    async def spoil(self, name: str) -> None:
        self.fed.complain(Problem(field=f"ModerationRoute {self.publisher.namespace}/{name}: spec", message="is odd"))

    def snapshot(self) -> PolicySnapshot:
        return self.adopt.current()

    async def go_away(self) -> None:
        await self.gateway.stop()

    async def come_back(self) -> None:
        await self.gateway.start()

    def _say(self, changed: Any) -> None:
        self.fed.say(*{**self.fed.state.policies, changed.key: changed}.values())


@asynccontextmanager
async def folder_place(folder: Path) -> AsyncIterator[FolderPlace]:
    """Follow a folder."""
    with ThreadPoolExecutor(1) as executor:
        adopt = AdoptPolicies(MemoryRevisionStore(), (), executor=executor, wall_seconds=time.time)
        watching = asyncio.ensure_future(PolicyFolder(folder, adopt).watch())
        try:
            yield FolderPlace(folder=folder, adopt=adopt)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def cluster_place(plane: ControlPlane, namespace: str, folder: Path) -> AsyncIterator[ClusterPlace]:
    """Follow a namespace of an API server, as a gateway does."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy(urlsplit(plane.url).port or 443))
        access = gateway_access(plane, folder, url=f"https://127.0.0.1:{proxy.port}")
        transport = Disturbed(plane.ca)
        client = await stack.enter_async_context(kube_client(access, transport))
        source = KubeSource(client, namespaces=[namespace], backoff=QUICK)
        admin = Administrator(plane)
        stack.callback(admin.close)
        adopt = await stack.enter_async_context(adopting(source, source.run))
        yield ClusterPlace(
            source=source,
            adopt=adopt,
            admin=admin,
            proxy=proxy,
            transport=transport,
            publisher=Publisher(namespace=namespace),
        )


@asynccontextmanager
async def stream_place(folder: Path) -> AsyncIterator[StreamPlace]:
    """Follow a gateway, as an injected sidecar does."""
    made = Gateway()
    await made.start()
    (folder / "token").write_text("shop-token")
    source = StreamSource(made.url, folder / "token", replica="shop-1", backoff=QUICK)
    made.source.say()
    try:
        async with adopting(source, source.run) as adopt:
            yield StreamPlace(source=source, adopt=adopt, gateway=made, publisher=Publisher(namespace="trust-safety"))
    finally:
        await source.aclose()
        await made.stop()


@asynccontextmanager
async def adopting(source: PolicySource, run: Callable[[], Any]) -> AsyncIterator[AdoptRoutes]:
    """Put in force what a source publishes."""
    with ThreadPoolExecutor(1) as executor:
        adopt = AdoptRoutes(MemoryRevisionStore(), source, frozenset, executor=executor, wall_seconds=time.time)

        newest: list[Published] = []
        woken = asyncio.Event()

        async def take() -> None:
            async for published in source.published():
                newest[:] = [published]
                woken.set()

        async def follow() -> None:
            is_due = False
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS if is_due else None):
                        await woken.wait()
                woken.clear()
                is_due = await adopt.adopt(newest[0]) is not None
                while adopt.lacks_lists and await adopt.fetch_lists():
                    is_due = await adopt.adopt(newest[0]) is not None
                await source.report(adopt.adopted())

        tasks = [asyncio.ensure_future(each) for each in (take(), follow(), run())]
        try:
            yield adopt
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _override(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
