"""`kubectl baleen sidecars`: which pods have a sidecar of which image, and which of them an upgrade left behind."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from baleen_cli.cluster import Cluster, Manifest
from baleen_cli.console import lines, note, output, table
from baleen_cli.kubectl_commands.facts import age
from baleen_cli.kubectl_commands.options import (
    AllOption,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    clock,
    open_cluster,
    print_object,
)
from baleen_core.errors import ClusterError
from baleen_operator.plan.injection import CONTAINER, INJECT_LABEL, INJECTED_ANNOTATION, VERSION_ANNOTATION

OPERATOR: Final = "baleen-operator"
IMAGE_SETTING: Final = "BALEEN_OPERATOR_SIDECAR_IMAGE"

CURRENT: Final = "Current"
OLDER: Final = "Older"
CHOSEN: Final = "Chosen"
MISSING: Final = "Missing"
UNKNOWN: Final = "Unknown"


def sidecars(
    context: typer.Context,
    namespace: NamespaceOption = "",
    all_namespaces: AllOption = False,
    system_namespace: Annotated[str, typer.Option(help="Where Baleen is installed")] = "baleen-system",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show the pods that asked for a sidecar, and whether theirs is what new pods get."""
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    pods = cluster.list("Pod", None if all_namespaces else cluster.namespace, label=f"{INJECT_LABEL}=true")
    image = _read_image(cluster, system_namespace)
    found = [describe(each, image) for each in pods]
    if output_format:
        print_object({"image": image, "items": found}, output_format)
        return
    if not found:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        lines([f"no pods with the label {INJECT_LABEL}=true in {where}"])
        return
    shown = table(*(["NAMESPACE"] if all_namespaces else []), "POD", "SIDECAR", "STANDING", "READY", "AGE")
    for each in found:
        place = [each["namespace"]] if all_namespaces else []
        shown.add_row(*place, each["name"], each["image"], each["standing"], each["ready"], age(each["created"], now))
    output.print(shown)
    if any(each["standing"] == OLDER for each in found):
        note(f"new pods get {image}; those that are older get it when they are made anew")


def describe(pod: Manifest, image: str) -> dict[str, Any]:
    """Say what a pod has, and how that stands to the image that new pods get (empty: nobody knows)."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    annotations = metadata.get("annotations") or {}
    containers = (pod.get("spec") or {}).get("initContainers") or ()
    (own,) = [str(each.get("image", "")) for each in containers if each["name"] == CONTAINER] or [""]
    ready = [each.get("ready") for each in status.get("initContainerStatuses") or () if each["name"] == CONTAINER]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "image": own,
        "standing": _standing(own, annotations, image),
        "ready": str(bool(ready and ready[0])),
        "created": str(metadata.get("creationTimestamp", "")),
    }


def _standing(own: str, annotations: Mapping[str, str], image: str) -> str:
    if not own or not annotations.get(INJECTED_ANNOTATION):
        return MISSING
    if not image:
        return UNKNOWN
    if own == image:
        return CURRENT
    return CHOSEN if annotations.get(VERSION_ANNOTATION) else OLDER


def _read_image(cluster: Cluster, namespace: str) -> str:
    """Return the image that new pods get, as the operator's settings say it."""
    try:
        found = cluster.get("ConfigMap", namespace, OPERATOR)
    except ClusterError as exc:
        note(f"which image new pods get cannot be read: {exc}")
        return ""
    if found is None:
        note(f"there is no ConfigMap {OPERATOR} in namespace {namespace}; choose another with --system-namespace")
        return ""
    return str((found.get("data") or {}).get(IMAGE_SETTING, ""))
