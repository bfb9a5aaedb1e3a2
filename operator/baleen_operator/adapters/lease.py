"""Who leads: a Lease that one replica at a time holds.

The official client has an election (`kubernetes.aio.leaderelection`), which is not good enough here: an error other
than an HTTP status (a connection refused, a timeout) ends it with a traceback; a call has no deadline, so that a
holder may believe in its Lease for minutes after it ran out; times are those of the wall clock, in local time written
as UTC; and nothing is released at the end, so that every rollout waits for the Lease to run out. This one compares
only what its own monotonic clock says: a replica whose clock is an hour off does no harm.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from baleen_core.errors import ClusterError, Stale
from baleen_operator.adapters.api import ApiServer, Call, call_on
from baleen_operator.adapters.kube import decode_object
from baleen_operator.plan.actions import Target

logger = logging.getLogger(__name__)

LEASES: Final = Target(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
_SHARE_TO_RENEW: Final = 2 / 3
"""A holder that could not renew for this share of the duration gives up, before anyone may take over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """Which Lease, how long it counts without being renewed, and how often it is renewed or tried for."""

    namespace: str
    name: str
    duration_seconds: int
    retry_seconds: float


class Lease:
    """Candidate for, and then holder of, a Lease; `holder` is who has it as far as is known."""

    def __init__(
        self, api: ApiServer, rules: LeaseRules, identity: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._rules = rules
        self._identity = identity
        self._clock = clock
        self._held_until = 0.0
        self._written: dict[str, Any] | None = None
        self._seen_version = ""
        self._seen_at = 0.0
        self.holder = ""

    @property
    def is_held(self) -> bool:
        """Say whether nobody else can hold it now."""
        return self._clock() < self._held_until

    async def acquire(self) -> None:
        """Return once this replica holds the Lease."""
        said = ""
        while not await self.attempt(renewing=False):
            if self.holder != said:
                said = self.holder
                logger.info("standing by", extra={"holder": said})
            await asyncio.sleep(self._rules.retry_seconds)
        logger.info("leading", extra={"identity": self._identity})

    async def keep(self) -> None:
        """Renew the Lease until it is lost: somebody else has it, or it could not be renewed in time."""
        with contextlib.suppress(TimeoutError):
            while True:
                # The duration began to run when it was asked for, not when the answer came.
                left = self._held_until - self._clock() - self._rules.duration_seconds + self._patience_seconds
                async with asyncio.timeout(left):
                    while True:
                        await asyncio.sleep(self._rules.retry_seconds)
                        if await self.attempt(renewing=True):
                            break
                        if self.holder != self._identity:
                            self._held_until = 0.0
                            return
        self._held_until = 0.0

    async def release(self) -> None:
        """Give the Lease up, so that the next one need not wait for it to run out; best effort."""
        if not self.is_held:
            return
        self._held_until = 0.0
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="", duration_seconds=1)
        except ClusterError as exc:
            logger.warning("the Lease could not be released", extra={"reason": str(exc)})

    @property
    def _patience_seconds(self) -> float:
        return self._rules.duration_seconds * _SHARE_TO_RENEW

    async def attempt(self, *, renewing: bool) -> bool:
        """Try once to take or renew the Lease, and say whether it is held."""
        # What counts is when it was asked for: others count from when they see the answer's effect, which is later.
        asked_at = self._clock()
        try:
            # What was written last is most likely what is there: one call renews, and a conflict tells otherwise.
            lease, self._written = self._written or await self._read(), None
            if lease is not None and not self._may_take(lease["spec"], lease["metadata"]["resourceVersion"]):
                return False
            await self._write(lease, holder=self._identity, duration_seconds=self._rules.duration_seconds)
        except Stale:
            return False
        except ClusterError as exc:
            logger.warning("the Lease could not be %s", "renewed" if renewing else "taken", extra={"reason": str(exc)})
            return False
        self.holder = self._identity
        self._held_until = asked_at + self._rules.duration_seconds
        return True

    def _may_take(self, spec: dict[str, Any], version: str) -> bool:
        now = self._clock()
        self.holder = spec.get("holderIdentity") or ""
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        if self.holder in ("", self._identity):
            return True
        # The other's own words about how long it counts; when it wrote them is of no interest.
        duration = spec.get("leaseDurationSeconds") or self._rules.duration_seconds
        return now - self._seen_at > duration

    async def _read(self) -> dict[str, Any] | None:
        data = await self._api.request(self._call("get"), timeout_seconds=self._timeout_seconds)
        if data is None:
            return None
        lease = decode_object(data)
        lease.setdefault("spec", {})
        return lease

    async def _write(self, lease: dict[str, Any] | None, *, holder: str, duration_seconds: int) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = lease["spec"] if lease else {}
        is_same = before.get("holderIdentity") == holder
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": duration_seconds,
            "renewTime": now,
            "acquireTime": before.get("acquireTime", now) if is_same else now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if is_same or lease is None else 1),
        }
        metadata = {"name": self._rules.name, "namespace": self._rules.namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
        call = self._call("create" if lease is None else "update")
        data = await self._api.request(call, body=body, timeout_seconds=self._timeout_seconds)
        if data is None:
            raise ClusterError(f"{call}: there is no namespace {self._rules.namespace}")
        self._written = decode_object(data)

    @property
    def _timeout_seconds(self) -> float:
        # A call that hangs must leave time for another within the holder's patience.
        return max(1.0, self._patience_seconds * 0.4)

    def _call(self, verb: str) -> Call:
        name = "" if verb == "create" else self._rules.name
        return call_on(LEASES, verb, self._rules.namespace, name)
