"""Look back through the decision log: how each revision of a policy did, and on what the sides of a rollout differ.

Off the event loop, and page by page, see `look_back`.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from baleen_core.decision.backtest import Ended
from baleen_core.decision.engine import CompiledPolicy, compile_policy
from baleen_core.decision.flips import FlipSummary, merge_flips, rejudge_trial, summarize
from baleen_core.decision.performance import Performance, merge_performance, summarize_performance
from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus
from baleen_core.decision.whose import PolicyOnRecord
from baleen_core.errors import NotFound, StateError
from baleen_core.policy.revision import read_revision
from baleen_core.records import DecisionRecord, Trial
from baleen_sidecar.ports import DecisionHistory, Key, LoggedDecision, RevisionStore
from baleen_sidecar.usecases.history import known_digests
from baleen_sidecar.usecases.look_back import (
    LIMIT_SECONDS,
    PAGE_ROWS,
    SCANNED_PER_DECISION,
    OneAtATime,
    Pages,
    Wanted,
    always,
    read_row,
)
from baleen_sidecar.usecases.read_policies import find_status
from baleen_sidecar.usecases.simulate import DEFAULT_DECISIONS

MAX_SURVEYED: Final = 100_000
"""Decisions of a policy that one survey may count."""
DEFAULT_SECONDS: Final = 3_600
MAX_SECONDS: Final = 90 * 86_400
"""How far back a survey may look."""
MIN_RATE_SECONDS: Final = 1.0
"""A rate is never taken over less: one decision, just now, is no 1,000 per second."""

T = TypeVar("T")


class LookedBack(StrEnum):
    """Why a survey looked no further back."""

    ENOUGH = "Enough"
    """It counted as many decisions of the policy as were asked for."""
    WINDOW = "Window"
    """Earlier decisions are older than was asked for."""
    END_OF_LOG = "EndOfLog"
    """There are no earlier decisions."""
    SCAN_LIMIT = "ScanLimit"
    """It looked at SCANNED_PER_DECISION decisions for each that was asked for."""
    TIME_LIMIT = "TimeLimit"
    """It took LIMIT_SECONDS."""
    ABANDONED = "Abandoned"
    """Nobody wants to know any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """How the revisions of a policy did in the last `seconds`, by the `decisions` that it had a part in then.

    `scanned` decisions were looked at for that. `in_force` is the digest that is here now, and `candidate` what judges
    beside it; empty where there is none. Other decisions of `no_namespace` name a policy of that name, and may be of
    another namespace's. `log` is the `log_id` of what was read.
    """

    policy: Key
    in_force: str
    candidate: str
    found: Performance
    decisions: int
    scanned: int
    seconds: float
    ended: LookedBack
    log: str = ""
    no_namespace: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFlips:
    """What both sides of a rollout said of the decisions on record; of `erased` ones the categories are not known.

    `log` is the `log_id` of what was read.
    """

    policy: Key
    stable: str
    candidate: str
    found: FlipSummary
    erased: int
    scanned: int
    ended: LookedBack
    log: str = ""


class _Work(Protocol):
    """What is counted, and how many decisions of the policy were; `take` is called off the event loop."""

    counted: int

    def take(self, records: Sequence[DecisionRecord], room: int) -> bool:
        """Count those of the policy, `room` at most; return whether earlier ones may matter."""


class Survey:
    """Reads what is on record of a policy; one survey at a time."""

    def __init__(
        self,
        policies: Callable[[], PolicySnapshot],
        signals: Callable[[], Collection[str]],
        history: DecisionHistory,
        store: RevisionStore,
        *,
        executor: Executor,
        monotonic_seconds: Callable[[], float],
        wall_seconds: Callable[[], float],
        page_rows: int = PAGE_ROWS,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        """`signals` are all that the served models offer now, by which rules are compiled."""
        self._policies = policies
        self._signals = signals
        self._history = history
        self._store = store
        self._executor = executor
        self._monotonic_seconds = monotonic_seconds
        self._wall_seconds = wall_seconds
        self._page_rows = page_rows
        self._limit_seconds = limit_seconds
        self._turn = OneAtATime("survey")

    async def performance(
        self,
        name: str,
        *,
        decisions: int = DEFAULT_DECISIONS,
        seconds: int = DEFAULT_SECONDS,
        is_wanted: Wanted = always,
    ) -> Surveyed:
        """Count, for each revision, what came of the policy's newest decisions: at most so many, and so old.

        Raises:
            NotFound: there is no such policy. Overloaded: another survey is under way.
            StateError: the log or the store cannot be read.
        """
        status = find_status(self._policies(), name)
        now = datetime.fromtimestamp(self._wall_seconds(), UTC)
        key = (status.namespace, status.name)
        known = (await known_digests(self._store, key)).union(filter(None, (status.digest, self._candidate(status))))
        policy = PolicyOnRecord(namespace=status.namespace, name=status.name, digests=known)
        work = _PerformanceWork(policy, now, timedelta(seconds=seconds))
        with self._turn.alone():
            ended, scanned = await self._walk(work, decisions, is_wanted)
        spent = float(seconds) if ended is LookedBack.WINDOW else (now - work.oldest).total_seconds()
        return Surveyed(
            policy=key,
            in_force=status.digest or "",
            candidate=self._candidate(status),
            found=work.found,
            decisions=work.counted,
            scanned=scanned,
            seconds=max(MIN_RATE_SECONDS, spent),
            ended=ended,
            log=await self._history.log_id(),
            no_namespace=work.no_namespace,
        )

    async def flips(
        self,
        name: str,
        sides: tuple[str, str] | None = None,
        *,
        decisions: int = DEFAULT_DECISIONS,
        is_wanted: Wanted = always,
    ) -> TrialFlips:
        """Compare what both sides of a rollout said of the newest decisions: of the one under way, or of these digests.

        Raises:
            NotFound: there is no such policy or revision, or nothing of it is rolled out.
            IntegrityError: a stored revision was altered. Overloaded: another survey is under way.
            StateError: the log or the store cannot be read.
        """
        status = find_status(self._policies(), name)
        stable, candidate = sides or (status.digest or "", self._candidate(status))
        if not candidate:
            raise NotFound(
                f"nothing of the policy {status.namespace}/{status.name} is rolled out now; name both digests of an "
                "earlier rollout as `from` and `to`"
            )
        with self._turn.alone():
            key = (status.namespace, status.name)
            work = _FlipsWork(key, await self._compiled(stable), await self._compiled(candidate))
            ended, scanned = await self._walk(work, decisions, is_wanted)
        return TrialFlips(
            policy=key,
            stable=stable,
            candidate=candidate,
            found=work.found,
            erased=work.erased,
            scanned=scanned,
            ended=ended,
            log=await self._history.log_id(),
        )

    def _candidate(self, status: PolicyStatus) -> str:
        key = (status.namespace, status.name)
        loaded = (each for each in self._policies().policies if (each.candidate.namespace, each.candidate.name) == key)
        return next((each.trial.compiled.revision.digest for each in loaded if each.trial is not None), "")

    async def _compiled(self, digest: str) -> CompiledPolicy:
        kept = await self._store.get_revision(digest)
        if kept is None:
            raise NotFound(f"there is no revision {digest} here")
        # The name shows nowhere.
        return await self._off_loop(lambda: compile_policy("", "", read_revision(kept), self._signals()))

    async def _walk(self, work: _Work, decisions: int, is_wanted: Wanted) -> tuple[LookedBack, int]:
        pages = Pages(
            self._history,
            page_rows=self._page_rows,
            max_scanned=decisions * SCANNED_PER_DECISION,
            limit_seconds=self._limit_seconds,
            monotonic_seconds=self._monotonic_seconds,
            is_wanted=is_wanted,
        )
        while work.counted < decisions:
            page = await pages.next()
            if isinstance(page, Ended):
                return LookedBack(page), pages.scanned
            if not await self._take(work, page, decisions - work.counted):
                return LookedBack.WINDOW, pages.scanned
        return LookedBack.ENOUGH, pages.scanned

    async def _take(self, work: _Work, page: Sequence[LoggedDecision], room: int) -> bool:
        return await self._off_loop(lambda: work.take([read_row(row) for row in page], room))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class _PerformanceWork:
    """Counts decisions by revision, and knows how old the oldest one of any policy was that it met."""

    def __init__(self, policy: PolicyOnRecord, now: datetime, window: timedelta) -> None:
        self._policy, self._since = policy, now - window
        self.found: Performance = {}
        self.oldest = now
        self.counted = self.no_namespace = 0

    def take(self, records: Sequence[DecisionRecord], room: int) -> bool:
        dated = [(_time_of(each), each) for each in records]
        # A sidecar's decisions may come late, and stand after younger ones; a whole page of old ones is the end.
        recent = [(time, each) for time, each in dated if time >= self._since]
        ours: list[tuple[datetime, DecisionRecord]] = []
        for row in recent:
            if len(ours) == room:
                break
            had_part = self._policy.had_part(row[1])
            if had_part:
                ours.append(row)
            elif had_part is None:
                self.no_namespace += 1
        seen = ours if len(ours) == room else recent
        self.oldest = min([self.oldest, *(time for time, _ in seen)])
        self.counted += len(ours)
        self.found = merge_performance(self.found, summarize_performance(self._policy, [each for _, each in ours]))
        return bool(recent)


class _FlipsWork:
    """Compares both sides of the decisions that were made in one rollout."""

    def __init__(self, policy: Key, stable: CompiledPolicy, candidate: CompiledPolicy) -> None:
        sides = frozenset((stable.revision.digest, candidate.revision.digest))
        self._policy = PolicyOnRecord(namespace=policy[0], name=policy[1], digests=sides)
        self._stable, self._candidate = stable, candidate
        self.found = FlipSummary()
        self.erased = self.counted = 0

    def take(self, records: Sequence[DecisionRecord], room: int) -> bool:
        ours = [(each, trial) for each in records if (trial := self._trial_of(each)) is not None][:room]
        self.counted += len(ours)
        self.erased += sum(each.erased for each, _ in ours)
        rejudged = (rejudge_trial(each, trial, self._stable, self._candidate) for each, trial in ours)
        self.found = merge_flips(self.found, summarize(rejudged))
        return True

    def _trial_of(self, record: DecisionRecord) -> Trial | None:
        sides = self._stable.revision.digest, self._candidate.revision.digest
        found = (each for each in record.decision.trials if (each.stable, each.candidate) == sides)
        return next((each for each in found if self._policy.is_meant(each)), None)


def _time_of(record: DecisionRecord) -> datetime:
    try:
        return datetime.fromisoformat(record.time).astimezone(UTC)
    except ValueError as exc:
        raise StateError(f"decision {record.id} has no time that can be read: {exc}") from exc
