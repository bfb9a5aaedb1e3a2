"""Read how policies stand from the API server."""

from collections.abc import Sequence

from baleen_cli.cluster import Cluster
from baleen_cli.kubectl_commands.facts import PREFIX, Facts, gather, make_facts
from baleen_core.errors import NotFound
from baleen_core.reading import name as read_name
from baleen_core.reading import unknown_name
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, POLICY_LABEL, REVISION_KIND, ROUTE_KIND

MIN_DIGEST_DIGITS = 6
"""Shorter ones are rather names that were mistyped."""


def read_all_facts(cluster: Cluster, namespace: str | None) -> list[Facts]:
    """Read all policies of a namespace, or (None) of the cluster."""
    kinds = (POLICY_KIND, ROUTE_KIND, OVERRIDE_KIND, REVISION_KIND)
    return gather(*(cluster.list(kind, namespace) for kind in kinds))


def read_facts(cluster: Cluster, name: str) -> Facts:
    """Read one policy; one that was deleted is known as long as its revisions are there.

    Raises:
        NotFound: nothing of that name is there.
    """
    namespace = cluster.namespace
    if not _is_name(name):
        raise NotFound(_unknown(cluster, name))
    label = f"{POLICY_LABEL}={name}"
    found = make_facts(
        namespace,
        name,
        policy=cluster.get(POLICY_KIND, namespace, name),
        route=cluster.get(ROUTE_KIND, namespace, name),
        override=cluster.get(OVERRIDE_KIND, namespace, name),
        revisions=cluster.list(REVISION_KIND, namespace, label=label),
    )
    if found.policy is None and found.route_manifest is None and not found.revisions:
        raise NotFound(_unknown(cluster, name))
    return found


def policies_with(cluster: Cluster, digest: str) -> Sequence[str]:
    """Return the names of the policies of the namespace that have a revision whose digest begins so."""
    digits = digest.removeprefix(PREFIX)
    if len(digits) < MIN_DIGEST_DIGITS or not set(digits) <= set("0123456789abcdef"):
        return ()
    revisions = cluster.list(REVISION_KIND, cluster.namespace)
    return sorted(
        {
            each["metadata"].get("labels", {}).get(POLICY_LABEL, "")
            for each in revisions
            if each["spec"]["digest"].startswith(PREFIX + digits)
        }
        - {""}
    )


def _is_name(text: str) -> bool:
    try:
        return bool(read_name(text))
    except ValueError:
        return False


def _unknown(cluster: Cluster, name: str) -> str:
    manifests = [each for kind in (POLICY_KIND, REVISION_KIND) for each in cluster.list(kind, cluster.namespace)]
    known = {
        each["metadata"]["name"]
        if each["kind"] == POLICY_KIND
        else (each["metadata"].get("labels") or {}).get(POLICY_LABEL, "")
        for each in manifests
    }
    return f"{unknown_name(name, known - {''}, 'policy')} (namespace {cluster.namespace}; choose another with -n)"
