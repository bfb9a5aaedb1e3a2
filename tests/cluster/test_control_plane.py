import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster_site import policy
from cluster_tools import KUBERNETES_VERSION
from control_plane import NAMESPACE, ControlPlane
from waiting import until

pytestmark = pytest.mark.cluster

SUPPORT = Path(__file__).parents[1] / "support"
GATEWAY = f"system:serviceaccount:{NAMESPACE}:baleen-gateway"


def review(plane: ControlPlane, token: str, *audiences: str):
    body = {"spec": {"token": token, "audiences": list(audiences)}}
    with plane.client() as client:
        return client.post("/apis/authentication.k8s.io/v1/tokenreviews", json=body).json()["status"]


def names(objects: list[dict[str, Any]]) -> set[str]:
    return {each["metadata"]["name"] for each in objects}


def config_map(name: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})


def test_the_server_is_ready_and_of_the_version_that_the_modules_pin(control_plane):
    with control_plane.client() as client:
        assert client.get("/readyz").text == "ok"
        assert client.get("/version").json()["gitVersion"] == KUBERNETES_VERSION


def test_clients_trust_the_server_by_its_certificate_alone(control_plane):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{control_plane.url}/version", trust_env=False)


def test_the_five_kinds_and_the_roles_of_people_are_there(control_plane):
    kinds = control_plane.kubectl("get", "crd", "-o", "name").stdout
    roles = control_plane.kubectl("get", "clusterroles", "-o", "name").stdout

    assert kinds.count(".moderation.baleen.dev") == 5
    assert {"clusterrole.rbac.authorization.k8s.io/baleen-on-call"} <= set(roles.split())


def test_a_token_is_good_for_its_own_audience_only(control_plane):
    token = control_plane.token_for(NAMESPACE, "baleen-gateway", audience="baleen-gateway")
    good, other = review(control_plane, token, "baleen-gateway"), review(control_plane, token, "something-else")

    assert good["authenticated"]
    assert good["user"]["username"] == GATEWAY
    assert good["audiences"] == ["baleen-gateway"]
    assert not other.get("authenticated")
    assert (
        httpx.get(
            f"{control_plane.url}/version",
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=control_plane.ca),
            trust_env=False,
        ).status_code
        == 401
    )


@pytest.mark.parametrize(
    ("user", "verb", "resource", "answer"),
    [
        pytest.param("policy-author", "create", "moderationpolicies", "yes", id="authors write policies"),
        pytest.param("policy-author", "create", "moderationoverrides", "no", id="authors override nothing"),
        pytest.param("policy-author", "update", "moderationroutes", "no", id="authors move no route"),
        pytest.param("policy-author", "delete", "moderationroutes", "no", id="authors delete no route, nor its gates"),
        pytest.param("on-call", "delete", "moderationroutes", "no", id="whoever is on call deletes no route"),
        pytest.param("model-author", "patch", "modeldeployments", "yes", id="authors of models write deployments"),
        pytest.param("model-author", "create", "moderationpolicies", "no", id="authors of models write no policies"),
        pytest.param("on-call", "create", "moderationoverrides", "yes", id="whoever is on call overrides"),
        pytest.param("on-call", "patch", "moderationpolicies", "no", id="whoever is on call edits no policy"),
        pytest.param("on-call", "list", "moderationpolicyrevisions", "yes", id="whoever is on call reads the history"),
        pytest.param("default/default", "get", "moderationpolicies", "no", id="an application reads no policy"),
    ],
)
def test_people_may_do_what_their_role_says(control_plane, user, verb, resource, answer):
    said = control_plane.kubectl("auth", "can-i", verb, resource, user=user, check=False)

    assert said.stdout.strip() == answer


def test_the_audit_log_has_who_did_what(control_plane, namespace):
    control_plane.kubectl("create", "-n", namespace, "-f", "-", input=config_map("remembered"))
    events = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines() if namespace in line]
    found = [event for event in events if event["objectRef"].get("name") == "remembered" and event["verb"] == "create"]

    assert [event["user"]["username"] for event in found] == ["admin"]
    assert not [event for event in events if event["user"]["username"] == "system:kube-controller-manager"]


def test_an_apply_that_makes_an_object_needs_the_right_to_create(control_plane, namespace):
    """The log has one line for it, with the verb `patch`: the comparison of roles and calls knows that."""
    apply = ("apply", "--server-side", "--validate=false", "-n", namespace, "-f", "-")
    user = f"{namespace}/default"
    control_plane.kubectl("create", "serviceaccount", "default", "-n", namespace, check=False)
    control_plane.kubectl(
        "create", "role", "patcher", "-n", namespace, "--verb=get", "--verb=patch", "--resource=configmaps"
    )
    control_plane.kubectl(
        "create", "rolebinding", "patcher", "-n", namespace, "--role=patcher", f"--serviceaccount={namespace}:default"
    )
    refused = control_plane.kubectl(*apply, input=config_map("new"), user=user, check=False)
    control_plane.kubectl(*apply, input=config_map("new"))
    control_plane.kubectl(*apply, input=config_map("new"), user=user)
    events = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines() if namespace in line]
    made = [(event["verb"], event["responseStatus"]["code"]) for event in events if event["verb"] == "patch"]

    assert 'cannot create resource "configmaps"' in refused.stderr
    assert made == [("patch", 403), ("patch", 201), ("patch", 200)]


async def test_the_controller_manager_finishes_a_deleted_namespace(control_plane):
    name = f"short-lived-{os.getpid()}"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("create", "-n", name, "-f", "-", input=config_map("inside"))
    control_plane.kubectl("delete", "namespace", name, "--wait=false")

    await until(lambda: name not in names(control_plane.list_json("namespace", "")))


async def test_an_owned_object_goes_with_its_owner(control_plane, namespace):
    control_plane.kubectl("create", "-n", namespace, "-f", "-", input=config_map("owner"))
    owner = control_plane.get_json("configmap", "owner", namespace)["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
    owned = json.loads(config_map("owned"))
    owned["metadata"]["ownerReferences"] = [reference]
    control_plane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(owned))
    control_plane.kubectl("delete", "-n", namespace, "configmap", "owner")

    await until(lambda: "owned" not in names(control_plane.list_json("configmap", namespace)))


def test_the_shared_server_is_not_to_be_stopped(control_plane):
    with pytest.raises(RuntimeError, match="take a private one"):
        control_plane.stop_api()


@pytest.mark.parametrize(
    ("kind", "name", "namespace"),
    [
        pytest.param("crd", "moderationpolicies.moderation.baleen.dev", None, id="short name, no namespace"),
        pytest.param("ServiceAccount", "baleen-operator", NAMESPACE, id="kind"),
        pytest.param("clusterroles.rbac.authorization.k8s.io", "baleen-on-call", None, id="plural with its group"),
    ],
)
def test_an_object_is_found_by_every_name_of_its_kind(control_plane, kind, name, namespace):
    assert control_plane.get_json(kind, name, namespace)["metadata"]["name"] == name


def test_a_condition_is_waited_for(control_plane):
    found = control_plane.wait_for_condition("crd", "moderationroutes.moderation.baleen.dev", "Established")

    assert found["spec"]["names"]["kind"] == "ModerationRoute"


def test_a_kind_that_is_not_there_is_named(control_plane):
    with pytest.raises(ValueError, match="the server has no 'modpolicy'"):
        control_plane.get_json("modpolicy", "community")


def test_a_condition_that_does_not_come_is_told_with_what_is_there(control_plane):
    with pytest.raises(
        TimeoutError, match=r"configmap nothing is not Ready=True after 0\.1 s; its status:\nit does not exist"
    ):
        control_plane.wait_for_condition("configmap", "nothing", "Ready", "default", seconds=0.1)


def test_what_one_test_left_or_took_away_is_as_the_next_one_needs_it(private_control_plane):
    plane = private_control_plane
    plane.restore()
    crd = "moderationpolicies.moderation.baleen.dev"
    role, version = (
        plane.get_json("clusterrole", "baleen-operator"),
        plane.get_json("crd", crd)["metadata"]["generation"],
    )
    plane.make_namespace("left")
    plane.apply(policy("left", "Review"))
    with plane.client() as admin:
        # One of each: what was changed, what is gone, and a kind that goes with all its objects.
        taken = {"op": "remove", "path": "/rules/0"}
        kind = {"Content-Type": "application/json-patch+json"}
        roles = "/apis/rbac.authorization.k8s.io/v1"
        admin.patch(f"{roles}/clusterroles/baleen-operator", json=[taken], headers=kind).raise_for_status()
        admin.delete(f"{roles}/clusterrolebindings/baleen-gateway").raise_for_status()
        gone = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/moderationroutes.moderation.baleen.dev"
        # It takes its time to go, as it does on a busy machine.
        merge = {"Content-Type": "application/merge-patch+json"}
        held = {"metadata": {"finalizers": ["example.com/held"]}}
        admin.patch(gone, json=held, headers=merge).raise_for_status()
        admin.delete(gone).raise_for_status()

        def let_go() -> None:
            free = {"metadata": {"finalizers": None}}
            admin.patch(gone, json=free, headers=merge).raise_for_status()

        going = threading.Timer(1.0, let_go)
        going.start()
        plane.restore()
        going.join()

    assert "deletionTimestamp" not in plane.get_json("crd", "moderationroutes.moderation.baleen.dev")["metadata"]
    assert plane.get_json("clusterrole", "baleen-operator")["rules"] == role["rules"]
    assert plane.get_json("clusterrolebinding", "baleen-gateway")
    assert plane.list_json("modroute", "left") == plane.list_json("modpol", "left") == []
    assert plane.get_json("crd", crd)["metadata"]["generation"] == version


def test_a_resource_that_is_refused_at_the_start_is_named(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_A_Name}}")
    with pytest.raises(RuntimeError, match="Not_A_Name"), ControlPlane(tmp_path / "plane", manifests=[wrong]):
        pytest.fail("it started")


INNER = """
import json, pathlib, time
import pytest

@pytest.mark.cluster
def test_inner(control_plane):
    draft = pathlib.Path(__file__).with_name("draft")
    draft.write_text(json.dumps(control_plane.pids()))
    draft.rename(draft.with_name("pids"))
    time.sleep({seconds})
"""
SETTINGS = "[pytest]\npythonpath = {support}\nmarkers = cluster\naddopts = --basetemp={base}\n"


def start_run(folder: Path, seconds: int) -> subprocess.Popen[str]:
    """Start a test run of its own, whose only test writes the parts' process ids to `pids` and lasts for seconds."""
    (folder / "conftest.py").write_text('pytest_plugins = ["cluster_run", "control_plane_fixtures"]\n')
    (folder / "test_inner.py").write_text(INNER.format(seconds=seconds))
    (folder / "pytest.ini").write_text(SETTINGS.format(support=SUPPORT, base=folder / "base"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-c", folder / "pytest.ini", "-n", "1", folder],
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # loading all takes seconds
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


async def test_it_outlives_a_test_run_that_was_killed_and_nothing_is_left_when_its_last_user_leaves(tmp_path):
    run = start_run(tmp_path, seconds=600)
    try:
        await until(lambda: (tmp_path / "pids").exists() or run.poll() is not None, seconds=90)
        with ControlPlane(tmp_path / "base" / "cluster") as plane:
            os.killpg(run.pid, signal.SIGKILL)
            said, _ = run.communicate(timeout=60)

            assert (tmp_path / "pids").exists(), said

            pids = json.loads((tmp_path / "pids").read_text())

            assert plane.pids() == pids
            assert plane.get_json("namespace", "default")
    finally:
        run.kill()
        run.wait()

    supervisor = pids.pop("supervisor")

    assert sorted(pids) == ["etcd", "kube-apiserver", "kube-controller-manager"]
    assert not [name for name, pid in pids.items() if psutil.pid_exists(pid)]
    assert not (plane.folder / "etcd").exists()
    # Its parent was killed: whoever adopted it takes note of its end.
    await until(lambda: not psutil.pid_exists(supervisor))


async def kill_the_supervisor(folder: Path) -> None:
    with ControlPlane(folder, manifests=()) as plane:
        pids = plane.pids()
        os.kill(pids["supervisor"], signal.SIGKILL)
        await until(lambda: not any(psutil.pid_exists(pid) for name, pid in pids.items() if name != "supervisor"))


async def test_the_parts_end_with_a_supervisor_that_was_killed_and_their_user_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended before its user"):
        await kill_the_supervisor(tmp_path)
