"""Moderate one piece of content: find the policies, score, look up lists, decide, make durable, answer."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Final, Literal, NamedTuple, TypeVar

from msgspec import Struct, structs
from PIL import Image

from baleen_core.decision.engine import decide, model_of
from baleen_core.decision.lists import find_hits
from baleen_core.decision.snapshot import InForce, PolicySnapshot
from baleen_core.errors import (
    Allowance,
    ContentError,
    DeadlineExceeded,
    LogUnavailable,
    ModelUnavailable,
    NoPolicy,
    Problem,
    TooLarge,
)
from baleen_core.ids import decision_id
from baleen_core.policy.schema import Verdict
from baleen_core.priority import Priority
from baleen_core.records import (
    RESCAN_DEBT,
    ContentFacts,
    ContentType,
    Context,
    DecisionRecord,
    Durability,
    Evidence,
    ListHit,
    Missing,
    Risk,
)
from baleen_core.textnorm import read_text
from baleen_sidecar.flow.debts import DebtRoom
from baleen_sidecar.ports import (
    Beside,
    Change,
    Debt,
    DecisionLog,
    FrameDecoder,
    ImageDecoder,
    KeptContent,
    Lane,
    LanguageDetector,
    PerceptualHash,
    RequestKey,
    Work,
)
from baleen_sidecar.usecases.govern import Governor
from baleen_sidecar.usecases.moderate_video import judge_frames
from baleen_sidecar.usecases.places import Places
from baleen_sidecar.usecases.scoring import Scores, Scoring

T = TypeVar("T")
MediaKind = Literal["image", "video"]

PICTURES_AT_ONCE = 4
"""Decoded pictures held at a time: one of 50 megapixels takes 150 MB, however small its file is.

A picture has its place until models have their tensors of it, and not while these wait; `batch_queue_bytes` bounds
the bytes of tensors that wait for each model.
"""
INLINE_TEXT_LENGTH = 8 * 1024
"""Text up to here is read on the event loop: handing it to a thread costs more than it saves."""
INLINE_BYTES = 64 * 1024
"""Media up to here is hashed and inspected on the event loop: handing it to a thread costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one piece of content may measure."""

    text_bytes: int
    video_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A second look at what a decision allowed (`was`) while models were missing; the last one puts nothing off."""

    debt: Debt
    was: Verdict
    is_last: bool


class Superseded(Exception):
    """A decision was not put on record: the request is answered already, or the debt settled, by somebody else."""


class Caller(Struct, frozen=True, kw_only=True):
    """What is known of the call itself: when it came (monotonic seconds), how long it may take, how urgent it is.

    `who` calls, by a name that the caller cannot choose. `allowances` is how the quotas stand that the content was
    counted in last, for the answer to say it. With a `key` it is answered once; see usecases/answer_once.py. It is a
    second look if there is an `again`. Content that `may_keep` forbids to keep is owed none.
    """

    request_id: str
    received_seconds: float
    deadline_seconds: float
    priority: Priority = Priority.NORMAL
    who: str = ""
    allowances: list[Allowance] = []
    key: RequestKey | None = None
    again: Again | None = None
    may_keep: bool = True

    def work(self, context: Context, lane: Lane = Lane.INTERACTIVE) -> Work:
        """Return for whom models are asked."""
        return Work(
            priority=self.priority,
            tenant=context.tenant or "",
            deadline=self.received_seconds + self.deadline_seconds,
            lane=lane,
        )


Charge = Callable[[Context, ContentType, Caller], Awaitable[None]]
"""Counts a piece of content that models are about to be asked about; see ChargeQuotas."""


async def free_of_charge(context: Context, content: ContentType, caller: Caller) -> None:
    """Count nothing."""


class _OnceCharged:
    """Counts a piece of content the first time that it is awaited, however many parts of it models see."""

    __slots__ = ("_charge", "_is_due")

    def __init__(self, charge: Callable[[], Awaitable[None]]) -> None:
        self._charge = charge
        self._is_due = True

    async def __call__(self) -> None:
        if self._is_due:
            self._is_due = False
            await self._charge()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What a use case takes from the world that is no port of its own: clocks, chance, threads."""

    wall_seconds: Callable[[], float]
    monotonic_seconds: Callable[[], float]
    chance: Callable[[int], bytes]
    executor: Executor

    async def off_loop(self, data: bytes, work: Callable[[], T]) -> T:
        """Run CPU work on `data`: at once when it is small, in a thread when it is not."""
        return work() if len(data) <= INLINE_BYTES else await self.in_thread(work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run CPU work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


class _ReadText(NamedTuple):
    """What is found out about a text before any model is asked."""

    variants: tuple[str, ...]
    language: str | None
    links: int
    hits: tuple[ListHit, ...]


@dataclass(slots=True)
class _Spent:
    """Seconds that a request spent: on models that only sides want which do not count, and in the queues of models."""

    apart: float = 0.0
    in_queue: float = 0.0

    def add(self, scores: Scores, apart: float) -> None:
        """Add what some of its content took."""
        self.apart += apart
        self.in_queue += scores.queue_seconds


class _Picture:
    """A picture that is decoded when it is needed, in one of few places, and in a thread.

    A file of a few kilobytes can be a picture of many megabytes.
    """

    def __init__(self, places: Places, priority: Priority, decode: Callable[[], Awaitable[Image.Image]]) -> None:
        self._places = places
        self._priority = priority
        self._decode = decode
        self._held: Image.Image | None = None

    async def hold(self) -> Image.Image:
        """Decode it, and hold it until it was opened once, or is let go."""
        await self._places.acquire(self._priority)
        try:
            self._held = await self._decode()
        except BaseException:
            self._places.release()
            raise
        return self._held

    def let_go(self) -> None:
        """Hold it no longer, unless somebody has it open."""
        if self._held is not None:
            self._held = None
            self._places.release()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Image.Image]:
        """Give what is held, or decode it (again)."""
        picture, self._held = self._held, None
        if picture is not None:
            try:
                yield picture
            finally:
                self._places.release()
            return
        async with self._places.place(self._priority):
            yield await self._decode()


_NOTHING_SPENT: Final = _Spent()


class Moderate:
    """Answer Allow, Review or Block for a text, an image or a short video, and put the answer on record first."""

    def __init__(
        self,
        *,
        policies: Callable[[], PolicySnapshot],
        scoring: Scoring,
        log: DecisionLog,
        languages: LanguageDetector,
        images: ImageDecoder,
        frames: FrameDecoder,
        perceptual_hash: PerceptualHash,
        limits: Limits,
        durability: Durability,
        shell: Shell,
        degraded: Callable[[], tuple[str, ...]] = lambda: (),
        on_decision: Callable[[DecisionRecord], None] = lambda record: None,
        charge: Charge = free_of_charge,
        governor: Governor | None = None,
        room: DebtRoom | None = None,
    ) -> None:
        """`degraded` names what, beside models, is not as it should be now; every decision says so.

        `on_decision` hears of each decision once it is on record, but of no second look: it is no more content.
        `charge` counts content that a model has to be asked about, and raises LimitExceeded where that is too much.
        `governor` says who enters while the machine is busy. Where there is no `room` nothing is owed a second look,
        and what would be is for review.
        """
        self._policies = policies
        self._scoring = scoring
        self._log = log
        self._languages = languages
        self._images = images
        self._frames = frames
        self._perceptual_hash = perceptual_hash
        self._limits = limits
        self._durability = durability
        self._shell = shell
        self._degraded = degraded
        self._on_decision = on_decision
        self._charge = charge
        self._governor = governor
        self._room = room
        self._places = Places(PICTURES_AT_ONCE)

    @property
    def pictures_held(self) -> int:
        """How many decoded pictures are held now."""
        return PICTURES_AT_ONCE - self._places.free

    async def off_loop(self, data: bytes, work: Callable[[], T]) -> T:
        """Run a caller's own CPU work on `data` where it stops nobody else."""
        return await self._shell.off_loop(data, work)

    async def text(self, text: str, context: Context, caller: Caller) -> DecisionRecord:
        """Moderate a text.

        Raises:
            ContentError: it is empty or longer than the limit.
            LimitExceeded: a quota is used up.
            Overloaded: the governor does not let it in, or a model cannot be asked in time.
            NoPolicy, LogUnavailable, DeadlineExceeded: see baleen_core.errors.
            Superseded, ModelUnavailable: as for `_conclude`.
        """
        if (record := self.text_at_once(text, context, caller)) is not None:
            return await self.keep(record, caller)
        await self._enter(caller)
        in_force, digest = self._place_text(text, context)
        read = partial(self._read_text, text, digest, in_force)
        found = read() if len(text) <= INLINE_TEXT_LENGTH else await self._shell.in_thread(read)
        language = found.language or primary_language(context.language)
        scores = await self._scoring.text(
            found.variants,
            in_force.wanted("text", language),
            caller.work(context),
            before_models=self._charging(context, "text", caller),
        )
        evidence = Evidence(
            content=ContentFacts(type="text", digest=digest, length=len(text), links=found.links),
            context=context,
            signals=scores.highest(),
            missing=dict(scores.missing),
            language=language,
            lists=found.hits,
            limits=tuple(scores.limited),
            limited=dict(scores.limited),
            models=scores.models,
            fallbacks=dict(scores.fallbacks),
            cached=scores.cached,
        )
        spent = _Spent()
        spent.add(scores, _seconds_apart(in_force, scores, "text", language))
        return await self._conclude(in_force, evidence, caller, spent, content=KeptContent(type="text", text=text))

    def text_at_once(self, text: str, context: Context, caller: Caller) -> DecisionRecord | None:
        """Decide about a text where nobody has to be waited for; the record is to be kept then (see `keep`).

        None: the governor, a thread or a model has to be waited for, as `text` does.

        Raises:
            ContentError, NoPolicy: as for `text`.
        """
        if self._governor is not None and not self._governor.lets_in(caller.priority):
            return None
        # Before anything is done for it: what is wanted does not depend on the side of a rollout that counts.
        if len(text) > INLINE_TEXT_LENGTH or self._policies().in_force(context).wanted("text"):
            return None
        in_force, digest = self._place_text(text, context)
        found = self._read_text(text, digest, in_force)
        evidence = Evidence(
            content=ContentFacts(type="text", digest=digest, length=len(text), links=found.links),
            context=context,
            language=found.language or primary_language(context.language),
            lists=found.hits,
        )
        return self._decide(in_force, evidence, caller, _NOTHING_SPENT, content=None)

    def _place_text(self, text: str, context: Context) -> tuple[InForce, str]:
        """Return the policies that bind a text, and its digest."""
        try:
            data = text.encode()
        except UnicodeEncodeError as exc:
            raise ContentError([Problem(field="content.text", message="it has half of a surrogate pair")]) from exc
        check_size(data, limit=self._limits.text_bytes, field="content.text", what="text")
        in_force = self._in_force(context)
        digest = hashlib.sha256(data).hexdigest()
        return in_force.assigned(context, digest), digest

    def _read_text(self, text: str, digest: str, in_force: InForce) -> _ReadText:
        plain, undone, links = read_text(text)
        return _ReadText(
            variants=tuple(dict.fromkeys((plain, undone))),
            # As the models read it: a disguise would hide the language too.
            language=self._languages.detect(undone),
            links=links,
            hits=find_hits(in_force.lists, text=text, digest=digest, pdq=None) if in_force.lists else (),
        )

    async def media(
        self, data: bytes, kind: MediaKind, context: Context, caller: Caller, *, url: str = ""
    ) -> DecisionRecord:
        """Moderate an image or a video by its bytes; moving images are judged as a video is, frame by frame.

        `url` is where the bytes can be read again; empty: nowhere, as they are not kept.

        Raises:
            ContentError: it is empty, broken, over a limit or of a type that is not accepted.
            LimitExceeded: a quota is used up.
            Overloaded: the governor does not let it in, or a model cannot be asked in time.
            NoPolicy, LogUnavailable, DeadlineExceeded: see baleen_core.errors.
            Superseded, ModelUnavailable: as for `_conclude`.
        """
        await self._enter(caller)
        if not data:
            raise ContentError([Problem(field="content", message="it is empty; send the bytes of the media")])
        in_force = self._in_force(context)
        digest = await self._shell.off_loop(data, lambda: hashlib.sha256(data).hexdigest())
        in_force = in_force.assigned(context, digest)
        facts = ContentFacts(type=kind, digest=digest, length=len(data))
        content = KeptContent(type=kind, url=url) if url else None
        if kind == "video":
            check_size(data, limit=self._limits.video_bytes, field="content", what="video")
            return await self._moving(data, facts, in_force, context, caller, content)
        info = await self._shell.off_loop(data, lambda: self._images.inspect(data))
        facts = ContentFacts(
            type="image",
            digest=digest,
            length=len(data),
            media_type=info.media_type,
            width=info.width,
            height=info.height,
        )
        if info.animated:
            return await self._moving(data, facts, in_force, context, caller, content)
        picture = _Picture(
            self._places, caller.priority, lambda: self._shell.in_thread(partial(self._images.decode, data))
        )
        try:
            pdq = await self._pdq(await picture.hold()) if in_force.needs_pdq else None
            evidence, spent = await self._still(picture, pdq, facts, in_force, context, caller)
        finally:
            picture.let_go()
        return await self._conclude(in_force, evidence, caller, spent, content=content)

    async def unread(self, before: DecisionRecord, caller: Caller) -> DecisionRecord:
        """Conclude a second look at content that cannot be read any more: what was missing stays so.

        Raises:
            NoPolicy, LogUnavailable: see baleen_core.errors.
            Superseded: as for `_conclude`.
        """
        evidence = structs.replace(before.evidence, degraded=(), rescannable=False)
        in_force = self._in_force(evidence.context).assigned(evidence.context, evidence.content.digest)
        return await self._conclude(in_force, evidence, caller, _Spent(), content=None)

    async def _still(
        self,
        picture: "_Picture",
        pdq: bytes | None,
        facts: ContentFacts,
        in_force: InForce,
        context: Context,
        caller: Caller,
    ) -> tuple[Evidence, _Spent]:
        scores = await self._scoring.picture(
            facts.digest,
            picture.opened,
            in_force.wanted("image"),
            caller.work(context),
            before_models=self._charging(context, "image", caller),
            on_join=picture.let_go,
        )
        evidence = Evidence(
            content=facts,
            context=context,
            signals=scores.highest(),
            missing=dict(scores.missing),
            lists=find_hits(in_force.lists, text=None, digest=facts.digest, pdq=pdq),
            models=scores.models,
            fallbacks=dict(scores.fallbacks),
            cached=scores.cached,
        )
        spent = _Spent()
        spent.add(scores, _seconds_apart(in_force, scores, "image"))
        return evidence, spent

    async def _moving(
        self,
        data: bytes,
        facts: ContentFacts,
        in_force: InForce,
        context: Context,
        caller: Caller,
        content: KeptContent | None,
    ) -> DecisionRecord:
        spent = _Spent()
        evidence = await judge_frames(
            self._frames,
            self._scoring,
            in_force,
            data,
            Evidence(content=facts, context=context),
            pdq=self._pdq,
            work=caller.work(context, Lane.VIDEO),
            before_models=self._charging(context, facts.type, caller),
            on_scores=lambda scores: spent.add(scores, _seconds_apart(in_force, scores, facts.type)),
        )
        return await self._conclude(in_force, evidence, caller, spent, content=content)

    def _charging(self, context: Context, content: ContentType, caller: Caller) -> Callable[[], Awaitable[None]]:
        # A second look was counted at the first.
        charge = self._charge if caller.again is None else free_of_charge
        return _OnceCharged(partial(charge, context, content, caller))

    async def _pdq(self, picture: Image.Image) -> bytes:
        return await self._shell.in_thread(partial(self._perceptual_hash.hash, picture))

    async def _conclude(
        self, in_force: InForce, evidence: Evidence, caller: Caller, spent: _Spent, *, content: KeptContent | None
    ) -> DecisionRecord:
        """Decide and put on record.

        Where `content` can be looked at again, and a policy says so, what is missing may be owed a second look.

        Raises:
            LogUnavailable: it could not be put on record.
            Superseded: it was not, for it is of no use any more.
            ModelUnavailable: this is a second look, and has to be put off again.
        """
        if not caller.may_keep:
            content = None
        record = self._decide(in_force, evidence, caller, spent, content=content)
        debt = _debt_of(record, content) if content is not None and RESCAN_DEBT in record.decision.degraded else None
        return await self.keep(record, caller, debt)

    def _decide(
        self, in_force: InForce, evidence: Evidence, caller: Caller, spent: _Spent, *, content: KeptContent | None
    ) -> DecisionRecord:
        if degraded := self._degraded():
            evidence = structs.replace(evidence, degraded=degraded)
        if evidence.missing and content is not None and self._may_owe(in_force, evidence, content, caller.again):
            evidence = structs.replace(evidence, rescannable=True)
        decision = decide(in_force, evidence)
        if caller.again is not None and RESCAN_DEBT in decision.degraded:
            raise ModelUnavailable("a model that is needed for a second look does not answer")
        shell = self._shell
        milliseconds = int(shell.wall_seconds() * 1000)
        return DecisionRecord(
            id=decision_id(milliseconds, shell.chance(10)),
            time=render_time(milliseconds),
            evidence=evidence,
            decision=decision,
            latency_microseconds=int((shell.monotonic_seconds() - caller.received_seconds) * 1e6),
            apart_microseconds=int(spent.apart * 1e6),
            queue_microseconds=int(spent.in_queue * 1e6),
            request_id=caller.request_id,
            durability=self._durability,
            keep_days=in_force.keep_days,
            rescan_of="" if caller.again is None else caller.again.debt.decision_id,
        )

    async def keep(self, record: DecisionRecord, caller: Caller, debt: Debt | None = None) -> DecisionRecord:
        """Put a decision on record, with what it owes, and return it.

        Raises:
            LogUnavailable: it could not be put on record.
            Superseded: it was not, for it is of no use any more.
        """
        if not await self._log.append(record, _beside(record, debt, caller)):
            raise Superseded
        if debt is not None and self._room is not None:
            self._room.owe(debt.content.size_bytes)
        self._heard(record, caller)
        return record

    async def keep_all(self, records: Sequence[DecisionRecord], caller: Caller) -> Sequence[DecisionRecord | Exception]:
        """Put decisions on record side by side; instead of each that is not by the deadline, return why."""
        begun = [self._begin(record, caller) for record in records]
        waited_for = [each for each in begun if isinstance(each, asyncio.Future)]
        why_not: Exception = LogUnavailable("decision log: nobody waits for it any more")
        try:
            with self.deadline(caller):
                if waited_for:
                    await asyncio.wait(waited_for)
        except DeadlineExceeded as exc:
            why_not = exc
        finally:
            if left := [each for each in waited_for if each.cancel()]:
                await asyncio.wait(left)
        return [
            each if isinstance(each, Exception) else _outcome(record, each, why_not)
            for record, each in zip(records, begun, strict=True)
        ]

    def _begin(self, record: DecisionRecord, caller: Caller) -> asyncio.Future[bool] | Exception:
        try:
            begun = self._log.begin(record, _beside(record, None, caller))
        except Exception as exc:  # of this one alone: the others are kept all the same
            return exc
        # However the caller leaves: what is on record is heard of.
        begun.add_done_callback(partial(self._heard_if_kept, record, caller))
        return begun

    def _heard_if_kept(self, record: DecisionRecord, caller: Caller, ended: asyncio.Future[bool]) -> None:
        if not ended.cancelled() and ended.exception() is None and ended.result():
            self._heard(record, caller)

    def _heard(self, record: DecisionRecord, caller: Caller) -> None:
        if caller.again is None:
            self._on_decision(record)

    async def _enter(self, caller: Caller) -> None:
        """Wait, before anything is decoded, for as long as the governor lets only others in."""
        if self._governor is not None:
            await self._governor.enter(caller.priority)

    def _may_owe(self, in_force: InForce, evidence: Evidence, content: KeptContent, again: Again | None) -> bool:
        if not any(policy.rescans for policy in in_force.winners + in_force.floors):
            return False
        if all(why is Missing.NOT_APPLICABLE for why in evidence.missing.values()):
            return False
        if again is not None:
            return not again.is_last
        return self._room is not None and self._room.has_room(content.size_bytes)

    def _in_force(self, context: Context) -> InForce:
        in_force = self._policies().in_force(context)
        if not in_force.winners:
            where = ", ".join(f"{name} {value!r}" for name, value in _places(context)) or "requests without a scope"
            raise NoPolicy(f"no policy is in force for {where}; nothing is allowed without one")
        return in_force

    def admit(self, caller: Caller) -> None:
        """Let a caller in, before anything is done for it; what comes over HTTP was let in by the head of its request.

        Raises:
            Overloaded: the governor lets nobody of its priority in now, or this caller no more.
        """
        if self._governor is not None:
            self._governor.admit(caller.priority, caller.who)

    def deadline(self, caller: Caller) -> "Deadline":
        """End what is awaited inside once the time of a caller is up, counted from when its request came.

        Raises:
            DeadlineExceeded: it was not done by then.
        """
        spent = self._shell.monotonic_seconds() - caller.received_seconds
        return Deadline(caller.deadline_seconds, caller.deadline_seconds - spent)


def _outcome(record: DecisionRecord, ended: asyncio.Future[bool], why_not: Exception) -> DecisionRecord | Exception:
    """Say what became of one that was begun; `why_not` if it was cancelled, as that is not known by now."""
    if ended.cancelled():
        return why_not
    if (failed := ended.exception()) is not None:
        if not isinstance(failed, Exception):
            raise failed
        return failed
    return record if ended.result() else Superseded()


class Deadline:
    """What `asyncio.timeout` does, which takes three times as long; every request has one, and hardly any needs it."""

    __slots__ = ("_allowed_seconds", "_cancelling", "_is_over", "_left_seconds", "_task", "_timer")

    def __init__(self, allowed_seconds: float, left_seconds: float) -> None:
        """`left_seconds` of what was allowed are left."""
        self._allowed_seconds = allowed_seconds
        self._left_seconds = left_seconds
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only a task can be ended"
        self._task = task
        self._cancelling = task.cancelling()
        loop = asyncio.get_running_loop()
        self._timer = (
            loop.call_later(self._left_seconds, self._end) if self._left_seconds > 0 else loop.call_soon(self._end)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task as well; that goes on.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            seconds = self._allowed_seconds
            raise DeadlineExceeded(f"the deadline of {seconds:g} s passed before a decision") from None

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()


def render_time(milliseconds: int) -> str:
    """Write a moment, in milliseconds since 1970, as RFC 3339 in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_render_second(seconds)}.{rest:03d}+00:00"


@lru_cache(maxsize=16)
def _render_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _debt_of(record: DecisionRecord, content: KeptContent) -> Debt:
    missing, degraded = record.evidence.missing, record.decision.degraded
    failed = {model_of(signal) for signal, why in missing.items() if why is not Missing.NOT_APPLICABLE}
    return Debt(
        decision_id=record.id,
        time=record.time,
        risk=tuple(Risk).index(record.decision.risk),
        # What only those want who do not count is not waited for.
        models=tuple(sorted(failed.intersection(degraded))),
        content=content,
    )


def _beside(record: DecisionRecord, debt: Debt | None, caller: Caller) -> Beside | None:
    again = caller.again
    if debt is None and caller.key is None and again is None:
        return None
    if again is None:
        return Beside(key=caller.key, debt=debt)
    change = Change(
        decision_id=record.id,
        rescan_of=again.debt.decision_id,
        was=again.was,
        became=record.decision.decision,
        time=record.time,
        tenant=record.evidence.context.tenant,
    )
    return Beside(settles=again.debt, change=change if change.became is not change.was else None)


def _seconds_apart(in_force: InForce, scores: Scores, content_type: ContentType, language: str | None = None) -> float:
    """Return how long was waited for models that only sides of rollouts want which do not count."""
    if not in_force.trials or not scores.seconds:
        return 0.0
    wanted = in_force.wanted_alone(content_type, language)
    standing = {model_of(scores.fallbacks[each]) for each in wanted if each in scores.fallbacks}
    return scores.seconds_apart({model_of(each) for each in wanted} | standing)


def primary_language(tag: str | None) -> str | None:
    """Return the language of a tag such as `en-GB`, as policies and the detector name it."""
    return tag and tag.partition("-")[0]


def check_size(data: bytes, *, limit: int, field: str, what: str) -> None:
    """Refuse what is empty or over the limit.

    Raises:
        ContentError: it is empty.
        TooLarge: it is larger than `limit` bytes.
    """
    if not data:
        raise ContentError([Problem(field=field, message=f"the {what} is empty")])
    if len(data) > limit:
        message = f"the {what} has {len(data)} bytes; the limit is {limit} bytes"
        raise TooLarge([Problem(field=field, message=message)])


def _places(context: Context) -> Iterator[tuple[str, str]]:
    for name in ("tenant", "surface", "source"):
        if value := getattr(context, name):
            yield name, value
