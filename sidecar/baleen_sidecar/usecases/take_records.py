"""A gateway's side of a sidecar's spool: what may be put on record for whom, once, and durably."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final

from baleen_core.assignment import FULL, GROUPS
from baleen_core.decision.replay import judging_revisions
from baleen_core.errors import IntegrityError, InvalidError
from baleen_core.policy.grants import NOT_GRANTED
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import MAX_RETENTION_DAYS, Revision, Scope
from baleen_core.policy_stream import Recorded, Refusal
from baleen_core.ratio import MILLION
from baleen_core.records import DecisionRecord, PolicyRef, PolicyRole, Trial
from baleen_sidecar.ports import OriginLog, RevisionStore

DECISION_ID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
MAX_NAME: Final = 253
"""What Kubernetes allows."""
MAX_LATENCY_MICROSECONDS: Final = 24 * 3600 * 1_000_000
MAX_REVISIONS: Final = 10_000
"""Of so many revisions is remembered what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Where a revision binds, and for how many days it wants decisions to be kept."""

    scope: Scope
    keep_days: int | None


class TakeRecords:
    """Puts on record what sidecars decided, each only for what its namespace may speak for."""

    def __init__(
        self,
        log: OriginLog,
        store: RevisionStore,
        may_read: Callable[[str, Scope], bool],
        *,
        count: Callable[[str, int], None] = lambda result, number: None,
        on_decision: Callable[[DecisionRecord], None] = lambda record: None,
    ) -> None:
        """`may_read` says whether a namespace gets policies of a scope: it may decide by those, and for their tenants.

        `count` hears how many records were `taken`, and how many `refused`; `on_decision` hears of each decision that
        was not on record before.
        """
        self._log = log
        self._store = store
        self._may_read = may_read
        self._count = count
        self._on_decision = on_decision
        self._revisions: dict[str, _Known] = {}

    async def take(
        self, records: Sequence[DecisionRecord], revisions: Mapping[str, str], *, namespace: str, origin: str
    ) -> Recorded:
        """Put records on record; those that are already stay as they are.

        Raises:
            LogUnavailable: some could not be made durable; all may be sent again.
            StateError: the store cannot be read.
        """
        refused: dict[str, Refusal] = {}
        lacks: dict[str, None] = {}
        accepted: list[DecisionRecord] = []
        for record in records:
            refusal = await self._check(record, revisions, namespace, lacks)
            if refusal is not None:
                refused[record.id] = refusal
            else:
                accepted.append(record)
        if lacks:
            return Recorded(lacks=tuple(lacks))
        appending = (self._append(record, origin) for record in accepted)
        for record, refusal in zip(accepted, await asyncio.gather(*appending), strict=True):
            if refusal is not None:
                refused[record.id] = refusal
        await self._log.sync()
        self._count("taken", len(records) - len(refused))
        self._count("refused", len(refused))
        return Recorded(refused=refused)

    async def _check(
        self, record: DecisionRecord, revisions: Mapping[str, str], namespace: str, lacks: dict[str, None]
    ) -> Refusal | None:
        """Say why a record is refused, if it is; what is neither here nor sent is added to `lacks`."""
        refusal = _find_fault(record) or self._find_claim(record.evidence.context.tenant, namespace)
        if refusal is not None:
            return refusal
        terms: dict[str, int | None] = {}
        for digest, (name, _) in judging_revisions(record.decision).items():
            if digest in lacks:
                continue
            try:
                known = self._revisions.get(digest) or await self._find(name, digest, revisions, namespace)
            except (IntegrityError, InvalidError) as exc:
                return Refusal(message=f"policy {name[:100]!r}: {exc}")
            if known is None:
                lacks[digest] = None
            elif not self._may_read(namespace, known.scope):
                return Refusal(message=f"{NOT_GRANTED}: namespace {namespace} may not decide by {digest}")
            else:
                terms[digest] = known.keep_days
        return None if lacks else _find_long_term(record, terms)

    def _find_claim(self, tenant: str | None, namespace: str) -> Refusal | None:
        if self._may_read(namespace, Scope(tenant=tenant)):
            return None
        message = f"{NOT_GRANTED}: namespace {namespace} may not speak for tenant {tenant!r}"
        return Refusal(field="context.tenant", message=message)

    async def _find(self, name: str, digest: str, revisions: Mapping[str, str], namespace: str) -> "_Known | None":
        """Return what a revision says; None when it is neither here nor sent. What may be decided by is kept.

        Raises:
            IntegrityError, PolicyError: what was sent is not that revision.
        """
        kept = await self._store.get_revision(digest)
        if kept is None and digest not in revisions:
            return None
        revision = kept or Revision(digest=digest, content=revisions[digest])
        content = await asyncio.to_thread(read_revision, revision)
        known = _Known(scope=content.scope, keep_days=content.policy.retention.decisions_days)
        if not self._may_read(namespace, known.scope):
            return known
        # Also what is here: of several places it may be in one alone.
        await self._store.put_revision(name, revision)
        if len(self._revisions) >= MAX_REVISIONS:
            self._revisions.clear()
        self._revisions[digest] = known
        return known

    async def _append(self, record: DecisionRecord, origin: str) -> Refusal | None:
        try:
            is_new = await self._log.take(record, origin=origin)
        except IntegrityError:
            # Whose it is, and what it says, is not the caller's business.
            return Refusal(message="another decision has this id")
        if is_new:
            self._on_decision(record)
        return None


def _find_long_term(record: DecisionRecord, terms: Mapping[str, int | None]) -> Refusal | None:
    """Refuse what is to be kept for longer than the policies say that judged; `terms` are by digest."""
    counting = (ref.digest for ref in record.decision.policies if ref.role is not PolicyRole.DRY_RUN)
    longest = max((terms.get(digest) or 0 for digest in counting), default=0)
    if record.keep_days is None or record.keep_days <= longest:
        return None
    asked = f"ask for {longest} at most" if longest else "ask for none"
    return Refusal(
        field="keep_days",
        message=f"it is to be kept for {record.keep_days} days, and the policies that judged {asked}",
    )


def _find_fault(record: DecisionRecord) -> Refusal | None:
    """Find what no release writes, and what those who read the log rely on."""
    if not DECISION_ID.fullmatch(record.id):
        return Refusal(message="the id is not that of a decision")
    try:
        is_utc = datetime.fromisoformat(record.time).utcoffset() is not None
    except ValueError:
        is_utc = False
    if not is_utc:
        return Refusal(message="the time is not in RFC 3339")
    if any(not 0 <= each.group < GROUPS for each in record.decision.trials):
        return Refusal(message=f"the group of a trial is not one of {GROUPS}")
    if any(not 0 <= each.weight <= FULL for each in record.decision.trials):
        return Refusal(message=f"the weight of a trial is not from 0 to {FULL}")
    evidence = record.evidence
    scores = chain(evidence.signals.values(), *(frame.signals.values() for frame in evidence.frames))
    if any(not 0 <= score <= MILLION for score in scores):
        return Refusal(message=f"a score is not from 0 to {MILLION:,}")
    if record.latency_microseconds > MAX_LATENCY_MICROSECONDS:
        return Refusal(message=f"its latency is above {MAX_LATENCY_MICROSECONDS:,} microseconds")
    if not 0 <= record.apart_microseconds <= record.latency_microseconds:
        return Refusal(message="its time apart is not a part of its latency")
    if not 0 <= record.queue_microseconds <= record.latency_microseconds:
        return Refusal(message="its time in queues is not a part of its latency")
    if any(len(each.name) > MAX_NAME for each in record.decision.trials):
        return Refusal(message=f"the name of a trial's policy is longer than {MAX_NAME} characters")
    named: tuple[PolicyRef | Trial, ...] = (*record.decision.policies, *record.decision.trials)
    if any(len(each.namespace or "") > MAX_NAME for each in named):
        return Refusal(message=f"the namespace of a policy is longer than {MAX_NAME} characters")
    if record.keep_days is not None and not 1 <= record.keep_days <= MAX_RETENTION_DAYS:
        return Refusal(
            message=f"it is to be kept for {record.keep_days} days, and may be for 1 to {MAX_RETENTION_DAYS}"
        )
    if record.rescan_of or evidence.rescannable:
        return Refusal(message="it is of a second look, or owed one, and sidecars look once")
    if record.erased:
        return Refusal(message="a part of it was erased, so that it could not be replayed")
    return None
