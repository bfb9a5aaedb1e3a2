"""What the categories of policies are called elsewhere: OpenAI's categories, Perspective's attributes.

Names of categories are a team's own. The defaults are those of the shipped policies and the plain words for a thing;
settings say otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from baleen_core.policy.schema import Verdict
from baleen_core.records import CategoryResult

Translation = Mapping[str, tuple[str, ...]]
"""Our categories by what they are called elsewhere."""

OPENAI: Final[Translation] = {
    "harassment": ("harassment", "insult", "toxicity", "toxicity-english"),
    "harassment/threatening": ("harassment-threatening", "threat"),
    "hate": ("hate",),
    "hate/threatening": ("hate-threatening",),
    "illicit": ("illicit",),
    "illicit/violent": ("illicit-violent",),
    "self-harm": ("self-harm",),
    "self-harm/intent": ("self-harm-intent",),
    "self-harm/instructions": ("self-harm-instructions",),
    "sexual": ("sexual", "sexual-text"),
    "sexual/minors": ("sexual-minors",),
    "violence": ("threat", "violence"),
    "violence/graphic": ("gore", "violence-graphic"),
}
"""The 13 categories of OpenAI's answers, each of which has to be there."""

PERSPECTIVE: Final[Translation] = {
    "TOXICITY": ("toxicity", "toxicity-english"),
    "SEVERE_TOXICITY": ("severe-toxicity",),
    "IDENTITY_ATTACK": ("hate", "identity-attack"),
    "INSULT": ("insult",),
    "PROFANITY": ("obscene", "profanity"),
    "THREAT": ("threat",),
    "SEXUALLY_EXPLICIT": ("sexual", "sexual-text"),
}
"""Attributes that may be asked for; an installation can have more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """What several of our categories say under one name: the strictest verdict and the highest score in millionths.

    `is_whole` is False where one of them has no score: then the score is only what is known, 0 if nothing is.
    """

    verdict: Verdict
    score: int
    is_whole: bool


def changed(translation: Translation, changes: Translation) -> Translation:
    """Return a translation in which the names that `changes` has stand for what it says, and all others for the same.

    A name that is to stand for nothing has no categories.
    """
    return {**translation, **changes}


def translate(categories: Iterable[CategoryResult], names: Iterable[str]) -> Translated | None:
    """Return what those of the categories with one of these names say together; None where there are none."""
    wanted = frozenset(names)
    found = [each for each in categories if each.name in wanted]
    if not found:
        return None
    return Translated(
        verdict=max((each.decision for each in found), key=lambda verdict: verdict.severity),
        score=max((each.score for each in found if each.score is not None), default=0),
        is_whole=all(each.score is not None for each in found),
    )
