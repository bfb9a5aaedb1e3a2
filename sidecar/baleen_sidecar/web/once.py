"""`Idempotency-Key`: requests that are sent again have the decisions of the first time, whatever they look like."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from msgspec import structs

from baleen_core.records import DecisionRecord
from baleen_sidecar.ports import RequestKey
from baleen_sidecar.usecases.answer_once import AnswerOnce, Parts
from baleen_sidecar.usecases.moderate import Caller, Moderate
from baleen_sidecar.web.hot import HotRequest
from baleen_sidecar.web.moderate import REPLAYED, name_request, read_idempotency_key

Decide = Callable[[RequestKey | None], Awaitable[DecisionRecord]]


class Once:
    """The pieces of content of one request, of which each is decided once for each key; without one, each time."""

    def __init__(self, parts: Parts | None) -> None:
        self._parts = parts
        self._new = 0
        self._replayed = 0

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What an answer says of it that has no decision which was not there before."""
        return REPLAYED if self._replayed and not self._new else ()

    @property
    def is_asked(self) -> bool:
        """Whether there is a key."""
        return self._parts is not None

    async def decide(self, index: int, decide: Decide) -> tuple[DecisionRecord, bool]:
        """Return the decision on the piece at `index`, and whether it was there before.

        Raises:
            Whatever `decide` raises.
        """
        if self._parts is None:
            record, was_there = await decide(None), False
        else:
            record, was_there = await self._parts.answer(index, decide)
        if was_there:
            self._replayed += 1
        else:
            self._new += 1
        return record, was_there


def keyed(caller: Caller, key: RequestKey | None) -> Caller:
    """Return a caller whose content is decided under a key, if there is one."""
    return caller if key is None else structs.replace(caller, key=key)


class RequestKeys:
    """Reads the keys of requests."""

    def __init__(self, answers: AnswerOnce, moderate: Moderate) -> None:
        self._answers = answers
        self._moderate = moderate

    @asynccontextmanager
    async def once(self, request: HotRequest, data: bytes, *, tenant: str | None, count: int) -> AsyncIterator[Once]:
        """Have the `count` pieces of a request with this body decided; equal requests wait for one another.

        Raises:
            ContentError: the key is none.
            KeyConflict: it is that of another request.
        """
        key = read_idempotency_key(request.headers)
        if key is None:
            yield Once(None)
            return
        named, fingerprint = await name_request(request, data, tenant, key, self._moderate)
        async with self._answers.parts(named, fingerprint, count) as parts:
            yield Once(parts)
