"""Has the gateways judge their logs again: one question at a time, each gateway over its share, all added up."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Final

import aiohttp
import msgspec
from msgspec import structs

from baleen_core.decision.backtest import Backtest, Ended, judge_worst, merge_backtests
from baleen_core.decision.backtest_share import next_shares, read_share
from baleen_core.decision.logs import find_contradiction, one_per_log
from baleen_core.errors import BaleenError
from baleen_core.policy.gates import stricter_backtest
from baleen_core.policy.proof import find_unproven
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import BacktestGate, Policy, Revision
from baleen_core.policy_stream import (
    BACKTESTS_PATH,
    MAX_BACKTEST_SECONDS,
    BacktestQuestion,
    BacktestRevision,
    BacktestShare,
)
from baleen_core.resources import POLICY_KIND, REVISION_KIND, ROUTE_KIND, read_route, revision_name
from baleen_operator.adapters.gateways import PolledGateways, read_bounded
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.plan import admission
from baleen_operator.plan.admission import as_revision, names_backtest, read_edit
from baleen_operator.plan.conditions import shorten
from baleen_operator.plan.gate import Asked, Question
from baleen_operator.reconcile.policy import TARGETS
from baleen_operator.reconcile.ports import Key, Manifest, OffLoop
from baleen_operator.resources.policy import stored_revision

logger = logging.getLogger(__name__)

MAX_SHARE_BYTES: Final = 4 * 1024 * 1024
MAX_NAMED: Final = 3
MAX_REASON: Final = 300
NOT_ASKED: Final = "the backtest could not be asked"
NOT_LOOKED_UP: Final = "gates of earlier edits, which the route keeps, were not looked up"
NEVER_LOOSEN: Final = "by gates.neverLoosen, of this edit or kept from an earlier one:"
GRACE_SECONDS: Final = 5.0
"""How much longer than it may judge a gateway may take to answer."""
BUSY_SECONDS: Final = 1.0
"""How long a gateway is left alone that answers somebody else."""
MAX_IN_LINE: Final = 8
"""How many dry runs may wait for one another to be looked up; each has a request of up to 4 MiB, read."""
JUDGED_SHARE: Final = 0.85
"""Of the time for a dry run's backtest, what gateways may judge in; in the rest their answers arrive."""
_ENCODER: Final = msgspec.json.Encoder()
_SHARE: Final = msgspec.json.Decoder(BacktestShare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What all logs say together and what kept from looking further back; or the `problem` that kept them from it.

    Where two read one log, `also` has what all say by the one that says worse of it: more flips, or more new blocks.
    """

    found: Backtest | None = None
    also: tuple[Backtest, ...] = ()
    bound: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one gateway was asked and said."""

    name: str
    log: str = ""
    found: Backtest = field(default_factory=Backtest)
    ended: Ended = Ended.END_OF_LOG
    problem: str = ""


class _Busy(ValueError):
    """A gateway that can answer later."""


class GatewayBacktests:
    """Asks in the background; `on_change` hears of each policy whose question was answered, or cannot be."""

    def __init__(
        self,
        gateways: PolledGateways,
        *,
        clock: Callable[[], datetime],
        on_change: Callable[[Collection[Key]], None],
        seconds: float = MAX_BACKTEST_SECONDS,
    ) -> None:
        """`seconds` are for one question, however many gateways there are."""
        self._gateways = gateways
        self._clock = clock
        self._on_change = on_change
        self._seconds = seconds
        self._waiting: dict[Key, tuple[Question, BacktestQuestion]] = {}
        self._told: dict[Key, Asked] = {}
        self._woken = asyncio.Event()

    def asked(self, key: Key) -> Asked:
        """Return what came of asking about a policy."""
        return self._told.get(key, Asked())

    def ask(self, key: Key, question: Question, content: BacktestQuestion) -> None:
        """Ask when it is its turn; another question about the same policy is forgotten for it."""
        before = self.asked(key)
        if before.under_way == question:
            return
        self._waiting[key] = (question, content)
        self._told[key] = replace(before, under_way=question)
        self._woken.set()

    def forget(self, key: Key) -> None:
        """Drop what is known about a policy."""
        self._waiting.pop(key, None)
        self._told.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._waiting:
                    key = next(iter(self._waiting))
                    question, content = self._waiting.pop(key)
                    self._note(key, question, await self._try(session, content))

    async def _try(self, session: aiohttp.ClientSession, content: BacktestQuestion) -> Answer:
        try:
            return await self._answer(session, content)
        except Exception:
            # Ended, it would end the operator, and the next one that leads would ask the same.
            logger.exception("the gateways could not be asked about a policy", extra={"policy": content.policy})
            return Answer(problem="they could not be asked, by a fault of the operator's own, which its log has")

    def _note(self, key: Key, question: Question, answer: Answer) -> None:
        before = self._told.get(key)
        if before is None:
            return
        if answer.problem:
            extra = {"policy": "/".join(key), "reason": answer.problem}
            logger.warning("the gateways could not judge a policy by their logs", extra=extra)
        self._told[key] = Asked(
            under_way=None if before.under_way == question else before.under_way,
            question=question,
            found=answer.found,
            also=answer.also,
            bound=answer.bound,
            problem=answer.problem,
            tries=before.tries + 1 if before.question == question else 1,
            time=self._clock(),
        )
        self._on_change({key})

    async def _answer(self, session: aiohttp.ClientSession, content: BacktestQuestion) -> Answer:
        known = self._gateways.known()
        if known is None:
            return Answer(problem="they were not looked up yet")
        if silent := [name for name, answers in known.values() if not answers]:
            return Answer(problem="; ".join(f"{name} does not answer" for name in silent[:MAX_NAMED]))
        names = {url: name for url, (name, _) in known.items()}
        headers = await self._gateways.authorization()
        return await add_up(session, replace_seconds(content, self._seconds), names, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """What is to be asked for a dry run: what is stable, what would come after it, and what it is held to."""

    key: Key
    stable: Revision
    candidate: Revision
    gate: BacktestGate


class TriedBacktests:
    """Gates for dry runs: what logged decisions say, and what the route keeps that neither side of the edit names.

    Each replica may ask gateways, one at a time, in little time, and a problem is an answer too. Whoever reaches the
    webhooks may ask them. An answer says something of what is logged and routed, so it is for those alone who show the
    policy as it is stored, and so may read it.
    """

    def __init__(self, cluster: KubeCluster, gateways: PolledGateways, *, off_loop: OffLoop, seconds: float) -> None:
        self._cluster = cluster
        self._gateways = gateways
        self._off_loop = off_loop
        self._seconds = seconds
        self._is_busy = False
        self._looking = asyncio.Lock()
        self._in_line = 0

    async def __call__(self, asked: admission.Asked) -> str:
        """Say what gates will say of an edit; nothing where there is none."""
        if asked.old_object is None or asked.object is None:
            return ""
        is_named = names_backtest(asked)
        if not is_named and asked.object.get("spec") == asked.old_object.get("spec"):
            return ""
        not_asked = NOT_ASKED if is_named else NOT_LOOKED_UP
        # Before anything is read: whoever asks at once with others must not cost more than they do.
        if self._in_line == MAX_IN_LINE:
            return f"{not_asked}: {MAX_IN_LINE} others are being looked up"
        told: list[str] = []
        give_up = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(give_up):
                to_try = await self._look_in_turn(asked, told)
                if to_try is not None:
                    not_asked = NOT_ASKED
                    told.append(await self._backtest_if_free(to_try, give_up))
        except (BaleenError, aiohttp.ClientError, OSError) as exc:
            told.append(f"{not_asked}: {shorten(str(exc) or f'no answer in {self._seconds:g} s', MAX_REASON)}")
        return "; ".join(told)

    async def _look_in_turn(self, asked: admission.Asked, told: list[str]) -> _Try | None:
        self._in_line += 1
        try:
            async with self._looking:
                edit = await self._off_loop(lambda: read_edit(asked))
                return await self._look(asked, *edit, told) if edit else None
        finally:
            self._in_line -= 1

    async def _look(self, asked: admission.Asked, before: Policy, after: Policy, told: list[str]) -> _Try | None:
        """Add to what is `told` what needs no gateway; return what is to be asked of them, if anything is."""
        key = (before.namespace, before.name)
        stored = await self._cluster.look_for(TARGETS[POLICY_KIND], *key)
        if stored is None or asked.old_object is None or not _are_one(stored, asked.old_object):
            why = "what is stored is another policy by now"
            told.append(f"{NOT_ASKED if names_backtest(asked) else NOT_LOOKED_UP}: {why}")
            return None
        route = await self._cluster.look_for(TARGETS[ROUTE_KIND], *key)
        if route is None:
            return None
        published = read_route(route)
        stable, gate = published.route.stable, stricter_backtest(after.gates.backtest, published.backtest)
        protected = sorted({*published.never_loosen, *after.gates.never_loosen})
        if after.content.lists or before.content.lists:
            if protected:
                told.append(f"{NEVER_LOOSEN} {', '.join(protected)}: lists are read once the policy is applied")
            if gate is not None:
                told.append(f"{NOT_ASKED}: lists are read once the policy is applied")
            return None
        revision = await self._off_loop(lambda: make_revision(after, {}))
        if (gate is None and not protected) or revision.digest in (stable, *published.route.recent_stable):
            return None
        kept = await self._cluster.look_for(TARGETS[REVISION_KIND], key[0], revision_name(key[1], stable))
        if kept is None:
            told.append(f"{NOT_ASKED if gate else NOT_LOOKED_UP}: the stable revision is not there")
            return None
        said = stored_revision(kept)
        if protected:
            was = await self._off_loop(lambda: read_revision(said))
            # Without the route it was told what the edit makes softer than what was applied before.
            now = as_revision(after)
            known = find_unproven(as_revision(before), now, _named(before, after))
            unproven = [each for each in find_unproven(was, now, protected) if each not in known]
            if unproven:
                softer = "; ".join(map(str, unproven[: admission.MAX_CHANGES]))
                told.append(
                    f"{NEVER_LOOSEN} {', '.join(protected)}, this may be refused beside what is stable: {softer}"
                )
        return None if gate is None else _Try(key=key, stable=said, candidate=revision, gate=gate)

    async def _backtest_if_free(self, to_try: _Try, give_up: float) -> str:
        if self._is_busy:
            return f"{NOT_ASKED}: another one is being asked"
        self._is_busy = True
        try:
            return await self._backtest(to_try, give_up)
        finally:
            self._is_busy = False

    async def _backtest(self, to_try: _Try, give_up: float) -> str:
        names = await self._gateways.look_up()
        if names is None:
            return f"{NOT_ASKED}: the gateways could not be looked up"
        headers = await self._gateways.authorization()
        left = give_up - asyncio.get_running_loop().time()
        content = BacktestQuestion(
            policy="/".join(to_try.key),
            stable=BacktestRevision(digest=to_try.stable.digest, content=to_try.stable.content),
            candidate=BacktestRevision(digest=to_try.candidate.digest, content=to_try.candidate.content),
            decisions=to_try.gate.decisions,
            seconds=left * JUDGED_SHARE,
        )
        async with aiohttp.ClientSession(trust_env=False) as session:
            answer = await add_up(session, content, names, headers)
        if answer.found is None:
            return f"{NOT_ASKED}: {answer.problem}"
        result = judge_worst(to_try.gate, (answer.found, *answer.also), bound=answer.bound)
        return f"gates.backtest: {result.verdict} ({result.reason}): {result.message}"


def _named(before: Policy, after: Policy) -> Sequence[str]:
    return sorted({*before.gates.never_loosen, *after.gates.never_loosen})


def _are_one(stored: Manifest, shown: Manifest) -> bool:
    """Say whether what was shown is what is stored; its uid nobody can guess."""
    uids = [dict(each.get("metadata") or {}).get("uid") for each in (stored, shown)]
    return bool(uids[0]) and uids[0] == uids[1] and stored.get("spec") == shown.get("spec")


def replace_seconds(content: BacktestQuestion, seconds: float) -> BacktestQuestion:
    """Return a question that is to be answered in so many seconds, or in fewer."""
    return structs.replace(content, seconds=min(seconds, content.seconds))


async def add_up(
    session: aiohttp.ClientSession, content: BacktestQuestion, names: Mapping[str, str], headers: Mapping[str, str]
) -> Answer:
    """Ask gateways, which are called by the `names` of their addresses, until there are enough decisions or no more.

    Of those that share a log one counts, and another one is asked as much, so that no single one speaks for a log that
    is not its own: by the worse of the two the candidate is judged, too. The question's seconds are for all of it.
    """
    if not names:
        return Answer(found=Backtest(), bound="no gateway is known whose log could be judged")
    loop = asyncio.get_running_loop()
    give_up = loop.time() + content.seconds
    parts: dict[str, _Part] = {}
    kept: dict[str, _Part] = {}
    read: dict[str, _Part] = {}
    shares = next_shares(content.decisions, names, ())
    while shares:
        left = give_up - loop.time()
        if left <= 0:
            return Answer(problem=f"they had not judged enough decisions in {content.seconds:g} s; want fewer")
        questions = {url: structs.replace(content, decisions=share, seconds=left) for url, share in shares.items()}
        async with asyncio.TaskGroup() as group:
            tasks = {
                url: group.create_task(_ask(session, url, names[url], question, headers))
                for url, question in questions.items()
            }
        said = {url: _after(parts.get(url), task.result()) for url, task in tasks.items()}
        is_first, parts = not parts, parts | said
        if problems := [f"{each.name} {each.problem}" for each in parts.values() if each.problem]:
            return Answer(problem="; ".join(problems[:MAX_NAMED]))
        if contradiction := find_contradiction(parts, _log_of, lambda part: part.found.flips.overall):
            return Answer(problem=contradiction.told(names))
        kept = one_per_log(parts, _log_of, lambda part: part.found.compared)
        # What was asked first of each was too little for those that share a log.
        small = {parts[url].log for url in parts.keys() - kept.keys()} if is_first else set()
        longer = {each.log for each in parts.values() if each.log and _goes_on(each, small)}
        found = [(url, each.found.compared, each.log in longer or _goes_on(each, small)) for url, each in kept.items()]
        shares = _with_witnesses(next_shares(content.decisions, kept, found), kept, parts)
        again = {kept[url].log for url in shares if url in kept}
        read = parts
        # Whoever was asked for less than others of its log has no say any more.
        parts = {url: each for url, each in parts.items() if url in kept or url in shares or each.log not in again}
    worse = (one_per_log(read, _log_of, by) for by in (_new_blocks_first, _flips_first))
    also = tuple(_add(each) for each in worse if each != kept)
    return Answer(found=_add(kept), also=also, bound=_bound(kept.values()))


def _new_blocks_first(part: _Part) -> tuple[int, ...]:
    return part.found.new_block_rate, part.found.flip_rate, part.found.compared


def _flips_first(part: _Part) -> tuple[int, ...]:
    return part.found.flip_rate, part.found.new_block_rate, part.found.compared


def _add(parts: Mapping[str, _Part]) -> Backtest:
    return reduce(merge_backtests, (part.found for part in parts.values()), Backtest())


def _log_of(part: _Part) -> str:
    return part.log


def _after(before: _Part | None, now: _Part) -> _Part:
    """Return what a gateway says now; what it says of another log than before is no answer."""
    if before is None or now.problem or now.log == before.log:
        return now
    return replace(now, problem=f"says that it reads the log {now.log!r}, and before that it was {before.log!r}")


def _with_witnesses(shares: Mapping[str, int], kept: Mapping[str, _Part], parts: Mapping[str, _Part]) -> dict[str, int]:
    """Ask one more reader of each log that is asked again, for as much: what a single one says, nobody could tell."""
    of_log = {kept[url].log: share for url, share in shares.items()}
    others = {url: each for url, each in parts.items() if url not in kept}
    witnesses = one_per_log(others, _log_of)
    return {**shares, **{url: of_log[each.log] for url, each in witnesses.items() if each.log in of_log}}


def _goes_on(part: _Part, small: Collection[str]) -> bool:
    # What a gateway looks at grows with its share, and that was too small where others had shares of the same log.
    return part.ended is Ended.ENOUGH or (part.ended is Ended.SCAN_LIMIT and part.log in small)


def _bound(parts: Collection[_Part]) -> str:
    if not any(part.ended is Ended.SCAN_LIMIT for part in parts):
        return ""
    judged = sum(part.found.compared + part.found.unknown for part in parts)
    looked_at = judged + sum(part.found.elsewhere for part in parts)
    return (
        f"no more than {looked_at:,} of the logs are looked at, and in the others this policy had no part; want fewer"
    )


async def _ask(
    session: aiohttp.ClientSession, url: str, name: str, question: BacktestQuestion, headers: Mapping[str, str]
) -> _Part:
    try:
        share = await _post_when_free(session, url, question, headers)
        found, ended = read_share(share)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as exc:
        reason = shorten(str(exc) or type(exc).__name__, MAX_REASON)
        return _Part(name=name, problem=f"did not answer as it should: {reason}")
    if ended in (Ended.TIME_LIMIT, Ended.ABANDONED):
        judged = f"judged {found.compared + found.unknown:,} decisions in {question.seconds:g} s"
        return _Part(name=name, problem=f"{judged}, of {question.decisions:,} that were wanted of it; want fewer")
    if found.compared > question.decisions or (ended is Ended.ENOUGH and found.compared < question.decisions):
        # Whoever says more than it was asked for would outweigh the others.
        return _Part(name=name, problem=f"says {found.compared:,} decisions, asked for {question.decisions:,}")
    return _Part(name=name, log=share.log, found=found, ended=ended)


async def _post_when_free(
    session: aiohttp.ClientSession, url: str, question: BacktestQuestion, headers: Mapping[str, str]
) -> BacktestShare:
    """Ask again, for as long as the question's seconds last, where somebody else's question is being answered."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + question.seconds
    while True:
        try:
            left = give_up - loop.time()
            return await _post(session, url, structs.replace(question, seconds=left), headers)
        except _Busy:
            if give_up - loop.time() <= BUSY_SECONDS:
                raise
            await asyncio.sleep(BUSY_SECONDS)


async def _post(
    session: aiohttp.ClientSession, url: str, question: BacktestQuestion, headers: Mapping[str, str]
) -> BacktestShare:
    async with session.post(
        url + BACKTESTS_PATH,
        data=_ENCODER.encode(question),
        headers={**headers, "Content-Type": "application/json"},
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=question.seconds + GRACE_SECONDS),
    ) as response:
        body = await read_bounded(response, MAX_SHARE_BYTES)
        if response.status != 200:
            failure = _Busy if response.status == 503 else ValueError
            raise failure(f"status {response.status}{_detail(body)}")
    # A decoding error is a ValueError.
    return _SHARE.decode(body)


def _detail(body: bytes) -> str:
    try:
        detail = msgspec.json.decode(body).get("detail")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {detail}" if isinstance(detail, str) else ""
