"""What every façade adds to the shape that it copies: which decision on record an answer is from."""

from msgspec import Struct

from baleen_core.policy.schema import Verdict
from baleen_core.records import DecisionRecord


class JudgedAnswer(Struct, frozen=True, kw_only=True):
    """A decision on record, and what failed or was late while it was made."""

    id: str
    decision: Verdict
    degraded: tuple[str, ...]


def to_judged(record: DecisionRecord) -> JudgedAnswer:
    """Name a decision."""
    return JudgedAnswer(id=record.id, decision=record.decision.decision, degraded=record.decision.degraded)
