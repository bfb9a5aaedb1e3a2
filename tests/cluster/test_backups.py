"""Backups as they are taken in a cluster, from a gateway that goes on deciding; and backups of the resources."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baleen_core.policy_stream import AUDIENCE
from baleen_core.resources import APPLIED_BY_ANNOTATION, LIST_LABEL
from baleen_sidecar import backup
from cluster_site import TEXT, Site, override, policy, wait_for_decision
from control_plane import KUBECTL, ROOT
from gateway_process import RunningGateway, gateway_settings
from operators import RunningOperator, running_operator
from serving import until

pytestmark = pytest.mark.cluster


@contextmanager
def asking_for_ever(gateway: RunningGateway) -> Iterator[list[str]]:
    """Ask for decisions from several threads; yields the ids of those that were answered so far."""
    answered: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answered.append(gateway.moderate(TEXT).json()["id"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        yield answered
    finally:
        ended.set()
        for each in threads:
            each.join()


def test_every_decision_that_was_answered_before_a_backup_is_there_after_a_restore(
    site: Site, operator: RunningOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backup, "set_up_logging", lambda: None)
    plane, account = site.plane, f"{site.namespace}/default"
    state, other_state = tmp_path / "gateway-1/state", tmp_path / "other"
    more = {"backup_accounts": account}
    site.apply_policy("Review")
    site.wait_for_ready()
    until(lambda: plane.kubectl("get", "serviceaccount", "default", "-n", site.namespace, check=False).returncode == 0)
    (tmp_path / "backup").mkdir()
    (tmp_path / "token").write_text(plane.token_for(site.namespace, "default", AUDIENCE))
    with RunningGateway(**gateway_settings(plane, tmp_path / "gateway-1", site.namespace, **more)) as gateway:
        wait_for_decision(gateway, "Review")
        with asking_for_ever(gateway) as answered:
            until(lambda: len(answered) > 200)
            before = set(answered)
            monkeypatch.setenv("BALEEN_BACKUP_GATEWAYS", gateway.stream_url)
            monkeypatch.setenv("BALEEN_BACKUP_TOKEN_FILE", str(tmp_path / "token"))
            monkeypatch.setenv("BALEEN_BACKUP_FOLDER", str(tmp_path / "backup"))
            taken = backup.main(["take"])
            until(lambda: len(answered) > len(before) + 50)
        (file,) = (tmp_path / "backup/gateway-1").glob("*.db")
        while_it_runs = backup.main(["restore", str(file), "--state", str(state), "--replace"])
        gateway.kill()
    restored = backup.main(["restore", str(file), "--state", str(other_state)])
    again = gateway_settings(plane, tmp_path / "gateway-2", site.namespace) | {"state": other_state}
    with RunningGateway(**again) as gateway:
        wait_for_decision(gateway, "Review")
        missing = [each for each in before if gateway.client.get(f"/v1/decisions/{each}").status_code != 200]

    assert (taken, while_it_runs, restored) == (0, 1, 0)
    assert missing == []


def documented(first: str) -> str:
    """Return the block of the guide that begins so."""
    page = (ROOT / "docs/howto/back-up-and-restore.md").read_text()
    (found,) = re.findall(rf"^```sh\n({re.escape(first)}.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(found)


def run(site: Site, script: str, folder: Path) -> None:
    """Do what the guide says, for the test's own namespace instead of all."""
    environment = {"PATH": f"{KUBECTL.parent}:{os.environ['PATH']}", "KUBECONFIG": str(site.plane.kubeconfig())}
    script = script.replace(" -A ", f" -n {site.namespace} ")
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def specs_of(site: Site) -> dict[str, Any]:
    """Return the specs of what is there of the product in the namespace, and the texts of lists."""
    found = {}
    for kind in (*KINDS, "configmap"):
        for each in site.plane.list_json(kind, site.namespace):
            if each["metadata"]["name"] != "kube-root-ca.crt":
                found[f"{kind}/{each['metadata']['name']}"] = each.get("spec") or each["data"]
    return found


def wait_for_pinned(site: Site, digest: str, *, rows: int) -> list[dict[str, Any]]:
    """Return the history of the policy once its override is in force, and the history has so many rows."""
    wait = site.plane.wait_for_condition

    def history() -> list[dict[str, Any]]:
        found = wait("modpol", "community", "Ready", site.namespace, status="False", reason="Pinned")["status"]
        assert found["stable"]["digest"] == digest
        return list(found["history"])

    until(lambda: len(history()) == rows)
    return history()


KINDS = ("modpol", "modover", "moddep", "modrev", "modroute")


def test_resources_come_back_into_an_empty_cluster_with_digests_and_history(site: Site, tmp_path: Path):
    plane, name = site.plane, site.namespace
    terms = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "terms", "namespace": name}}
    place = {"type": "ConfigMap", "name": "terms", "key": "terms.txt"}
    lists = [{"name": "slurs", "type": "Terms", "action": "Block", "source": place}]
    manifest = policy(name, "Review", version="v1")
    manifest["spec"]["policy"] |= {"lists": lists}
    source = {**terms, "data": {"terms.txt": "two\n"}}
    with running_operator(plane, name) as operator:
        operator.wait_until_leading()
        plane.apply({**terms, "data": {"terms.txt": "one\n"}}, manifest)
        first = site.wait_for_ready()["status"]["stable"]["digest"]
        manifest["spec"]["version"] = "v2"
        plane.apply(source, manifest)
        until(lambda: site.route()["epoch"] == 2)
        plane.apply(override(name, pin={"digest": first, "reason": "the new list is wrong"}))
        before = wait_for_pinned(site, first, rows=3)
    # As the webhook writes it; whoever restores is somebody else.
    stamp = f"{APPLIED_BY_ANNOTATION}=sha256:{'0' * 64} policy-author"
    plane.kubectl("annotate", "modpol", "community", "-n", name, stamp, user="policy-author")
    there = specs_of(site)
    run(site, documented("kubectl get modrev"), tmp_path)
    plane.kubectl("delete", f"{','.join(KINDS)},configmap", "--all", "-n", name)
    # Times of creation have whole seconds, and this one has to be another.
    time.sleep(1)
    plane.apply(source)
    run(site, documented("kubectl annotate --local"), tmp_path)
    put_back = specs_of(site)
    with running_operator(plane, name) as operator:
        operator.wait_until_leading()
        after = wait_for_pinned(site, first, rows=5)
        found = specs_of(site)
        revisions = {each["metadata"]["uid"]: each["spec"]["digest"] for each in plane.list_json("modrev", name)}
        copies = [
            each for each in plane.list_json("configmap", name) if LIST_LABEL in each["metadata"].get("labels", {})
        ]
    route, old = found.pop("modroute/community"), there["modroute/community"]

    assert put_back == there
    assert found == {name: each for name, each in there.items() if name != "modroute/community"}
    assert {*revisions.values()} == {first, old["stable"]}
    # The policy was created anew, which is a new row; what was in force is so still, and no epoch comes again.
    assert {field for field in old if route[field] != old[field]} <= {"epoch", "created", "time"}
    assert [row["reason"] for row in before] == ["Pinned: the new list is wrong", "Applied", "Applied"]
    assert after[2:] == before
    assert [row["digest"] for row in after[:2]] == [first, old["stable"]]
    assert route["epoch"] > before[0]["epoch"]
    owners = {revisions[each["uid"]] for copy in copies for each in copy["metadata"].get("ownerReferences", ())}
    assert len(copies) == 2
    assert old["stable"] in owners
