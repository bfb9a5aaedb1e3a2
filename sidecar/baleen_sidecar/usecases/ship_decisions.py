"""The decision log of a sidecar that follows a gateway: kept in the pod, sent to the gateway, and dropped only then."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from baleen_core.errors import BaleenError, Forbidden, LogUnavailable, Overloaded, Problem, UpstreamError
from baleen_core.policy_stream import MAX_RECORDS, Recorded, Refusal
from baleen_core.records import DECISION_SPOOL, DecisionRecord
from baleen_sidecar.flow.backoff import BackoffRules, wait_seconds
from baleen_sidecar.ports import Beside, KnownKey, RecordTaker, RevisionStore, Spool, SpooledDecision
from baleen_sidecar.settings import Durability
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)

BACKOFF: Final = BackoffRules(first_seconds=0.1, highest_seconds=5.0, spread=1.0)
"""Full jitter: a gateway that was away must not get everything from everybody at once."""
LOOK_SECONDS: Final = 1.0
"""How often is looked for decisions whose callers left before they were written."""
FLUSH_SECONDS: Final = 10.0
"""How long a process that ends goes on sending what waits, as long as the gateway takes some of it."""
FLUSH_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingRules:
    """With Fsync a decision waits `patience_seconds` for the gateway; beyond `lag_seconds` the spool is degraded."""

    patience_seconds: float = 5.0
    lag_seconds: float = 10.0
    batch_rows: int = MAX_RECORDS
    batch_bytes: int = 1024 * 1024
    backoff: BackoffRules = BACKOFF


class ShipDecisions:
    """A DecisionLog; `run` sends what it keeps and belongs to the application's task group.

    With Fsync a decision is on record once the gateway has it on disk, with Interval once it is in the spool.
    """

    def __init__(
        self,
        spool: Spool,
        gateway: RecordTaker,
        store: RevisionStore,
        *,
        durability: Durability,
        wall_seconds: Callable[[], float],
        monotonic_seconds: Callable[[], float],
        jitter: Callable[[], float],
        rules: ShippingRules | None = None,
        count: Callable[[str, int], None] = lambda result, number: None,
    ) -> None:
        """`count` hears how many decisions the gateway has `taken`, and how many it `refused` for good."""
        self._spool = spool
        self._gateway = gateway
        self._store = store
        self._is_awaited = durability is Durability.FSYNC
        self._wall_seconds = wall_seconds
        self._monotonic_seconds = monotonic_seconds
        self._jitter = jitter
        self._rules = rules or ShippingRules()
        self._count = count
        self._woken = asyncio.Event()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._sending: Sequence[SpooledDecision] = ()
        self._sending_since: float | None = None
        self._problem = ""
        self._is_empty = asyncio.Event()

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Put a decision on record; False as for DecisionLog.

        Who stops waiting leaves it behind: it is sent all the same.

        Raises:
            LogUnavailable: it could not be kept in the pod; or, with Fsync, the gateway did not take it in time.
            Forbidden: with Fsync, the gateway says that this namespace may not speak for the decision's tenant.
        """
        if not self._is_awaited:
            is_kept = await self._spool.append(record, beside)
            self._woken.set()
            return is_kept
        if self._stuck_seconds() > self._rules.patience_seconds:
            # What nobody will be told must not fill the spool.
            raise LogUnavailable(
                f"decision spool: the gateway takes no decisions: {self._problem or 'it says nothing'}"
            )
        waiter = self._expect(record.id)
        try:
            if not await self._spool.append(record, beside):
                return False
            await self._taken(waiter)
        finally:
            self._leave(record.id, waiter)
        return True

    def begin(self, record: DecisionRecord, beside: Beside | None = None) -> asyncio.Future[bool]:
        """See ports.DecisionLog."""
        return asyncio.ensure_future(self.append(record, beside))

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is kept under an idempotency key; with Fsync, once the gateway has its decision on disk.

        Raises:
            StateError: the spool cannot be read.
            LogUnavailable, Forbidden: as for `append`.
        """
        found = await self._spool.find_key(key_id, now_seconds=now_seconds)
        if found is None or not self._is_awaited:
            return found
        waiter = self._expect(found.decision_id)
        try:
            if await self._spool.is_waiting(found.decision_id):
                await self._taken(waiter)
        finally:
            self._leave(found.decision_id, waiter)
        return found

    def _expect(self, decision_id: str) -> asyncio.Future[None]:
        """Have it heard when the gateway takes a decision, or refuses it."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(decision_id, []).append(waiter)
        return waiter

    def _leave(self, decision_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters[decision_id]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[decision_id]
        if waiter.done() and not waiter.cancelled():
            # Whoever left first need not hear of a refusal.
            waiter.exception()

    async def _taken(self, waiter: asyncio.Future[None]) -> None:
        self._woken.set()
        try:
            async with asyncio.timeout(self._rules.patience_seconds):
                await waiter
        except TimeoutError:
            why = self._problem or f"{self._spool.waiting_bytes:,} bytes wait"
            seconds = self._rules.patience_seconds
            raise LogUnavailable(f"decision spool: not on the gateway's disk within {seconds:g} s: {why}") from None

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id, as long as it is in the pod."""
        return await self._spool.get(decision_id)

    async def run(self) -> None:
        """Send what waits, oldest first, until cancelled."""
        failures = 0
        while True:
            try:
                await self._send_what_waits()
                failures = 0
                await self._wait_for_more()
            except Exception as exc:
                failures += 1
                await asyncio.sleep(self._take_failure(exc, failures))

    async def flush(self) -> None:
        """Return once nothing waits, or what waits gets nowhere, or after FLUSH_SECONDS; `run` must be running."""
        self._is_empty.clear()
        self._woken.set()
        give_up = self._monotonic_seconds() + FLUSH_SECONDS
        while self._monotonic_seconds() < give_up and self._stuck_seconds() < self._rules.patience_seconds:
            try:
                async with asyncio.timeout(FLUSH_LOOK_SECONDS):
                    await self._is_empty.wait()
            except TimeoutError:
                continue
            return
        log.warning("decisions left in the spool", extra={"bytes": self.waiting_bytes, "cause": self._problem})

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of decisions wait to be sent."""
        return self._spool.waiting_bytes

    def lag_seconds(self) -> float:
        """Say how old the oldest decision is that waits; 0 when none does."""
        if not self._sending:
            return 0.0
        return max(0.0, self._wall_seconds() - datetime.fromisoformat(self._sending[0].time).timestamp())

    def degraded(self) -> tuple[str, ...]:
        """Name the spool while it lags behind."""
        return (DECISION_SPOOL,) if self.lag_seconds() > self._rules.lag_seconds else ()

    def component(self) -> Component:
        """Say how far behind the spool is, and why."""
        lag = self.lag_seconds()
        if lag <= self._rules.lag_seconds:
            return Component(name="spool", healthy=True)
        since = datetime.fromtimestamp(self._wall_seconds() - lag, UTC).isoformat(timespec="seconds")
        why = f": {self._problem}" if self._problem else ""
        detail = f"{self.waiting_bytes:,} bytes of decisions wait for the gateway, the oldest since {since}{why}"
        return Component(name="spool", healthy=False, detail=detail)

    def _stuck_seconds(self) -> float:
        return 0.0 if self._sending_since is None else self._monotonic_seconds() - self._sending_since

    async def _wait_for_more(self) -> None:
        self._is_empty.set()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _send_what_waits(self) -> None:
        while True:
            self._woken.clear()
            rules = self._rules
            waiting = await self._spool.waiting(limit_rows=rules.batch_rows, limit_bytes=rules.batch_bytes)
            self._sending = waiting
            if not waiting:
                self._sending_since = None
                return
            if self._sending_since is None:
                self._sending_since = self._monotonic_seconds()
            recorded = await self._put_on_record(waiting)
            # A batch that was taken is progress, however many are behind it.
            self._sending_since, self._problem = None, ""
            if recorded.refused:
                # What is on no record for good answers no request.
                await self._spool.forget_keys(recorded.refused)
            self._settle(waiting, recorded.refused)
            await self._spool.mark(waiting)

    async def _put_on_record(self, waiting: Sequence[SpooledDecision]) -> Recorded:
        records = [each.record for each in waiting]
        revisions: Mapping[str, str] = {}
        while True:
            recorded = await self._gateway.put_on_record(records, revisions)
            if not recorded.lacks:
                return recorded
            revisions = await self._read_revisions(recorded.lacks, revisions)

    async def _read_revisions(self, digests: Sequence[str], before: Mapping[str, str]) -> Mapping[str, str]:
        if again := sorted(set(digests) & set(before)):
            raise UpstreamError(f"the gateway lacks {', '.join(again)}, which was sent to it")
        found = {}
        for digest in digests:
            revision = await self._store.get_revision(digest)
            found[digest] = revision.content if revision else ""
        return found

    def _settle(self, sent: Sequence[SpooledDecision], refused: Mapping[str, Refusal]) -> None:
        for each in sent:
            refusal = refused.get(each.id)
            if refusal is not None:
                log.error("decision refused by the gateway", extra={"decision": each.id, "reason": refusal.message})
            for waiter in self._waiters.get(each.id, ()):
                if waiter.done():
                    continue
                if refusal is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(_error_of(refusal))
        self._count("taken", len(sent) - len(refused))
        self._count("refused", len(refused))

    def _take_failure(self, error: Exception, failures: int) -> float:
        """Say how long to wait after a failure."""
        if isinstance(error, BaleenError):
            problem = str(error)
        else:
            log.error("sending decisions failed", exc_info=error)
            problem = f"they could not be sent: {type(error).__name__}"
        if problem != self._problem:
            log.warning("decisions not sent", extra={"bytes": self._spool.waiting_bytes, "cause": problem})
        self._problem = problem
        least = error.retry_after_seconds if isinstance(error, Overloaded) else 0
        return least + wait_seconds(failures, jitter=self._jitter(), rules=self._rules.backoff)


def _error_of(refusal: Refusal) -> BaleenError:
    if refusal.field:
        return Forbidden([Problem(field=refusal.field, message=refusal.message)])
    return LogUnavailable(f"decision log: the gateway refused the decision: {refusal.message}")
