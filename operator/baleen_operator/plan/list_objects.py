"""The immutable ConfigMaps and Secrets that keep the content of lists, owned by the revisions that name them."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from baleen_core.policy.schema import API_VERSION, ListSourceType
from baleen_core.resources import (
    DIGEST_ANNOTATION,
    LIST_LABEL,
    MANAGED_BY,
    REVISION_KIND,
    SHARD_KEY,
    SHARDS_ANNOTATION,
    list_object_name,
)
from baleen_operator.plan.actions import Apply, Delete, Target

TARGETS: Final[Mapping[ListSourceType, Target]] = {
    ListSourceType.CONFIG_MAP: Target(group="", version="v1", plural="configmaps", kind="ConfigMap"),
    ListSourceType.SECRET: Target(group="", version="v1", plural="secrets", kind="Secret"),
}

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A part of a list that must be written; `there` is the metadata of an object of that name, if there is one.

    With `is_wrong` that object holds something else, and must go first.
    """

    digest: str
    kind: ListSourceType
    number: int
    count: int
    text: str
    there: Manifest | None = None
    is_wrong: bool = False

    @property
    def name(self) -> str:
        return list_object_name(self.digest, self.number)


def owner_of(name: str, uid: str) -> dict[str, Any]:
    """Write the reference by which a list goes when the last revision that names it is gone."""
    return {"apiVersion": API_VERSION, "kind": REVISION_KIND, "name": name, "uid": uid}


def is_owned(metadata: Manifest, uid: str) -> bool:
    """Say whether this revision is one of an object's owners."""
    return bool(uid) and any(each.get("uid") == uid for each in metadata.get("ownerReferences") or ())


def shard_count(metadata: Manifest) -> int:
    """Return how many objects keep the list, as each of them says."""
    said = (metadata.get("annotations") or {}).get(SHARDS_ANNOTATION, "1")
    return int(said) if said.isdecimal() and len(said) < 4 else 1


def write_shard(shard: Shard, namespace: str, owner: Mapping[str, Any]) -> tuple[Delete | Apply, ...]:
    """Write a shard so that whoever owned it still does, and the revision, too."""
    target, name = TARGETS[shard.kind], shard.name
    there = None if shard.is_wrong else shard.there
    owners = {each["uid"]: dict(each) for each in (there or {}).get("ownerReferences") or ()}
    value = shard.text
    if shard.kind is ListSourceType.SECRET:
        value = base64.b64encode(shard.text.encode()).decode()
    body = {
        "apiVersion": target.api_version,
        "kind": target.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {LIST_LABEL: shard.digest.removeprefix("sha256:")[:40], **MANAGED_BY},
            "annotations": {DIGEST_ANNOTATION: shard.digest, SHARDS_ANNOTATION: str(shard.count)},
            "ownerReferences": list((owners | {owner["uid"]: dict(owner)}).values()),
        },
        "immutable": True,
        "data": {SHARD_KEY: value},
    }
    apply = Apply(
        target=target,
        namespace=namespace,
        name=name,
        body=body,
        resource_version=str(there["resourceVersion"]) if there is not None else None,
    )
    if shard.is_wrong and shard.there is not None:
        return Delete(target=target, namespace=namespace, name=name, uid=str(shard.there["uid"])), apply
    return (apply,)


def make_shards(
    digest: str, kind: ListSourceType, texts: Sequence[str], there: Sequence[Manifest | None]
) -> list[Shard]:
    """Return a list's shards with what is there of each."""
    return [
        Shard(digest=digest, kind=kind, number=number, count=len(texts), text=text, there=found)
        for number, (text, found) in enumerate(zip(texts, there, strict=True))
    ]
