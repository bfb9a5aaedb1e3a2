"""A cluster with Baleen in it: `make cluster` starts it, `make cluster-down` ends it with all that is in it."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster_site import examples as read_examples
from cluster_tools import ToolsMissing, tools
from control_plane import KUBECTL, NAMESPACE, ROOT
from installed import ENDPOINT, POLICIES, TRITON, install
from node_cluster import NodeCluster, NodeUnavailable, end_detached, prepare
from oci_base import BuildFailed

FOLDER: Final = ROOT / ".state" / "cluster"
_HOW: Final = """\
# Baleen runs in namespace {namespace}, a Triton with the shipped models in namespace {triton}.
export KUBECONFIG={kubeconfig} PATH={commands}:$PATH
kubectl apply --server-side -f {folder}/examples.yaml
kubectl wait -n {policies} --for=condition=Ready moddep,modpol --all --timeout=180s
kubectl rollout status -n {namespace} deployment/baleen-gateway && helm test baleen -n {namespace} --logs
"""


def start(folder: Path) -> None:
    """Start the cluster unless it runs, and print how to use it."""
    prepare()
    examples = folder / "examples.yaml"
    with NodeCluster(folder, detached=True) as cluster:
        # What is written last says that all of it is there.
        if not examples.exists():
            install(cluster)
            examples.write_text("\n---\n".join(json.dumps(each, indent=1) for each in read_examples(ENDPOINT)))
        print(
            _HOW.format(
                folder=folder,
                kubeconfig=cluster.kubeconfig(),
                commands=f"{KUBECTL.parent}:{tools(['helm'])['helm'].parent}",
                namespace=NAMESPACE,
                policies=POLICIES,
                triton=TRITON,
            ),
            end="",
        )


def end(folder: Path) -> None:
    """End the cluster, if it runs."""
    if not end_detached(folder):
        print("baleen: no cluster runs", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)


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
