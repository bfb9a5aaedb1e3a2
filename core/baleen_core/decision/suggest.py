"""Suggestions: block thresholds by what was scored in the past, so that an author need not guess them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from baleen_core.decision.categories import CompiledCategory
from baleen_core.decision.engine import CompiledPolicy
from baleen_core.ratio import MILLION
from baleen_core.records import Evidence

MIN_BLOCKED: Final = 10
"""Decisions that the wanted share must come to: of fewer, the next ones would be nothing like the same share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A signal of a category: its block threshold now, and the lowest that blocks no more than was wanted.

    Thresholds are in millionths. `suggested` is None where there is none: the log has too few `scored` decisions
    (`needed` is how many it takes), or too many of them have the highest score there is. `blocked` is how many of them
    the suggested one blocks.
    """

    category: str
    signal: str
    now: int | None
    suggested: int | None
    scored: int
    needed: int
    blocked: int = 0

    @property
    def is_log_too_small(self) -> bool:
        """Say whether more decisions are needed before anything can be said."""
        return self.scored < self.needed


def suggest(policy: CompiledPolicy, evidences: Iterable[Evidence], *, max_block_rate: int) -> tuple[Suggestion, ...]:
    """Suggest a block threshold for each signal of each category, by the scores in the evidence.

    `max_block_rate` (millionths, above 0) is the share of the decisions with a score of that signal, in a language of
    the category, that the signal alone may block.
    """
    scores: Mapping[tuple[str, str], list[int]] = {
        (category.name, signal): [] for category in policy.categories for signal in category.signals
    }
    for evidence in evidences:
        for category in policy.categories:
            if evidence.content.type == "text" and not category.speaks(evidence.language):
                continue
            for signal in category.signals:
                if (score := evidence.signals.get(signal)) is not None:
                    scores[category.name, signal].append(score)
    return tuple(
        _suggest(category, signal, scores[category.name, signal], max_block_rate)
        for category in policy.categories
        for signal in category.signals
    )


def lowest_threshold(scores: Sequence[int], allowed: int) -> int | None:
    """Return the lowest threshold (millionths) that at most `allowed` scores reach, or None if even 100% is reached.

    It stands one above the highest score that must not be blocked, and so is 0 where all may be.
    """
    if allowed >= len(scores):
        return 0
    spared = int(np.partition(np.asarray(scores), len(scores) - allowed - 1)[len(scores) - allowed - 1])
    return spared + 1 if spared < MILLION else None


def _suggest(category: CompiledCategory, signal: str, scores: Sequence[int], rate: int) -> Suggestion:
    needed = -(-MIN_BLOCKED * MILLION // rate)
    suggested = lowest_threshold(scores, len(scores) * rate // MILLION) if len(scores) >= needed else None
    return Suggestion(
        category=category.name,
        signal=signal,
        now=dict(category.block.thresholds).get(signal),
        suggested=suggested,
        scored=len(scores),
        needed=needed,
        blocked=0 if suggested is None else sum(score >= suggested for score in scores),
    )
