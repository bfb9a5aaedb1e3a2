"""The whole way in pods: the pages, injection, an edit by Git, faults and an upgrade under load, and back again."""

import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import installed
import playground
from baleen_cli.triton.process import free_port
from cluster_site import examples
from control_plane import NAMESPACE
from git_loop import GitLoop
from helm import CHART, RELEASE, Values, helm, merged
from installed import ENDPOINT, GATEWAY, POLICIES, application
from node_cluster import NodeCluster
from pages import ROOT, blocks, copy_project, run_script
from serving import until
from traces import traces, traces_in_the_end

# Images are built when their content changed, which takes minutes.
pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]

TUTORIAL = "docs/tutorial/first-cluster.md"
GUIDE = "docs/howto/install-with-helm.md"
KINDS = "mutatingwebhookconfigurations,validatingwebhookconfigurations"
LOAD = """
import collections, json, os, sys, threading, time
import httpx

counts, wrong = collections.Counter(), []

def call():
    while True:
        # A caller that retries once on a new connection, as an application should.
        with httpx.Client(timeout=20, trust_env=False, verify=False) as client:
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
END_WITH_ITS_INPUT = """
import pathlib, sys
from node_cluster import end_detached
end_detached(pathlib.Path(sys.stdin.read()))
"""
ALONE = {"operator": {"replicas": 1}, "gateway": {"replicas": 1}}
ABUSE = "You are a stupid idiot and I hate you."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that looks like a checkout after `make setup`."""
    copy_project(tmp_path)
    return tmp_path


@pytest.fixture
def folder(node_ready: None, project: Path) -> Iterator[Path]:
    """Give the playground's folder; what is started there ends with the test, however that ends."""
    folder = project / playground.FOLDER.relative_to(ROOT)
    # The cluster would outlive a test that is killed; this process sees its input end then, as it does after the test.
    command = [sys.executable, "-c", END_WITH_ITS_INPUT]
    support = ROOT / "tests" / "support"
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=support, start_new_session=True) as ending:
        assert ending.stdin is not None
        ending.stdin.write(bytes(folder))
        ending.stdin.flush()
        yield folder


def typed(page: str, project: Path) -> str:
    """Return what is said when all commands of a page are typed; `make cluster` was typed before."""
    # The page's port may be in use where the tests run.
    script = "".join(blocks(ROOT / page, "sh")).replace("8653", str(free_port()))
    done = run_script(f'make() {{ echo "make $*"; }}\n{script}', project)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
        """Wait until all pods of a Deployment are there and ready; when it was in vain, say what was said."""
        arguments = ("-n", NAMESPACE, f"deployment/baleen-{kind}", "--timeout=170s")
        waited = self.cluster.kubectl("rollout", "status", *arguments, check=False)
        if waited.returncode:
            pods = self.cluster.kubectl("get", "pods", "-A").stdout
            models = self.cluster.kubectl("get", "moddep", "-n", POLICIES, "-o", "yaml").stdout
            raise AssertionError(f"{waited.stderr}\n{pods}\n{models}\n{self.logs('operator')}\n{self.logs(kind)}")

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
    def no_request_fails(self) -> Iterator[Callable[[], None]]:
        """Put the gateways under load; what is given sees that requests go on and none failed, as does the end."""
        self.cluster.apply(application("shop", "load", "python", "-c", LOAD))
        self.cluster.wait_for_condition("pod", "load", "Ready", "shop")

        def counted() -> dict[str, Any]:
            lines = self.cluster.kubectl("logs", "-n", "shop", "load", "--tail=1", check=False).stdout
            return json.loads(lines) if lines else {}

        def look() -> None:
            before = counted().get("answered", 0)
            until(lambda: counted().get("answered", 0) > before + 3, seconds=60)
            seen = counted()
            assert seen.get("failed", 0) == 0, seen

        look()
        yield look
        look()
        self.cluster.kubectl("delete", "pod", "-n", "shop", "load", "--now", "--wait=false")


def policies_of(decision: dict[str, Any]) -> Sequence[str]:
    return [each["digest"] for each in decision["policies"]]


def test_the_whole_way_from_an_installation_to_the_next_one(
    folder: Path, project: Path, capsys: pytest.CaptureFixture[str]
):
    before = traces(folder, "none")
    playground.start(folder)
    told = capsys.readouterr().out
    slot = (folder / "slot").read_text()
    with NodeCluster(folder, detached=True) as cluster:
        walk_through(cluster, project, told)
    running = traces(folder, slot)
    playground.end(folder)

    assert set(running) - set(before) == {"processes", "links", "control groups", "stored"}
    assert traces_in_the_end(folder, slot, before) == before
    assert not folder.exists()


def open_shop(cluster: NodeCluster) -> dict[str, Any]:
    """Run the application, which asks for a sidecar, in a namespace of its own, and return its pod."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
    api_key = base64.b64decode(cluster.get_json("secret", "baleen-test", NAMESPACE)["data"]["api-key"]).decode()
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"}}
    pod = application("shop", "shop", "python", "-c", "import time; time.sleep(36000)")
    pod["metadata"]["labels"]["moderation.baleen.dev/inject"] = "true"
    cluster.apply(key | {"stringData": {"api-key": api_key}}, pod)
    return pod


def walk_through(cluster: NodeCluster, project: Path, told: str) -> None:
    walk = Walk(cluster, project)

    shown = "".join(blocks(ROOT / TUTORIAL, "sh"))
    with ThreadPoolExecutor(max_workers=1) as aside:
        # The playground's application starts while the tutorial is typed.
        typing = aside.submit(typed, TUTORIAL, project)
        walk.rolled_out("operator")
        pod = open_shop(cluster)
        tutorial = typing.result()

    # The same examples, from Git.
    for number, each in enumerate(examples(ENDPOINT)):
        (walk.repository.author / f"{number}.yaml").write_text(json.dumps(each, indent=1))
    walk.repository.push("The examples")
    walk.pull_and_apply()
    walk.wait_for("Ready", "moddep")

    # By the service's name, and in a pod that got a sidecar.
    cluster.wait_for_condition("pod", "shop", "Ready", "shop", seconds=240)
    by_name, on_localhost = walk.ask("shop", GATEWAY, ABUSE), walk.ask("shop", "http://localhost:8080", ABUSE)
    rights = cluster.kubectl("auth", "can-i", "--list", "--as=system:serviceaccount:shop:default").stdout

    # An edit, and its revert.
    first = walk.digest()
    policy = next(path for path in walk.repository.author.glob("*.yaml") if '"name": "community"' in path.read_text())
    edited = json.loads(policy.read_text())
    edited["spec"]["version"] = "v1.2.0"
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
    with walk.no_request_fails() as look:
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
        look()

        # An upgrade: another setting brings new pods.
        upgraded = merged(installed.VALUES, {"gateway": {"settings": {"deadlineSeconds": 55}}})
        walk.helm("upgrade", RELEASE, CHART, values=upgraded)
        walk.rolled_out("operator")
        walk.rolled_out()

    # Away, and back.
    walk.helm("uninstall", RELEASE, "--wait")
    webhooks = cluster.kubectl("get", KINDS, "-o", "name").stdout
    cluster.apply(pod | {"metadata": {**pod["metadata"], "name": "later"}})
    left = cluster.kubectl("get", "modpol,moddep", "-n", POLICIES, "-o", "name").stdout
    walk.helm("install", RELEASE, CHART, values=merged(upgraded, ALONE))
    walk.rolled_out("operator")
    walk.rolled_out()
    # The service has another address now, which takes a moment to be known everywhere.
    until(lambda: walk.is_answered("shop", GATEWAY), seconds=60)
    again, found_again = walk.ask("shop", GATEWAY, ABUSE), walk.digest()

    # All of it away, and anew by the page's commands alone. An operator loses its rights with the release before it can
    # give its Lease back; that the Lease runs out need not be waited for here.
    cluster.kubectl("scale", "-n", NAMESPACE, "deployment/baleen-operator", "--replicas=0")
    chosen = ("-l", "app.kubernetes.io/component=operator")
    cluster.kubectl("wait", "-n", NAMESPACE, "--for=delete", "pod", *chosen, "--timeout=60s")
    cluster.kubectl("delete", "-n", NAMESPACE, "lease/baleen-operator")
    page = typed(GUIDE, project)

    assert "".join(told.replace(str(project), "$PWD").splitlines(keepends=True)[1:]) in shown
    assert re.search(r"^Allow, by community sha256:\w+, ", tutorial, re.MULTILINE)
    assert re.search(r"spanish-abusive.txt +│ Block", tutorial)
    assert re.findall(r"stdin +│ (\w+)", tutorial) == ["Allow", "Review", "Allow"]
    assert by_name["decision"] == on_localhost["decision"] == "Block"
    assert policies_of(by_name) == policies_of(on_localhost)
    assert found_again in policies_of(by_name)
    assert by_name["models"] == on_localhost["models"]
    assert {each["name"] for each in by_name["models"]} >= {"text-safety"}
    assert "moderation.baleen.dev" not in rights
    assert second != first
    assert webhooks == ""
    assert len(left.splitlines()) == 4
    assert policies_of(again) == policies_of(by_name)
    assert re.search(r"^Allow, by community sha256:\w+$", page, re.MULTILINE)
