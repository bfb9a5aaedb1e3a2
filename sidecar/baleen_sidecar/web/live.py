"""Streams of messages, whatever they come in: read no further than they are answered, until they end.

A stream ends by itself once it is idle or old, or its server goes away; what was read is answered first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from baleen_core.errors import BaleenError, ContentError, DeadlineExceeded, LimitExceeded, Overloaded
from baleen_sidecar.web.batch import ItemAnswer
from baleen_sidecar.web.calls import Call, Calls, Content
from baleen_sidecar.web.errors import retry_after
from baleen_sidecar.web.in_order import in_order
from baleen_sidecar.web.schemas import to_answer

A = TypeVar("A")


class Idle(DeadlineExceeded):
    """Nothing came on a stream for too long."""


class Old(Overloaded):
    """A stream lasted as long as one may."""


class GoingAway(Overloaded):
    """The server of a stream is about to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRules:
    """What streams may take."""

    window: int
    """How many messages of a stream are read that are not answered."""
    idle_seconds: float
    """How long a stream stays on which nothing comes."""
    stream_seconds: float = 600.0
    """How old a stream gets: then it ends, and its caller may find another replica."""
    stall_seconds: float = 30.0
    """How long a caller may leave answers unread, beyond what the connection takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """A message: its place, its bytes, and what kept it out, if something did."""

    index: int
    data: bytes
    refused: LimitExceeded | None = None


class Live:
    """Answers streams until it is told to drain."""

    def __init__(self, calls: Calls, rules: LiveRules) -> None:
        self._calls = calls
        self._rules = rules
        self._reading: set[asyncio.Timeout] = set()
        self.is_draining = False

    def drain(self) -> None:
        """Read no more: streams end once what was read is answered."""
        self.is_draining = True
        for timeout in self._reading:
            # The time of one may be over already, while the stream has not heard of it yet.
            if not timeout.expired():
                timeout.reschedule(0)

    async def answer(
        self,
        call: Call,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[A], Awaitable[None]],
        *,
        read: Callable[[bytes], tuple[str | None, Content | ContentError]],
        render: Callable[[ItemAnswer], A],
    ) -> None:
        """Answer the messages of an admitted call in their order, until `receive` returns None.

        The call was counted with its first message; each further one is admitted by itself. `read` makes of a message
        its id and what it has, or what is wrong with that; `render` makes an answer what `send` takes.

        Raises:
            Idle, Old, GoingAway: it ended by itself.
            DeadlineExceeded: answers were not taken.
            Unauthenticated, Forbidden, UpstreamError: its caller may call no longer, or that cannot be found out.
            Whatever `receive` or `send` raises.
        """

        async def outcome(message: _Message) -> A:
            return render(await self._outcome(call, message, read))

        async def write(answer: A) -> None:
            seconds = self._rules.stall_seconds
            try:
                async with asyncio.timeout(seconds):
                    await send(answer)
            except TimeoutError:
                raise DeadlineExceeded(f"outcomes were not taken for {seconds:g} s") from None

        await in_order(self._reader(call, receive), outcome, write, window=self._rules.window)

    def _reader(
        self, call: Call, receive: Callable[[], Awaitable[bytes | None]]
    ) -> Callable[[], Awaitable[_Message | None]]:
        loop, rules, count = asyncio.get_running_loop(), self._rules, 0
        ends = loop.time() + rules.stream_seconds

        async def read() -> _Message | None:
            nonlocal count
            if self.is_draining:
                # A time limit ends no read that need not wait.
                raise self._why(is_old=False)
            try:
                with self._waiting(min(loop.time() + rules.idle_seconds, ends)) as timeout:
                    async with timeout:
                        data = await receive()
            except TimeoutError:
                raise self._why(loop.time() >= ends) from None
            if data is None:
                return None
            refused = None
            if count > 0:
                try:
                    await self._calls.admit(call)
                except LimitExceeded as exc:
                    refused = exc
            count += 1
            return _Message(index=count - 1, data=data, refused=refused)

        return read

    @contextmanager
    def _waiting(self, until: float) -> Iterator[asyncio.Timeout]:
        timeout = asyncio.timeout_at(until)
        self._reading.add(timeout)
        try:
            yield timeout
        finally:
            self._reading.discard(timeout)

    def _why(self, is_old: bool) -> BaleenError:
        if self.is_draining:
            return GoingAway("the server is going away; every message that was read is answered: begin a new stream")
        if is_old:
            seconds = self._rules.stream_seconds
            return Old(f"a stream lasts {seconds:g} s; every message that was read is answered: begin a new one")
        return Idle(f"nothing came on this stream for {self._rules.idle_seconds:g} s")

    async def _outcome(
        self, call: Call, message: _Message, read: Callable[[bytes], tuple[str | None, Content | ContentError]]
    ) -> ItemAnswer:
        identity: str | None = None
        try:
            if message.refused is not None:
                raise message.refused

            def noted(data: bytes) -> Content:
                nonlocal identity
                identity, found = read(data)
                if isinstance(found, ContentError):
                    raise found
                return found

            judged = await self._calls.judge(call, message.data, noted)
            return ItemAnswer(index=message.index, id=identity, decision=to_answer(judged.record))
        except Exception as exc:
            problem = self._calls.refuse(exc, call)
            return ItemAnswer(index=message.index, id=identity, problem=problem, retry_after_seconds=retry_after(exc))
