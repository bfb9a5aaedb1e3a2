"""The cluster of one node that end-to-end tests stand on: it does what they rely on, and leaves nothing behind."""

import http.server
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from control_plane import KUBECTL
from helm import helm
from node_cluster import NodeCluster
from tiny_images import BUSYBOX, busybox_archive
from traces import traces, traces_in_the_end
from waiting import until

pytestmark = pytest.mark.node

USER = 65532


def pod(name, *command, user=USER, claim=None):
    """Return a pod of the image BUSYBOX as the standard `restricted` wants it, but for its user if that is root."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "args": list(command),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsUser": user,
            "runAsNonRoot": user != 0,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def within(namespace, manifest):
    return manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}}


async def output_of(cluster, namespace, name):
    """Return what a pod wrote, once it has ended well."""

    def ended():
        phase = cluster.get_json("pod", name, namespace)["status"]["phase"]
        assert phase != "Failed", cluster.kubectl("logs", "--namespace", namespace, name).stdout
        return phase == "Succeeded"

    await until(ended, seconds=60)
    return cluster.kubectl("logs", "--namespace", namespace, name).stdout


@pytest.fixture
def web(node_cluster, restricted):
    """Give the namespace of a pod `web` that serves /etc, behind a service `web`."""
    node_cluster.apply(
        within(restricted, pod("web", "httpd", "-f", "-v", "-p", "8080", "-h", "/etc")),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": restricted},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    node_cluster.wait_for_condition("pod", "web", "Ready", restricted)
    return restricted


def test_a_restricted_namespace_runs_a_pod_that_is_nobody_and_writes_to_its_volume_alone(node_cluster, restricted):
    volume = node_cluster.offer_volume(restricted)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": restricted},
        "spec": {
            "storageClassName": "",
            "volumeName": restricted,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    node_cluster.apply(claim, within(restricted, pod("writer", "sleep", "600", claim="data")))
    node_cluster.wait_for_condition("pod", "writer", "Ready", restricted)

    def execute(*command, check=True):
        return node_cluster.kubectl(
            "exec", "--namespace", restricted, "writer", "--", "/busybox", *command, check=check
        )

    assert execute("id", "-u").stdout == f"{USER}\n"
    assert "Read-only file system" in execute("touch", "/here", check=False).stderr
    execute("touch", "/data/kept")
    assert (volume / "kept").stat().st_uid == USER


def test_a_restricted_namespace_refuses_a_pod_that_is_root(node_cluster, restricted):
    with pytest.raises(AssertionError, match=r"violates PodSecurity .*runAsNonRoot != true"):
        node_cluster.apply(within(restricted, pod("root", "sleep", "600", user=0)))


async def test_a_pod_reaches_a_service_by_its_name_and_this_machine_by_its_address(node_cluster, web):
    class Here(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"this machine\n")

    with http.server.ThreadingHTTPServer((node_cluster.host_address, 0), Here) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = (
            f"wget -qO- http://web/hostname; wget -qO- http://web.{web}.svc.cluster.local/hostname; "
            f"wget -qO- http://{node_cluster.host_address}:{server.server_port}/; "
            "nslookup beyond.example || true"
        )
        node_cluster.apply(within(web, pod("asking", "sh", "-c", script)))
        said = await output_of(node_cluster, web, "asking")
        server.shutdown()

    assert said.startswith("web\nweb\nthis machine\n")
    assert "can't find beyond.example: NXDOMAIN" in said


def test_a_pod_can_be_looked_into_from_outside(node_cluster, web):
    command = [KUBECTL, f"--kubeconfig={node_cluster.kubeconfig()}", "--namespace", web, "port-forward", "web", ":8080"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        port = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> 8080\n", forwarding.stdout.readline())[1]
        answer = httpx.get(f"http://127.0.0.1:{port}/hostname", trust_env=False)
        forwarding.kill()

    group = node_cluster.control_group("web", web, "cpuacct")
    pids = [pid for file in group.rglob("cgroup.procs") for pid in file.read_text().split()]
    commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids]

    assert answer.text == "web\n"
    assert ["httpd"] in [command[1:2] for command in commands]
    assert "response:200" in node_cluster.kubectl("logs", "--namespace", web, "web").stdout
    assert node_cluster.kubectl("exec", "--namespace", web, "web", "--", "/busybox", "hostname").stdout == "web\n"


def test_the_api_server_reaches_a_service_as_it_would_a_webhook(node_cluster, web):
    address = node_cluster.get_json("service", "web", web)["spec"]["clusterIP"]
    asked = node_cluster.run_on_node("/bin/busybox", "wget", "-qO-", f"http://{address}/hostname")

    assert asked.stdout == "web\n", asked.stderr


def test_helm_installs_into_it(node_cluster, restricted, tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 0.1.0\nkubeVersion: '>=1.35.0-0'\n")
    (tmp_path / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: small}\ndata: {from: '{{ .Release.Name }}'}\n"
    )
    helm("install", "mine", tmp_path, "--namespace", restricted, kubeconfig=node_cluster.kubeconfig())

    assert node_cluster.get_json("configmap", "small", restricted)["data"] == {"from": "mine"}


def run_a_pod(cluster):
    cluster.import_image(busybox_archive())
    cluster.apply(pod("web", "sleep", "600"))
    cluster.wait_for_condition("pod", "web", "Ready")


async def test_nothing_is_left_of_a_cluster_however_it_ended(node_ready, tmp_path):
    folder = tmp_path / "cluster"
    before = traces(folder, "none")
    killed = NodeCluster(folder).__enter__()
    run_a_pod(killed)
    slot = (folder / "slot").read_text()
    running = traces(folder, slot)
    os.kill(int((folder / "outside").read_text()), signal.SIGKILL)
    # What the kernel does not remove is the next one's to remove.
    await until(lambda: set(traces(folder, slot)) - set(before) == {"control groups", "stored"})
    with pytest.raises(RuntimeError, match="ended before its user"):
        killed.__exit__(None, None, None)
    with NodeCluster(folder) as again:
        assert (folder / "slot").read_text() == slot
        assert not again.list_json("pod", "default")
        run_a_pod(again)

    assert set(running) - set(before) == {"processes", "links", "control groups", "stored"}
    assert any("sleep 600" in command for command in running["processes"])
    assert traces_in_the_end(folder, slot, before) == before
