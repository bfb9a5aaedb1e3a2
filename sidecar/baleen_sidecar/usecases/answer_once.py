"""Answer a request that is sent again with the decision of the first time, whoever has answered that.

The key of a request is the caller's, by the name of its API key and its tenant: nobody reads another one's decision.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
        while (other := self._under_way.get(key_id)) is not None:
            _check(other.fingerprint, fingerprint)
            # Shielded: who gives up must not take the answer from the others.
            found = await asyncio.shield(other.answer)
            if found is not None:
                return found, True
        mine = _UnderWay(fingerprint=fingerprint, answer=asyncio.get_running_loop().create_future())
        self._under_way[key_id] = mine
        record: DecisionRecord | None = None
        try:
            record = await self._find(key_id, fingerprint)
            if record is not None:
                return record, True
            key = RequestKey(id=key_id, fingerprint=fingerprint, time_seconds=int(self._wall_seconds()))
            try:
                record = await decide(key)
            except Superseded:
                # Another process was faster, or this one before its caller hung up.
                record = await self._find(key_id, fingerprint)
                if record is None:
                    raise LogUnavailable("the same request is being answered elsewhere; send it again") from None
                return record, True
            return record, False
        finally:
            del self._under_way[key_id]
            mine.answer.set_result(record)

    async def _find(self, key_id: str, fingerprint: str) -> DecisionRecord | None:
        known = await self._log.find_key(key_id, now_seconds=self._wall_seconds())
        if known is None:
            return None
        _check(known.fingerprint, fingerprint)
        record = await self._log.get(known.decision_id)
        if record is None:
            raise StateError(f"decision {known.decision_id} was given under an idempotency key, and is not on record")
        return record


def _check(kept: str, fingerprint: str) -> None:
    if kept != fingerprint:
        message = "another request was sent with this key within the last 24 hours; use a new one for each request"
        raise KeyConflict([Problem(field=HEADER, message=message)])
