"""Policies of one signal, and files of API keys, for tests over HTTP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from baleen_core.api_keys import ApiKey, KeyRole, hash_key, make_key, render_key

KEYS: Final = {
    "app": ((KeyRole.MODERATE,), None),
    "next": ((KeyRole.MODERATE,), None),
    "acme-app": ((KeyRole.MODERATE,), "acme"),
    "acme-people": ((KeyRole.REVIEW,), "acme"),
    "people": ((KeyRole.REVIEW,), None),
}
"""Roles and tenant of each key, by its name."""


def write_keys(path: Path) -> Path:
    """Write the file of all KEYS."""
    entries = [
        render_key(ApiKey(name=name, sha256=hash_key(_key(name)), roles=frozenset(roles), tenant=tenant))
        for name, (roles, tenant) in KEYS.items()
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


def shown(name: str) -> Mapping[str, str]:
    """Return the header that shows a key."""
    return {"Authorization": f"Bearer {_key(name)}"}


def policy(*, signal: str = "text-safety.toxicity", **content: Any) -> dict[str, Any]:
    """Write a policy for all content that reviews from 50% of a signal on; `content` adds to it."""
    categories = [{"name": "toxicity", "signals": [{"name": signal, "review": "50%"}]}]
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": "all", "namespace": "trust-safety"},
        "spec": {"type": "Moderation", "version": "v1.0.0", "policy": {"categories": categories, **content}},
    }


def _key(name: str) -> str:
    return make_key((10**6 + list(KEYS).index(name)).to_bytes(32))
