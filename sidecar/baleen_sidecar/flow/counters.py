"""How many decisions each revision took part in, and what they were: what a gateway tells the operator."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

from baleen_core.records import Decision

MAX_REVISIONS: Final = 10_000
"""Of more, those that judged longest ago are forgotten."""


class DecisionCounts:
    """Counts since the process began, by digest and decision."""

    def __init__(self, limit: int = MAX_REVISIONS) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()

    def count(self, decision: Decision) -> None:
        """Count a decision for every revision that judged."""
        for ref in decision.policies:
            counts = self._counts.get(ref.digest)
            if counts is None:
                counts = self._counts[ref.digest] = Counter()
                if len(self._counts) > self._limit:
                    self._counts.popitem(last=False)
            else:
                self._counts.move_to_end(ref.digest)
            counts[decision.decision.value] += 1

    def of(self, digest: str) -> Mapping[str, int]:
        """Return how often each decision was given with this revision."""
        return dict(self._counts.get(digest, {}))
