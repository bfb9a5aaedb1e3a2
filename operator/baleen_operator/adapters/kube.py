"""What the operator reads and writes in the cluster: server-side apply with one field manager, raw JSON underneath."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from baleen_core.checking import texts_of
from baleen_core.errors import ClusterError, Stale
from baleen_core.policy.schema import ListSourceType
from baleen_core.resources import GROUP, PLURALS, VERSION
from baleen_operator.adapters.api import APPLY, METADATA_ONLY, ApiServer, Call, call_on
from baleen_operator.adapters.events import Events
from baleen_operator.adapters.mirror import Mirror
from baleen_operator.plan.actions import Action, Apply, ApplyStatus, Delete, Emit, Scale, Target
from baleen_operator.reconcile.ports import Manifest

logger = logging.getLogger(__name__)

FIELD_MANAGER: Final = "baleen-operator"
PAGE: Final = 100
"""Objects a page: parsed they are ten times as large as in the mirror, and only one page is parsed at a time."""
NEVER: Final = "1"
"""A resourceVersion that no object has: applied with it, an object is made, and one that is there is refused."""

TARGETS: Final[Mapping[str, Target]] = {
    kind: Target(group=GROUP, version=VERSION, plural=plural, kind=kind) for kind, plural in PLURALS.items()
}
TEXTS: Final[Mapping[ListSourceType, Target]] = {
    ListSourceType.CONFIG_MAP: Target(group="", version="v1", plural="configmaps", kind="ConfigMap"),
    ListSourceType.SECRET: Target(group="", version="v1", plural="secrets", kind="Secret"),
}


class KubeCluster:
    """The API server as reconciling needs it; what is written is in the mirror at once.

    `may_write` says whether this replica holds the Lease: without it nothing is written, whatever was planned before.
    """

    def __init__(self, api: ApiServer, mirror: Mirror, events: Events, *, may_write: Callable[[], bool]) -> None:
        self._api = api
        self._mirror = mirror
        self._events = events
        self._may_write = may_write

    async def read_texts(self, type: ListSourceType, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return the texts of a ConfigMap or Secret by their keys; None when there is no such object.

        Raises:
            ValueError: its data is not text. ClusterError: refused, or no answer.
        """
        data = await self._api.request(call_on(TEXTS[type], "get", namespace, name))
        return None if data is None else texts_of({**decode_object(data), "kind": type.value})

    async def list_metadata(self, type: ListSourceType, namespace: str, name: str) -> Manifest | None:
        """Return the metadata of an object that keeps a list; None when it is not there."""
        data = await self._api.request(call_on(TEXTS[type], "get", namespace, name), accept=METADATA_ONLY)
        if data is None:
            return None
        metadata: Manifest = decode_object(data)["metadata"]
        return metadata

    async def read(self, target: Target, namespace: str, name: str) -> Manifest | None:
        """Return an object of any kind; None when it is not there."""
        data = await self._api.request(call_on(target, "get", namespace, name))
        return None if data is None else decode_object(data)

    async def read_scale(self, target: Target, namespace: str, name: str) -> Manifest | None:
        """Return the Scale of a workload; None when it is not there."""
        data = await self._api.request(call_on(target, "get", namespace, name, subresource="scale"))
        return None if data is None else decode_object(data)

    async def look_for(self, target: Target, namespace: str, name: str) -> Manifest | None:
        """Return an object of a kind that may be listed, though not read one by one; None when it is not there."""
        found = [item async for items, _ in self.list_all(target, namespace, name=name) for item in items]
        return found[0] if found else None

    async def select(self, target: Target, namespace: str, labels: Mapping[str, str]) -> Sequence[Manifest]:
        """Return the objects of a namespace that have all these labels, in the order of their names."""
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        found = [item async for items, _ in self.list_all(target, namespace, labels=selector) for item in items]
        return sorted(found, key=lambda each: str(each["metadata"]["name"]))

    async def act(self, action: Action) -> Manifest | None:
        """Carry an action out; return the object as it is afterwards, if the server says."""
        if not self._may_write():
            raise ClusterError("this replica does not hold the Lease: nothing is written")
        match action:
            case Apply():
                return await self._apply(action)
            case ApplyStatus():
                return await self._apply_status(action)
            case Delete():
                await self._delete(action)
            case Scale():
                return await self._scale(action)
            case Emit():
                self._events.emit(action)
        return None

    async def list_all(
        self, target: Target, namespace: str = "", *, labels: str = "", name: str = ""
    ) -> AsyncIterator[tuple[Sequence[Manifest], str]]:
        """Yield all objects of a namespace (empty: of all) in pages, each with the version of the whole list.

        Raises:
            ClusterError: refused, no answer, no such kind, or the list changed too much underneath.
        """
        call = call_on(target, "list", namespace)
        selectors = {"labelSelector": labels, "fieldSelector": f"metadata.name={name}" if name else ""}
        query = {"limit": str(PAGE)} | {each: said for each, said in selectors.items() if said}
        while True:
            data = await self._api.request(call, query=query)
            if data is None:
                raise ClusterError(f"{call}: there is no such resource; its CustomResourceDefinition is missing")
            page = decode_object(data)
            yield page["items"], page["metadata"]["resourceVersion"]
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def relist(self, kinds: Collection[str], namespaces: Collection[str]) -> None:
        """Bring the mirror up to date with all that there is, and forget what is gone.

        Raises:
            ClusterError: a list could not be read whole; what was read of it is kept, and nothing is forgotten.
        """
        for kind in kinds:
            for namespace in sorted(namespaces) or ("",):
                await self._relist(kind, namespace)

    async def _relist(self, kind: str, namespace: str) -> None:
        keys = set()
        versions = set()
        async for items, version in self.list_all(TARGETS[kind], namespace):
            versions.add(int(version))
            for item in items:
                keys.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                self._mirror.put(kind, item)
                # Reading what a page says may take a second, in which the Lease must be renewed.
                await asyncio.sleep(0)
        # All pages are of one version; should a server do otherwise, the oldest forgets the least.
        self._mirror.keep_only(kind, keys, min(versions), namespace)

    async def _apply(self, action: Apply) -> Manifest:
        expected = action.resource_version
        if expected is None and action.target.group == GROUP:
            expected = NEVER
        metadata = {**action.body.get("metadata", {}), "name": action.name, "namespace": action.namespace}
        if expected is not None:
            metadata["resourceVersion"] = expected
        body = {
            "apiVersion": action.target.api_version,
            "kind": action.target.kind,
            **action.body,
            "metadata": metadata,
        }
        return await self._patch(action.target, action.namespace, action.name, body)

    async def _apply_status(self, action: ApplyStatus) -> Manifest:
        body = {
            "apiVersion": action.target.api_version,
            "kind": action.target.kind,
            "metadata": {
                "name": action.name,
                "namespace": action.namespace,
                "resourceVersion": action.resource_version,
            },
            "status": action.status,
        }
        return await self._patch(action.target, action.namespace, action.name, body, subresource="status")

    async def _scale(self, action: Scale) -> Manifest:
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": action.name,
                "namespace": action.namespace,
                "resourceVersion": action.resource_version,
            },
            "spec": {"replicas": action.replicas},
        }
        return await self._patch(action.target, action.namespace, action.name, body, subresource="scale")

    async def _patch(
        self, target: Target, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest:
        call = call_on(target, "patch", namespace, name, subresource=subresource)
        if target.kind not in PLURALS:
            return await self._send(call, body)
        with self._mirror.writing(target.kind, (namespace, name)) as tell_version:
            written = await self._send(call, body)
            tell_version(written["metadata"]["resourceVersion"])
            self._mirror.put(target.kind, written, own=True)
        return written

    async def _send(self, call: Call, body: Mapping[str, Any]) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        data = await self._api.request(call, query=query, body=body, content_type=APPLY)
        if data is None:
            raise Stale(f"{call}: it is not there any more, or its namespace is not")
        return decode_object(data)

    async def _delete(self, action: Delete) -> None:
        call = call_on(action.target, "delete", action.namespace, action.name)
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": action.uid},
            "propagationPolicy": "Background",
        }
        data = await self._api.request(call, body=body)
        if action.target.kind not in PLURALS:
            return
        known = self._mirror.get(action.target.kind, (action.namespace, action.name))
        if known is not None and known["metadata"]["uid"] == action.uid:
            deleted = {} if data is None else decode_object(data)
            # With a finalizer of somebody's it is still there: the watch tells when it is gone.
            if not deleted.get("metadata", {}).get("deletionTimestamp"):
                version = known["metadata"]["resourceVersion"]
                self._mirror.remove(action.target.kind, (action.namespace, action.name), version, own=True)


def decode_object(data: bytes) -> dict[str, Any]:
    """Decode an answer of the API server.

    Raises:
        ClusterError: it is not what an API server answers.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise ClusterError(f"the API server's answer is not JSON of an object: {exc}") from exc
