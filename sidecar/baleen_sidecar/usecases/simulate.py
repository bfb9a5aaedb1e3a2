"""Judge the decisions on record again by a policy that somebody thinks of, without putting it in force.

Off the event loop, and page by page, see `look_back`.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from baleen_core.checking import check_policy
from baleen_core.decision.backtest import (
    Backtest,
    Comparison,
    Ended,
    GateResult,
    backtest,
    judge_backtest,
    looked_up_by,
    merge_backtests,
)
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.lists import CompiledList, DigestList, compile_list
from baleen_core.decision.replay import judging_revisions
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot
from baleen_core.errors import (
    BaleenError,
    ContentError,
    IntegrityError,
    InvalidError,
    NotFound,
    PolicyError,
    Problem,
)
from baleen_core.model.schema import Model
from baleen_core.model.signals import find_offers
from baleen_core.policy.lists import read_list
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import BacktestGate, ListContent, ListType, Revision, RevisionContent
from baleen_core.policy_stream import BacktestQuestion
from baleen_core.records import DecisionRecord
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
from baleen_sidecar.usecases.policy_documents import Document, Documents, sort_documents
from baleen_sidecar.usecases.read_policies import find_status

DEFAULT_DECISIONS: Final = 5_000
MIN_SCANNED: Final = 100_000
"""So many are looked at however few are to be compared, so that a policy with little traffic finds its own."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A policy as its author writes it, with the ConfigMaps and Secrets that its lists are in."""

    policy: Mapping[str, Any]
    contents: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What was compared with what, what came of it, and what a gate says of it, if there is one.

    `log` is the `log_id` of what was read.
    """

    policy: Key
    stable: str
    candidate: str
    found: Backtest
    ended: Ended
    gate: GateResult | None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """One walk back through the log: what it compares, how many decisions, and for how many seconds.

    `looked_up` is that of the comparison, and grows with every revision that is met.
    """

    comparison: Comparison
    decisions: int
    max_scanned: int
    limit_seconds: float
    looked_up: dict[str, Mapping[str, int]]

    def may_have_part(self, row: LoggedDecision) -> bool:
        """Say whether the policy may have had a part in a decision, which is seen sooner than a record is read.

        One that is damaged is to be read, too, so that it is said.
        """
        record: object = row.record
        if not isinstance(record, bytes) or b'"policies":' not in record:
            return True
        return f'"name":"{self.comparison.stable.name}"'.encode() in record

    @property
    def has_lists(self) -> bool:
        return bool(self.comparison.stable.lists or self.comparison.candidate.lists)


class Simulate:
    """Compares a policy with what may come after it, on the decisions on record; one at a time."""

    def __init__(
        self,
        policies: Callable[[], PolicySnapshot],
        models: Callable[[], Sequence[Model]],
        history: DecisionHistory,
        store: RevisionStore,
        *,
        executor: Executor,
        monotonic_seconds: Callable[[], float],
        page_rows: int = PAGE_ROWS,
        limit_seconds: float = LIMIT_SECONDS,
        min_scanned: int = MIN_SCANNED,
    ) -> None:
        """`models` returns those that are served, or will be."""
        self._policies = policies
        self._models = models
        self._history = history
        self._store = store
        self._executor = executor
        self._monotonic_seconds = monotonic_seconds
        self._page_rows = page_rows
        self._limit_seconds = limit_seconds
        self._min_scanned = min_scanned
        self._turn = OneAtATime("simulation")

    async def run(
        self,
        name: str,
        draft: Draft,
        *,
        decisions: int = DEFAULT_DECISIONS,
        gate: BacktestGate | None = None,
        is_wanted: Wanted = always,
    ) -> Simulation:
        """Judge at most so many decisions again, by a draft and by what is in force.

        `is_wanted` is asked between two pages.

        Raises:
            NotFound: there is no such policy, or no revision of it in force to compare with.
            PolicyError, ContentError: everything that is wrong with the draft.
            Overloaded: another simulation is under way.
            StateError: the log or the store cannot be read.
        """
        loaded, models = self._in_force(name), self._models()
        with self._turn.alone():
            comparison = await self._off_loop(lambda: _compare(loaded, draft, models))
            known = await known_digests(self._store, (loaded.candidate.namespace, loaded.candidate.name))
            comparison = replace(comparison, digests=known)
            scan = self._begin(comparison, decisions, self._limit_seconds)
            found, ended = await self._scan(scan, is_wanted)
        return Simulation(
            policy=(loaded.candidate.namespace, loaded.candidate.name),
            stable=comparison.stable.revision.digest,
            candidate=comparison.candidate.revision.digest,
            found=found,
            ended=ended,
            gate=None if gate is None else judge_backtest(gate, found, bound=_bound(scan, ended)),
            log=await self._history.log_id(),
        )

    async def compare(self, question: BacktestQuestion, *, is_wanted: Wanted = always) -> tuple[Backtest, Ended]:
        """Judge decisions again by two revisions, whether either is in force here or not.

        Raises:
            ContentError: a revision or a list is not what its digest names, or cannot be read by this release.
            Overloaded: another question is being answered.
            StateError: the log or the store cannot be read.
        """
        models = self._models()
        with self._turn.alone():
            sides = await self._off_loop(lambda: _read_sides(question))
            lists = await self._find_lists(question, sides)
            namespace, _, name = question.policy.partition("/")
            known = await known_digests(self._store, (namespace, name))
            comparison = await self._off_loop(lambda: _compare_sides((namespace, name), sides, lists, models))
            comparison = replace(comparison, digests=known)
            seconds = min(question.seconds, self._limit_seconds)
            return await self._scan(self._begin(comparison, question.decisions, seconds), is_wanted)

    async def _find_lists(
        self, question: BacktestQuestion, sides: tuple[RevisionContent, RevisionContent]
    ) -> dict[str, str]:
        """Return the texts of the lists of digests that either side names, as they came along or are on record."""
        found = {}
        for each in (each for side in sides for each in side.policy.lists if each.type is ListType.DIGEST):
            digest = each.digest or ""
            text = question.lists.get(digest) or await self._store.get_list(digest)
            if text is not None:
                found[digest] = text
        return found

    def _in_force(self, name: str) -> LoadedPolicy:
        snapshot = self._policies()
        status = find_status(snapshot, name)
        key = (status.namespace, status.name)
        for policy in snapshot.policies:
            if (policy.candidate.namespace, policy.candidate.name) == key:
                return policy
        raise NotFound(f"no revision of the policy {'/'.join(key)} is in force, so there is nothing to compare with")

    def _begin(self, comparison: Comparison, decisions: int, limit_seconds: float) -> _Scan:
        looked_up: dict[str, Mapping[str, int]] = {}
        return _Scan(
            comparison=replace(comparison, looked_up=looked_up),
            decisions=decisions,
            max_scanned=max(self._min_scanned, decisions * SCANNED_PER_DECISION),
            limit_seconds=limit_seconds,
            looked_up=looked_up,
        )

    async def _scan(self, scan: _Scan, is_wanted: Wanted) -> tuple[Backtest, Ended]:
        found = Backtest()
        pages = Pages(
            self._history,
            page_rows=self._page_rows,
            max_scanned=scan.max_scanned,
            limit_seconds=scan.limit_seconds,
            monotonic_seconds=self._monotonic_seconds,
            is_wanted=is_wanted,
        )
        while found.compared < scan.decisions:
            page = await pages.next()
            if isinstance(page, Ended):
                return found, page
            ours = [row for row in page if scan.may_have_part(row)]
            found = merge_backtests(found, Backtest(elsewhere=len(page) - len(ours)))
            while ours and (wanted := scan.decisions - found.compared):
                found = merge_backtests(found, await self._judge(scan, ours[:wanted]))
                ours = ours[wanted:]
        return found, Ended.ENOUGH

    async def _judge(self, scan: _Scan, page: Sequence[LoggedDecision]) -> Backtest:
        if not scan.has_lists:
            return await self._off_loop(lambda: backtest(scan.comparison, _decode(page)))
        records = await self._off_loop(partial(_decode, page))
        judged = {digest for record in records for digest in judging_revisions(record.decision)}
        for digest in judged - scan.looked_up.keys():
            scan.looked_up[digest] = await self._read_looked_up(digest)
        return await self._off_loop(partial(backtest, scan.comparison, records))

    async def _read_looked_up(self, digest: str) -> Mapping[str, int]:
        """Return what a revision looks up; one that is gone or damaged is not known to have looked up anything."""
        try:
            revision = await self._store.get_revision(digest)
            return {} if revision is None else looked_up_by(read_revision(revision))
        except BaleenError:
            return {}

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _bound(scan: _Scan, ended: Ended) -> str:
    """Say what kept from finding more decisions, and how to get them; nothing where the log has no more."""
    match ended:
        case Ended.ENOUGH:
            return f"no more than `decisions` ({scan.decisions:,}) are compared; ask for as many as the gate wants"
        case Ended.SCAN_LIMIT:
            return (
                f"no more than the newest {scan.max_scanned:,} of the log are looked at, and in the others this policy "
                "had no part; want fewer"
            )
        case Ended.TIME_LIMIT:
            return f"no more could be judged in {scan.limit_seconds:g} s; want fewer"
    return ""


def _read_sides(question: BacktestQuestion) -> tuple[RevisionContent, RevisionContent]:
    found = []
    for field, said in (("stable", question.stable), ("candidate", question.candidate)):
        try:
            found.append(read_revision(Revision(digest=said.digest, content=said.content)))
        except (IntegrityError, PolicyError) as exc:
            raise ContentError([Problem(field=field, message=str(exc))]) from exc
    return found[0], found[1]


def _compare_sides(
    key: Key, sides: tuple[RevisionContent, RevisionContent], texts: Mapping[str, str], models: Sequence[Model]
) -> Comparison:
    offers, (namespace, name) = find_offers(models), key
    return Comparison(
        stable=compile_policy(name, "", sides[0], offers, namespace=namespace),
        candidate=compile_policy(name, "", sides[1], offers, namespace=namespace),
        offers=offers,
        lists=tuple(compile_list(_read_digests(digest, text)) for digest, text in texts.items()),
    )


def _read_digests(digest: str, text: str) -> ListContent:
    try:
        found = read_list(ListType.DIGEST, text)
    except PolicyError as exc:
        raise ContentError([Problem(field=f"lists.{digest}", message=str(exc))]) from exc
    if found.digest != digest:
        raise ContentError([Problem(field=f"lists.{digest}", message=f"is the list {found.digest}")])
    return found


def _compare(loaded: LoadedPolicy, draft: Draft, models: Sequence[Model]) -> Comparison:
    """Check the draft as if it were to go live, and put it beside what is in force.

    Raises:
        PolicyError, ContentError: everything that is wrong with it.
    """
    contents = sort_documents(Documents(documents=tuple(_documents(draft.contents))))
    if contents.problems:
        raise ContentError(contents.problems)
    try:
        checked = check_policy(draft.policy, contents.contents, models)
    except InvalidError as exc:
        raise PolicyError([replace(each, field=f"policy.{each.field}".rstrip(".")) for each in exc.problems]) from exc
    wanted, found = loaded.candidate, checked.policy
    if (found.namespace, found.name) != (wanted.namespace, wanted.name):
        message = f"is {found.namespace}/{found.name}, and asked is about {wanted.namespace}/{wanted.name}"
        raise PolicyError([Problem(field="policy.metadata", message=message)])
    content = read_revision(make_revision(found, checked.lists))
    offers = find_offers(models)
    digests = [each for each in checked.lists.values() if each.type is ListType.DIGEST]
    in_force: list[CompiledList] = [each for each in loaded.lists if isinstance(each, DigestList)]
    return Comparison(
        stable=loaded.compiled,
        candidate=compile_policy(found.name, found.version, content, offers, namespace=found.namespace),
        offers=offers,
        lists=(*in_force, *map(compile_list, digests)),
    )


def _documents(contents: Sequence[Mapping[str, Any]]) -> Iterable[Document]:
    return (Document(file=f"contents[{index}]", body=body) for index, body in enumerate(contents))


def _decode(page: Sequence[LoggedDecision]) -> list[DecisionRecord]:
    return [read_row(row) for row in page]
