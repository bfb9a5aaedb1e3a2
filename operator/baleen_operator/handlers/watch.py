"""Everything that is watched: each change goes on as it is, and no handler decides anything."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

import kopf

from baleen_core.resources import GROUP, LIST_LABEL, MANAGED_BY, PLURALS, VERSION

MANAGED = ",".join(f"{label}={value}" for label, value in MANAGED_BY.items())


class Arrivals(Protocol):
    """Where changes go; called in kopf's thread."""

    def resource(self, kind: str, event: str | None, manifest: Mapping[str, Any]) -> None:
        """Take a change of one of Baleen's resources; `event` is None for what was listed, else as the watch says."""

    def config_map(self, event: str | None, namespace: str, name: str) -> None:
        """Take word that a ConfigMap changed; its content stays behind."""

    def deployment(self, event: str | None, manifest: Mapping[str, Any]) -> None:
        """Take a change of a Deployment that the operator made."""


def build_registry(arrivals: Arrivals, login: Callable[[], Awaitable[kopf.ConnectionInfo]]) -> kopf.OperatorRegistry:
    """Bind the handlers: events only, for all else of kopf writes into the objects or puts finalizers on them."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    for kind, plural in PLURALS.items():

        @kopf.on.event(GROUP, VERSION, plural, id=f"watch-{plural}", param=kind, registry=registry)
        async def on_resource(event: kopf.RawEvent, param: Any = None, **_: Any) -> None:
            arrivals.resource(param, event["type"], cast(Mapping[str, Any], event["object"]))

    @kopf.on.event("", "v1", "configmaps", id="watch-configmaps", registry=registry)
    async def on_config_map(event: kopf.RawEvent, namespace: str | None, name: str, **_: Any) -> None:
        arrivals.config_map(event["type"], str(namespace), name)

    @kopf.on.event("apps", "v1", "deployments", id="watch-deployments", registry=registry)
    async def on_deployment(event: kopf.RawEvent, **_: Any) -> None:
        arrivals.deployment(event["type"], cast(Mapping[str, Any], event["object"]))

    return registry


class NoDiffs(kopf.DiffBaseStorage):
    """Keeps nothing and compares nothing: kopf would copy each object whole for handlers that are not there."""

    def build(self, **_: Any) -> Any:
        """Return an empty essence."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Return that nothing was kept."""
        return None

    def store(self, **_: Any) -> None:
        """Keep nothing."""


def build_settings() -> kopf.OperatorSettings:
    """Set kopf to watch and to do nothing else."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffs()
    # A worker lives on for so long after its object's last event, and so many at once bound the rate. The limit is
    # above a chunk, or the bodies of a whole listing would wait in memory.
    settings.queueing.idle_timeout = 0.02
    settings.queueing.worker_limit = 1000
    settings.watching.chunk_size = 50
    # Some proxies drop connections that are silent; the server ends each watch in this time, and another begins.
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.reconnect_backoff = 0.5
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    # What goes on for longer ends kopf, which then is started anew, and is said in /ready.
    settings.networking.error_backoffs = (0.5, 1, 2, 4)
    # Would kill the whole process ten minutes after kopf ended by itself.
    settings.process.ultimate_exiting_timeout = None
    # The lists that the operator keeps itself are large and immutable; their sources are other ConfigMaps.
    settings.watching.label_selectors["", "v1", "configmaps"] = f"!{LIST_LABEL}"
    settings.watching.label_selectors["apps", "v1", "deployments"] = MANAGED
    return settings
