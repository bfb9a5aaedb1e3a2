"""The options that all commands have, as kubectl spells them, and how results are printed for machines."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from baleen_cli.target import Target

if TYPE_CHECKING:
    from baleen_cli.cluster import Cluster


class Format(StrEnum):
    """How results are written for machines."""

    JSON = "json"
    YAML = "yaml"


NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of the policy; else that of the kubeconfig's context")
]
AllOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace")]
ContextOption = Annotated[str, typer.Option("--context", help="Context of the kubeconfig; else its current one")]
KubeconfigOption = Annotated[
    str, typer.Option(help="The kubeconfig; else KUBECONFIG, ~/.kube/config, or the pod's own")
]
OutputOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="Complete objects for machines, instead of words for people")
]
Name = Annotated[str, typer.Argument(help="The policy's name")]


def open_cluster(context: typer.Context, namespace: str, kube_context: str, kubeconfig: str) -> "Cluster":
    """Connect as the options say; those behind the command win over those before it."""
    # The client takes longer to import than all else: `--help` does without it.
    from baleen_cli.cluster import connect

    target = context.ensure_object(Target)
    given = {"namespace": namespace, "context": kube_context, "kubeconfig": kubeconfig}
    return connect(replace(target, **{name: value for name, value in given.items() if value}), os.environ)


def clock() -> datetime:
    """Return now, in UTC."""
    return datetime.now(UTC)


def print_object(value: Mapping[str, Any], output: Format) -> None:
    """Write an object for machines."""
    match output:
        case Format.JSON:
            typer.echo(json.dumps(value, indent=4, ensure_ascii=False))
        case Format.YAML:
            typer.echo(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True), nl=False)
