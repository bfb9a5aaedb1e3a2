"""Policies as the operator publishes them, written by hand: `kubectl baleen` needs no operator to be there."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from baleen_cli.kubectl import PROGRAM, app
from baleen_core.policy.in_force import Route
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision
from baleen_core.policy.schema import API_VERSION, Revision
from baleen_core.resources import PLURALS, PublishedRoute, write_revision, write_route
from commands import Ended, run_program
from control_plane import ControlPlane
from policies import policy_manifest

VERSIONS = {"ConfigMap": "v1", "Secret": "v1"}
CREATED = "2026-01-01T00:00:00Z"


def kubectl_baleen(*arguments: object) -> Ended:
    """Run a command of the kubectl plugin as `main` does."""
    return run_program(app, PROGRAM, arguments)


def policy_of(namespace: str, name: str, review: int, **spec: Any) -> dict[str, Any]:
    """Write a policy whose one threshold is `review` percent; another one is another revision."""
    content = {"categories": [{"name": "toxicity", "signals": [{"name": "toxicity.toxic", "review": f"{review}%"}]}]}
    manifest = policy_manifest(content, **spec)
    manifest["metadata"] = {"name": name, "namespace": namespace}
    return manifest


def revision_of(manifest: Mapping[str, Any]) -> Revision:
    """Return the revision that a policy without lists becomes."""
    return make_revision(parse_policy(manifest), {})


def published(namespace: str, name: str, reviews: Sequence[int], **spec: Any) -> list[dict[str, Any]]:
    """Return the policy, its revisions v1, v2, … (one for each threshold, oldest first), and its route to the last.

    Epoch 1 was that of v1, and so on; each began to be in force a day after the one before.
    """
    manifests = [
        policy_of(namespace, name, review, version=f"v{index}", **spec) for index, review in enumerate(reviews, 1)
    ]
    revisions = [revision_of(each) for each in manifests]
    policy = parse_policy(manifests[-1])
    route = PublishedRoute(
        namespace=namespace,
        name=name,
        epoch=len(revisions),
        type=policy.type,
        role=policy.role,
        scope=policy.scope,
        created=CREATED,
        route=Route(stable=revisions[-1].digest, recent_stable=tuple(each.digest for each in reversed(revisions[:-1]))),
        version=policy.version,
        time=day(len(revisions)),
        reason="Applied",
        by="alice",
    )
    written = [write_revision(namespace, name, f"v{index}", revision) for index, revision in enumerate(revisions, 1)]
    for index, (resource, revision) in enumerate(zip(written[:-1], revisions, strict=False), 1):
        row = {"epoch": index, "digest": revision.digest, "version": f"v{index}", "time": day(index)}
        resource["status"] = {"activations": [{**row, "reason": "Applied", "by": "alice"}]}
    return [manifests[-1], *written, write_route(route)]


def day(number: int) -> str:
    """Return the beginning of a day in January."""
    return datetime(2026, 1, number, tzinfo=UTC).isoformat().replace("+00:00", "Z")


def put(plane: ControlPlane, *resources: Mapping[str, Any]) -> None:
    """Server-side apply resources, and their status, as the manager `test`."""
    with plane.client() as client:
        for each in resources:
            root = f"/api/{VERSIONS[each['kind']]}" if each["kind"] in VERSIONS else f"/apis/{API_VERSION}"
            plural = PLURALS.get(each["kind"]) or f"{each['kind'].lower()}s"
            path = f"{root}/namespaces/{each['metadata']['namespace']}/{plural}/{each['metadata']['name']}"
            body = {key: value for key, value in each.items() if key != "status"}
            _apply(client, path, body)
            if "status" in each:
                _apply(client, f"{path}/status", {**body, "metadata": _named(each), "status": each["status"]})


def _apply(client: httpx.Client, path: str, body: Mapping[str, Any]) -> None:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    flags = {"fieldManager": "test", "force": "true"}
    answer = client.patch(path, content=json.dumps(body), headers=headers, params=flags)
    assert answer.is_success, answer.text


def override(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    """Write an override as somebody has it in Git."""
    header = {"apiVersion": API_VERSION, "kind": "ModerationOverride"}
    return {**header, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _named(resource: Mapping[str, Any]) -> dict[str, str]:
    return {field: resource["metadata"][field] for field in ("name", "namespace")}
