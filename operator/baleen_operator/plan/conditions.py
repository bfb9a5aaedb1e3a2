"""Conditions as Kubernetes means them: a time that changes only with the status, and words that are bounded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from baleen_core.errors import Problem
from baleen_operator.resources.policy import Condition

MAX_MESSAGE: Final = 4096
MAX_PROBLEMS: Final = 10
MAX_PROBLEM: Final = 320
SHORT_DIGEST: Final = len("sha256:") + 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is found now: whether `type` holds, why in one word, and why in words for people."""

    type: str
    holds: bool
    reason: str
    message: str


def conditions_after(
    before: Iterable[Condition], findings: Iterable[Finding], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Write findings as conditions; one whose status did not change keeps its time."""
    known = {each.type: each for each in before}
    conditions = []
    for finding in findings:
        status = "True" if finding.holds else "False"
        old = known.get(finding.type)
        since = old.last_transition_time if old is not None and old.status == status else write_time(now)
        conditions.append(
            Condition(
                type=finding.type,
                status=status,
                reason=finding.reason,
                message=shorten(finding.message, MAX_MESSAGE),
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(conditions)


def say_problems(problems: Sequence[Problem]) -> str:
    """Name the first problems, and how many more there are."""
    said = [shorten(str(problem), MAX_PROBLEM) for problem in problems[:MAX_PROBLEMS]]
    more = len(problems) - MAX_PROBLEMS
    return "; ".join([*said, f"and {more} more"] if more > 0 else said)


def shorten(words: str, limit: int) -> str:
    """Cut what is too long."""
    return words if len(words) <= limit else words[: limit - 1] + "…"


def name_revision(digest: str, version: str) -> str:
    """Name a revision for people: the beginning of its digest, and its version if it has one."""
    short = digest[:SHORT_DIGEST]
    return f"{version} ({short})" if version else short


def write_time(now: datetime) -> str:
    """Write a time as Kubernetes does: RFC 3339, UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
