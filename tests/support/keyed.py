"""Policies of one signal, and files of API keys, for tests over HTTP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from baleen_core.api_keys import ApiKey, KeyList, KeyRole, hash_key, make_key, render_key_list
from baleen_core.callers import RateLimit

KEYS: Final = {
    "app": ((KeyRole.MODERATE,), None),
    "next": ((KeyRole.MODERATE,), None),
    "acme-app": ((KeyRole.MODERATE,), "acme"),
    "acme-people": ((KeyRole.REVIEW,), "acme"),
    "people": ((KeyRole.REVIEW,), None),
}
"""Roles and tenant of each key, by its name."""


def api_key(name: str, key: str, *roles: KeyRole, **more: Any) -> ApiKey:
    """Return what a file has of a key: of one that may have content judged, where no roles are named."""
    return ApiKey(name=name, sha256=hash_key(key), roles=frozenset(roles or {KeyRole.MODERATE}), **more)


def write_key_file(path: Path, *keys: ApiKey, tenants: Mapping[str, tuple[RateLimit, ...]] | None = None) -> Path:
    """Write a file of keys, and of limits of tenants; return where."""
    path.write_text(yaml.safe_dump(render_key_list(KeyList(keys=keys, tenants=tenants or {}))))
    return path


def write_keys(path: Path) -> Path:
    """Write the file of all KEYS."""
    return write_key_file(
        path, *(api_key(name, _key(name), *roles, tenant=tenant) for name, (roles, tenant) in KEYS.items())
    )


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
