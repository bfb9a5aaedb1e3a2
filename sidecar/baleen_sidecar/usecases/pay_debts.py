"""Look again at what was allowed while models were missing: the riskiest first, once the models are back."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from baleen_core.errors import BaleenError, ContentError, FetchError
from baleen_core.priority import Priority
from baleen_core.records import DecisionRecord
from baleen_sidecar.flow.backoff import BackoffRules, wait_seconds
from baleen_sidecar.flow.debts import DebtRoom
from baleen_sidecar.ports import Debt, Fetcher, Inference, Owed, RescanDebts
from baleen_sidecar.usecases.moderate import Again, Caller, Moderate, Shell, Superseded
from baleen_sidecar.usecases.serve_models import ModelSet

log = logging.getLogger(__name__)

BACKOFF: Final = BackoffRules(first_seconds=5.0, highest_seconds=300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayingRules:
    """How debts are paid.

    So many at once, each within `deadline_seconds`. Every `look_seconds` is looked for what can be paid. What could not
    be paid waits by `backoff`; an address that cannot be read is given up after `fetch_tries`, and a debt that is older
    than `last_seconds` is paid by what is known, whatever is missing still.
    """

    at_once: int = 4
    look_seconds: float = 2.0
    deadline_seconds: float = 60.0
    last_seconds: float = 7 * 86_400.0
    fetch_tries: int = 5
    backoff: BackoffRules = BACKOFF

    @property
    def lease_seconds(self) -> float:
        """For how long a debt that was taken is nobody else's."""
        return self.deadline_seconds + 30.0


class Records(Protocol):
    """The reading half of the decision log."""

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """See ports.DecisionLog."""


class PayDebts:
    """Pays debts; `run` belongs to the application's task group, and `moderate` is set before."""

    def __init__(
        self,
        debts: RescanDebts,
        records: Records,
        fetcher: Fetcher,
        inference: Inference,
        models: Callable[[], ModelSet],
        *,
        shell: Shell,
        room: DebtRoom,
        jitter: Callable[[], float],
        rules: PayingRules | None = None,
        count: Callable[[str], None] = lambda result: None,
    ) -> None:
        """`count` hears what became of each debt that was taken: Same, Changed, PutBack, Superseded or Forgiven."""
        self.debts = debts
        self.room = room
        self.moderate: Moderate | None = None
        self.owed = Owed()
        """What was owed when that was last looked at, by all who share the store."""
        self._records = records
        self._fetcher = fetcher
        self._inference = inference
        self._models = models
        self._shell = shell
        self._jitter = jitter
        self._rules = rules or PayingRules()
        self._count = count
        self._problem = ""

    def oldest_seconds(self) -> float:
        """Say how old the oldest debt is; 0 when there is none."""
        return max(0.0, self._shell.wall_seconds() - _seconds_of(self.owed.oldest)) if self.owed.oldest else 0.0

    async def run(self) -> None:
        """Pay what can be paid, until cancelled."""
        while True:
            paid = 0
            try:
                paid = await self.pay_some()
                self._problem = ""
            except BaleenError as exc:
                if str(exc) != self._problem:
                    log.warning("debts cannot be read", extra={"cause": str(exc)})
                self._problem = str(exc)
            except Exception:
                log.exception("paying debts failed")
            if not paid:
                await asyncio.sleep(self._rules.look_seconds)

    async def pay_some(self) -> int:
        """Take as many debts as are paid at once, and return how many of them are settled.

        Raises:
            StateError: they cannot be read.
        """
        self.owed = owed = await self.debts.owed()
        self.room.measure(owed.size_bytes)
        if not owed.decisions:
            return 0
        back = await self._find_back()
        is_over = self.oldest_seconds() > self._rules.last_seconds
        payable = [names for names in owed.waits_for if is_over or back.issuperset(names)]
        taken = await self.debts.claim(
            payable,
            limit=self._rules.at_once,
            now_seconds=self._shell.wall_seconds(),
            lease_seconds=self._rules.lease_seconds,
        )
        results = await asyncio.gather(*map(self._pay, taken))
        for result in results:
            self._count(result)
        return sum(result != "PutBack" for result in results)

    async def _find_back(self) -> frozenset[str]:
        """Return the models that are served and give their golden answers."""
        models = [loaded.model for loaded in self._models().models]
        answers = await asyncio.gather(*map(self._inference.is_ready, models))
        return frozenset(model.name for model, is_ready in zip(models, answers, strict=True) if is_ready)

    async def _pay(self, debt: Debt) -> str:
        assert self.moderate is not None, "whoever puts the application together sets it"
        try:
            before = await self._records.get(debt.decision_id)
            if before is None or before.erased:
                await self.debts.forgive(debt)
                return "Forgiven"
            is_last = self._shell.wall_seconds() - _seconds_of(debt.time) > self._rules.last_seconds
            was = before.decision.decision
            caller = Caller(
                request_id=f"rescan:{debt.decision_id}",
                received_seconds=self._shell.monotonic_seconds(),
                deadline_seconds=self._rules.deadline_seconds,
                priority=Priority.LOW,
                again=Again(debt=debt, was=was, is_last=is_last),
            )
            self.moderate.admit(caller)
            with self.moderate.deadline(caller):
                record = await self._look(self.moderate, debt, before, caller)
        except Superseded:
            return "Superseded"
        except Exception as exc:  # whatever it is: the debt must not be lost, nor the others wait for it
            if not _is_expected(exc):
                log.error("a debt could not be paid", extra={"decision": debt.decision_id}, exc_info=exc)
            wait = wait_seconds(debt.tries, jitter=self._jitter(), rules=self._rules.backoff)
            due = self._shell.wall_seconds() + wait
            try:
                await self.debts.put_back(debt, due_seconds=due, read_failed=isinstance(exc, FetchError))
            except BaleenError as gone:
                # Its time runs out by itself.
                log.warning("a debt could not be put back", extra={"decision": debt.decision_id, "cause": str(gone)})
            return "PutBack"
        changed = record.decision.decision is not was
        if changed:
            log.info("decision changed by a second look", extra={"decision": record.id, "rescan_of": debt.decision_id})
        return "Changed" if changed else "Same"

    async def _look(self, moderate: Moderate, debt: Debt, before: DecisionRecord, caller: Caller) -> DecisionRecord:
        content, context = debt.content, before.evidence.context
        try:
            if content.type == "text":
                return await moderate.text(content.text, context, caller)
            data = (await self._fetcher.fetch(content.url)).data
            digest = await self._shell.off_loop(data, lambda: hashlib.sha256(data).hexdigest())
            if digest == before.evidence.content.digest:
                return await moderate.media(data, content.type, context, caller, url=content.url)
        except FetchError:
            failed = debt.failed_reads + 1
            if failed < self._rules.fetch_tries and caller.again is not None and not caller.again.is_last:
                raise
        except ContentError:
            # What was taken once is over a limit now, or its address may not be read any more.
            pass
        # What was allowed cannot be looked at: it is gone, or something else stands there now.
        return await moderate.unread(before, caller)


def _is_expected(error: Exception) -> bool:
    """Say whether it is one of ours, or several at once of models that were asked together."""
    if isinstance(error, ExceptionGroup):
        return error.split(BaleenError)[1] is None
    return isinstance(error, BaleenError)


def _seconds_of(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
