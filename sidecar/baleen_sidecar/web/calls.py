"""Content that comes in messages, not in requests of HTTP: who sends it, until when, and what becomes of it.

The same core as that of `/v1/moderate`, for faces that have their own bytes and words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import structs

from baleen_core.callers import Identity
from baleen_core.errors import Allowance, ContentError, Overloaded
from baleen_core.priority import Priority
from baleen_core.records import DecisionRecord
from baleen_sidecar.flow.concurrency import Concurrency
from baleen_sidecar.flow.door import read_priority
from baleen_sidecar.usecases.answer_once import AnswerOnce
from baleen_sidecar.usecases.moderate import Caller
from baleen_sidecar.web.batch import BatchItem, BatchRoute, ItemAnswer
from baleen_sidecar.web.callers import context_of
from baleen_sidecar.web.door import Doorkeeper
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.hot import explain, read_request_id
from baleen_sidecar.web.judge import Judge
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.moderate import PATH, name_once, read_deadline
from baleen_sidecar.web.once import Once
from baleen_sidecar.web.schemas import Image, RequestContext, Text, Video, to_context

Content = tuple[Text | Image | Video, RequestContext]
Batch = tuple[RequestContext, Sequence[BatchItem | ContentError]]

ANSWER_SECONDS: Final = 0.1
ANSWER_SHARE: Final = 0.1
"""What of the time until a call ends is left for the outcomes of a batch to go out: the lesser of seconds and a share.

A call that has ended takes no answer, and its caller would not hear of what is on record already.
"""
_NO_QUERY: Final = b""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a face, which has one message or many; header names are in lower case.

    `until` is when its caller stops waiting, in monotonic seconds; None: it does not say.
    """

    headers: Mapping[bytes, bytes]
    request_id: str
    until: float | None = None
    key: Identity | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A decision; whether it is that of an earlier call, and how the quotas stand that its content was counted in."""

    record: DecisionRecord
    replayed: bool = False
    allowances: Sequence[Allowance] = ()


class Calls:
    """Lets calls in, and has what they bring judged, put on record and counted."""

    def __init__(
        self,
        judge: Judge,
        *,
        keeper: Doorkeeper | None,
        batch: BatchRoute,
        answers: AnswerOnce,
        metrics: RequestMetrics,
        concurrency: Concurrency,
        monotonic_seconds: Callable[[], float],
        chance: Callable[[int], bytes],
        deadline_seconds: float,
        batch_timeout_seconds: float,
        memory_bytes: int,
    ) -> None:
        """Without a `keeper` everybody may call. `memory_bytes` is for all messages that are not answered."""
        self._judge = judge
        self._keeper = keeper
        self._batch = batch
        self._answers = answers
        self._metrics = metrics
        self._concurrency = concurrency
        self._monotonic_seconds = monotonic_seconds
        self._chance = chance
        self._deadline_seconds = deadline_seconds
        self._batch_timeout_seconds = batch_timeout_seconds
        self._memory_bytes = memory_bytes
        self.held_bytes = 0
        """What messages that are not answered take."""

    def begin(self, headers: Mapping[bytes, bytes], *, left_seconds: float | None = None) -> Call:
        """Note a call of this moment, whose caller waits for so long."""
        until = None if left_seconds is None else self._monotonic_seconds() + left_seconds
        return Call(headers=headers, request_id=read_request_id(headers, self._chance), until=until)

    async def admit(self, call: Call) -> None:
        """Let a call in, or another message of it: each counts in the limits of its caller.

        Raises:
            Unauthenticated, Forbidden, LimitExceeded: see `Doorkeeper`.
            ContentError: it claims something that is no priority.
        """
        if (keeper := self._keeper) is not None:
            call.key = keeper.admit(PATH, _NO_QUERY, call.headers) or await keeper.ask(PATH, call.headers)
        call.priority = read_priority(call.headers, call.key)

    async def judge(
        self, call: Call, data: bytes, read: Callable[[bytes], Content], *, face: str = "", key: str | None = None
    ) -> Judged:
        """Judge a message; those of one `face` with the same idempotency key are judged once.

        Raises:
            BaleenError: there is no decision.
        """
        until = call.until
        with self._judging(call, data, self._deadline_seconds, until) as caller, self._judge.moderate.deadline(caller):
            content, asked = await self._judge.moderate.off_loop(data, partial(read, data))
            context = self._judge.place(context_of(call.key, to_context(asked), "context.tenant"))
            decide = partial(self._judge.content, content, context)
            if key is None:
                record, replayed = await decide(caller), False
            else:
                named, fingerprint = await self._named(call, context.tenant, key, face, data)
                record, replayed = await self._answers.answer(
                    named, fingerprint, lambda kept: decide(structs.replace(caller, key=kept))
                )
        seconds = self._monotonic_seconds() - caller.received_seconds
        self._metrics.decided(record, seconds, was_there=replayed)
        return Judged(record=record, replayed=replayed, allowances=tuple(caller.allowances))

    async def judge_batch(
        self, call: Call, data: bytes, read: Callable[[bytes], Batch], *, face: str = "", key: str | None = None
    ) -> tuple[Sequence[ItemAnswer], bool]:
        """Judge the items of a message, each for itself; those of one `face` with the same idempotency key once.

        Each that is not decided in time has that for its outcome. True: all decisions are those of an earlier call.

        Raises:
            BaleenError: there is no outcome at all.
        """
        until = self._before_end(call)
        with self._judging(call, data, self._batch_timeout_seconds, until) as caller:
            async with AsyncExitStack() as stack:
                with self._judge.moderate.deadline(caller):
                    context, items = await self._judge.moderate.off_loop(data, partial(read, data))
                    once = Once(None)
                    if key is not None:
                        tenant = self._batch.tenant_of(context, call.key)
                        named, fingerprint = await self._named(call, tenant, key, face, data)
                        parts = self._answers.parts(named, fingerprint, len(items))
                        once = Once(await stack.enter_async_context(parts))
                # Outside of the deadline, which each item has for itself: it would take the outcomes of all others.
                outcomes = await self._batch.outcomes(context, items, call.key, caller, once)
        return outcomes, bool(once.headers)

    async def _named(self, call: Call, tenant: str | None, key: str, face: str, data: bytes) -> tuple[str, str]:
        return await name_once(self._judge.moderate, call.key, tenant, key, face.encode(), data)

    def refuse(self, error: Exception, call: Call) -> ProblemDetails:
        """Say why there is no decision, and count it."""
        problem = explain(error, call.request_id)
        self._metrics.refused(problem.status)
        return problem

    def _before_end(self, call: Call) -> float | None:
        """Return until when outcomes may come to get to their caller, in monotonic seconds; None: it does not say."""
        if call.until is None:
            return None
        left = call.until - self._monotonic_seconds()
        return call.until - min(ANSWER_SECONDS, left * ANSWER_SHARE)

    @contextmanager
    def _judging(self, call: Call, data: bytes, longest_seconds: float, until: float | None) -> Iterator[Caller]:
        """Let in a message that is to be answered by `until` (monotonic seconds), and hold it.

        Raises:
            Overloaded: nothing of its priority is judged now, or messages take too much memory.
            ContentError: the deadline in its headers is none.
        """
        now = self._monotonic_seconds()
        seconds = read_deadline(call.headers, longest_seconds)
        caller = Caller(
            request_id=call.request_id,
            received_seconds=now,
            deadline_seconds=seconds if until is None else min(seconds, until - now),
            priority=call.priority,
            who="" if call.key is None else call.key.group,
        )
        self._judge.moderate.admit(caller)
        self._concurrency.enter()
        try:
            with self._holding(data):
                yield caller
        finally:
            self._concurrency.leave()

    @contextmanager
    def _holding(self, data: bytes) -> Iterator[None]:
        limit = self._memory_bytes
        if self.held_bytes + len(data) > limit:
            raise Overloaded(f"the messages of all calls would be over the limit of {limit} bytes together")
        self.held_bytes += len(data)
        try:
            yield
        finally:
            self.held_bytes -= len(data)
