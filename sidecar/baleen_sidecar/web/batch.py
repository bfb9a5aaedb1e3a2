"""`POST /v1/moderate/batch`: many pieces of content in one request, each with an outcome of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, structs

from baleen_core.callers import Identity
from baleen_core.errors import ContentError, Problem
from baleen_core.policy.schema import Verdict
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.ports import RequestKey
from baleen_sidecar.usecases.moderate import Caller
from baleen_sidecar.web.callers import context_of
from baleen_sidecar.web.errors import ProblemDetails, retry_after
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest, explain, problem_answer, unless_gone
from baleen_sidecar.web.judge import Judge, Together, renamed
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.moderate import need_json, read_caller, refuse_query
from baleen_sidecar.web.once import Once, RequestKeys, keyed
from baleen_sidecar.web.schemas import (
    KNOWN,
    Author,
    DecisionAnswer,
    Image,
    RequestContext,
    Text,
    Video,
    decode_body,
    to_answer,
    to_context,
)

T = TypeVar("T")

PATH: Final = "/v1/moderate/batch"
ITEMS_A_TURN: Final = 25
"""Items that are decided in one turn of the event loop, for which other requests wait."""
_ENCODER: Final = msgspec.json.Encoder()

Identifier = Annotated[str, Meta(max_length=256)]


class BatchItem(Struct, forbid_unknown_fields=True):
    """One piece of content; what its context leaves out is as in the batch's. Its `id` is repeated in its outcome."""

    content: Text | Image | Video
    context: RequestContext = msgspec.field(default_factory=RequestContext)
    id: Identifier | None = None


class BatchRequest(Struct, forbid_unknown_fields=True):
    """Many items; `background` may only be false."""

    items: list[Raw]
    context: RequestContext = msgspec.field(default_factory=RequestContext)
    batch_id: Identifier | None = None
    background: bool = False


class ItemAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of the item at `index`: a decision, or a problem that says why there is none."""

    index: int
    id: str | None = None
    decision: DecisionAnswer | None = None
    problem: ProblemDetails | None = None
    retry_after_seconds: int | None = None


class BatchCounts(Struct, frozen=True, kw_only=True):
    """How many items were decided how, and how many were refused."""

    allow: int
    review: int
    block: int
    refused: int


class BatchAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcomes, in the order of the items."""

    batch_id: str | None = None
    counts: BatchCounts
    items: tuple[ItemAnswer, ...]
    latency_ms: float


_BATCH: Final = msgspec.json.Decoder(BatchRequest)
_ITEM: Final = msgspec.json.Decoder(BatchItem)
_KNOWN_OF_BATCH: Final = {**KNOWN, "": BatchRequest.__struct_fields__}
_KNOWN_OF_ITEM: Final = {**KNOWN, "": BatchItem.__struct_fields__}
_NOTHING: Final = Author()
_NOWHERE: Final = RequestContext()


def below(index: int, field: str) -> str:
    """Name a field of the item at an index."""
    return f"items[{index}].{field}" if field else f"items[{index}]"


class BatchRoute:
    """Answers `POST /v1/moderate/batch`."""

    method = "POST"

    def __init__(
        self,
        judge: Judge,
        *,
        limit: int,
        limit_bytes: int,
        timeout_seconds: float,
        metrics: RequestMetrics,
        monotonic_seconds: Callable[[], float],
        keys: RequestKeys,
    ) -> None:
        self._judge = judge
        self._keys = keys
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._monotonic_seconds = monotonic_seconds

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        caller = read_caller(request, self._timeout_seconds)
        refuse_query(request.query)
        need_json(request.headers)
        moderate = self._judge.moderate
        async with AsyncExitStack() as stack:
            with moderate.deadline(caller):
                data = await request.body.read("batch", self._limit_bytes)
                batch, items = await moderate.off_loop(data, partial(read_batch, data, limit=self._limit))
                tenant = self.tenant_of(batch.context, request.key)
                asked = self._keys.once(request, data, tenant=tenant, count=len(items))
                once = await stack.enter_async_context(asked)
            outcomes = await unless_gone(request.body, self.outcomes(batch.context, items, request.key, caller, once))
        answer = BatchAnswer(
            batch_id=batch.batch_id,
            counts=count(outcomes),
            items=tuple(outcomes),
            latency_ms=round(self._spent(caller) * 1000, 3),
        )
        headers = (*once.headers, *request.told_priority())
        return HotAnswer(status=200, body=_ENCODER.encode(answer), headers=headers)

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return problem_answer(problem, more)

    def tenant_of(self, context: RequestContext, key: Identity | None) -> str | None:
        """Return whose a batch as a whole is; its items may be of others."""
        own = self._judge.place(to_context(context)).tenant
        return own if key is None or key.tenant is None else key.tenant

    async def outcomes(
        self,
        context: RequestContext,
        items: Sequence[BatchItem | ContentError],
        key: Identity | None,
        caller: Caller,
        once: Once,
    ) -> Sequence[ItemAnswer]:
        """Judge all items, and count what came of each."""
        together = Together(self._judge)
        found: dict[int, ItemAnswer] = {}
        decided: list[tuple[int, DecisionRecord]] = []

        def answered(index: int, came: DecisionRecord | Exception, *, was_there: bool = False) -> None:
            item = items[index]
            identity = item.id if isinstance(item, BatchItem) else None
            if isinstance(came, Exception):
                problem = explain(renamed(came, partial(below, index)), caller.request_id)
                self._metrics.refused(problem.status)
                wait = retry_after(came)
                found[index] = ItemAnswer(index=index, id=identity, problem=problem, retry_after_seconds=wait)
                return
            self._metrics.decided(came, self._spent(caller), was_there=was_there)
            found[index] = ItemAnswer(index=index, id=identity, decision=to_answer(came))

        async def judged(index: int, item: BatchItem, place: Context) -> None:
            def decide(kept: RequestKey | None) -> Awaitable[DecisionRecord]:
                return together.content(item.content, place, keyed(caller, kept))

            try:
                record, was_there = await once.decide(index, decide)
            except Exception as exc:
                answered(index, exc)
            else:
                answered(index, record, was_there=was_there)

        async def kept() -> None:
            came = await self._judge.moderate.keep_all([record for _, record in decided], caller)
            for (index, _), each in zip(decided, came, strict=True):
                answered(index, each)

        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(items):
                if index and index % ITEMS_A_TURN == 0:
                    await asyncio.sleep(0)
                try:
                    if isinstance(item, ContentError):
                        raise item
                    asked = to_context(merged(context, item.context))
                    place = self._judge.place(context_of(key, asked, "context.tenant"))
                    # What is decided under a key may be decided already.
                    record = None if once.is_asked else together.at_once(item.content, place, caller)
                except Exception as exc:
                    answered(index, exc)
                    continue
                if record is None:
                    group.create_task(judged(index, item, place))
                else:
                    decided.append((index, record))
            await kept()
        return [found[index] for index in range(len(items))]

    def _spent(self, caller: Caller) -> float:
        return self._monotonic_seconds() - caller.received_seconds


def read_batch(body: bytes, *, limit: int) -> tuple[BatchRequest, Sequence[BatchItem | ContentError]]:
    """Read a batch and its items, of which each may be wrong by itself.

    Raises:
        ContentError: it has no items or more than `limit`, asks for a job, or is not a batch at all.
    """
    batch = decode_body(body, _BATCH, _KNOWN_OF_BATCH)
    problems = wrong_size(len(batch.items), limit)
    if batch.background:
        message = "is not supported yet: batches are judged at once; leave it out, or send false"
        problems.append(Problem(field="background", message=message))
    if problems:
        raise ContentError(problems)
    return batch, read_items(batch.items, lambda raw: decode_item(bytes(raw)))


def decode_item(data: bytes) -> BatchItem:
    """Read an item by itself.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    return decode_body(data, _ITEM, _KNOWN_OF_ITEM)


def read_items(raws: Iterable[T], read: Callable[[T], BatchItem]) -> list[BatchItem | ContentError]:
    """Read items with `read`, each of which may be wrong by itself; `read` raises ContentError then.

    An item is wrong, too, if an earlier one has its id: nobody could tell their outcomes apart.
    """
    indexes: dict[str, int] = {}

    def read_own(index: int, raw: T) -> BatchItem | ContentError:
        try:
            item = read(raw)
        except ContentError as exc:
            return exc
        if item.id is not None and (first := indexes.setdefault(item.id, index)) != index:
            return ContentError([Problem(field="id", message=f"is that of items[{first}], too; each has its own")])
        return item

    return [read_own(index, raw) for index, raw in enumerate(raws)]


def wrong_size(count: int, limit: int) -> list[Problem]:
    """Say if a batch has no items, or more than `limit`."""
    if 1 <= count <= limit:
        return []
    return [Problem(field="items", message=f"there are {count}; a batch has 1 to {limit}")]


def merged(batch: RequestContext, item: RequestContext) -> RequestContext:
    """Return the context of an item: its own fields, and the batch's where it has none; an author is one field."""
    if batch == _NOWHERE:
        return item
    own = {name: value for name in item.__struct_fields__ if (value := getattr(item, name)) not in (None, _NOTHING)}
    return structs.replace(batch, **own)


def count(items: Sequence[ItemAnswer]) -> BatchCounts:
    """Count outcomes by what they are."""
    verdicts = [item.decision.decision for item in items if item.decision is not None]
    found: Mapping[Verdict, int] = {verdict: verdicts.count(verdict) for verdict in Verdict}
    return BatchCounts(
        allow=found[Verdict.ALLOW],
        review=found[Verdict.REVIEW],
        block=found[Verdict.BLOCK],
        refused=len(items) - len(verdicts),
    )
