"""The policies that benchmarks judge by, as their authors would write them."""

from pathlib import Path
from typing import Any, Final

import yaml

from baleen_core.policy.schema import API_VERSION

RULE: Final = {
    "name": "link-spam",
    "when": "content.links > 3 && author.ageDays < 7",
    "action": "Review",
    "reason": "New accounts may post three links",
}


def policy(**content: Any) -> dict[str, Any]:
    """Return a ModerationPolicy with the given content, for every scope."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModerationPolicy",
        "metadata": {"name": "comments", "namespace": "bench"},
        "spec": {"version": "v1.0.0", "policy": content},
    }


def rule_only() -> dict[str, Any]:
    """Return a policy that asks no model."""
    return policy(rules=[RULE])


def threshold(*signals: str, review: str = "70%", block: str = "92%") -> dict[str, Any]:
    """Return a policy with one category for each signal (`<model>.<signal>`)."""
    return policy(
        categories=[
            {
                "name": signal.replace(".", "-").replace("_", "-"),
                "signals": [{"name": signal, "review": review, "block": block}],
            }
            for signal in signals
        ]
    )


def write(folder: Path, *resources: dict[str, Any]) -> Path:
    """Write resources as a folder of policies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policies.yaml").write_text(yaml.safe_dump_all(resources, sort_keys=False), encoding="utf-8")
    return folder
