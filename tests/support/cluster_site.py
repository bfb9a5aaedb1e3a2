"""One namespace of a cluster as its people use it: files are applied with kubectl, and gateways are asked."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from control_plane import ROOT, ControlPlane
from gateway_process import RunningGateway
from serving import until

TEXT = "http://a.example http://b.example http://c.example"
"""A text with three links."""


def policy(namespace: str, action: str, *, name: str = "community", links: int = 1, **spec: Any) -> dict[str, Any]:
    """Write a policy that does something to texts with more links than that."""
    rule = {"name": "links", "when": f"content.links > {links}", "action": action}
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"policy": {"rules": [rule]}, **spec},
    }


def override(namespace: str, *, name: str = "community", **spec: Any) -> dict[str, Any]:
    """Write the override of a policy."""
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationOverride",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def example_models(endpoint: str) -> dict[str, Any]:
    """Read the example of models; they are on a Triton of someone else."""
    models: dict[str, Any] = yaml.safe_load((ROOT / "examples/models/starter.yaml").read_text())
    models["spec"]["runtime"] = {"external": {"endpoints": [endpoint]}}
    return models


def examples(endpoint: str) -> list[dict[str, Any]]:
    """Read what `kubectl apply -f examples/` applies; the models are on a Triton of someone else."""
    files = sorted((ROOT / "examples/policies").glob("*.yaml"))
    manifests = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return [*manifests, example_models(endpoint)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A namespace, and what is said and asked there."""

    plane: ControlPlane
    namespace: str

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply as GitOps tools do."""
        self.plane.apply(*manifests)

    def apply_policy(self, action: str, **more: Any) -> None:
        """Apply the policy with this action for texts with links."""
        self.apply(policy(self.namespace, action, **more))

    def route(self, name: str = "community") -> dict[str, Any]:
        """Return the spec of a policy's route."""
        return dict(self.plane.get_json("modroute", name, self.namespace)["spec"])

    def wait_for_ready(self, name: str = "community") -> dict[str, Any]:
        """Return the policy once what it says is in force."""
        return self.plane.wait_for_condition("modpol", name, "Ready", self.namespace)


def decides(gateway: RunningGateway, decision: str, text: str = TEXT, **context: Any) -> Callable[[], bool]:
    """Return whether a gateway's next decision on a text is this one."""

    def look() -> bool:
        answer = gateway.moderate(text, **context)
        return answer.status_code == 200 and bool(answer.json()["decision"] == decision)

    return look


def wait_for_decision(gateway: RunningGateway, decision: str, text: str = TEXT, **context: Any) -> float:
    """Return how long it took until a gateway decides so."""
    try:
        return until(decides(gateway, decision, text, **context))
    except AssertionError:
        raise AssertionError(f"not {decision}; it said:\n{gateway.said()}") from None


def write_yaml(folder: Path, *manifests: Mapping[str, Any], file: str = "policies.yaml") -> Path:
    """Write a file as its author would; JSON is YAML."""
    path = folder / file
    path.write_text("\n---\n".join(json.dumps(each, indent=2) for each in manifests))
    return path
