"""The whole way: what people apply, an operator, gateways and a sidecar as processes, and what they decide."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from baleen_core.policy_stream import AUDIENCE
from baleen_core.resources import ALLOW_DELETE_ANNOTATION
from cluster_site import Site, examples, override, policy, wait_for_decision, write_yaml
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings, operator_token_file, sidecar_settings
from git_loop import GitLoop
from operators import RunningOperator, running_operator
from serving import until
from sidecars import EXAMPLES, RunningSidecar, loaded_models, locator, sidecar
from triton import shared_triton

__all__ = ["loaded_models", "locator", "shared_triton", "sidecar"]

pytestmark = pytest.mark.cluster

KINDS = "modpol,modroute,modrev,modover,moddep,configmap,secret"


@pytest.mark.triton
def test_the_examples_become_ready_and_every_gateway_decides_as_one_does_without_a_cluster(
    private_control_plane: ControlPlane, tmp_path: Path, shared_triton: str, sidecar: RunningSidecar, locator: Any
):
    plane, store = private_control_plane, locator._store.root
    plane.make_namespace("trust-safety")
    author = write_yaml(tmp_path, *examples(shared_triton))
    settings = [gateway_settings(plane, tmp_path / name, model_files=store) for name in ("gateway-1", "gateway-2")]
    with RunningGateway(**settings[0]) as one, RunningGateway(**settings[1]) as other:
        gateways = {
            "gateway_urls": f"{one.stream_url},{other.stream_url}",
            "gateway_token_file": str(operator_token_file(plane, tmp_path)),
        }
        with running_operator(plane, model_files=str(store), **gateways) as operator:
            plane.kubectl("apply", "--server-side", "-f", str(author))
            for condition, kind in (("Ready", "modpol"), ("Ready", "moddep"), ("Converged", "modpol")):
                wait_for_all(plane, operator, condition, kind)
            found = json.loads(plane.kubectl("get", "modpol", "-n", "trust-safety", "-o", "json").stdout)["items"]
            diff = plane.kubectl("diff", "--server-side", "-f", str(author), check=False)
            convergence = [each["status"]["convergence"] for each in found]
            for gateway in (one, other):
                gateway.wait_until_ready()
                for each in found:
                    assert gateway.policy(each["metadata"]["name"])["digest"] == each["status"]["stable"]["digest"]
                assert_same_decisions(gateway, sidecar)

    assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr
    assert [(each["total"], each["current"]) for each in convergence] == [(2, 2)] * 3


def wait_for_all(plane: ControlPlane, operator: RunningOperator, condition: str, kind: str) -> None:
    """Wait as people do; when it was in vain, say what the resources and the operator said."""
    everything = ("--all", "-n", "trust-safety")
    waited = plane.kubectl("wait", f"--for=condition={condition}", kind, *everything, "--timeout=120s", check=False)
    if waited.returncode:
        said = plane.kubectl("get", kind, "-n", "trust-safety", "-o", "yaml").stdout
        raise AssertionError(f"{waited.stderr}\n{said}\n{operator.said()}")


def assert_same_decisions(gateway: RunningGateway, local: RunningSidecar) -> None:
    """Compare the decisions on every example, on two surfaces."""
    contents = [path for path in sorted((EXAMPLES / "content").iterdir()) if path.suffix in (".txt", ".jpg")]
    assert len(contents) > 5
    for path in contents:
        media_type = "image/jpeg" if path.suffix == ".jpg" else "text/plain"
        for surface in ("comments", "kids-chat"):
            request = {"content": path.read_bytes(), "headers": {"Content-Type": media_type}}
            answers = [
                client.post(f"/v1/moderate?surface={surface}", **request) for client in (gateway.client, local.client)
            ]
            assert [each.status_code for each in answers] == [200, 200], answers[0].text
            assert comparable(answers[0].json()) == comparable(answers[1].json())


def comparable(decision: dict[str, Any]) -> dict[str, Any]:
    """Return all but what is of one request alone, and the digest of the model that is trained where it is set up.

    Its deployment cannot name it, so only who placed the file knows it.
    """
    models = [each | ({"sha256": ""} if each["name"] == "text-safety" else {}) for each in decision["models"]]
    ours = {name: value for name, value in decision.items() if name not in ("id", "latency_ms", "queue_wait_ms")}
    return ours | {"models": models}


def test_what_is_pushed_is_enforced_also_a_revert_and_an_override_needs_no_operator(
    site: Site, operator: RunningOperator, gateway: RunningGateway, tmp_path: Path
):
    repository = GitLoop(tmp_path)

    def push(words: str, **content: Any) -> None:
        write_yaml(repository.author, policy(site.namespace, **content))
        repository.push(words)

    def pull_and_apply() -> None:
        """One turn of the loop that GitOps tools run."""
        site.plane.kubectl("apply", "--server-side", "-f", repository.pull(), user="admin")

    push("The first policy", action="Review", version="v1")
    pull_and_apply()
    wait_for_decision(gateway, "Review")
    push("Block instead", action="Block", version="v2")
    pull_and_apply()
    wait_for_decision(gateway, "Block")
    push("Only many links", action="Block", links=5, version="v3")
    pull_and_apply()
    wait_for_decision(gateway, "Allow")
    repository.revert()
    pull_and_apply()
    wait_for_decision(gateway, "Block")
    said = site.wait_for_ready()
    diff = site.plane.kubectl("diff", "--server-side", "-f", repository.applier, check=False)

    asking = {"Authorization": f"Bearer {site.plane.token_for('baleen-system', 'baleen-operator', AUDIENCE)}"}
    convergence = httpx.get(f"{gateway.stream_url}/v1/convergence", headers=asking, trust_env=False).json()
    enforced = convergence["policies"][f"{site.namespace}/community"]

    assert (diff.returncode, diff.stdout) == (0, "")
    assert said["status"]["stable"]["version"] == "v2"
    assert (enforced["digest"], enforced["pending"]) == (said["status"]["stable"]["digest"], "")
    assert enforced["decisions"].keys() == {"Block"}
    assert 0 < convergence["load"]["request_seconds"] < convergence["load"]["measured_seconds"]
    assert convergence["load"]["in_flight"] == 0
    assert gateway.metric("baleen_policy_decisions_total", policy="community", decision="Review") >= 1
    assert [row["reason"] for row in said["status"]["history"]] == ["Returned", "Applied", "Applied", "Applied"]

    operator.kill()
    site.apply(override(site.namespace, reject=[site.route()["stable"]]))
    wait_for_decision(gateway, "Allow")
    site.plane.kubectl("delete", "modover", "community", "-n", site.namespace)
    wait_for_decision(gateway, "Block")


def test_a_sidecar_without_rights_decides_as_its_gateway_does(
    site: Site, operator: RunningOperator, gateway: RunningGateway, tmp_path: Path
):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": site.namespace}}
    site.apply(account)
    token = site.plane.token_for(site.namespace, "shop", AUDIENCE)
    rights = site.plane.kubectl(
        "auth", "can-i", "get", "modpol", "-n", site.namespace, user=f"{site.namespace}/shop", check=False
    )
    site.apply_policy("Review")
    settings = sidecar_settings(gateway, tmp_path / "shop", token, durability="Interval")
    with RunningGateway(**settings) as injected:
        wait_for_decision(injected, "Review")
        site.apply_policy("Block")
        wait_for_decision(injected, "Block")
        site.apply(override(site.namespace, reject=[site.route()["stable"]]))
        wait_for_decision(injected, "Review")
        status, ready = injected.ready()
        gateway.kill()
        until(lambda: injected.ready()[1]["degraded"] == ["source"])
        again = injected.decide("http://a.example http://b.example")
        injected.kill()
        with injected.again() as restarted:
            wait_for_decision(restarted, "Review")

    assert rights.stdout.strip() == "no"
    assert (status, ready["degraded"]) == (200, [])
    assert (again["decision"], again["degraded"]) == ("Review", ["PolicySource"])


def test_a_policy_that_was_deleted_and_is_applied_again_goes_on_with_its_history(
    site: Site, operator: RunningOperator, gateway: RunningGateway
):
    site.apply_policy("Review", version="v1")
    wait_for_decision(gateway, "Review")
    site.apply_policy("Block", version="v2")
    wait_for_decision(gateway, "Block")
    before = site.wait_for_ready()["status"]["history"]
    annotate = ("annotate", "modpol", "community", "-n", site.namespace, f"{ALLOW_DELETE_ANNOTATION}=true")
    site.plane.kubectl(*annotate)
    until(lambda: site.plane.get_json("modroute", "community", site.namespace)["metadata"].get("annotations"))
    site.plane.kubectl("delete", "modpol", "community", "-n", site.namespace)
    until(lambda: gateway.moderate("a text").status_code == 503)
    site.apply_policy("Block", version="v2")
    wait_for_decision(gateway, "Block")
    after = site.wait_for_ready()["status"]["history"]

    assert after[1:] == before
    assert after[0]["epoch"] > before[0]["epoch"]
    assert after[0]["digest"] == before[0]["digest"]


def test_deleting_everything_leaves_nothing_and_hangs_on_nothing(site: Site, operator: RunningOperator):
    source = {"type": "ConfigMap", "name": "terms", "key": "terms.txt"}
    listed = policy(site.namespace, "Review")
    listed["spec"]["policy"]["lists"] = [{"name": "terms", "type": "Terms", "action": "Block", "source": source}]
    listed["metadata"]["annotations"] = {ALLOW_DELETE_ANNOTATION: "true"}
    terms = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "terms", "namespace": site.namespace}}
    site.apply(terms | {"data": {"terms.txt": "idiot"}}, listed, override(site.namespace, paused=False))
    site.wait_for_ready()
    found = json.loads(site.plane.kubectl("get", KINDS, "-n", site.namespace, "-o", "json").stdout)["items"]
    site.plane.kubectl("delete", "modpol,modover", "--all", "-n", site.namespace, "--timeout=30s")
    site.plane.kubectl("delete", "configmap", "terms", "-n", site.namespace)
    until(lambda: site.plane.list_json("modroute", site.namespace) == [])
    # The history is kept until somebody deletes it.
    site.plane.kubectl("delete", "modrev", "--all", "-n", site.namespace, "--timeout=30s")

    def left() -> list[str]:
        items = json.loads(site.plane.kubectl("get", KINDS, "-n", site.namespace, "-o", "json").stdout)["items"]
        return [each["metadata"]["name"] for each in items if each["metadata"]["name"] != "kube-root-ca.crt"]

    until(lambda: left() == [])
    assert len(found) >= 6
    assert not [each for each in found if each["metadata"].get("finalizers")]
