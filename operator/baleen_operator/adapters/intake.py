"""From what was seen to what has to be looked at: changes go into the mirror, and their keys on the queue."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from baleen_core.model.schema import Model
from baleen_core.policy.schema import ListSourceType
from baleen_core.resources import DEPLOYMENT_KIND, POLICY_KIND, ROUTE_KIND
from baleen_operator.adapters.mirror import Change, Mirror
from baleen_operator.adapters.queue import Task
from baleen_operator.metrics import Metrics
from baleen_operator.reconcile.ports import Key, Manifest


class Add(Protocol):
    """Where keys go; what is urgent overtakes what is not."""

    def __call__(self, tasks: Iterable[Task], *, urgent: bool) -> None:
        """Have these looked at."""


SWEEP_SECONDS: Final = 0.5
"""How long changes of models are collected before the policies are looked at."""


class Intake:
    """Takes what kopf's thread reports over into the loop that everything else lives in, in the order it came.

    `listed` is set when something was listed rather than watched: the watch began anew, and deletions may be missed.
    """

    def __init__(self, mirror: Mirror, metrics: Metrics, add: Add) -> None:
        self._mirror = mirror
        self._metrics = metrics
        self._add = add
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._models: Sequence[Model] = ()
        self.listed = asyncio.Event()

    def resource(self, kind: str, event: str | None, manifest: Manifest) -> None:
        """Take a change of one of Baleen's resources; called in kopf's thread."""
        self._hand_over(self._take_resource, kind, event, manifest)

    def config_map(self, event: str | None, namespace: str, name: str) -> None:
        """Take word that a ConfigMap changed; called in kopf's thread."""
        self._hand_over(self._take_config_map, namespace, name)

    def deployment(self, event: str | None, manifest: Manifest) -> None:
        """Take a change of a Deployment that the operator made; called in kopf's thread."""
        self._hand_over(self._take_deployment, manifest)

    def on_change(self, change: Change) -> None:
        """Have looked at whatever depends on what changed."""
        self._add([(POLICY_KIND, key) for key in change.policies], urgent=True)
        if change.kind == DEPLOYMENT_KIND:
            self._add([(DEPLOYMENT_KIND, change.key)], urgent=True)
        if change.models_changed and self._sweep is None:
            # Many at once, such as at an installation, are one reason to look at all policies.
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._look_at_models)
        if change.kind in (POLICY_KIND, ROUTE_KIND):
            self._add([(POLICY_KIND, key) for key in self._rivals(change)], urgent=False)

    def everything(self) -> None:
        """Have everything looked at once, also policies of which only the rest is left."""
        self._models = self._mirror.models()
        keys = set(self._mirror.keys(POLICY_KIND)) | set(self._mirror.keys(ROUTE_KIND))
        self._add([(DEPLOYMENT_KIND, key) for key in sorted(self._mirror.keys(DEPLOYMENT_KIND))], urgent=False)
        self._add([(POLICY_KIND, key) for key in sorted(keys)], urgent=False)

    def _look_at_models(self) -> None:
        self._sweep = None
        models = self._mirror.models()
        if models != self._models:
            self._models = models
            self._add([(POLICY_KIND, key) for key in self._mirror.keys(POLICY_KIND)], urgent=False)

    def with_lists(self) -> None:
        """Have the policies that have lists looked at."""
        self._add([(POLICY_KIND, key) for key in self._mirror.with_lists()], urgent=False)

    def _rivals(self, change: Change) -> set[Key]:
        before = change.before.kinship if change.before else None
        after = change.after.kinship if change.after else None
        if before == after:
            return set()
        return {key for kinship in (before, after) if kinship for key in self._mirror.sharing_scope(*kinship)}

    def _hand_over(self, take: Callable[..., None], *arguments: Any) -> None:
        # The loop is closed when the process is about to end: what comes then is seen by whoever leads next.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(take, *arguments)

    def _take_resource(self, kind: str, event: str | None, manifest: Manifest) -> None:
        self._metrics.watched_events.labels(kind).inc()
        metadata = manifest["metadata"]
        if event == "DELETED":
            self._mirror.remove(kind, (metadata["namespace"], metadata["name"]), metadata["resourceVersion"])
            return
        if event is None:
            self.listed.set()
        self._mirror.put(kind, manifest)

    def _take_config_map(self, namespace: str, name: str) -> None:
        readers = self._mirror.reading((ListSourceType.CONFIG_MAP, namespace, name))
        self._add([(POLICY_KIND, key) for key in readers], urgent=True)

    def _take_deployment(self, manifest: Manifest) -> None:
        metadata: Mapping[str, Any] = manifest["metadata"]
        owners = [each["name"] for each in metadata.get("ownerReferences") or () if each["kind"] == DEPLOYMENT_KIND]
        self._add([(DEPLOYMENT_KIND, (metadata["namespace"], name)) for name in owners], urgent=True)
