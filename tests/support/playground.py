"""A cluster with Baleen in it: `make cluster` starts it, `make cluster-down` ends it with all that is in it."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from cluster_site import example_models
from cluster_tools import ToolsMissing
from control_plane import KUBECTL, NAMESPACE, ROOT
from helm import helm_binary
from installed import ENDPOINT, POLICIES, TRITON, install
from node_cluster import NodeCluster, NodeUnavailable, end_detached, prepare
from oci_base import BuildFailed

FOLDER: Final = ROOT / ".state" / "cluster"
_COMPLETE: Final = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "playground", "namespace": "kube-system"},
}
"""What is written last, into the cluster: a file would outlive it."""
_HOW: Final = """\
# Baleen runs in namespace {namespace}, a Triton with the shipped models in namespace {triton}. To try it:
export KUBECONFIG={kubeconfig} PATH={folder}/bin:$PATH
kubectl apply --server-side -f {folder}/examples
kubectl wait -n {policies} --for=condition=Ready moddep,modpol --all --timeout=180s
kubectl rollout status -n {namespace} deployment/baleen-gateway && helm test baleen -n {namespace} --logs
"""


def start(folder: Path) -> None:
    """Start the cluster unless it runs, and print how to use it."""
    prepare()
    with NodeCluster(folder, detached=True) as cluster:
        if not _is_complete(cluster):
            install(cluster)
            _bring_commands(folder / "bin")
            _bring_examples(folder / "examples")
            cluster.apply(_COMPLETE)
        kubeconfig = cluster.kubeconfig()
    print(
        _HOW.format(folder=folder, kubeconfig=kubeconfig, namespace=NAMESPACE, policies=POLICIES, triton=TRITON), end=""
    )


def end(folder: Path) -> None:
    """End the cluster, if it runs."""
    if not end_detached(folder):
        print("baleen: no cluster runs", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)


def _is_complete(cluster: NodeCluster) -> bool:
    try:
        cluster.get_json(_COMPLETE["kind"], **_COMPLETE["metadata"])
    except KeyError:
        return False
    return True


def _bring_commands(folder: Path) -> None:
    """Put what people type into one folder."""
    folder.mkdir(exist_ok=True)
    for command in (*(KUBECTL.with_name(name) for name in ("baleen", "kubectl", "kubectl-baleen")), helm_binary()):
        (folder / command.name).unlink(missing_ok=True)
        (folder / command.name).symlink_to(command)


def _bring_examples(folder: Path) -> None:
    """Copy the example policies, for people to edit, and the models with the address of the cluster's Triton."""
    shutil.copytree(ROOT / "examples" / "policies", folder, dirs_exist_ok=True)
    (folder / "models.yaml").write_text(yaml.safe_dump(example_models(ENDPOINT), sort_keys=False))


def main(arguments: Sequence[str]) -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="playground", description=__doc__)
    parser.add_argument("command", choices=("start", "end"))
    try:
        {"start": start, "end": end}[parser.parse_args(arguments).command](FOLDER)
    except (NodeUnavailable, ToolsMissing, BuildFailed) as exc:
        print(f"baleen: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
