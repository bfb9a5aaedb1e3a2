"""Run Helm on the chart: to render it without a cluster, or against the API server of a control plane."""

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from cluster_tools import KUBERNETES_VERSION, tools

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "baleen"
RELEASE: Final = "baleen"
_SECONDS: Final = 120

Values = Mapping[str, Any]

KEYS: Final[Values] = {"gateway": {"apiKeys": {"existingSecret": "baleen-keys"}}}
"""The least that an installation has to say."""


@cache
def helm_binary() -> Path:
    """Return Helm's path; it is built if need be."""
    found: Path = tools(("helm",))["helm"]
    return found


def helm(
    *arguments: str | Path, values: Values | None = None, kubeconfig: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run Helm with values on its standard input; without a kubeconfig it finds no cluster.

    Raises AssertionError with what Helm said when it failed, unless `check` is off.
    """
    command = [str(helm_binary()), *map(str, arguments), *(("--values", "-") if values is not None else ())]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    environment["KUBECONFIG"] = str(kubeconfig or os.devnull)
    done = subprocess.run(
        command,
        input=yaml.safe_dump(dict(values or {})),
        env=environment,
        text=True,
        capture_output=True,
        timeout=_SECONDS,
    )
    if check and done.returncode:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stderr}")
    return done


def render(
    values: Values = KEYS, *flags: str, chart: Path = CHART, namespace: str = "baleen-system", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Return what `helm template` says of a release."""
    # The version is what templates take themselves to be for, since no server tells it.
    whole = ("--kube-version", KUBERNETES_VERSION, "--namespace", namespace, *flags)
    return helm("template", RELEASE, chart, *whole, values=values, check=check)


def manifests(values: Values = KEYS, *flags: str, namespace: str = "baleen-system") -> list[dict[str, Any]]:
    """Return the objects of a release, those of its hooks included."""
    rendered = render(values, *flags, namespace=namespace).stdout
    return [document for document in yaml.load_all(rendered, yaml.CSafeLoader) if document]


def merged(*parts: Values) -> dict[str, Any]:
    """Return values with later ones over earlier ones, as Helm lays files over each other."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            is_deep = isinstance(value, Mapping) and isinstance(whole.get(name), Mapping)
            whole[name] = merged(whole[name], value) if is_deep else value
    return whole
