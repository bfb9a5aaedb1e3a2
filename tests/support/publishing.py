"""What an operator would publish, for tests of those who read it: routes, revisions and lists, without a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baleen_core.assignment import Assignment, Exposure
from baleen_core.policy.in_force import Override, Route, RoutedCandidate
from baleen_core.policy.lists import canonical_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision
from baleen_core.policy.schema import ListContent, Revision
from baleen_core.resources import (
    MANAGED_BY,
    SHARD_KEY,
    SHARDS_ANNOTATION,
    PublishedPolicy,
    PublishedRoute,
    list_object_name,
    split_list,
    write_revision,
    write_route,
)
from policies import CATEGORY

STRICTER = {**CATEGORY, "signals": [{"name": "toxicity.toxic", "review": "60%", "block": "80%"}]}
"""The category of `policies.CATEGORY` with lower thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A policy's revisions, oldest first, with their versions, and its route: the last one is what it says now."""

    route: PublishedRoute
    revisions: tuple[tuple[str, Revision], ...]
    lists: tuple[ListContent, ...] = ()

    @property
    def policy(self) -> PublishedPolicy:
        """Return it as a source gives it."""
        return PublishedPolicy(
            route=self.route,
            revisions={revision.digest: revision for _, revision in self.revisions},
            versions={revision.digest: version for version, revision in self.revisions},
        )

    def manifests(self) -> list[dict[str, Any]]:
        """Return its objects in the order in which they are to be written: the route is last."""
        namespace, name = self.policy.key
        objects = [
            shard for each in self.lists for shard in list_manifests(namespace, each.digest, canonical_list(each))
        ]
        objects += [write_revision(namespace, name, version, revision) for version, revision in self.revisions]
        return [*objects, write_route(self.route)]


def publication(
    namespace: str,
    name: str = "community",
    *contents: Mapping[str, Any],
    epoch: int = 1,
    scope: Mapping[str, str] | None = None,
    lists: Mapping[str, ListContent] | None = None,
    candidate: Mapping[str, Any] | None = None,
    exposure: Exposure | None = None,
) -> Publication:
    """Publish these contents one after the other, as versions v1, v2, …; without any, one with one category.

    A `candidate` is one more, that is rolled out beside the last of them; in a shadow, where no `exposure` says more.
    """
    revisions = []
    stables = contents or ({"categories": [CATEGORY]},)
    for number, content in enumerate((*stables, candidate) if candidate else stables, start=1):
        policy = parse_policy(
            {
                "apiVersion": "moderation.baleen.dev/v1alpha1",
                "kind": "ModerationPolicy",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"scope": dict(scope or {}), "policy": dict(content)},
            }
        )
        revisions.append((f"v{number}", make_revision(policy, lists or {})))
    digests = [revision.digest for _, revision in revisions[: len(stables)]]
    routed = candidate and RoutedCandidate(
        digest=revisions[-1][1].digest,
        exposure=exposure or Exposure(is_shadow=True),
        assignment=Assignment(salt=f"{name}'s salt"),
    )
    route = PublishedRoute(
        namespace=namespace,
        name=name,
        epoch=epoch,
        type=policy.type,
        role=policy.role,
        scope=policy.scope,
        created="2026-01-01T00:00:00Z",
        route=Route(stable=digests[-1], recent_stable=tuple(reversed(digests[:-1])), candidate=routed or None),
        version=f"v{len(stables)}",
    )
    return Publication(route=route, revisions=tuple(revisions), lists=tuple((lists or {}).values()))


def override_of(publication: Publication, **spec: Any) -> dict[str, Any]:
    """Write the override of a policy."""
    namespace, name = publication.policy.key
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def list_manifests(namespace: str, digest: str, text: str, *, kind: str = "ConfigMap") -> list[dict[str, Any]]:
    """Write a list as the operator does: shards below the limit, named by digest."""
    shards = split_list(text)
    return [
        {
            "apiVersion": "v1",
            "kind": kind,
            "immutable": True,
            "metadata": {
                "name": list_object_name(digest, number),
                "namespace": namespace,
                "labels": dict(MANAGED_BY),
                "annotations": {SHARDS_ANNOTATION: str(len(shards))},
            },
            ("data" if kind == "ConfigMap" else "stringData"): {SHARD_KEY: shard},
        }
        for number, shard in enumerate(shards)
    ]


def rejecting(*digests: str) -> Override:
    """Make an override that rejects these."""
    return Override(reject=frozenset(digests))
