"""Events for people: written in the background, few at a time, and lost rather than waited for."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from baleen_core.errors import ClusterError
from baleen_operator.adapters.api import ApiServer, call_on
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Emit, Target

logger = logging.getLogger(__name__)

EVENTS: Final = Target(group="", version="v1", plural="events", kind="Event")
MAX_WAITING: Final = 1000
MAX_REMEMBERED: Final = 4096
MAX_MESSAGE: Final = 1024
SECONDS_BETWEEN: Final = 0.05
SILENT_SECONDS: Final = 600.0
"""How long the same thing is not said again of the same object."""
COMPONENT: Final = "baleen-operator"


class Events:
    """A bounded queue of Events; what does not fit, or is refused, is counted and gone."""

    def __init__(
        self, api: ApiServer, metrics: Metrics, *, instance: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._instance = instance
        self._clock = clock
        self._waiting: asyncio.Queue[Emit] = asyncio.Queue(MAX_WAITING)
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def emit(self, event: Emit) -> None:
        """Have an Event written soon, unless it was just said."""
        said = (event.uid, event.reason, event.message)
        now = self._clock()
        if now - self._said.get(said, -SILENT_SECONDS) < SILENT_SECONDS:
            return
        self._said[said] = now
        self._said.move_to_end(said)
        if len(self._said) > MAX_REMEMBERED:
            self._said.popitem(last=False)
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self._metrics.events_lost.inc()

    async def run(self) -> None:
        """Write Events until cancelled."""
        while True:
            await self._write(await self._waiting.get())
            await asyncio.sleep(SECONDS_BETWEEN)

    async def _write(self, event: Emit) -> None:
        call = call_on(EVENTS, "create", event.namespace)
        body = manifest_of(event, instance=self._instance, name=f"{event.name[:200]}.{uuid4().hex[:16]}")
        try:
            if await self._api.request(call, body=body) is None:
                self._metrics.events_lost.inc()
        except ClusterError as exc:
            self._metrics.events_lost.inc()
            logger.warning("an Event was lost", extra={"reason": str(exc), "object_namespace": event.namespace})


def manifest_of(event: Emit, *, instance: str, name: str) -> dict[str, Any]:
    """Write an Event as core/v1 wants it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = event.message if len(event.message) <= MAX_MESSAGE else event.message[: MAX_MESSAGE - 1] + "…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": event.namespace},
        "involvedObject": {
            "apiVersion": event.target.api_version,
            "kind": event.target.kind,
            "namespace": event.namespace,
            "name": event.name,
            "uid": event.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:128],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
