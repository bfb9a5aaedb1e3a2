"""Records of decisions in which revisions took part, and what the sides of rollouts said."""

from collections.abc import Mapping, Sequence

from msgspec import UnsetType, structs

from baleen_core.decision.whose import PolicyOnRecord
from baleen_core.policy.schema import Verdict
from baleen_core.records import CategoryResult, Cohort, DecisionRecord, Missing, PolicyRef, PolicyRole, Trial
from decision_records import make_record

ALLOW, REVIEW, BLOCK = Verdict


Namespace = str | UnsetType
OURS = "trust-safety"


def ref(
    digest: str,
    *,
    name: str = "community",
    namespace: Namespace = OURS,
    cohort: Cohort = Cohort.STABLE,
    version: str = "v1",
) -> PolicyRef:
    return PolicyRef(
        role=PolicyRole.WINNER,
        name=name,
        namespace=namespace,
        type="Moderation",
        version=version,
        digest=digest,
        cohort=cohort,
    )


def on_record(*, namespace: str = OURS, digests: str = "") -> PolicyOnRecord:
    """What is looked for on record of `community`, which had these revisions, one letter each."""
    return PolicyOnRecord(namespace=namespace, name="community", digests=frozenset(digests))


def decided(
    verdict: Verdict = ALLOW,
    *refs: PolicyRef,
    trials: Sequence[Trial] = (),
    categories: Sequence[tuple[str, Verdict]] = (),
    degraded: Sequence[str] = (),
    language: str | None = "en",
    latency: int = 8_512,
    missing: Mapping[str, Missing] | None = None,
) -> DecisionRecord:
    """Make a record of a decision that these revisions took part in; `latency` is in microseconds."""
    made = make_record()
    results = tuple(CategoryResult(name=name, score=1, decision=said, signals={}) for name, said in categories)
    decision = structs.replace(
        made.decision,
        decision=verdict,
        policies=refs,
        trials=tuple(trials),
        categories=results,
        degraded=tuple(degraded),
    )
    evidence = structs.replace(made.evidence, language=language, missing=dict(missing or {}))
    return structs.replace(made, decision=decision, evidence=evidence, latency_microseconds=latency)


def tried(
    stable_verdict: Verdict,
    candidate_verdict: Verdict,
    *,
    name: str = "community",
    namespace: Namespace = OURS,
    stable: str = "a",
    candidate: str = "b",
) -> Trial:
    return Trial(
        name=name,
        namespace=namespace,
        stable=stable,
        candidate=candidate,
        stable_verdict=stable_verdict,
        candidate_verdict=candidate_verdict,
        group=3,
    )
