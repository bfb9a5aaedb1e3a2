"""The whole way in pods: install, apply, ask, inject, edit by Git, faults and an upgrade under load, and back again."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import installed
from cluster_site import examples
from control_plane import NAMESPACE
from git_loop import GitLoop
from helm import CHART, RELEASE, Values, helm
from installed import ENDPOINT, GATEWAY, POLICIES, Installed, application
from node_cluster import NodeCluster
from serving import until

# Images are built when their content changed, which takes minutes.
pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]

KINDS = "mutatingwebhookconfigurations,validatingwebhookconfigurations"
LOAD = """
import collections, json, os, sys, threading, time
import httpx

counts, wrong = collections.Counter(), []

def call():
    while True:
        # A caller that retries once on a new connection, as an application should.
        with httpx.Client(timeout=20, trust_env=False) as client:
            for attempt in ("first", "second"):
                try:
                    body = {"content": {"type": "text", "text": "You are wonderful."}}
                    headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
                    answer = client.post(os.environ["URL"] + "/v1/moderate", json=body, headers=headers)
                except httpx.TransportError as failed:
                    counts["retried" if attempt == "first" else "failed"] += 1
                    if attempt == "second":
                        wrong.append(repr(failed))
                    time.sleep(0.2)
                    continue
                counts["answered" if answer.status_code == 200 else "failed"] += 1
                if answer.status_code != 200:
                    wrong.append(answer.text[:300])
                break
        time.sleep(0.15)

for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
while True:
    time.sleep(0.5)
    print(json.dumps({**counts, "wrong": wrong[:5]}), flush=True)
"""
ASK = """
import json, os, sys, urllib.request
body = json.dumps({"content": {"type": "text", "text": sys.argv[2]}}).encode()
headers = {"Content-Type": "application/json"}
if sys.argv[1].startswith("http://baleen"):
    headers["Authorization"] = "Bearer " + os.environ["API_KEY"]
with urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/v1/moderate", body, headers), timeout=30) as answer:
    print(answer.read().decode())
"""
ABUSE = "You are a stupid idiot and I hate you."


@pytest.fixture(scope="module")
def cluster(node_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    """Give a cluster of the walk's own, whose parts it kills."""
    with NodeCluster(tmp_path_factory.mktemp("walk") / "node") as started:
        yield started


@pytest.fixture(scope="module")
def release(cluster: NodeCluster) -> Installed:
    """Install Baleen."""
    return installed.install(cluster)


class Walk:
    """What is done and looked at on the way."""

    def __init__(self, cluster: NodeCluster, folder: Path) -> None:
        self.cluster = cluster
        self.repository = GitLoop(folder)

    def pull_and_apply(self) -> None:
        """One turn of the loop that GitOps tools run; nothing is left to apply after it."""
        applied = self.repository.pull()
        self.cluster.kubectl("apply", "--server-side", "-f", applied)
        self.wait_for("Ready", "modpol")
        diff = self.cluster.kubectl("diff", "--server-side", "-f", applied, check=False)
        assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr

    def helm(self, *arguments: str | Path, values: Values | None = None) -> str:
        """Run Helm on the release, and return what it said."""
        whole = (*arguments, "--namespace", NAMESPACE)
        return helm(*whole, values=values, kubeconfig=self.cluster.kubeconfig()).stdout

    def wait_for(self, condition: str, kinds: str, seconds: int = 150) -> None:
        """Wait as people do; when it was in vain, say what was said."""
        arguments = ("-n", POLICIES, f"--for=condition={condition}", kinds, "--all", f"--timeout={seconds}s")
        waited = self.cluster.kubectl("wait", *arguments, check=False)
        if waited.returncode:
            said = self.cluster.kubectl("get", kinds, "-n", POLICIES, "-o", "yaml").stdout
            raise AssertionError(f"{waited.stderr}\n{said}\n{self.logs('operator')}")

    def logs(self, component: str) -> str:
        """Return the last words of the pods of a component."""
        chosen = f"app.kubernetes.io/component={component}"
        return self.cluster.kubectl("logs", "-n", NAMESPACE, "-l", chosen, "--tail=30", check=False).stdout

    def rolled_out(self, kind: str = "gateway") -> None:
        """Wait until all pods of a Deployment are there and ready."""
        self.cluster.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/baleen-{kind}", "--timeout=170s")

    def ask(self, pod: str, url: str, text: str) -> dict[str, Any]:
        """Return the decision on a text, asked for in the application's pod."""
        asked = ("exec", "-n", "shop", pod, "-c", "main", "--", "python", "-c", ASK, url, text)
        found: dict[str, Any] = json.loads(self.cluster.kubectl(*asked).stdout)
        return found

    def is_answered(self, pod: str, url: str) -> bool:
        """Say whether the application is answered at all."""
        asked = ("exec", "-n", "shop", pod, "-c", "main", "--", "python", "-c", ASK, url, "Hello.")
        return self.cluster.kubectl(*asked, check=False).returncode == 0

    def digest(self, name: str = "community") -> str:
        """Return what is in force."""
        return str(self.cluster.get_json("modpol", name, POLICIES)["status"]["stable"]["digest"])

    @contextlib.contextmanager
    def no_request_fails(self, image: str, name: str) -> Iterator[None]:
        """Put the gateways under load; see that requests go on, and that none failed."""
        self.cluster.apply(application(image, "shop", name, "python", "-c", LOAD))
        self.cluster.wait_for_condition("pod", name, "Ready", "shop")

        def seen() -> dict[str, Any]:
            lines = self.cluster.kubectl("logs", "-n", "shop", name, "--tail=1", check=False).stdout
            return json.loads(lines) if lines else {}

        until(lambda: seen().get("answered", 0) > 3, seconds=60)
        yield
        before = seen()["answered"]
        until(lambda: seen()["answered"] > before + 3, seconds=60)
        counted = seen()
        self.cluster.kubectl("delete", "pod", "-n", "shop", name, "--now")
        assert counted.get("failed", 0) == 0, counted


def policies_of(decision: dict[str, Any]) -> Sequence[str]:
    return [each["digest"] for each in decision["policies"]]


def test_the_whole_way_from_an_installation_to_the_next_one(cluster: NodeCluster, release: Installed, tmp_path: Path):
    walk = Walk(cluster, tmp_path)
    image = release.values["gateway"]["image"]
    image = f"{image['repository']}:{image['tag']}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"}}
    cluster.apply(key | {"stringData": {"api-key": release.key}})

    # The examples, from Git.
    for number, each in enumerate(examples(ENDPOINT)):
        (walk.repository.author / f"{number}.yaml").write_text(json.dumps(each, indent=1))
    walk.repository.push("The examples")
    walk.rolled_out("operator")
    walk.pull_and_apply()
    walk.wait_for("Ready", "moddep")
    walk.rolled_out()
    tested = walk.helm("test", RELEASE, "--logs")

    # By the service's name, and in a pod that got a sidecar.
    pod = application(image, "shop", "shop", "python", "-c", "import time; time.sleep(36000)")
    pod["metadata"]["labels"]["moderation.baleen.dev/inject"] = "true"
    cluster.apply(pod)
    cluster.wait_for_condition("pod", "shop", "Ready", "shop", seconds=240)
    by_name, on_localhost = walk.ask("shop", GATEWAY, ABUSE), walk.ask("shop", "http://localhost:8080", ABUSE)
    rights = cluster.kubectl("auth", "can-i", "--list", "--as=system:serviceaccount:shop:default").stdout

    # An edit, and its revert.
    first = walk.digest()
    policy = next(path for path in walk.repository.author.glob("*.yaml") if '"name": "community"' in path.read_text())
    edited = json.loads(policy.read_text())
    edited["spec"]["version"] = "v1.1.0"
    edited["spec"]["policy"]["rules"].append({"name": "one-link", "when": "content.links > 0", "action": "Review"})
    policy.write_text(json.dumps(edited, indent=1))
    walk.repository.push("Look at every link")
    walk.pull_and_apply()
    second = walk.digest()
    until(lambda: second in policies_of(walk.ask("shop", GATEWAY, "Hello.")))
    until(lambda: second in policies_of(walk.ask("shop", "http://localhost:8080", "Hello.")))
    walk.repository.revert()
    walk.pull_and_apply()
    until(lambda: first in policies_of(walk.ask("shop", "http://localhost:8080", "Hello.")))

    # Faults under load.
    with walk.no_request_fails(image, "faults"):
        leader = cluster.get_json("lease", "baleen-operator", NAMESPACE)["spec"]["holderIdentity"].partition("_")[0]
        assert leader in installed.pods(cluster, "operator")
        cluster.kubectl("delete", "pod", "-n", NAMESPACE, leader, "--grace-period=0", "--force")
        killed = installed.pods(cluster, "gateway")[0]
        cluster.kubectl("delete", "pod", "-n", NAMESPACE, killed, "--grace-period=0", "--force")
        walk.rolled_out()
        cluster.stop_part("kubelet")
        cluster.start_part("kubelet")
        cluster.stop_api()
        cluster.start_api()
        walk.rolled_out("operator")
        walk.rolled_out()

    # An upgrade under load: another setting brings new pods.
    upgraded = {**release.values, "gateway": {**release.values["gateway"], "settings": {"deadlineSeconds": 55}}}
    with walk.no_request_fails(image, "upgrade"):
        walk.helm("upgrade", RELEASE, CHART, values=upgraded)
        walk.rolled_out("operator")
        walk.rolled_out()

    # Away, and back.
    walk.helm("uninstall", RELEASE, "--wait")
    webhooks = cluster.kubectl("get", KINDS, "-o", "name").stdout
    cluster.apply(pod | {"metadata": {**pod["metadata"], "name": "later"}})
    left = cluster.kubectl("get", "modpol,moddep", "-n", POLICIES, "-o", "name").stdout
    walk.helm("install", RELEASE, CHART, values=upgraded)
    walk.rolled_out("operator")
    walk.rolled_out()
    # The service has another address now, which takes a moment to be known everywhere.
    until(lambda: walk.is_answered("shop", GATEWAY), seconds=60)
    again = walk.ask("shop", GATEWAY, ABUSE)

    assert "Allow" in tested
    assert by_name["decision"] == on_localhost["decision"] == "Block"
    assert policies_of(by_name) == policies_of(on_localhost)
    assert walk.digest() in policies_of(by_name)
    assert by_name["models"] == on_localhost["models"]
    assert {each["name"] for each in by_name["models"]} >= {"text-safety"}
    assert "moderation.baleen.dev" not in rights
    assert second != first
    assert webhooks == ""
    assert len(left.splitlines()) == 4
    assert policies_of(again) == policies_of(by_name)
