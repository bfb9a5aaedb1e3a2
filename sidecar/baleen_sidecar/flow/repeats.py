"""Clients that send the same again: what one of them repeats within a minute was decided once."""

import hashlib
from collections import OrderedDict
from typing import Final

from baleen_core.records import DecisionRecord

MAX_REMEMBERED: Final = 65_536
"""Decisions that are remembered, by 64 bits each, which take about 10 MB; of more, the oldest are forgotten."""
_MINUTE: Final = len("2026-01-01T00:00")


class Repeats:
    """Remembers what was decided lately: the same content by the same author from the same place in one minute."""

    def __init__(self, key: bytes, limit: int = MAX_REMEMBERED) -> None:
        """`key` (up to 64 bytes) is random, so that nobody can choose what is taken for a repetition."""
        self._key = key
        self._limit = limit
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def is_repeated(self, record: DecisionRecord) -> bool:
        """Say whether a decision repeats one before, and remember it."""
        name = self._name(record)
        if name in self._seen:
            return True
        self._seen[name] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return False

    def _name(self, record: DecisionRecord) -> bytes:
        context = record.evidence.context
        places = (context.tenant, context.surface, context.source, context.session, context.author.get("id"))
        said = repr((record.time[:_MINUTE], record.evidence.content.digest, *places))
        return hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=8, key=self._key).digest()
