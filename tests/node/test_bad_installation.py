"""What people see of an installation that lacks something, and that the page on trouble knows it."""

from collections.abc import Iterator
from typing import Any

import pytest

from helm import CHART, RELEASE, helm, merged
from node_cluster import NodeCluster
from pages import ROOT
from serving import until

pytestmark = pytest.mark.node

PAGE = (ROOT / "docs/howto/troubleshoot-a-cluster.md").read_text()
VALUES = {
    # Other tests share the cluster: nothing of it is seen beyond the namespace, but for the roles.
    "crds": {"install": False},
    "webhooks": {"enabled": False},
    "operator": {"replicas": 1, "image": {"tag": "no-such"}},
    "gateway": {"replicas": 1, "apiKeys": {"existingSecret": "baleen-keys"}, "state": {"persistent": True}},
}
ANOTHER = {"operator": {"image": {"pullPolicy": "Never"}}, "gateway": {"state": {"persistent": False}}}


class Release:
    """An installation, and what its pods say."""

    def __init__(self, cluster: NodeCluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def helm(self, *arguments: Any, **options: Any) -> None:
        helm(*arguments, "-n", self.namespace, kubeconfig=self.cluster.kubeconfig(), **options)

    def wait_for_event(self, words: str) -> str:
        """Return what an event says once one has these words, which the page has."""
        assert f"`{words}`" in PAGE
        return self._wait_for_event(words)

    def wait_for_secret(self, name: str) -> str:
        """Return the event by which a pod misses a Secret."""
        assert '`secret "…" not found`' in PAGE
        return self._wait_for_event(f'secret "{name}" not found')

    def wait_for_status(self, reason: str) -> None:
        """Wait until a container waits for this reason, which is what `kubectl get pods` shows."""
        assert f"`{reason}`" in PAGE
        until(lambda: reason in self._reasons(), seconds=60)

    def _wait_for_event(self, words: str) -> str:
        found: list[str] = []

        def came() -> bool:
            events = self.cluster.list_json("event", self.namespace)
            found[:] = [each["message"] for each in events if words in each["message"]]
            return bool(found)

        until(came, seconds=60)
        return found[0]

    def _reasons(self) -> set[str]:
        pods = self.cluster.list_json("pod", self.namespace)
        containers = [each for pod in pods for each in pod["status"].get("containerStatuses", ())]
        return {each["state"].get("waiting", {}).get("reason", "") for each in containers}


@pytest.fixture
def release(node_cluster: NodeCluster, restricted: str) -> Iterator[Release]:
    """Install Baleen without its images, a storage class and the Secret."""
    made = Release(node_cluster, restricted)
    made.helm("install", RELEASE, CHART, values=VALUES)
    yield made
    made.helm("uninstall", RELEASE)


def test_what_an_installation_lacks_is_said_by_its_pods_and_on_the_page(release: Release):
    release.wait_for_status("ErrImagePull")
    image = release.wait_for_event("Failed to pull image")
    release.wait_for_event("unbound immediate PersistentVolumeClaims")
    claim = release.wait_for_event("no storage class is set")
    release.helm("upgrade", RELEASE, CHART, values=merged(VALUES, ANOTHER))
    release.wait_for_status("ErrImageNeverPull")
    never = release.wait_for_event("is not present with pull policy of Never")
    secret = release.wait_for_secret("baleen-keys")
    metadata = {"name": "baleen-keys", "namespace": release.namespace}
    release.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"keys": ""}})
    key = release.wait_for_event("references non-existent secret key: keys.yaml")

    assert all("baleen-operator:no-such" in each for each in (image, never))
    assert "no persistent volumes available for this claim" in claim
    assert all('volume "api-keys"' in each for each in (secret, key))
