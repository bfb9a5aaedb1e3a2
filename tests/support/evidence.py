"""Builders of evidence, policies and models for tests of the decision; each call makes new objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baleen_core.canonical import digest_of
from baleen_core.decision.engine import CompiledPolicy, Sides, compile_policy, decide
from baleen_core.model.schema import DataType, Model, ModelSignal, Preprocessing, Source, SourceType, Tensor
from baleen_core.policy.schema import (
    Category,
    ListType,
    PolicyContent,
    PolicyList,
    Requirement,
    RevisionContent,
    Role,
    Rule,
    Scope,
    Threshold,
    Verdict,
)
from baleen_core.ratio import parse_ratio
from baleen_core.records import (
    ContentFacts,
    ContentType,
    Context,
    Coverage,
    Decision,
    DecisionRecord,
    Evidence,
    FrameSignals,
    ListHit,
    Missing,
    VideoEvidence,
)

SEXUAL, UNSAFE, TOXIC = "image-safety.sexual", "open-nsfw.unsafe", "toxicity.toxic"
SIGNALS = (SEXUAL, UNSAFE, TOXIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The policies that judge, as the engine wants them."""

    winners: tuple[CompiledPolicy, ...] = ()
    floors: tuple[CompiledPolicy, ...] = ()
    dry_runs: tuple[CompiledPolicy, ...] = ()
    trials: tuple[Sides, ...] = ()


def make_category(name: str, *thresholds: Threshold, require: Requirement | None = None, **fields: Any) -> Category:
    return Category(name=name, signals=thresholds, require=require or Requirement(), **fields)


def make_threshold(signal: str, review: str | None = None, block: str | None = None) -> Threshold:
    return Threshold(
        signal=signal,
        review=None if review is None else parse_ratio(review),
        block=None if block is None else parse_ratio(block),
    )


def make_list(
    name: str, action: Verdict, *, type: ListType = ListType.TERMS, max_distance: int | None = None
) -> PolicyList:
    """A list whose content's digest is its own name, so that a hit is written as `make_hit(name)`."""
    return PolicyList(name=name, type=type, action=action, max_distance=max_distance, digest=f"sha256:{name}")


def make_hit(name: str, *, entry: str = "entry", distance: int | None = None) -> ListHit:
    return ListHit(list_digest=f"sha256:{name}", entry=entry, distance=distance)


def make_rule(when: str, action: Verdict = Verdict.REVIEW, *, name: str = "rule", reason: str = "") -> Rule:
    return Rule(name=name, when=when, action=action, reason=reason)


def make_policy(
    *categories: Category,
    name: str = "community",
    namespace: str = "trust-safety",
    type: str = "Moderation",
    role: Role = Role.POLICY,
    signals: Sequence[str] = SIGNALS,
    **fields: Any,
) -> CompiledPolicy:
    """Compile a policy; its digest follows from its name and content."""
    content = PolicyContent(categories=categories, **fields)
    digest = digest_of(repr((name, content)).encode())
    revision = RevisionContent(digest=digest, type=type, role=role, scope=Scope(), policy=content)
    return compile_policy(name, "v1.0.0", revision, signals, namespace=namespace)


def make_evidence(
    signals: Mapping[str, int] | None = None,
    *,
    type: ContentType = "image",
    missing: Mapping[str, Missing] | None = None,
    author: Mapping[str, str | int | bool] | None = None,
    context: Mapping[str, str] | None = None,
    length: int = 100,
    links: int = 0,
    **fields: Any,
) -> Evidence:
    """Evidence of an image, unless `type` says otherwise; scores are millionths."""
    return Evidence(
        content=ContentFacts(type=type, digest="sha256:" + "c" * 64, length=length, links=links),
        context=Context(author=dict(author or {}), **(context or {})),
        signals=dict(signals or {}),
        missing=dict(missing or {}),
        **fields,
    )


def make_video(
    *frames: Mapping[str, int], coverage: int = 1_000_000, early_exit: bool = False, **fields: Any
) -> Evidence:
    """Evidence of a video with a frame each half second; without frames, of one that could not be decoded."""
    peaks: dict[str, int] = {}
    for frame in frames:
        for signal, score in frame.items():
            peaks[signal] = max(score, peaks.get(signal, 0))
    return make_evidence(
        peaks,
        type="video",
        frames=tuple(FrameSignals(at_milliseconds=500 * at, signals=dict(frame)) for at, frame in enumerate(frames)),
        video=VideoEvidence(
            duration_milliseconds=500 * len(frames),
            coverage=Coverage(
                frames_expected=len(frames),
                frames_judged=len(frames),
                frames_undecodable=0,
                ratio=coverage,
                early_exit=early_exit,
            ),
        ),
        **fields,
    )


def decide_by(*policies: CompiledPolicy, evidence: Evidence, **others: Any) -> Decision:
    """Decide with these winners, and with `floors`, `dry_runs` and `trials`."""
    return decide(Asked(winners=policies, **others), evidence)


def make_record(decision: Decision, evidence: Evidence) -> DecisionRecord:
    return DecisionRecord(id="d-1", time="2025-03-01T12:00:00Z", evidence=evidence, decision=decision)


def make_model(name: str, *signals: str, version: str = "1") -> Model:
    return Model(
        name=name,
        version=version,
        source=Source(type=SourceType.FILE, uri=f"{name}.onnx"),
        inputs=(Tensor(name="input", data_type=DataType.FP32, dims=(3, 224, 224)),),
        outputs=(Tensor(name="output", data_type=DataType.FP32, dims=(len(signals),)),),
        preprocessing=Preprocessing(recipe="owen-s/1"),
        signals=tuple(ModelSignal(name=signal, output="output", index=index) for index, signal in enumerate(signals)),
    )
