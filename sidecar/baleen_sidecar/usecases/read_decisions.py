"""Read decisions back: as they were given, in words, and made once more from their own evidence."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from baleen_core.decision.engine import CompiledPolicy, compile_policy
from baleen_core.decision.explain import explain
from baleen_core.decision.replay import differences, judging_revisions, replay
from baleen_core.errors import Erased, IntegrityError, NotFound
from baleen_core.policy.revision import read_revision
from baleen_core.records import Decision, DecisionRecord
from baleen_sidecar.ports import RevisionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A decision made once more; `differences` is empty when it is the same bit for bit."""

    record: DecisionRecord
    again: Decision
    differences: tuple[str, ...]


class Records(Protocol):
    """The reading half of the decision log."""

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """See ports.DecisionLog."""


class ReadDecisions:
    """Find decisions by id; `signals` are all that the served models offer now, by which rules are compiled.

    With a `tenant`, decisions of any other are not there.
    """

    def __init__(self, log: Records, store: RevisionStore, signals: Callable[[], Collection[str]]) -> None:
        self._log = log
        self._store = store
        self._signals = signals

    async def get(self, decision_id: str, tenant: str | None = None) -> DecisionRecord:
        """Return the record of a decision.

        Raises:
            NotFound: there is none of that id.
        """
        record = await self._log.get(decision_id)
        if record is None or tenant not in (None, record.evidence.context.tenant):
            raise NotFound(f"there is no decision {decision_id!r} on record")
        return record

    async def explain(self, decision_id: str, tenant: str | None = None) -> tuple[DecisionRecord, tuple[str, ...]]:
        """Say in sentences why a decision came out as it did.

        Raises:
            NotFound: there is no such decision.
            Erased: what it was made from was erased.
            IntegrityError: a revision that judged is gone or was altered.
        """
        record = await self._get_whole(decision_id, tenant, "explained")
        return record, explain(record, await self._policies(record))

    async def replay(self, decision_id: str, tenant: str | None = None) -> Replay:
        """Make a decision once more from the evidence on record and the revisions that it names.

        Raises:
            NotFound: there is no such decision.
            Erased: what it was made from was erased.
            IntegrityError: a revision that judged is gone or was altered.
        """
        record = await self._get_whole(decision_id, tenant, "replayed")
        again = replay(record, await self._policies(record))
        return Replay(record=record, again=again, differences=differences(record.decision, again))

    async def _get_whole(self, decision_id: str, tenant: str | None, what: str) -> DecisionRecord:
        record = await self.get(decision_id, tenant)
        if record.erased:
            raise Erased(
                f"decision {decision_id} cannot be {what}: its personal part, such as the author and the list entries "
                "that matched, was erased, and the decision was made from that, too"
            )
        return record

    async def _policies(self, record: DecisionRecord) -> Mapping[str, CompiledPolicy]:
        policies, signals = {}, self._signals()
        for digest, (name, version) in judging_revisions(record.decision).items():
            revision = await self._store.get_revision(digest)
            if revision is None:
                raise IntegrityError(f"the revision of policy {name}", expected=digest, found="nothing")
            policies[digest] = compile_policy(name, version, read_revision(revision), signals)
        return policies
