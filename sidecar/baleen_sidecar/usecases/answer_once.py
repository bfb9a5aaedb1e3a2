"""Answer a request that is sent again with the decision of the first time, whoever has answered that.

The key of a request is the caller's, by the name of its API key and its tenant: nobody reads another one's decision.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import msgspec

from baleen_core.errors import KeyConflict, LogUnavailable, Problem, StateError
from baleen_core.records import DecisionRecord
from baleen_sidecar.ports import KnownKey, RequestKey
from baleen_sidecar.usecases.moderate import Superseded

HEADER: Final = "Idempotency-Key"
_ENCODE: Final = msgspec.json.Encoder().encode


class Answers(Protocol):
    """The part of the decision log that answers are found in."""

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """See ports.DecisionLog."""

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """See ports.DecisionLog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    """A request that is being answered: `answer` gets its decision, or None once it came to nothing."""

    fingerprint: str
    answer: asyncio.Future[DecisionRecord | None]


def name_key(caller: str, tenant: str | None, key: str) -> str:
    """Name an idempotency key so that those of different callers and tenants never meet."""
    return hashlib.sha256(_ENCODE((caller, tenant, key))).hexdigest()


def name_part(key_id: str, index: int) -> str:
    """Name the key of a part; the first one has the request's own, so that one with a single part is no other."""
    return key_id if index == 0 else hashlib.sha256(_ENCODE((key_id, index))).hexdigest()


def fingerprint_of(*parts: bytes) -> str:
    """Hash all that makes a request what it is; long bodies are for a thread."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


class AnswerOnce:
    """Lets the first of equal requests through, and has the others wait for it."""

    def __init__(self, log: Answers, *, wall_seconds: Callable[[], float]) -> None:
        self._log = log
        self._wall_seconds = wall_seconds
        self._under_way: dict[str, _UnderWay] = {}

    async def answer(
        self, key_id: str, fingerprint: str, decide: Callable[[RequestKey], Awaitable[DecisionRecord]]
    ) -> tuple[DecisionRecord, bool]:
        """Return the decision under a key, and whether it was there before; `decide` puts both on record.

        If the first comes to nothing, or its caller leaves, the next one decides.

        Raises:
            KeyConflict: the key is that of another request.
            Whatever `decide` raises.
        """
        if (found := await self._turn(key_id, fingerprint)) is not None:
            return found, True
        mine = self._begin(key_id, fingerprint)
        record: DecisionRecord | None = None
        try:
            record = await self._find(key_id, fingerprint)
            if record is not None:
                return record, True
            record, was_there = await self._decide(key_id, fingerprint, decide)
            return record, was_there
        finally:
            del self._under_way[key_id]
            mine.answer.set_result(record)

    @asynccontextmanager
    async def parts(self, key_id: str, fingerprint: str, count: int) -> AsyncIterator["Parts"]:
        """Answer the `count` parts of one request, each once; equal requests do so one after the other.

        Those parts that came to nothing are decided by the next one.

        Raises:
            KeyConflict: the key is that of another request.
            StateError: what is on record cannot be read.
        """
        await self._turn(key_id, fingerprint)
        mine = self._begin(key_id, fingerprint)
        try:
            ids = [name_part(key_id, index) for index in range(count)]
            # All of them first: of a request that is another one nothing is to be decided.
            found = await asyncio.gather(*(self._find(each, fingerprint) for each in ids))
            yield Parts(ids, found, partial(self._decide, fingerprint=fingerprint))
        finally:
            del self._under_way[key_id]
            mine.answer.set_result(None)

    async def _turn(self, key_id: str, fingerprint: str) -> DecisionRecord | None:
        """Wait until nobody else is answering this, and return the decision if it is one that may be shared."""
        while (other := self._under_way.get(key_id)) is not None:
            _check(other.fingerprint, fingerprint)
            # Shielded: who gives up must not take the answer from the others.
            found = await asyncio.shield(other.answer)
            if found is not None:
                return found
        return None

    def _begin(self, key_id: str, fingerprint: str) -> _UnderWay:
        mine = _UnderWay(fingerprint=fingerprint, answer=asyncio.get_running_loop().create_future())
        self._under_way[key_id] = mine
        return mine

    async def _decide(
        self, key_id: str, fingerprint: str, decide: Callable[[RequestKey], Awaitable[DecisionRecord]]
    ) -> tuple[DecisionRecord, bool]:
        key = RequestKey(id=key_id, fingerprint=fingerprint, time_seconds=int(self._wall_seconds()))
        try:
            return await decide(key), False
        except Superseded:
            # Another process was faster, or this one before its caller hung up.
            record = await self._find(key_id, fingerprint)
            if record is None:
                raise LogUnavailable("the same request is being answered elsewhere; send it again") from None
            return record, True

    async def _find(self, key_id: str, fingerprint: str) -> DecisionRecord | None:
        known = await self._log.find_key(key_id, now_seconds=self._wall_seconds())
        if known is None:
            return None
        _check(known.fingerprint, fingerprint)
        record = await self._log.get(known.decision_id)
        if record is None:
            raise StateError(f"decision {known.decision_id} was given under an idempotency key, and is not on record")
        return record


class Parts:
    """The parts of one request, in their order; see `AnswerOnce.parts`."""

    def __init__(
        self,
        ids: Sequence[str],
        found: Sequence[DecisionRecord | None],
        decide: Callable[..., Awaitable[tuple[DecisionRecord, bool]]],
    ) -> None:
        self._ids = ids
        self._found = found
        self._decide = decide

    async def answer(
        self, index: int, decide: Callable[[RequestKey], Awaitable[DecisionRecord]]
    ) -> tuple[DecisionRecord, bool]:
        """Return the decision on a part, and whether it was there before; `decide` puts it on record with its key.

        Raises:
            Whatever `decide` raises.
        """
        if (record := self._found[index]) is not None:
            return record, True
        return await self._decide(self._ids[index], decide=decide)


def _check(kept: str, fingerprint: str) -> None:
    if kept != fingerprint:
        message = "another request was sent with this key within the last 24 hours; use a new one for each request"
        raise KeyConflict([Problem(field=HEADER, message=message)])
