"""Decision records to put on record in tests."""

from baleen_core.policy.schema import Verdict
from baleen_core.records import (
    CategoryResult,
    ContentFacts,
    Context,
    Decision,
    DecisionRecord,
    Evidence,
    ListHit,
    ModelIdentity,
    PolicyRef,
    PolicyRole,
    Reason,
    Risk,
)

CATEGORIES = ("toxicity", "insult", "threat", "sexual", "hate", "self-harm")


def make_record(
    decision_id: str = "01-first",
    *,
    decision: Verdict = Verdict.ALLOW,
    score: int = 730_001,
    time: str = "2026-03-01T12:00:00.000+00:00",
    author: str = "author-17",
    tenant: str = "acme",
    keep_days: int | None = None,
) -> DecisionRecord:
    """Make a record of the usual size: six signals, two policies, 1.7 KB as JSON."""
    signals = {f"text-toxicity.{category}": score for category in CATEGORIES}
    return DecisionRecord(
        id=decision_id,
        time=time,
        evidence=Evidence(
            content=ContentFacts(type="text", digest="sha256:" + "5e" * 32, length=128, media_type="text/plain"),
            context=Context(
                tenant=tenant, surface="comments", session="session-4", author={"id": author, "ageDays": 3}
            ),
            signals=signals,
            lists=(ListHit(list_digest="sha256:" + "1f" * 32, entry="a slur"),),
            language="en",
            models=(ModelIdentity(name="text-toxicity", version="3", sha256="ab" * 32),),
        ),
        decision=Decision(
            decision=decision,
            would_be=None,
            risk=Risk.MEDIUM,
            score=score,
            categories=tuple(
                CategoryResult(name=category, score=score, decision=decision, signals={signal: score})
                for category, signal in zip(CATEGORIES, signals, strict=True)
            ),
            reasons=(Reason(type="Category", name="toxicity", text="toxicity scored 73.0001%, below 85%"),),
            policies=tuple(
                PolicyRef(role=role, name=name, type="Moderation", version="1.0.0", digest="sha256:" + "c0" * 32)
                for role, name in ((PolicyRole.WINNER, "comments"), (PolicyRole.FLOOR, "company-floor"))
            ),
            degraded=(),
            segments=(),
        ),
        latency_microseconds=8_512,
        request_id="request-7",
        keep_days=keep_days,
    )
